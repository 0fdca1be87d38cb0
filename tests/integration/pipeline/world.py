"""A simulated world to measure: the true value of each metric, and the metrics that fail or crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dims_worker.config import Config, DerivedMetric
from dims_worker.probes.base import Reading, ScanResult
from tests.integration.stepped_process import Killed, halt

CONFIG = """
settings: {lease: 1h, sweep: 1ms}
sources:
  one: {type: files, path: one, cooldown: 1h}
  two: {type: files, path: two}
rules:
  scraped: {on: dims.scraper.complete, metrics: ["m.*"]}
metrics:
  m:
    a: {source: one, measure: count}
    b: {source: two, measure: count}
    c: {source: one, measure: count, critical: true}
"""
CONFIGS = {
    "plain": """
    e: {source: two, measure: count}
    sum: {derive: "m.a + m.b"}
    ratio: {derive: "m.sum / m.e", critical: true}
""",
    "e and sum are defined otherwise": """
    e: {source: two, measure: bytes}
    sum: {derive: "m.a + m.b + m.c"}
    ratio: {derive: "m.sum / m.e", critical: true}
""",
    "e is removed and d is new": """
    d: {source: two, measure: count}
    sum: {derive: "m.a + m.b"}
    total: {derive: "m.sum + m.d"}
""",
    "e is derived": """
    e: {derive: "m.b * 2"}
    sum: {derive: "m.a + m.b"}
    ratio: {derive: "m.sum / m.e", critical: true}
""",
}
"""The variants of the rest of the category m."""

MEASURED = ("m.a", "m.b", "m.c", "m.d", "m.e")
METRICS = (*MEASURED, "m.sum", "m.ratio", "m.total")


@dataclass
class World:
    """The true values. The code under test sees them only through readings."""

    values: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEASURED, 100))
    unreachable: set[str] = field(default_factory=set)
    """Metrics that cannot be measured now."""
    crashing: set[str] = field(default_factory=set)
    """Metrics that crash the process that measures them."""

    @property
    def unmeasurable(self) -> set[str]:
        return self.unreachable | self.crashing

    def truth(self, config: Config, name: str) -> float:
        """Return the value that the metric would measure now, under this configuration."""
        metric = config.metrics[name]
        if isinstance(metric, DerivedMetric):
            inputs = {read.replace(".", "_"): self.truth(config, read) for read in metric.inputs}
            return float(eval(metric.derive.replace("m.", "m_"), inputs))
        return self.values[name] * (1000 if metric.measure == "bytes" else 1)  # type: ignore[attr-defined]

    def reading(self, config: Config, name: str) -> Reading:
        if name in self.unreachable:
            return Reading.failed(name, "", "it is unreachable")
        return Reading(name, int(self.truth(config, name)), "", "exact")


@dataclass
class Scan:
    """A scan of a source of the simulated world. It replaces the scan of a probe."""

    world: World
    config: Config
    names: Sequence[str]

    def result(self, stop: object = None) -> ScanResult:
        halt("read")
        if self.world.crashing & set(self.names):
            raise Killed
        return ScanResult(tuple(self.world.reading(self.config, name) for name in self.names))
