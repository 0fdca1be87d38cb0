"""Check the git hooks of every git source: that git runs them, and that they report to this data directory."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dims_producers.git_hook import HOOKS
from dims_producers.git_notes import TYPES
from dims_producers.hook_managers import manager_of, text_of
from dims_producers.hook_script import is_ours, script, script_places
from dims_producers.repository_paths import FOLDER, RepositoryPaths, hook_home, recorded_home, run_git
from dims_producers.repository_spool import count_notes
from dims_worker import __version__
from dims_worker.checks.check import Check, State, worst_state
from dims_worker.config import Config, GitSource
from dims_worker.errors import DimsError
from dims_worker.formatting import pluralize, shell_quote

PYTHON_SECONDS = 5.0
_VERSION = "import dims_producers.git_hook, dims_worker; print(dims_worker.__version__)"


@dataclass(frozen=True, slots=True)
class HookFinding:
    """Something that is wrong with the hooks of a repository. `hook` is the name of one hook, or "" for all."""

    state: State
    summary: str
    fix: str
    hook: str = ""


def git_hook_checks(config: Config, *, run_python: bool = False) -> Iterator[Check]:
    """Yield one check for each repository of a git source.

    With `run_python`, this also starts the Python of the hooks, which takes a moment, and compares its version.
    """
    needed = any(config.reacts_to(kind) for kind in TYPES.values())
    seen: set[Path] = set()
    for source, each in config.sources.items():
        if not isinstance(each, GitSource):
            continue
        name, folder = f"hooks of {source}", config.path_of(each.path)
        if not needed:
            yield Check(name, "ok", "no rule reacts to commits, so none is needed")
            continue
        try:
            paths = RepositoryPaths.of(folder)
            if (top := paths.top or paths.git_dir) in seen:
                continue
            seen.add(top)
            yield _summarized(name, folder, list(_findings(config, paths, run_python=run_python)))
        except (DimsError, OSError) as error:
            yield Check(name, "warning", f"cannot be checked: {error}", f"Correct `path` of the source {source}.")


def _summarized(name: str, folder: Path, findings: list[HookFinding]) -> Check:
    """Return one check: hooks with the same finding share a sentence, and the worst findings come first."""
    if not findings:
        return Check(name, "ok", f"{len(HOOKS)} hooks in {folder} report to this data directory")
    hooks: dict[HookFinding, list[str]] = {}
    for each in findings:
        hooks.setdefault(HookFinding(each.state, each.summary, each.fix), []).append(each.hook)
    ordered = sorted(hooks, key=lambda each: each.state != "problem")
    sentences = [": ".join(filter(None, (", ".join(filter(None, hooks[each])), each.summary))) for each in ordered]
    fixes = list(dict.fromkeys(each.fix for each in ordered))
    return Check(name, worst_state(map(_as_check, findings)), "; ".join(sentences), "\n".join(fixes))


def _as_check(finding: HookFinding) -> Check:
    return Check(finding.hook, finding.state, finding.summary, finding.fix)


def _findings(config: Config, paths: RepositoryPaths, *, run_python: bool) -> Iterator[HookFinding]:
    install = f"dims hook install {shell_quote(str(paths.top or paths.git_dir))}"
    if paths.bare:
        if "dims" not in text_of(paths.hooks / "post-receive"):
            fix = f"Call `dims enqueue {TYPES['post-commit']}` in {paths.hooks / 'post-receive'}."
            yield HookFinding("warning", "a bare repository, in which git runs no hook of a commit", fix)
        return
    missing = 0
    for name in HOOKS:
        finding = _hook_finding(config, paths, name, install, run_python=run_python)
        if finding is not None:
            missing += finding.summary.startswith("not installed")
            yield finding
    if missing < len(HOOKS):
        yield from _home_finding(config, paths, install)
    yield from _notes_finding(paths)


def _hook_finding(
    config: Config, paths: RepositoryPaths, name: str, install: str, *, run_python: bool
) -> HookFinding | None:
    """Return what is wrong with one hook, or None."""
    found = partial(HookFinding, hook=name)
    hook = paths.hooks / name
    manager = manager_of(paths, hook)
    if manager is not None:
        if not manager.runs_ours:
            return found("problem", f"runs only what {manager.name} writes", manager.fix)
        hook = paths.scripts / name
    elif not os.path.lexists(hook):
        return found("warning", f"not installed{_elsewhere(paths, name)}", install)
    elif not is_ours(hook):
        chained = _chained(paths, hook)
        if chained is None:
            return found("problem", f"was replaced by another tool's hook in {hook.parent}", install)
        hook = chained
    if not hook.is_file():
        return found("problem", f"runs {hook}, which does not exist", install)
    if not os.access(hook, os.X_OK):
        return found("problem", "is not executable, so git ignores it", f"chmod +x {shell_quote(str(hook))}")
    return _script_finding(config, hook, install, found, run_python=run_python)


def _elsewhere(paths: RepositoryPaths, name: str) -> str:
    """Return where git looks, if it is not where our hook is."""
    own = paths.common / "hooks" / name
    if paths.hooks == own.parent or not is_ours(own):
        return f" in {paths.hooks}"
    try:
        origin = run_git(paths.common, "config", "--show-origin", "--get", "core.hooksPath").partition("\t")[0]
    except DimsError:
        origin = "the configuration"
    return f" in {paths.hooks}, where `core.hooksPath` of {origin.removeprefix('file:')} makes git look"


def _chained(paths: RepositoryPaths, hook: Path) -> Path | None:
    """Return our hook if the other tool's hook runs it."""
    text = text_of(hook)
    if f"{FOLDER}/hooks/{hook.name}" in text:
        return paths.scripts / hook.name
    legacy = hook.with_name(f"{hook.name}.legacy")  # pre-commit runs it
    return legacy if is_ours(legacy) and ("pre-commit" in text or ".legacy" in text) else None


def _script_finding(
    config: Config, hook: Path, install: str, found: partial[HookFinding], *, run_python: bool
) -> HookFinding | None:
    """Return what is wrong with the text of our hook: an earlier version, another directory, a missing Python."""
    home, python = script_places(hook)
    if home is not None and home.resolve() != config.home.resolve():
        return found("problem", f"reports to {home}, not to {config.home}{_waiting(home)}", install)
    if python is None or not os.access(python, os.X_OK):
        return found("problem", f"cannot send: its Python {python} does not exist", install)
    if home is not None or (str(python) and text_of(hook) != script(found.keywords["hook"], str(python))):
        return found("warning", "was written by another version of DIMS", install)
    if run_python and (version := _version_of(python)) != __version__:
        return found("warning", f"sends with {version} of {python}, and this is DIMS {__version__}", install)
    return None


def _waiting(home: Path) -> str:
    try:
        waiting = len(list((home / "spool/new").iterdir()))
    except OSError:
        return ""
    return f", with {pluralize(waiting, 'change')} waiting there" if waiting else ""


@functools.cache
def _version_of(python: Path) -> str:
    """Return the version of DIMS that a Python has. All hooks of a project mostly name the same one, often this one."""
    if python == Path(sys.executable):
        return __version__
    try:
        done = subprocess.run(
            [python, "-P", "-c", _VERSION], capture_output=True, text=True, timeout=PYTHON_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nothing ({error})"
    return f"DIMS {done.stdout.strip()}"[5:] if done.returncode == 0 else "no DIMS"


def _home_finding(config: Config, paths: RepositoryPaths, install: str) -> Iterator[HookFinding]:
    home = hook_home(paths)
    if home is not None and home.resolve() == config.home.resolve():
        return
    if home is not None:
        yield HookFinding("problem", f"they report to {home}, and this project uses {config.home}", install)
        return
    top = paths.top or paths.git_dir.parent
    recorded = recorded_home(paths.git_dir, top)
    summary = f"{recorded}, to which they report, does not exist" if recorded else "they do not know a data directory"
    yield HookFinding("problem", f"{summary}: was the project moved?", install)


def _notes_finding(paths: RepositoryPaths) -> Iterator[HookFinding]:
    try:
        waiting = count_notes(paths.spool)
    except OSError as error:
        yield HookFinding(
            "problem", f"{paths.spool} cannot be read: {error.strerror}", f"Give {paths.spool} to its user."
        )
        return
    if waiting:
        summary = (
            f"{pluralize(waiting, 'change')} waiting in {paths.spool}: a hook could not write to the data directory"
        )
        yield HookFinding("warning", summary, "Run `dims watch` as the user of the data directory, or `dims up`.")
