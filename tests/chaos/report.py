"""The report of a run, as text and as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.checker import Delays
from tests.chaos.runner import FaultResult


@dataclass
class Report:
    """The result of a run. `problems` are losses; `weaknesses` are missed bars."""

    seed: int
    seconds: float = 0.0
    faults_seconds: float = 0.0
    settle_seconds: float = 0.0
    results: list[FaultResult] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    busy_kills: dict[str, int] = field(default_factory=dict)
    restarts: int = 0
    events: int = 0
    duplicates: int = 0
    runs: int = 0
    superseded: int = 0
    failed: int = 0
    quarantined: int = 0
    delays: Delays | None = None
    problems: list[str] = field(default_factory=list)
    logs: str = ""

    @property
    def slowest(self) -> FaultResult | None:
        """The fault after which the service needed the longest to come back."""
        return max(self.results, key=lambda result: result.recovery or 0.0, default=None)

    @property
    def weaknesses(self) -> list[str]:
        """The bars that single faults missed."""
        wrong = [
            f"{result.name}: dims status was wrong (exit {result.status.code}: {result.status.named()})"
            for result in self.results
            if result.status and result.status_right is False
        ]
        return [f"{result.name}: {problem}" for result in self.results for problem in result.problems] + wrong

    def __str__(self) -> str:
        lines = [*self._summary(), *(f"PROBLEM: {problem}" for problem in self.problems)]
        lines += [f"MISSED: {weakness}" for weakness in self.weaknesses]
        return "\n".join(lines + ([self.logs] if self.problems else []))

    def markdown(self) -> str:
        """Return the whole report as Markdown."""
        lines = ["# Chaos run", "", *(f"- {line}" for line in self._summary()), ""]
        lines += ["## Problems", "", *(f"- {text}" for text in self.problems or ["none"]), ""]
        lines += ["## Missed bars", "", *(f"- {text}" for text in self.weaknesses or ["none"]), ""]
        if self.skipped:
            lines += ["## Faults that were skipped", "", *(f"- {n}: {why}" for n, why in self.skipped.items()), ""]
        lines += ["## Faults", "", *self._table(), ""]
        for result in self.results:
            if result.logs:
                lines += [f"## Logs after {result.name}", "", "```", result.logs, "```", ""]
        if self.problems:
            lines += ["## Logs at the end", "", "```", self.logs, "```", ""]
        return "\n".join(lines)

    def _summary(self) -> Iterator[str]:
        yield f"seed {self.seed}"
        busy = ", ".join(f"{number} while {what}" for what, number in sorted(self.busy_kills.items())) or "none"
        yield f"faults {len(self.results)} of {len({r.name for r in self.results})} kinds (children targeted: {busy})"
        if self.skipped:
            yield f"kinds skipped: {len(self.skipped)} ({'; '.join(sorted(set(self.skipped.values())))})"
        judged = [result for result in self.results if result.status_right is not None]
        yield f"dims status right in {sum(result.status_right is True for result in judged)} of {len(judged)} faults"
        if self.slowest and self.slowest.recovery is not None:
            yield f"longest recovery of the service: {self.slowest.recovery:.1f} s after `{self.slowest.name}`"
        yield f"faults after which everything had to be restarted: {self.restarts}"
        yield f"events {self.events}, of which {self.duplicates} were sent twice"
        yield (
            f"runs {self.runs}, of which {self.superseded} had lost their lease; readings that failed: {self.failed}; "
            f"metrics quarantined: {self.quarantined}"
        )
        yield f"seconds {self.seconds:.0f}: {self.faults_seconds:.0f} with faults, {self.settle_seconds:.1f} to settle"
        if self.delays:
            yield (
                f"longest delay: an event was stored after {self.delays.stored:.1f} s, "
                f"served after {self.delays.served:.1f} s"
            )

    def _table(self) -> Iterator[str]:
        """One line for each kind of fault. A wrong status is shown before a right one."""
        yield "| fault | times | exit code | answer of `dims status` | expected | right | noticed after | back after |"
        yield "|---|---:|---:|---|---|---|---:|---:|"
        for name in dict.fromkeys(result.name for result in sorted(self.results, key=lambda result: result.name)):
            yield _row([result for result in self.results if result.name == name])


def _row(results: list[FaultResult]) -> str:
    answered = sorted((r for r in results if r.status), key=lambda result: result.status_right is not False)
    shown = answered[0] if answered else results[0]
    code = shown.status.code if shown.status else ""
    judged = [result.status_right for result in results if result.status_right is not None]
    noticed = max((r.status_after for r in results if r.status_right and r.status_after), default=None)
    back = [result.recovery for result in results]
    longest = f"{max(time for time in back if time is not None):.1f} s" if any(back) else ""
    if None in back:
        longest = f"not back {back.count(None)} times" + (f", else {longest}" if longest else "")
    cells = [
        shown.name,
        str(len(results)),
        str(code),
        _cell(shown.status.named(shown.pattern)) if shown.status else "not run",
        shown.expected or "any",
        f"{sum(judged)} of {len(judged)}" if judged else "not judged",
        f"{noticed:.0f} s" if noticed is not None else "",
        longest,
    ]
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
