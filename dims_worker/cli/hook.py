"""`dims hook` and `dims watch`: the producers that run on this machine."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import click

from dims_producers import git_hook
from dims_producers.publish import broker_url
from dims_producers.spool import Spool
from dims_producers.watch_files import watch_folders as watch_folders
from dims_worker.cli.session import Session, pass_session
from dims_worker.config import FilesSource


@click.group()
def hook() -> None:
    """The git hooks that tell DIMS of each commit, merge and rewrite: install, uninstall.

    They leave a small file in the spool and return at once; git neither waits nor fails because of them.
    """


@hook.command()
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), default=".")
@pass_session
def install(session: Session, repo: Path) -> None:
    """Write three hooks into REPO (here, without one): post-commit, post-merge, post-rewrite.

    A hook that is there already is kept and run after ours. To install again refreshes ours.
    """
    done = git_hook.install(session.cwd / repo, session.config.home)
    click.echo(
        f"git tells DIMS from now on of commits, merges and rewrites, by its hooks in {next(iter(done)).parent}:"
    )
    click.echo(git_hook.format_result(done))


@hook.command()
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), default=".")
@pass_session
def uninstall(session: Session, repo: Path) -> None:
    """Remove the hooks from REPO and put back those that were there before."""
    click.echo(git_hook.format_result(git_hook.uninstall(session.cwd / repo)) or "there was no hook of DIMS's")


@click.command()
@pass_session
def watch(session: Session) -> None:
    """Watch the folders that the configuration's `watch` names, and send what the spool holds, until Ctrl-C."""
    config = session.config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folders = {}
    for name in config.watch:
        source = config.sources[name]
        assert isinstance(source, FilesSource)  # a configuration that watches others is refused
        folders[name] = config.path_of(source.path)
    home = config.home.resolve()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    env = dict(session.env)

    def ignored(path: Path) -> bool:
        return path.is_relative_to(home)

    watch_folders(folders, Spool(config.home / "spool"), lambda: broker_url(env, config.home), ignored=ignored,
                  stop=stop)  # fmt: skip
