"""The git hook: `install` puts a post-commit hook into a repository, `flush` sends what it noted.

The hook runs while a person waits for `git commit`. So it is a shell script that uses nothing but the
shell's builtins: it finds the commit in git's own files, leaves one note in the spool, and is done (about
a millisecond). Python starts afterwards, in the background, and only where no watcher would send the note.
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

from dims_worker.errors import DimsError, NotFound, UsageError
from producers.git_commit import Note, event_of, read_note
from producers.home import NAME, find_home, spool_folder
from producers.publish import broker_url, publish
from producers.spool import EVENTS, Reader, Spool

__all__ = ["READERS", "Note", "event_of", "flush", "install", "main", "read_note", "uninstall"]

READERS: Mapping[str, Reader] = {**EVENTS, ".git": read_note}
"""What reads every file that a spool may hold."""

HOOK = "post-commit"
KEPT = "post-commit.before-dims"
"""The name under which a hook that was there before is kept, and from which it is run."""

_MARK = "# DIMS post-commit hook"


def install(repo: Path, home: Path, python: str = sys.executable) -> Path:
    """Install the hook in `repo` for the spool of `home`, and return the hook's path.

    It lies where git looks for it (`core.hooksPath` and linked worktrees are respected). A hook that is
    there already is renamed to `post-commit.before-dims` and run after ours; to install again refreshes
    ours and touches nothing else. Raises NotFound where `repo` is no git repository, UsageError where a
    path is not UTF-8, DimsError where two foreign hooks would have to share one name.
    """
    hook = _hooks_folder(repo) / HOOK
    text = _script(Path(os.path.abspath(home)), python)  # noqa: PTH100 - links are kept
    hook.parent.mkdir(parents=True, exist_ok=True)
    draft = hook.with_name(f"{HOOK}.dims-{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o755)
    try:
        if os.path.lexists(hook) and not _is_ours(hook):
            _keep(hook)
        draft.replace(hook)
    finally:
        draft.unlink(missing_ok=True)
    return hook


def uninstall(repo: Path) -> bool:
    """Remove the hook and put back, as it was, the one that was there before; whether there was ours.

    Raises NotFound where `repo` is no git repository.
    """
    hook = _hooks_folder(repo) / HOOK
    if not _is_ours(hook):
        return False
    kept = hook.with_name(KEPT)
    if os.path.lexists(kept):
        kept.replace(hook)
    else:
        hook.unlink()
    return True


def flush(home: Path, env: Mapping[str, str], *, wait: float = 10.0) -> int:
    """Send what the spool of `home` holds, notes of git included; how many events left.

    A second flusher waits up to `wait` seconds for the first. Raises BrokerUnreachable or ConfigError;
    then all that was not sent is still there.
    """
    spool = Spool(spool_folder(home))
    if not len(spool):
        return 0
    url = broker_url(env, home)
    return spool.flush(lambda events: publish(events, url), READERS, wait=wait)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m producers.git_hook flush HOME | install [REPO] | uninstall [REPO]`; exit codes as `dims`."""
    args = _parser().parse_args(argv)
    try:
        sys.stdout.write(f"{_run(args)}\n")
    except (DimsError, OSError) as error:
        sys.stderr.write(f"git_hook: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    return 0


def _run(args: argparse.Namespace) -> str:
    if args.command == "flush":
        if args.background:
            os.setsid()  # closing the terminal of the commit that started this must not end it
            os.nice(5)
        return f"{flush(args.home, os.environ)} sent"
    if args.command == "uninstall":
        return "removed" if uninstall(args.repo) else "there was no hook of DIMS"
    home = args.home or find_home(os.environ, Path.cwd()) or Path.cwd() / NAME
    return str(install(args.repo, home))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m producers.git_hook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("flush", help="send what the spool holds")
    send.add_argument("--background", action="store_true", help="in a session of its own, as the hook does")
    send.add_argument("home", metavar="HOME", type=Path, help="the DIMS home")
    put = commands.add_parser("install", help="install the post-commit hook")
    put.add_argument("--home", type=Path, help="the DIMS home (default: DIMS_HOME, the nearest .dims)")
    for command in (
        put,
        commands.add_parser("uninstall", help="remove it; the hook before it is put back"),
    ):
        command.add_argument("repo", metavar="REPO", nargs="?", type=Path, default=Path())
    return parser


def _hooks_folder(repo: Path) -> Path:
    """Where git looks for the hooks of `repo`. Raises NotFound, naming it and git's reason."""
    command = ["git", "-C", str(repo), "rev-parse", "--git-path", "hooks"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=False, env=_env())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DimsError(f"git could not be asked about {repo}: {error}") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise NotFound(f"{repo} is not a git repository: {reason}")
    return Path(os.path.abspath(repo / os.fsdecode(done.stdout.removesuffix(b"\n"))))  # noqa: PTH100


def _env() -> dict[str, str]:
    """Without what would make git answer for another repository than the one it is asked about."""
    return {k: v for k, v in os.environ.items() if k not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"}}


def _is_ours(hook: Path) -> bool:
    try:
        with hook.open("rb") as file:
            return _MARK.encode() in file.read(200)
    except OSError:
        return False


def _keep(hook: Path) -> None:
    kept = hook.with_name(KEPT)
    if os.path.lexists(kept):
        raise DimsError(
            f"{hook} is not of DIMS, and {kept.name} beside it is kept from before: "
            "merge the two by hand (none was touched), then install again"
        )
    hook.rename(kept)


@functools.cache
def _isolation(python: str) -> str:
    """`-I` where Python finds the producers with it, else `-P` (they lie in the user's site folder).

    Either keeps a folder `producers` of the repository that is committed to from being imported.
    """
    try:
        done = subprocess.run(
            [python, "-I", "-c", "import producers.git_hook"], capture_output=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "-I"
    return "-I" if done.returncode == 0 else "-P"


def _script(home: Path, python: str) -> str:
    template = Path(__file__).with_name("post_commit.sh").read_text(encoding="utf-8")
    values = {"@HOME@": str(home), "@PYTHON@": python, "@ISOLATION@": _isolation(python)}
    for value in values.values():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"a path that is not UTF-8 cannot be used: {value!r}") from None
    return re.sub("|".join(values), lambda found: shlex.quote(values[found[0]]), template)


if __name__ == "__main__":
    sys.exit(main())
