"""Find where git keeps the parts of a repository: the worktree, its git directory, the shared one, and the hooks.

The git directory of a main worktree is `.git`. A linked worktree has its own inside the one that all worktrees share,
and so do its HEAD and what DIMS records about it. Hooks belong to the shared one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dims_producers.home import NAME
from dims_worker.errors import DimsError, NotFound

FOLDER = "dims"
"""What DIMS keeps in a git directory: `home`, `hooks/` and `spool/`."""

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class RepositoryPaths:
    """Absolute paths of one worktree. `top` is its top folder, and None inside of a git directory."""

    top: Path | None
    git_dir: Path
    common: Path
    hooks: Path
    """Where git looks for hooks. `core.hooksPath` may be any folder."""
    bare: bool

    @classmethod
    def of(cls, repo: Path) -> RepositoryPaths:
        """Query git. Raises NotFound if `repo` is in no repository, and DimsError if git cannot run."""
        git_dir = absolute(repo, run_git(repo, "rev-parse", "--absolute-git-dir"))
        common = absolute(repo, run_git(repo, "rev-parse", "--git-common-dir"))
        bare = run_git(repo, "rev-parse", "--is-bare-repository") == "true"
        inside = run_git(repo, "rev-parse", "--is-inside-work-tree") == "true"
        top = Path(run_git(repo, "rev-parse", "--show-toplevel")) if inside else None
        return cls(top, git_dir, common, absolute(repo, run_git(repo, "rev-parse", "--git-path", "hooks")), bare)

    @property
    def linked(self) -> bool:
        """Whether this is a linked worktree (`git worktree add`)."""
        return self.git_dir != self.common

    @property
    def scripts(self) -> Path:
        """The folder of our scripts for a repository whose hooks another program writes."""
        return self.common / FOLDER / "hooks"

    @property
    def spool(self) -> Path:
        """The folder that keeps the notes of commits if the spool of the data directory does not accept them."""
        return self.common / FOLDER / "spool"


@dataclass(frozen=True, slots=True)
class FoundRepository:
    """A repository as git's own files show it. `top` is the folder with `.git`, or a bare repository itself."""

    top: Path
    git_dir: Path
    common: Path

    def worktrees(self) -> list[Path]:
        """Return the top folders of the worktrees, with the main one if it is known. Some may not exist any more."""
        tops = [] if self.common == self.top else [self.top]
        if self.common.name == ".git":  # neither bare nor a submodule
            tops.append(self.common.parent)
        for file in self.common.glob("worktrees/*/gitdir"):
            with contextlib.suppress(OSError):  # removed since it was listed
                text = os.fsdecode(file.read_bytes()).partition("\n")[0]
                tops.append(absolute(file.parent, text).parent)
        return tops


def find_repository(folder: Path) -> FoundRepository | None:
    """Return the repository in which `folder` is, or None.

    This reads git's own files. Git itself would refuse a repository of another user, and takes longer.
    """
    folder = absolute(Path.cwd(), folder)
    try:
        top = next((up for up in (folder, *folder.parents) if (up / ".git").exists()), None)
        if top is None:
            bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir()
            return FoundRepository(folder, folder, folder) if bare else None
        common = git_dir = top / ".git"
        if git_dir.is_file():
            text = git_dir.read_text(encoding="utf-8", errors="surrogateescape")
            common = git_dir = absolute(top, text.partition("\n")[0].removeprefix("gitdir: "))
        if (git_dir / "commondir").is_file():
            common = absolute(git_dir, (git_dir / "commondir").read_text(encoding="utf-8").strip())
    except OSError:  # a folder that you may not enter
        return None
    return FoundRepository(top, git_dir, common)


def find_common(repo: Path) -> Path | None:
    """Return the git directory that all worktrees of `repo` share, or None if it is in no repository."""
    found = find_repository(repo)
    return None if found is None else found.common


def record_home(git_dir: Path, top: Path | None, home: Path) -> None:
    """Record the data directory of a worktree in its git directory.

    Inside the folder that holds the worktree, or above it, the path is relative, so you can move all of it together.
    """
    movable = top is not None and (home.parent == top or home.parent in top.parents)
    text = os.path.relpath(home, top) if movable else str(home)
    file = git_dir / FOLDER / "home"
    file.parent.mkdir(exist_ok=True)
    draft = file.with_name(f"home.{os.getpid()}")
    draft.write_text(f"{text}\n", encoding="utf-8")
    draft.replace(file)


def recorded_home(git_dir: Path, top: Path) -> Path | None:
    """Return the data directory that was recorded for a worktree, which may not exist any more, or None."""
    try:
        text = (git_dir / FOLDER / "home").read_text(encoding="utf-8")
    except OSError:
        return None
    return absolute(top, text.partition("\n")[0]) if text.strip() else None


def hook_home(paths: RepositoryPaths) -> Path | None:
    """Return the data directory that the hooks of this worktree use, or None. `git_hook.sh` does the same.

    It is the recorded one, or else the nearest `.dims` above the worktree that belongs to this user. A linked worktree
    without either uses that of the main one.
    """
    places = [(paths.git_dir, paths.top or paths.git_dir.parent)]
    if paths.linked:
        places.append((paths.common, paths.common.parent))
    for git_dir, top in places:
        recorded = recorded_home(git_dir, top)
        if recorded is not None and recorded.is_dir():
            return recorded
        if (nearest := _nearest_own(top)) is not None:
            return nearest
        if recorded is not None:
            return None
    return None


def _nearest_own(top: Path) -> Path | None:
    for folder in (top, *top.parents):
        home = folder / NAME
        if home.is_dir() and home.stat().st_uid == os.geteuid():
            return home
    return None


def run_git(repo: Path, *args: str) -> str:
    """Return the output of a call of git in `repo`, without its last line break. Raises as `RepositoryPaths.of`."""
    try:
        command = ["git", "-C", str(repo), *args]
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False, env=_env())
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DimsError(f"cannot run git in {repo}: {error}") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        if "dubious ownership" in reason:
            raise DimsError(
                f"git does not trust {repo}, which belongs to another user. Run the command as that user, or, if you "
                f"trust it: git config --global --add safe.directory {shlex.quote(str(absolute(Path.cwd(), repo)))}"
            )
        raise NotFound(f"{repo} is not a git repository: {reason or f'git {args[0]} failed'}")
    return os.fsdecode(done.stdout.removesuffix(b"\n"))


def absolute(folder: Path, path: str | Path) -> Path:
    """Return `path`, which may be relative to `folder`, as an absolute path that keeps symbolic links."""
    return Path(os.path.abspath(folder / path))  # noqa: PTH100 - `resolve` would follow links


def _env() -> dict[str, str]:
    """Return the environment without the variables that point git to another repository."""
    return {k: v for k, v in os.environ.items() if k not in {"GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR"}} | {
        "LC_ALL": "C"
    }
