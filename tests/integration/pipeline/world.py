"""A made world to be measured: what each metric would measure now, what stands in the way, who may look at it."""

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
    "e and sum say something else": """
    e: {source: two, measure: bytes}
    sum: {derive: "m.a + m.b + m.c"}
    ratio: {derive: "m.sum / m.e", critical: true}
""",
    "e is gone and d is new": """
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
"""What the category m may hold besides, one at a time."""

MEASURED = ("m.a", "m.b", "m.c", "m.d", "m.e")
METRICS = (*MEASURED, "m.sum", "m.ratio", "m.total")


@dataclass
class World:
    """The truth, of which nobody but the tests knows more than a reading tells."""

    values: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MEASURED, 100))
    away: set[str] = field(default_factory=set)
    """Metrics that cannot be measured now."""
    deadly: set[str] = field(default_factory=set)
    """Metrics that take the process with them that measures them."""

    @property
    def hindered(self) -> set[str]:
        return self.away | self.deadly

    def truth(self, config: Config, name: str) -> float:
        """What the metric would measure now, as it is configured."""
        metric = config.metrics[name]
        if isinstance(metric, DerivedMetric):
            inputs = {read.replace(".", "_"): self.truth(config, read) for read in metric.inputs}
            return float(eval(metric.derive.replace("m.", "m_"), inputs))
        return self.values[name] * (1000 if metric.measure == "bytes" else 1)  # type: ignore[attr-defined]

    def reading(self, config: Config, name: str) -> Reading:
        if name in self.away:
            return Reading.failed(name, "", "it is away")
        return Reading(name, int(self.truth(config, name)), "", "exact")


@dataclass
class Scan:
    """A pass over a source of the made world, in the place of a probe's."""

    world: World
    config: Config
    names: Sequence[str]

    def result(self) -> ScanResult:
        halt("read")
        if self.world.deadly & set(self.names):
            raise Killed
        return ScanResult(tuple(self.world.reading(self.config, name) for name in self.names))
