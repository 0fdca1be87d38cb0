"""Define `dims hook` and `dims watch`: the event producers that run beside your files."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click

from dims_producers import git_hook
from dims_producers.publish import broker_url
from dims_producers.spool import Spool
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.config import Config, FilesSource, GitSource
from dims_worker.errors import ConfigError, UsageError
from dims_worker.events import GIT_REFS_CHANGED


@click.group()
@examples("dims hook install", "dims hook uninstall")
def hook() -> None:
    """Install or remove the git hooks that report to DIMS what git does.

    A hook writes one small file to the spool, a folder of events that wait to be sent, and returns at once. Git never
    waits for DIMS and never fails because of it.
    """


@hook.command()
@examples("dims hook install", "dims hook install ../other-repository", "dims hook install --all")
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option("--all", "everywhere", is_flag=True, help="Install in the repository of every git source.")
@pass_session
def install(session: Session, repo: Path | None, everywhere: bool) -> None:
    """Install the hooks that report what git does.

    REPO is a git repository. The default is the current folder. Existing hooks are kept and still run. To refresh the
    hooks, install them again.

    The hooks serve all worktrees of a repository. Each worktree reports to its own data directory, or else to that of
    the main worktree.
    """
    if repo is not None and everywhere:
        raise UsageError("name a repository, or use --all, not both")
    config = session.config
    for folder in _git_folders(config) if everywhere else [session.cwd / (repo or Path())]:
        results = git_hook.install(folder, config.home)
        place = next(iter(results)).parent
        click.echo(f"git now reports to DIMS what it does. The hooks are in {place}:")
        click.echo(git_hook.format_result(results))


def _git_folders(config: Config) -> list[Path]:
    """Return the folders of all git sources. Raises ConfigError if there are none."""
    folders = [config.path_of(each.path) for each in config.sources.values() if isinstance(each, GitSource)]
    if not folders:
        raise ConfigError(f"{config.file} has no source of type git. Name a repository: `dims hook install REPO`.")
    return folders


@hook.command()
@examples("dims hook uninstall", "dims hook uninstall ../other-repository")
@click.argument("repo", type=click.Path(path_type=Path, file_okay=False), default=".")
@pass_session
def uninstall(session: Session, repo: Path) -> None:
    """Remove the hooks and restore the ones that were there before."""
    click.echo(git_hook.format_result(git_hook.uninstall(session.cwd / repo)) or "no hook of DIMS is installed")


@click.command()
@examples("dims watch")
@pass_session
def watch(session: Session) -> None:
    """Report changes of watched folders until you press Ctrl-C.

    It watches the folders under `watch` in the configuration, and sends the events in the spool. It also reports when
    HEAD, a branch, a tag or the index changes in the repository of such a folder or of a git source. `dims up` runs it
    for you.
    """
    from dims_producers.watch_files import FolderWatcher  # its library is optional

    config = session.config
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    folders = {}
    for name in config.watch:
        source = config.sources[name]
        assert isinstance(source, FilesSource)  # the configuration allows no other kind under `watch`
        folders[name] = config.path_of(source.path)
    home = config.home.resolve()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    env, spool = dict(session.env), Spool(config.home / "spool")

    def ignored(path: Path) -> bool:
        return path.is_relative_to(home)

    repositories = [config.path_of(each.path) for each in config.sources.values() if isinstance(each, GitSource)]
    followed = [*repositories, *folders.values()] if config.reacts_to(GIT_REFS_CHANGED) else []
    watcher = FolderWatcher(
        folders,
        spool,
        lambda: broker_url(env, config.home),
        ignored=ignored,
        stop=stop,
        repositories=[config.project, *repositories],
        followed=followed,
    )
    with _reported(config):
        watcher.run()


def _reported(config: Config) -> AbstractContextManager[None]:
    """Keep the row of the watcher up to date, if this host knows the database. A watcher needs only the broker."""
    if config.database_url is None:
        return nullcontext()
    from dims_worker.store.engine import engine  # SQLAlchemy: a watcher without a database does not load it
    from dims_worker.store.process_reporter import identify_process, reported_process

    return reported_process(engine(config.database_url), identify_process("watch", config), config)
