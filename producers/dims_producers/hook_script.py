"""Write one git hook of DIMS, keep the one that was there, and recognize ours."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
from pathlib import Path

from dims_producers.hook_managers import text_of
from dims_worker.errors import DimsError, UsageError

KEPT = ".before-dims"
"""The suffix for a hook that existed before. Our hook runs it at the end."""

_PLACES = re.compile(
    r"^\s+(?:home=(?P<home>'(?:[^']|'\"'\"')*'|\S+) )?python=(?P<python>'(?:[^']|'\"'\"')*'|\S+) ", re.M
)


def is_ours(hook: Path) -> bool:
    """Return whether DIMS wrote this hook."""
    return f"# DIMS {_name(hook)} hook" in text_of(hook)[:200]


def kept(hook: Path) -> Path:
    """Return where the hook from before is kept."""
    return hook.with_name(f"{hook.name}{KEPT}")


def refuse_two_others(hook: Path) -> None:
    """Raise DimsError if neither `hook` nor what is kept beside it is ours."""
    if os.path.lexists(hook) and not is_ours(hook) and os.path.lexists(kept(hook)):
        raise DimsError(
            f"{hook} is not a hook of DIMS, and {kept(hook).name} beside it is an older hook of yours. "
            "Nothing was changed. Merge the two by hand, then install again."
        )


def write_hook(hook: Path, text: str) -> str:
    """Write our hook. Return what happened, in words."""
    outcome = "updated" if is_ours(hook) else "installed"
    draft = hook.with_name(f"{hook.name}.dims-{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        if os.path.lexists(hook) and not is_ours(hook):
            hook.rename(kept(hook))
        draft.replace(hook)
    finally:
        draft.unlink(missing_ok=True)
    return f"{outcome}, runs {kept(hook).name} after it" if os.path.lexists(kept(hook)) else outcome


def remove_hook(hook: Path) -> str:
    """Remove our hook and restore the one from before. Return what happened, in words."""
    if not os.path.lexists(kept(hook)):
        hook.unlink()
        return "removed"
    kept(hook).replace(hook)
    return "removed, the hook from before is restored"


def script(name: str, python: str) -> str:
    """Return the text of our hook. Raises UsageError if the path of Python is not UTF-8."""
    template = Path(__file__).with_name("git_hook.sh").read_text(encoding="utf-8")
    values = {"@HOOK@": name, "@PYTHON@": python, "@ISOLATION@": _isolation(python)}
    require_utf8(python)
    return re.sub("|".join(values), lambda match: shlex.quote(values[match[0]]), template)


def require_utf8(path: str) -> None:
    """Raise UsageError for a path that a hook cannot contain."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the path {path!r} is not UTF-8. Use another one.") from None
    if "\n" in path:
        raise UsageError(f"the path {path!r} contains a line break. Use another one.")


def script_places(hook: Path) -> tuple[Path | None, Path | None]:
    """Return the data directory and the Python that a hook of ours names.

    Only a hook of an earlier version names a data directory. The current one finds it when it runs.
    """
    match = _PLACES.search(text_of(hook))
    if match is None:
        return None, None
    home, python = (Path(shlex.split(text)[0]) if text else None for text in match.group("home", "python"))
    return home, python


def _name(hook: Path) -> str:
    """Return git's name of a hook. Other tools keep ours as `post-commit.legacy` or `post-commit.old`."""
    return hook.name.partition(".")[0]


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
