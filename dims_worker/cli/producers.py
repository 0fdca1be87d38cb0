"""`dims hook` and `dims watch`: the producers that run on this machine."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

import click

from dims_worker.cli.session import Session, pass_session
from dims_worker.config import FilesSource
from producers import git_hook
from producers.publish import broker_url
from producers.spool import Spool
from producers.watch_files import watch as watch_folders


@click.group()
def hook() -> None:
    """The git hook that tells DIMS of each commit: install, uninstall.

    It leaves a small file in the spool and returns at once; a commit neither waits nor fails because of it.
    """


@hook.command()
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), default=".")
@pass_session
def install(session: Session, repo: Path) -> None:
    """Write a post-commit hook into REPO (here, without one), beside one that is there."""
    path = git_hook.install(session.cwd / repo, session.config.home)
    click.echo(f"every commit is told to DIMS from now on: {path}")


@hook.command()
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), default=".")
@pass_session
def uninstall(session: Session, repo: Path) -> None:
    """Remove the hook from REPO and put back the one that was there before."""
    removed = git_hook.uninstall(session.cwd / repo)
    click.echo("the hook is removed" if removed else "there was no hook of DIMS's")


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
