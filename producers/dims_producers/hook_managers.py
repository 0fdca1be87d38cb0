"""Recognize hooks that another program writes again, such as husky, and say how that program can run ours.

If DIMS wrote its own hook there, the next `npm install` or `git pull` would remove it, and no one would notice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dims_producers.repository_paths import FOLDER, RepositoryPaths, run_git
from dims_worker.errors import NotFound

_LEFTHOOK = ("lefthook.yml", "lefthook.yaml", ".lefthook.yml", ".lefthook.yaml", ".config/lefthook.yml")
_WITH_INPUT = ("post-rewrite", "reference-transaction")
"""The hooks that git sends a standard input."""
_LOCAL_LEFTHOOK = ("lefthook-local.yml", ".lefthook-local.yml")


@dataclass(frozen=True, slots=True)
class HookManager:
    """The program that writes one hook. `files` are those in which you can name a command of your own."""

    name: str
    hook: str
    files: tuple[Path, ...]
    """The first one is where to add the line."""

    @property
    def line(self) -> str:
        """What to add to the file: it does nothing in a clone without DIMS."""
        script = f"$(git rev-parse --git-common-dir)/{_script(self.hook)}"
        line = f'dims="{script}"; [ ! -x "$dims" ] || "$dims" "$@"'
        if self.name != "lefthook":
            return line
        arguments = line.replace('"$@"', "{0}").replace("'", "''")
        stdin = "use_stdin: true, " if self.hook in _WITH_INPUT else ""
        return f"{self.hook}: {{commands: {{dims: {{{stdin}run: '{arguments}'}}}}}}"

    @property
    def runs_ours(self) -> bool:
        """Whether one of the files names our script."""
        return any(_script(self.hook) in text_of(file) for file in self.files)

    @property
    def fix(self) -> str:
        return f"{self.name} writes {self.hook} again and again, so add this to {self.files[0]}:\n  {self.line}"


def manager_of(paths: RepositoryPaths, hook: Path) -> HookManager | None:
    """Return the program that writes `hook`, or None if DIMS may write it."""
    top = paths.top or paths.common.parent
    folder = hook.parent
    # husky runs only the hooks that it has a script for, and leaves others in its folder alone
    if _is_husky(folder) and ((folder / hook.name).is_file() and "# DIMS " not in text_of(hook)[:200]):
        return HookManager("husky", hook.name, (folder.parent / hook.name,))
    text = text_of(hook)
    if "call_lefthook" in text or "LEFTHOOK" in text:
        files = tuple(top / name for name in (*_LEFTHOOK, *_LOCAL_LEFTHOOK))
        present = tuple(file for file in files if file.is_file())
        return HookManager("lefthook", hook.name, present or files[:1])
    if text and "# DIMS " not in text[:200] and _is_tracked(paths, hook):
        return HookManager("git", hook.name, (hook,))
    return None


def _is_husky(folder: Path) -> bool:
    return folder.name == "_" and ((folder / "h").is_file() or (folder / "husky.sh").is_file())


def text_of(file: Path) -> str:
    """Return the text of a hook or its configuration, and "" if it cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            return opened.read(1 << 20)
    except OSError:
        return ""


def _script(hook: str) -> str:
    return f"{FOLDER}/hooks/{hook}"


def _is_tracked(paths: RepositoryPaths, hook: Path) -> bool:
    """Return whether the hook is a file that the repository contains, so that everyone who clones it gets it."""
    if paths.top is None or not hook.is_relative_to(paths.top) or hook.is_relative_to(paths.common):
        return False
    try:
        run_git(paths.top, "ls-files", "--error-unmatch", "--", str(hook))
    except NotFound:
        return False
    return True
