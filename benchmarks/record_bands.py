"""Compare the record transaction of 1,000 metrics that the expected band judges with one that the drift judges.

Each metric has 400 daily values. DIMS computes the bands once a day, in a transaction before the record. So the
benchmark prints two ratios: of the record transaction, and of both transactions in the first run of a day.
"""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from sqlalchemy import text

from benchmarks.local_stack import LocalStack, local_stack
from dims_worker.config import load_config
from dims_worker.domain.plan import Planner
from dims_worker.pipeline.ingest import register_config
from dims_worker.pipeline.record import Measurement, prepare_record, record_run
from dims_worker.probes.base import Reading
from dims_worker.store import leases
from dims_worker.store.engine import engine as engine_of
from dims_worker.store.engine import transaction
from dims_worker.store.events import next_batch, raise_generations
from dims_worker.store.migrations import migrate
from tests.fixtures.long_history import fill

METRICS, DAYS = 1000, 400
TURNS = 9
MAX_RATIO = 1.2
NAMES = [f"m.n{number:04}" for number in range(METRICS)]


def project(expect: str) -> str:
    """Return a configuration of 1,000 metrics of one source, judged by `history` or by `drift`."""
    metrics = "\n".join(f"    {name.removeprefix('m.')}: {{source: shell, command: ['true']}}" for name in NAMES)
    return f"sources: {{shell: {{type: command}}}}\npolicy: {{expect: {expect}}}\nmetrics:\n  m:\n{metrics}\n"


class Way:
    """A database of its own, whose metrics are judged in one way."""

    def __init__(self, stack: LocalStack, expect: str) -> None:
        (stack.project / f"{expect}.yaml").write_text(project(expect), encoding="utf-8")
        self.config = load_config(stack.project / f"{expect}.yaml", dict(stack.env), stack.project)
        with stack.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as admin:
            admin.execute(text(f"CREATE DATABASE judged_by_{expect}"))
        url = stack.engine.url.set(database=f"judged_by_{expect}")
        self.engine = engine_of(url.render_as_string(hide_password=False))
        migrate(self.engine)
        self.planner = Planner(self.config)
        with transaction(self.engine) as connection:
            register_config(connection, self.config)
        fill(self.engine, self.config, until=datetime.now(UTC), days=DAYS, per_day=1)
        with transaction(self.engine) as connection:
            connection.execute(text("ANALYZE"))
            rows = connection.execute(text("SELECT metric, value FROM dims_metrics")).all()
        self.values = {row.metric: row.value for row in rows}

    def run(self, *, new_day: bool) -> tuple[float, float]:
        """Record the same values once more. Return the seconds of the transaction before the record, and of it."""
        with transaction(self.engine) as connection:
            if new_day:
                connection.execute(text("DELETE FROM dims_expectations"))
            raise_generations(connection, NAMES, next_batch(connection))
            lease = self.config.settings.lease
            definitions = {name: self.config.definitions[name] for name in NAMES}
            claim = leases.claim_source(connection, "shell", definitions, "benchmark", lease, at_once=True)
        assert claim is not None
        readings = {name: Reading(name, self.values[name], "value", "exact") for name in claim.generations}
        assert len(readings) == METRICS
        measured = Measurement(readings, claim.as_of, "event", "benchmark", "shell", claim=claim)
        begun = time.perf_counter()
        with transaction(self.engine) as connection:
            prepare_record(connection, self.config, measured)
        prepared = time.perf_counter()
        with transaction(self.engine) as connection:
            run = record_run(connection, self.config, measured)
        ended = time.perf_counter()
        if len(run.items) != METRICS:
            raise AssertionError(f"{len(run.items):,} readings instead of {METRICS:,}")
        return prepared - begun, ended - prepared


def compare(ways: dict[str, Way], *, new_day: bool) -> str:
    """Record in both ways in turns, alternating which is first, and return the result as a sentence."""
    pairs = []
    for turn in range(TURNS):
        seconds = {}
        for expect in sorted(ways, reverse=bool(turn % 2)):
            before, record = ways[expect].run(new_day=new_day)
            seconds[expect] = (record, before + record)[new_day]
        pairs.append((seconds["drift"], seconds["history"]))
    ratio = statistics.median(history / drift for drift, history in pairs)
    drift, history = (statistics.median(times) for times in zip(*pairs, strict=True))
    return f"{history * 1000:.0f} ms, {ratio:.2f} times `expect: drift` ({drift * 1000:.0f} ms; medians of {TURNS})"


def main() -> None:
    """Print the ratio of the record transaction, and of the first run of a day."""
    with local_stack({"dims.yaml": project("drift")}) as stack:
        ways = {expect: Way(stack, expect) for expect in ("drift", "history")}
        for way in ways.values():
            way.run(new_day=True)
        with ways["history"].engine.connect() as connection:
            bands = connection.execute(
                text("SELECT count(*) FROM dims_expectations WHERE band IS NOT NULL")
            ).scalar_one()
        first = f"record, {METRICS:,} metrics of {DAYS} values ({bands:,} bands)"
        print(f"{first}: {compare(ways, new_day=False)}; the limit is {MAX_RATIO:g}")
        print(f"{first}, first run of a day, with the transaction before it: {compare(ways, new_day=True)}")
        for way in ways.values():
            way.engine.dispose()


if __name__ == "__main__":
    main()
