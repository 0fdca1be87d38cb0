"""Define the `dims` command: help in sections, commands imported on first use, one place that prints errors."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from dims_worker import __version__
from dims_worker.cli.environment import discard_output, escape_unencodable, explain_environment_error, flush_output
from dims_worker.cli.session import Session
from dims_worker.errors import DimsError

SECTIONS = {
    "Start": ("init", "up", "down", "status", "doctor", "demo"),
    "Look": (
        "verify",
        "metrics",
        "history",
        "diff",
        "changes",
        "snapshot",
        "explain",
        "suggest",
        "events",
        "runs",
        "follow",
        "schedule",
        "plan",
        "workflow",
    ),
    "Decide": ("incidents", "approvals", "baseline"),
    "Report": ("web", "report", "notebook", "exporter"),
    "Operate": ("config", "migrate", "health", "broker", "notify", "mute", "enqueue", "hook", "watch"),
}
MODULES = {
    "config": "setup",
    "migrate": "setup",
    "down": "up",
    "runs": "metrics",
    "plan": "events",
    "enqueue": "events",
    "watch": "hook",
}
"""The module of each command that is not in the module with its own name."""
OLD_COMMANDS = {"approve": "old_names", "info": "old_names", "update": "old_names"}
"""The modules of the commands of the original DIMS that work under their old names. The help does not list them."""
_COMMANDS = [name for commands in SECTIONS.values() for name in commands]


class PipeClosed(Exception):
    """The program that reads the output has ended, such as `head`. Click would end with 1 for a BrokenPipeError."""


class SectionedGroup(click.Group):
    """A group that shows its commands in sections and imports each command when it is used."""

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)  # prints the help
        except BrokenPipeError:
            raise PipeClosed from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise PipeClosed from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS and cmd_name not in OLD_COMMANDS:
            return None
        name = (MODULES | OLD_COMMANDS).get(cmd_name, cmd_name)
        module = importlib.import_module(f"dims_worker.cli.{name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self._summary(ctx, name)) for name in commands])

    def _summary(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(80) if command else ""


@click.group(cls=SectionedGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dims")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="Read this configuration file. Default: DIMS_CONFIG, then ./dims.yaml, then config/dims.yaml.",
)
@click.option("--debug", is_flag=True, help="Show a traceback for an internal error.")
@click.pass_context
def cli(ctx: click.Context, config_path: Path | None, debug: bool) -> None:
    """DIMS keeps an inventory of your data up to date.

    A metric is one number or text about your data, such as the number of objects in a bucket. An event (a commit, an
    upload, a schedule) reports a change. DIMS then measures the metrics that the change can affect, compares each
    reading with the baseline (the last accepted value) and records a verdict. A large drift from the baseline of a
    critical metric waits for your approval.

    \b
    Examples:
      dims init               write a dims.yaml for the current folder
      dims verify             measure everything once
      dims up                 start DIMS, which reacts to events from then on
      dims events show ID     show what one event caused
    """
    ctx.obj = Session(config_path, os.environ, Path.cwd())


def main(argv: list[str] | None = None) -> None:
    """Run `dims` and exit.

    Exit codes: 0 success, 1 drift at or above --fail-on or a held value, 2 wrong usage or configuration, 3 something
    could not be measured or reached, 4 internal error.
    """
    arguments = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGTERM, signal.SIGHUP):  # clean up as after Ctrl-C, for example a temporary database
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    escape_unencodable(sys.stdout)
    code = _run(arguments)
    if failure := flush_output():
        code = _print_error(*failure)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    """Run a command, print its error, and return the exit code."""
    try:
        code = cli.main(arguments, prog_name="dims", standalone_mode=False)
    except (PipeClosed, BrokenPipeError):
        discard_output()
        code = 0
    except Exception as error:  # noqa: BLE001 - the last handler: every other error is an internal one
        code = _report_error(error, debug="--debug" in arguments)
    return code if isinstance(code, int) else 0


def _report_error(error: Exception, *, debug: bool) -> int:
    """Print the error of a command, and return its exit code."""
    if isinstance(error, click.exceptions.Abort):
        return _print_error("interrupted", 130)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.ctx.get_help() if error.ctx else "")
        return 0
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, DimsError):
        return _print_error(str(error), error.exit_code)
    return _print_unexpected(error, debug=debug)


def _print_unexpected(error: Exception, *, debug: bool) -> int:
    """Print an error of the environment with its fix, or an internal error. Return the exit code."""
    internal = (f"internal error: {error!r}. Run `dims --debug ...` to see where.", 4)
    code = _print_error(*(explain_environment_error(error) or internal))
    if debug:
        traceback.print_exc()
    return code


def _print_error(message: str, code: int) -> int:
    click.echo(f"dims: {message}" if "\n" not in message else message, err=True)
    return code


def exit_with(code: int) -> Any:
    """End the command with this exit code."""
    raise click.exceptions.Exit(code)
