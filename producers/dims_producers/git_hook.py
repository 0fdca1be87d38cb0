"""The git hooks: `install` adds them to a repository, and `flush` sends the notes that they write.

You wait for a hook when you run `git commit`. So it is a shell script that uses only the shell's builtins: it finds the
commit in git's own files and writes one note into the spool, in about a millisecond. If no process watches the spool,
the hook then starts Python in the background.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dims_producers.git_notes import SETTLE, TYPES
from dims_producers.home import NAME, find_home, spool_folder
from dims_producers.hook_managers import manager_of
from dims_producers.hook_script import (
    is_ours,
    refuse_two_others,
    remove_hook,
    require_utf8,
    script,
    script_places,
    write_hook,
)
from dims_producers.publish import broker_url, publish
from dims_producers.repository_paths import FOLDER, RepositoryPaths, absolute, record_home, recorded_home
from dims_producers.repository_spool import send_notes
from dims_producers.spool import Spool
from dims_worker.errors import DimsError, UsageError

HOOKS = tuple(TYPES)
"""The hooks that `install` writes, by git's names."""

SENDER = "sender.pid"
"""The spool's file with the pid of the sender that a hook started. `watcher.pid` is the same for the watcher."""


_ROUNDS = 30
"""The most times that a sender waits for notes of changed refs. The next hook starts another sender."""


def install(repo: Path, home: Path, python: str = sys.executable) -> dict[Path, str]:
    """Install the hooks in `repo`, and record `home` for its worktree. Return what happened to each hook, in words.

    They go where git looks for them (`core.hooksPath` is respected), and serve all worktrees of the repository. Each
    worktree finds its own data directory. An existing hook is renamed to `NAME.before-dims` and runs after ours.
    Installing again updates our hooks and changes nothing else.

    Raises:
        NotFound: `repo` is not a git repository.
        UsageError: git runs none of these hooks here (a bare repository), another program writes them, you cannot
            write them, or a path is not UTF-8. The message contains the fix.
        DimsError: two other hooks would need the same name. Nothing was changed.
    """
    paths = RepositoryPaths.of(repo)
    if paths.bare:
        raise UsageError(
            f"{repo} is a bare repository, in which git runs no hook of a commit. Install the hooks in the clone or "
            "worktree where you commit. For pushes, call `dims enqueue dims.git.commit` in its post-receive hook."
        )
    home = absolute(Path.cwd(), home)
    require_utf8(str(home))
    texts = {name: script(name, python) for name in HOOKS}
    for name in HOOKS:
        refuse_two_others(paths.hooks / name)
    try:
        return _install(paths, home, texts)
    except OSError as error:
        raise UsageError(
            f"cannot write the hooks of {repo}: {error.filename or paths.hooks}: {error.strerror}. Install them as the "
            "user who owns that folder, or let `core.hooksPath` name one of yours."
        ) from None


def _install(paths: RepositoryPaths, home: Path, texts: Mapping[str, str]) -> dict[Path, str]:
    home.mkdir(mode=0o700, parents=True, exist_ok=True)  # a hook never creates it: the project may have moved
    Spool(spool_folder(home)).make()
    _keep_other_home(paths, home)
    named = (script_places(paths.hooks / name)[0] for name in HOOKS)
    for old in {each for each in named if each is not None and each != home}:
        _take_notes(old, home)
    record_home(paths.git_dir, paths.top, home)
    done: dict[Path, str] = {}
    missing = []
    for name, text in texts.items():
        manager = manager_of(paths, paths.hooks / name)
        if manager is None:
            paths.hooks.mkdir(parents=True, exist_ok=True)
            done[paths.hooks / name] = write_hook(paths.hooks / name, text)
            continue
        paths.scripts.mkdir(parents=True, exist_ok=True)
        done[paths.scripts / name] = f"{write_hook(paths.scripts / name, text)}, run by {manager.files[0].name}"
        if not manager.runs_ours:
            missing.append(manager.fix)
    if missing:
        raise UsageError(
            f"git does not run all hooks of DIMS in {paths.top} yet, and DIMS does not change files that another "
            "program writes. Then install again.\n" + "\n".join(missing)
        )
    return done


def _take_notes(old: Path, home: Path) -> None:
    """Move the notes of a hook of an earlier version, which wrote on into the old place of a project that moved.

    A real data directory is left alone: it holds more than a spool.
    """
    if not old.is_dir() or {path.name for path in old.iterdir()} != {"spool"}:
        return
    for note in sorted((old / "spool" / "new").glob("*.git")):
        shutil.move(note, spool_folder(home) / "new" / note.name)


def _keep_other_home(paths: RepositoryPaths, home: Path) -> None:
    """Record for the main worktree what the hook of an earlier version names, before we replace it from another."""
    if not paths.linked or recorded_home(paths.common, paths.common.parent) is not None:
        return
    named = next((named for name in HOOKS if (named := script_places(paths.hooks / name)[0]) is not None), None)
    if named is not None and named != home and named.is_dir():
        record_home(paths.common, None, named)


def uninstall(repo: Path) -> dict[Path, str]:
    """Remove our hooks and restore those that existed before. Return what happened to each hook, in words.

    The hooks of all worktrees are the same files. Raises NotFound if `repo` is not a git repository.
    """
    paths = RepositoryPaths.of(repo)
    (paths.git_dir / FOLDER / "home").unlink(missing_ok=True)
    hooks = [folder / name for name in HOOKS for folder in (paths.hooks, paths.scripts)]
    return {hook: remove_hook(hook) for hook in hooks if is_ours(hook)}


def flush(home: Path, env: Mapping[str, str], *, wait: float = 10.0, hold: float = 0.0) -> int:
    """Send everything in the spool of `home`, including the notes of the hooks. Return how many events were sent.

    `hold` is as in `Spool.flush`.

    Waits up to `wait` seconds for another process that sends. Raises BrokerUnreachable or ConfigError. Events that were
    not sent stay in the spool.
    """
    spool = Spool(spool_folder(home))
    if not len(spool):
        return 0
    url = broker_url(env, home)
    return spool.flush(lambda events: publish(events, url), wait=wait, hold=hold)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `python -m dims_producers.git_hook flush HOME | install [REPO] | uninstall [REPO]`."""
    args = _parser().parse_args(argv)
    try:
        sys.stdout.write(f"{_run(args)}\n")
    except (DimsError, OSError) as error:
        sys.stderr.write(f"git_hook: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    return 0


def _run(args: argparse.Namespace) -> str:
    if args.command == "flush":
        return f"{_flush_in_background(args) if args.background else _flush(args)} sent"
    if args.command == "uninstall":
        return format_result(uninstall(args.repo)) or "no DIMS hook is installed"
    return format_result(install(args.repo, args.home or find_home(os.environ, Path.cwd()) or Path.cwd() / NAME))


def format_result(done: Mapping[Path, str]) -> str:
    """Return what `install` or `uninstall` did, with one line per hook."""
    width = max((len(hook.name) for hook in done), default=0)
    return "\n".join(f"{hook.name:<{width}}  {outcome}" for hook, outcome in done.items())


def _flush(args: argparse.Namespace, hold: float = 0.0) -> int:
    """Send what the hooks left in the repository's own spool, and then the spool of the data directory."""
    sent = 0
    if args.repository is not None:
        spool = args.repository / FOLDER / "spool"
        sent = send_notes(spool, lambda events: publish(events, broker_url(os.environ, args.home)), hold=hold)
    return sent + flush(args.home, os.environ, hold=hold)


def _flush_in_background(args: argparse.Namespace) -> int:
    """Do what `flush` does, as a hook starts it: in the background, and one process at a time."""
    os.setsid()  # closing the terminal of the commit must not end this process
    os.nice(5)
    try:
        sent = _flush(args, SETTLE)
        for _ in range(_ROUNDS):  # a rebase goes on: send a note for what it did in each round
            if not Spool(spool_folder(args.home)).holds_notes():
                break
            time.sleep(SETTLE)
            sent += _flush(args, SETTLE)
    finally:
        # From now on the next hook starts another sender. A hook that still saw this one has written its note by now.
        for spool in (spool_folder(args.home), *((args.repository / FOLDER / "spool",) if args.repository else ())):
            with contextlib.suppress(PermissionError):  # the spool of another user has no sender of ours
                (spool / SENDER).unlink(missing_ok=True)
    return sent + _flush(args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dims_producers.git_hook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("flush", help="send everything in the spool")
    send.add_argument("--background", action="store_true", help="run in a new session, as the hook does")
    send.add_argument("--repository", type=Path, help="its shared git directory, which may hold notes too")
    send.add_argument("home", metavar="HOME", type=Path, help="the data directory")
    add = commands.add_parser("install", help="install the hooks")
    add.add_argument("--home", type=Path, help="the data directory (default: DIMS_HOME, else the nearest .dims)")
    remove = commands.add_parser("uninstall", help="remove the hooks and restore those that existed before")
    for command in (add, remove):
        command.add_argument("repo", metavar="REPO", nargs="?", type=Path, default=Path())
    return parser


if __name__ == "__main__":
    sys.exit(main())
