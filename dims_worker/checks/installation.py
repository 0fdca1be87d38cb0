"""Check the programs on this host: Python and its packages, git, a second `dims`, time zones, and open files."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dims_worker import __version__
from dims_worker.checks.check import Check
from dims_worker.config import Config, GitSource

PACKAGE = "dims-worker"
OLDEST_GIT = (2, 30)
"""The oldest git that DIMS is used with: that of Debian 11."""
FEWEST_FILES = 1024
GIT_SECONDS = 3.0


def installation_checks(config: Config, env: Mapping[str, str]) -> Iterator[Check]:
    """Yield the checks of what is installed on this host."""
    yield versions_check()
    yield second_dims_check(env.get("PATH", ""))
    if any(isinstance(source, GitSource) for source in config.sources.values()):
        yield _git_check()
    yield time_zones_check(config)
    yield open_files_check()


def versions_check() -> Check:
    """Return the versions of DIMS, Python and Celery, and which packages do not fit."""
    python = ".".join(map(str, sys.version_info[:3]))
    summary = f"DIMS {__version__}, Python {python}, Celery {_installed('celery')}, kombu {_installed('kombu')}"
    wrong = list(_unmet_requirements())
    if wrong:
        packages = " ".join(f"'{each}'" for each, _ in wrong)
        found = ", ".join(f"{each} is needed and {version} is installed" for each, version in wrong)
        return Check("versions", "problem", f"{summary}: {found}", f"{sys.executable} -m pip install {packages}")
    return Check("versions", "ok", summary)


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _unmet_requirements() -> Iterator[tuple[str, str]]:
    """Yield the requirements of DIMS that are not met, and what is installed. Extras are optional."""
    from packaging.requirements import Requirement  # kombu requires it

    try:
        required = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _installed(requirement.name)
        if version == "none" or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name}{requirement.specifier}", version


def second_dims_check(path: str) -> Check:
    """Return whether the `dims` that a shell finds on `path` belongs to this Python."""
    first = shutil.which("dims", path=path)
    own = Path(sysconfig.get_path("scripts"))
    if first is None:
        return Check("dims", "ok", f"runs from {own}")
    if Path(first).parent.resolve() == own.resolve():
        return Check("dims", "ok", f"{first} is the only one that your shell finds first")
    fix = f"Activate the environment of {own}, or remove the other installation."
    return Check("dims", "warning", f"your shell runs {first}, and this is the DIMS of {own}", fix)


def _git_check() -> Check:
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, text=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("git", "problem", f"cannot be run: {error}", "Install git where the workers run.")
    match = re.search(r"\b(\d{1,9})\.(\d{1,9})\b", done.stdout)
    oldest = ".".join(map(str, OLDEST_GIT))
    if match is None or (int(match[1]), int(match[2])) < OLDEST_GIT:
        return Check(
            "git", "warning", f"{done.stdout.strip()} is older than {oldest}", f"Install git {oldest} or later."
        )
    return Check("git", "ok", f"git {match[0]}")


def time_zones_check(config: Config) -> Check:
    """Return whether Python knows the time zones of the rules and workflows."""
    rules = {rule.timezone for rule in config.rules.values() if rule.schedule is not None}
    declared = (config.workflows.gap_analysis, config.workflows.local_inventory)
    games = {each.timezone for each in declared if each is not None and each.timezone is not None}
    names = sorted(rules | games | {"Europe/Berlin"})
    for name in names:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, OSError, ValueError):
            fix = f"{sys.executable} -m pip install tzdata"
            return Check("time zones", "problem", f"this host has no database of time zones: {name} is unknown", fix)
    return Check("time zones", "ok", "the database of time zones is installed")


def open_files_check() -> Check:
    """Return whether a process may open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    if soft == resource.RLIM_INFINITY or soft >= FEWEST_FILES:
        return Check("open files", "ok", f"{shown} allowed")
    fix = f"ulimit -n {FEWEST_FILES}, or LimitNOFILE={FEWEST_FILES} in the service."
    if hard != resource.RLIM_INFINITY and hard < FEWEST_FILES:
        fix = f"Raise the hard limit ({hard:,}) as root, for example with LimitNOFILE={FEWEST_FILES} in the service."
    return Check("open files", "warning", f"only {shown} allowed, and a worker may need {FEWEST_FILES:,}", fix)
