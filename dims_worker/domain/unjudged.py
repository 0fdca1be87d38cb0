"""Find the critical metrics that no event and no schedule ever judges, which would wait for a person for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dims_worker.config import Config, DerivedMetric, FilesSource, GitSource, Rule, S3Source
from dims_worker.domain.plan import Planner
from dims_worker.events import FILES_CHANGED, S3_PREFIX
from dims_worker.probes.base import Change, KeysChanged, PathsChanged

_GIT_PREFIX = "dims.git."
_WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class UnjudgedMetric:
    """A critical metric that nothing makes due. `inputs` are the inputs of a derived metric that nothing makes due."""

    metric: str
    inputs: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.inputs:
            return f"{self.metric} (no rule measures its input {', '.join(self.inputs)})"
        return self.metric


def unjudged_metrics(config: Config) -> tuple[UnjudgedMetric, ...]:
    """Return the enabled critical metrics that no rule can make due, in the order of the configuration.

    A rule with a schedule judges what it names, and so does a rule of events that describe no change. An event of S3,
    git or the watcher judges only what it can have changed. A derived metric needs every input, because DIMS computes
    it from their last values, however old one of them is.
    """
    planner = Planner(config)
    judged = {
        name
        for rule, declared in config.rules.items()
        for change in _changes(config, declared)
        for name in planner.concerned(rule, change)
    }
    critical = (name for name in config.enabled_metrics if config.policy_of(name).critical)
    return tuple(found for name in critical if (found := _unjudged(config, name, judged)))


def _unjudged(config: Config, name: str, judged: set[str]) -> UnjudgedMetric | None:
    if not isinstance(config.metrics[name], DerivedMetric):
        return None if name in judged else UnjudgedMetric(name)
    inputs = (read for read in config.with_inputs([name]) if not isinstance(config.metrics[read], DerivedMetric))
    missing = tuple(sorted(read for read in inputs if read not in judged))
    return UnjudgedMetric(name, missing) if missing else None


def _changes(config: Config, rule: Rule) -> Iterator[Change | None]:
    """Yield every kind of change that an event of this rule can describe in this project. None: no change."""
    if rule.schedule is not None:
        yield None
    for pattern in rule.on:
        fixed = pattern[: min((pattern.find(each) for each in _WILDCARDS if each in pattern), default=len(pattern))]
        if fixed.startswith(S3_PREFIX):
            yield from (KeysChanged(each.bucket, ()) for each in config.sources.values() if isinstance(each, S3Source))
        elif fixed.startswith(_GIT_PREFIX):
            yield from (PathsChanged(root, (), history=True) for root in _repositories(config))
        elif fixed == FILES_CHANGED:
            yield from (PathsChanged(root, (), history=False) for root in _watched(config))
        else:
            yield None


def _repositories(config: Config) -> set[str]:
    """Return the folders whose hooks may report commits: the git sources, the trees that git knows, the project."""
    sources = config.sources.values()
    paths = [each.path for each in sources if isinstance(each, GitSource)]
    paths += [each.path for each in sources if isinstance(each, FilesSource) and each.ignore is not None]
    return {str(config.project), *(str(config.path_of(path)) for path in paths)}


def _watched(config: Config) -> set[str]:
    """Return the folders whose changes the watcher reports."""
    watched = (config.sources[name] for name in config.watch)
    return {str(config.path_of(each.path)) for each in watched if isinstance(each, FilesSource)}
