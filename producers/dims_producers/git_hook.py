"""The git hooks: `install` puts three of them into a repository, `flush` sends what they noted.

A hook runs while a person waits for `git commit`. So it is a shell script that uses nothing but the
shell's builtins: it finds the commit in git's own files, leaves one note in the spool, and is done (about
a millisecond). Python starts afterwards, in the background, and only where nobody else would send the note.
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
"""The hooks that are installed, by git's names."""

KEPT = ".before-dims"
"""What is put behind the name of a hook that was there before; from there it is run, after ours."""

SENDER = "sender.pid"
"""The file of the spool that names the sender which a hook started, as `watcher.pid` does the watcher."""


def install(repo: Path, home: Path, python: str = sys.executable) -> dict[Path, str]:
    """Install the hooks in `repo` for the spool of `home`; what was done with each, in words, by its path.

    They lie where git looks for them (`core.hooksPath` and linked worktrees are respected). A hook that is
    there already is renamed to `NAME.before-dims` and run after ours; to install again refreshes ours and
    touches nothing else. Raises NotFound where `repo` is no git repository, UsageError where a path is not
    UTF-8, DimsError where two foreign hooks would have to share one name; then nothing was changed.
    """
    folder = _hooks_folder(repo)
    hooks = [folder / name for name in HOOKS]
    texts = [_script(hook.name, Path(os.path.abspath(home)), python) for hook in hooks]  # noqa: PTH100 - links are kept
    for hook in hooks:
        _refuse_two_foreign(hook)
    folder.mkdir(parents=True, exist_ok=True)
    return {hook: _write(hook, text) for hook, text in zip(hooks, texts, strict=True)}


def uninstall(repo: Path) -> dict[Path, str]:
    """Remove our hooks and put back, as they were, those that were there before; what was done, as `install`.

    Raises NotFound where `repo` is no git repository.
    """
    return {hook: _remove(hook) for name in HOOKS if _is_ours(hook := _hooks_folder(repo) / name)}


def flush(home: Path, env: Mapping[str, str], *, wait: float = 10.0) -> int:
    """Send what the spool of `home` holds, notes of git included; how many events left.

    A second flusher waits up to `wait` seconds for the first. Raises BrokerUnreachable or ConfigError;
    then all that was not sent is still there.
    """
    spool = Spool(spool_folder(home))
    if not len(spool):
        return 0
    url = broker_url(env, home)
    return spool.flush(lambda events: publish(events, url), wait=wait)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m dims_producers.git_hook flush HOME | install [REPO] | uninstall [REPO]`; exit codes as `dims`."""
    args = _parser().parse_args(argv)
    try:
        sys.stdout.write(f"{_run(args)}\n")
    except (DimsError, OSError) as error:
        sys.stderr.write(f"git_hook: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    return 0


def _run(args: argparse.Namespace) -> str:
    if args.command == "flush":
        return f"{_flush_behind(args.home) if args.background else flush(args.home, os.environ)} sent"
    if args.command == "uninstall":
        return format_result(uninstall(args.repo)) or "there was no hook of DIMS"
    return format_result(install(args.repo, args.home or find_home(os.environ, Path.cwd()) or Path.cwd() / NAME))


def format_result(done: Mapping[Path, str]) -> str:
    """What `install` or `uninstall` did, a line a hook."""
    width = max((len(hook.name) for hook in done), default=0)
    return "\n".join(f"{hook.name:<{width}}  {what}" for hook, what in done.items())


def _flush_behind(home: Path) -> int:
    """`flush` as a hook starts it, in the background and one at a time."""
    os.setsid()  # closing the terminal of the commit that started this must not end it
    os.nice(5)
    try:
        sent = flush(home, os.environ)
    finally:
        # From now on the next hook starts another one. One that still saw us has left its note by now.
        (spool_folder(home) / SENDER).unlink(missing_ok=True)
    return sent + flush(home, os.environ)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dims_producers.git_hook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    send = commands.add_parser("flush", help="send what the spool holds")
    send.add_argument("--background", action="store_true", help="in a session of its own, as the hook does")
    send.add_argument("home", metavar="HOME", type=Path, help="the DIMS home")
    put = commands.add_parser("install", help="install the hooks")
    put.add_argument("--home", type=Path, help="the DIMS home (default: DIMS_HOME, the nearest .dims)")
    for command in (
        put,
        commands.add_parser("uninstall", help="remove them; what was there before is put back"),
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
            return f"# DIMS {hook.name} hook".encode() in file.read(200)
    except OSError:
        return False


def _kept(hook: Path) -> Path:
    return hook.with_name(f"{hook.name}{KEPT}")


def _refuse_two_foreign(hook: Path) -> None:
    if os.path.lexists(hook) and not _is_ours(hook) and os.path.lexists(_kept(hook)):
        raise DimsError(
            f"{hook} is not of DIMS, and {_kept(hook).name} beside it is kept from before: "
            "merge the two by hand (none was touched), then install again"
        )


def _write(hook: Path, text: str) -> str:
    what = "refreshed" if _is_ours(hook) else "installed"
    draft = hook.with_name(f"{hook.name}.dims-{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.chmod(0o755)
    try:
        if os.path.lexists(hook) and not _is_ours(hook):
            hook.rename(_kept(hook))
        draft.replace(hook)
    finally:
        draft.unlink(missing_ok=True)
    return f"{what}; {_kept(hook).name} is run after it" if os.path.lexists(_kept(hook)) else what


def _remove(hook: Path) -> str:
    if not os.path.lexists(_kept(hook)):
        hook.unlink()
        return "removed"
    _kept(hook).replace(hook)
    return "removed; the one from before is back"


@functools.cache
def _isolation(python: str) -> str:
    """`-I` where Python finds the producers with it, else `-P` (they lie in the user's site folder).

    Either keeps a folder `producers` of the repository that is committed to from being imported.
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
            raise UsageError(f"a path that is not UTF-8 cannot be used: {value!r}") from None
    return re.sub("|".join(values), lambda found: shlex.quote(values[found[0]]), template)


if __name__ == "__main__":
    sys.exit(main())
