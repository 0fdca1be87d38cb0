"""Define `dims init`: write a first configuration, and never hide one that exists."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dims_worker.checks.config_files import describe_file, other_default_file
from dims_worker.cli.init_template import draft_config
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.config import find_config, load_config, project_of
from dims_worker.errors import ConfigError, UsageError, naming_file
from dims_worker.formatting import pluralize

GITIGNORE_LINE = ".dims/"
_ADD = "Add to that file what you need from `dims init --print`"


@click.command()
@examples("dims init", "dims init --print", "dims init --force")
@click.option("--force", is_flag=True, help="Replace an existing dims.yaml. It never hides another configuration file.")
@click.option("--print", "print_only", is_flag=True, help="Print the file, and write nothing.")
@pass_session
def init(session: Session, force: bool, print_only: bool) -> None:
    """Write a first dims.yaml for the current folder.

    The file declares metrics for what the folder contains: data, files and lines by language, tests, documents,
    commits. A loss of 15 % of your data or more waits for your approval, and growth is accepted. Comments in the file
    explain each part. Edit it as you like. In a git repository, `.dims/` is added to .gitignore.

    With --config or DIMS_CONFIG, it writes the file that you name. If DIMS already has a configuration here, the
    command names it, writes nothing, and exits with 2.
    """
    file = _file_to_write(session)
    project = project_of(file).resolve()
    if print_only:
        click.echo(draft_config(project), nl=False)
        return
    above = _check_existing(session, file, force=force)
    text = draft_config(project)
    with naming_file(file):
        file.write_text(text, encoding="utf-8")
    config = load_config(file, session.env, session.cwd)
    click.echo(
        f"wrote {_shown(session, file)}: {pluralize(len(config.metrics), 'metric')} of "
        f"{pluralize(len(config.sources), 'source')}"
    )
    if above:
        click.echo(
            f"in {file.parent}, DIMS now reads this file instead of {above} ({describe_file(above, session.env)})"
        )
    if (project / ".git").exists() and _add_to_gitignore(project / ".gitignore"):
        click.echo(f"wrote .gitignore: git now ignores {GITIGNORE_LINE}, the data directory of DIMS")
    click.echo("next: measure once with `dims verify`, or react to every commit with `dims hook install && dims up`")


def _file_to_write(session: Session) -> Path:
    """Return the file that --config or DIMS_CONFIG names, or dims.yaml in the current folder."""
    named = session.config_path or (Path(value) if (value := session.env.get("DIMS_CONFIG")) else Path("dims.yaml"))
    return Path(os.path.normpath(session.cwd / named))


def _shown(session: Session, file: Path) -> Path:
    return file.relative_to(session.cwd) if file.is_relative_to(session.cwd) else file


def _check_existing(session: Session, file: Path, *, force: bool) -> Path | None:
    """Return the configuration of a folder above that the new file hides in its folder, or None.

    Raises UsageError if a configuration exists that the new file would replace or hide, unless `force` allows it.
    """
    if file.is_symlink() or file.exists():
        if not force:
            raise UsageError(
                f"{file} already exists ({describe_file(file, session.env)}). {_ADD}, or replace it with "
                "`dims init --force`."
            )
        if not file.is_file():
            raise UsageError(f"{file} exists and is no file, so `dims init` cannot replace it. Move it away first.")
    if other := other_default_file(file):
        raise UsageError(
            f"{other} already configures DIMS here ({describe_file(other, session.env)}). DIMS reads only one of "
            f"{other} and {file}, so `dims init` writes nothing. {_ADD}, or move that file away first."
        )
    above = _configuration_above(session, file)
    if above and not force:
        raise UsageError(
            f"{above} already configures DIMS here ({describe_file(above, session.env)}). {_ADD}, or give this folder "
            "a configuration of its own with `dims init --force`."
        )
    return above


def _configuration_above(session: Session, file: Path) -> Path | None:
    """Return the configuration that DIMS finds in a folder above, if the new file would hide it."""
    if session.config_path or session.env.get("DIMS_CONFIG"):
        return None  # DIMS reads the new file only if it is named
    try:
        found = find_config(None, {}, session.cwd)
    except ConfigError:
        return None
    return None if found == file else found


def _add_to_gitignore(file: Path) -> bool:
    """Append the line and return whether it was missing. The encoding and line ends of the file do not matter."""
    content = file.read_bytes() if file.exists() else b""
    if any(line.strip().strip(b"/") == GITIGNORE_LINE.strip("/").encode() for line in content.splitlines()):
        return False
    with file.open("ab") as out:
        out.write((b"\n" if content and not content.endswith(b"\n") else b"") + GITIGNORE_LINE.encode() + b"\n")
    return True
