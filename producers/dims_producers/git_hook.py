"""The git hooks: `install` adds three of them to a repository, and `flush` sends the notes that they write.

You wait for a hook when you run `git commit`. So it is a shell script that uses only the shell's builtins: it finds the
commit in git's own files and writes one note into the spool, in about a millisecond. If no process watches the spool,
the hook then starts Python in the background.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dims_producers.git_notes import TYPES
from dims_producers.home import NAME, find_home, spool_folder
from dims_producers.publish import broker_url, publish
from dims_producers.spool import Spool
from dims_worker.errors import DimsError, NotFound, UsageError

HOOKS = tuple(TYPES)
"""The hooks that `install` writes, by git's names."""

KEPT = ".before-dims"
"""The suffix for a hook that existed before. Our hook runs it at the end."""

SENDER = "sender.pid"
"""The spool's file with the pid of the sender that a hook started. `watcher.pid` is the same for the watcher."""


def install(repo: Path, home: Path, python: str = sys.executable) -> dict[Path, str]:
    """Install the hooks in `repo` for the spool of `home`. Return what happened to each hook, in words.

    They go where git looks for them (`core.hooksPath` and linked worktrees are respected). An existing hook is renamed
    to `NAME.before-dims` and runs after ours. Installing again updates our hooks and changes nothing else.

    Raises:
        NotFound: `repo` is not a git repository.
        UsageError: a path is not UTF-8.
        DimsError: two other hooks would need the same name. Nothing was changed.
    """
    folder = _hooks_folder(repo)
    hooks = [folder / name for name in HOOKS]
    absolute = Path(os.path.abspath(home))  # noqa: PTH100 - keeps symbolic links
    texts = [_script(hook.name, absolute, python) for hook in hooks]
    for hook in hooks:
        _refuse_two_others(hook)
    folder.mkdir(parents=True, exist_ok=True)
    return {hook: _write(hook, text) for hook, text in zip(hooks, texts, strict=True)}


def uninstall(repo: Path) -> dict[Path, str]:
    """Remove our hooks and restore those that existed before. Return what happened to each hook, in words.

    Raises NotFound if `repo` is not a git repository.
    """
    return {hook: _remove(hook) for name in HOOKS if _is_ours(hook := _hooks_folder(repo) / name)}


def flush(home: Path, env: Mapping[str, str], *, wait: float = 10.0) -> int:
    """Send everything in the spool of `home`, including the notes of the hooks. Return how many events were sent.

    Waits up to `wait` seconds for another process that sends. Raises BrokerUnreachable or ConfigError. Events that were
    not sent stay in the spool.
    """
    spool = Spool(spool_folder(home))
    if not len(spool):
        return 0
    url = broker_url(env, home)
    return spool.flush(lambda events: publish(events, url), wait=wait)


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
        return f"{_flush_in_background(args.home) if args.background else flush(args.home, os.environ)} sent"
    if args.command == "uninstall":
        return format_result(uninstall(args.repo)) or "no DIMS hook is installed"
    return format_result(install(args.repo, args.home or find_home(os.environ, Path.cwd()) or Path.cwd() / NAME))


def format_result(done: Mapping[Path, str]) -> str:
    """Return what `install` or `uninstall` did, with one line per hook."""
    width = max((len(hook.name) for hook in done), default=0)
    return "\n".join(f"{hook.name:<{width}}  {outcome}" for hook, outcome in done.items())


def _flush_in_background(home: Path) -> int:
    """Do what `flush` does, as a hook starts it: in the background, and one process at a time."""
    os.setsid()  # closing the terminal of the commit must not end this process
    os.nice(5)
    try:
        sent = flush(home, os.environ)
    finally:
        # From now on the next hook starts another sender. A hook that still saw this one has written its note by now.
        (spool_folder(home) / SENDER).unlink(missing_ok=True)
    return sent + flush(home, os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dims_producers.git_hook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("flush", help="send everything in the spool")
    send.add_argument("--background", action="store_true", help="run in a new session, as the hook does")
    send.add_argument("home", metavar="HOME", type=Path, help="the data directory")
    add = commands.add_parser("install", help="install the hooks")
    add.add_argument("--home", type=Path, help="the data directory (default: DIMS_HOME, else the nearest .dims)")
    remove = commands.add_parser("uninstall", help="remove the hooks and restore those that existed before")
    for command in (add, remove):
        command.add_argument("repo", metavar="REPO", nargs="?", type=Path, default=Path())
    return parser


def _hooks_folder(repo: Path) -> Path:
    """Return where git looks for the hooks of `repo`. Raises NotFound with git's reason."""
    command = ["git", "-C", str(repo), "rev-parse", "--git-path", "hooks"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False, env=_env())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DimsError(f"cannot run git in {repo}: {error}") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise NotFound(f"{repo} is not a git repository: {reason}")
    return Path(os.path.abspath(repo / os.fsdecode(done.stdout.removesuffix(b"\n"))))  # noqa: PTH100


def _env() -> dict[str, str]:
    """Return the environment without the variables that point git to another repository."""
    return {k: v for k, v in os.environ.items() if k not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"}}


def _is_ours(hook: Path) -> bool:
    try:
        with hook.open("rb") as file:
            return f"# DIMS {hook.name} hook".encode() in file.read(200)
    except OSError:
        return False


def _kept(hook: Path) -> Path:
    return hook.with_name(f"{hook.name}{KEPT}")


def _refuse_two_others(hook: Path) -> None:
    if os.path.lexists(hook) and not _is_ours(hook) and os.path.lexists(_kept(hook)):
        raise DimsError(
            f"{hook} is not a hook of DIMS, and {_kept(hook).name} beside it is an older hook of yours. "
            "Nothing was changed. Merge the two by hand, then install again."
        )


def _write(hook: Path, text: str) -> str:
    outcome = "updated" if _is_ours(hook) else "installed"
    draft = hook.with_name(f"{hook.name}.dims-{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o755)
    try:
        if os.path.lexists(hook) and not _is_ours(hook):
            hook.rename(_kept(hook))
        draft.replace(hook)
    finally:
        draft.unlink(missing_ok=True)
    return f"{outcome}, runs {_kept(hook).name} after it" if os.path.lexists(_kept(hook)) else outcome


def _remove(hook: Path) -> str:
    if not os.path.lexists(_kept(hook)):
        hook.unlink()
        return "removed"
    _kept(hook).replace(hook)
    return "removed, the hook from before is restored"


@functools.cache
def _isolation(python: str) -> str:
    """Return `-I` if Python finds this package with it, else `-P` (it is installed for one user only).

    Either option keeps Python from importing modules of the repository that you commit to.
    """
    try:
        done = subprocess.run(
            [python, "-I", "-c", "import dims_producers.git_hook"], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "-I"
    return "-I" if done.returncode == 0 else "-P"


def _script(name: str, home: Path, python: str) -> str:
    template = Path(__file__).with_name("git_hook.sh").read_text(encoding="utf-8")
    values = {"@HOOK@": name, "@HOME@": str(home), "@PYTHON@": python, "@ISOLATION@": _isolation(python)}
    for value in values.values():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"the path {value!r} is not UTF-8. Use another one.") from None
    return re.sub("|".join(values), lambda match: shlex.quote(values[match[0]]), template)


if __name__ == "__main__":
    sys.exit(main())
