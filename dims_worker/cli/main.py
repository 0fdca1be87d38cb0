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
from dims_worker.cli.session import Session
from dims_worker.errors import DimsError

SECTIONS = {
    "Start": ("init", "up", "down", "status", "doctor", "demo"),
    "Look": (
        "verify",
        "metrics",
        "history",
        "diff",
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
    "Decide": ("approvals", "baseline"),
    "Report": ("web", "report", "notebook", "exporter"),
    "Operate": ("config", "migrate", "notify", "enqueue", "hook", "watch"),
}
MODULES = {
    "init": "setup",
    "config": "setup",
    "migrate": "setup",
    "down": "up",
    "runs": "metrics",
    "plan": "events",
    "enqueue": "events",
    "watch": "hook",
}
"""The module of each command that is not in the module with its own name."""
_COMMANDS = [name for commands in SECTIONS.values() for name in commands]


class SectionedGroup(click.Group):
    """A group that shows its commands in sections and imports each command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"dims_worker.cli.{MODULES.get(cmd_name, cmd_name)}")
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
    try:
        code = cli.main(arguments, prog_name="dims", standalone_mode=False)
    except click.exceptions.Abort:
        code = _print_error("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "")
        code = 0
    except click.ClickException as error:
        error.show()
        code = 2
    except DimsError as error:
        code = _print_error(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stdout = None  # the reader of the pipe has ended, so nothing more can be written
        code = 0
    except Exception as error:  # noqa: BLE001 - the last handler: every other error is an internal one
        code = _print_error(f"internal error: {error!r}. Run `dims --debug ...` to see where.", 4)
        if "--debug" in arguments:
            traceback.print_exc()
    sys.exit(code if isinstance(code, int) else 0)


def _print_error(message: str, code: int) -> int:
    click.echo(f"dims: {message}" if "\n" not in message else message, err=True)
    return code


def exit_with(code: int) -> Any:
    """End the command with this exit code."""
    raise click.exceptions.Exit(code)
