"""Check that some event or schedule judges every critical metric."""

from __future__ import annotations

from collections.abc import Iterator

from dims_worker.checks.check import Check
from dims_worker.config import Config
from dims_worker.domain.unjudged import unjudged_metrics
from dims_worker.formatting import pluralize

FIX = "Name them in a rule with a `schedule`, in the `metrics` of a workflow that such a rule runs, or in `on` rules."


def judging_checks(config: Config) -> Iterator[Check]:
    """Yield a check that names each critical metric that nothing judges. Without critical metrics, yield none."""
    critical = [name for name in config.enabled_metrics if config.policy_of(name).critical]
    if not critical:
        return
    if unjudged := unjudged_metrics(config):
        number = f"{len(unjudged):,} of {pluralize(len(critical), 'critical metric')}"
        names = ", ".join(map(str, unjudged))
        yield Check("critical_metrics", "warning", f"no event or schedule judges {number}: {names}", FIX)
    else:
        number = "the only" if len(critical) == 1 else f"all {len(critical):,}"
        noun = "critical metric" if len(critical) == 1 else "critical metrics"
        yield Check("critical_metrics", "ok", f"events or schedules judge {number} {noun}")
