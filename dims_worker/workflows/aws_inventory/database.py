"""Read the sizes of a PostgreSQL database and its tables, and how many rows each has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dims_worker.config import SqlSource
from dims_worker.errors import MeasureError
from dims_worker.probes.base import Deadline, ScanContext
from dims_worker.probes.sql.snapshot import SnapshotQuery, open_snapshot

NAME = "SELECT current_database()"
SIZE = "SELECT pg_database_size(current_database())"
RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text, c.relispopulated, row_security_active(c.oid),
  CASE WHEN c.relispartition THEN (SELECT min(i.inhparent::bigint) FROM pg_inherits i WHERE i.inhrelid = c.oid) END,
  CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) END,
  c.reltuples::float8, c.relpages, greatest(s.last_analyze, s.last_autoanalyze),
  greatest(s.last_vacuum, s.last_autovacuum), CASE WHEN pg_is_in_recovery() THEN NULL ELSE s.n_mod_since_analyze END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'm', 'p', 'f', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_%'
"""
"""Every table, view and partition. A size is null if the relation stores nothing itself, or was dropped meanwhile."""

TABLE, MATERIALIZED, PARTITIONED, FOREIGN, VIEW = "r", "m", "p", "f", "v"
KINDS = {
    TABLE: "table",
    MATERIALIZED: "materialized view",
    PARTITIONED: "partitioned table",
    FOREIGN: "foreign table",
}
COUNTED, ESTIMATED = "count", "estimate"


@dataclass(frozen=True, slots=True)
class RowNumber:
    """How many rows a table has. `rows` None: unknown, and `note` says why.

    An estimate is from `since`, and `changes` rows were inserted, updated or deleted after that (None: unknown), so the
    number can be wrong by so many.
    """

    rows: int | None
    method: str | None = None
    note: str | None = None
    since: datetime | None = None
    changes: int | None = None

    def to_json(self) -> dict[str, Any]:
        since = None if self.since is None else self.since.astimezone(UTC).isoformat(timespec="seconds")
        return {
            "rows": self.rows,
            "rows_method": self.method,
            "rows_note": self.note,
            "rows_since": since,
            "rows_uncertainty": self.changes,
        }


@dataclass(slots=True)
class Relation:
    """A table, view or partition, as the database describes it."""

    oid: int
    schema: str
    name: str
    kind: str
    is_populated: bool
    hides_rows: bool
    parent: int | None
    bytes: int | None
    estimate: float
    pages: int
    analyzed: datetime | None
    vacuumed: datetime | None
    changes: int | None
    children: list[Relation] = field(default_factory=list)

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def count_query(self) -> str:
        """The query that counts its own rows, without those of tables that inherit from it."""
        schema, name = (part.replace('"', '""') for part in (self.schema, self.name))
        only = "ONLY " if self.kind == TABLE else ""
        return f'SELECT count(*) FROM {only}"{schema}"."{name}"'  # noqa: S608 - the names are quoted

    @property
    def stored_bytes(self) -> int | None:
        """Its size with its partitions. None if it, or a partition, is not stored here or was dropped meanwhile."""
        if self.kind != PARTITIONED:
            return self.bytes
        sizes = [child.stored_bytes for child in self.children]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def bytes_note(self) -> str | None:
        """Why its size is unknown."""
        if self.stored_bytes is not None:
            return None
        if self.kind == FOREIGN:
            return "it is stored in another database"
        unknown = sorted(child.full_name for child in self.children if child.stored_bytes is None)
        return f"the size of its partition {unknown[0]} is unknown" if unknown else "it was dropped meanwhile"

    def known_rows(self) -> RowNumber | None:
        """Return the number of rows if the kind of relation decides it, else None."""
        if self.kind == FOREIGN:
            return RowNumber(None, note="its rows are stored in another database")
        if not self.is_populated:
            return RowNumber(None, note="it was never refreshed, so it has no content yet")
        if self.hides_rows:
            return self.estimated_rows("row security hides rows from this user, so a count would be a part")
        return None

    def estimated_rows(self, why: str) -> RowNumber:
        """Return the estimate of the query planner with its age, or unknown without one. `why`: it was not counted."""
        # -1 is never analyzed, and before PostgreSQL 14 it is 0 without pages
        if self.estimate < 0 or (self.estimate == 0 and self.pages == 0):
            return RowNumber(None, note=f"{why}, and the table was never analyzed: run ANALYZE")
        changes = None if self.analyzed is None else self.changes
        return RowNumber(round(self.estimate), ESTIMATED, why, self.analyzed or self.vacuumed, changes)


def read_database(source: SqlSource, context: ScanContext, deadline: Deadline, counting: Deadline) -> dict[str, Any]:
    """Return `name`, `bytes`, `tables` (the largest first) and `views` of a PostgreSQL database.

    Rows are counted until the deadline `counting`, in the smallest tables first. Raises MeasureError if the database
    cannot be reached.
    """
    with open_snapshot(source, context, deadline) as snapshot:
        ((name,),) = snapshot(NAME).rows
        relations = [Relation(*row) for row in snapshot(RELATIONS).rows]
        size, why = _database_size(snapshot)
    views = sorted(each.full_name for each in relations if each.kind == VIEW)
    stored = _with_partitions(each for each in relations if each.kind != VIEW)
    numbers = _row_numbers(stored, lambda: open_snapshot(source, context, counting), counting)
    names = {each.oid: each.full_name for each in stored}
    tables = [
        {
            "name": each.full_name,
            "kind": KINDS[each.kind],
            "partition_of": names.get(each.parent) if each.parent is not None else None,
            "bytes": each.stored_bytes,
            "bytes_note": each.bytes_note,
            **numbers[each.oid].to_json(),
        }
        for each in stored
    ]
    tables.sort(key=lambda table: (table["bytes"] is None, -(table["bytes"] or 0), table["name"]))
    return {"name": name, "bytes": size, "bytes_note": why, "tables": tables, "views": views}


def _database_size(snapshot: SnapshotQuery) -> tuple[int | None, str | None]:
    try:
        ((size,),) = snapshot(SIZE).rows
    except MeasureError as error:
        return None, str(error)
    return int(size), None


def _with_partitions(relations: Iterable[Relation]) -> list[Relation]:
    by_oid = {each.oid: each for each in relations}
    for each in by_oid.values():
        if each.parent is not None and each.parent in by_oid:
            by_oid[each.parent].children.append(each)
    return list(by_oid.values())


def _row_numbers(
    relations: Sequence[Relation], open_counting: Callable[[], Any], counting: Deadline
) -> Mapping[int, RowNumber]:
    """Return the number of rows of each relation: counted, estimated or unknown."""
    numbers = {each.oid: known for each in relations if (known := each.known_rows()) is not None}
    open_ones = [each for each in relations if each.kind != PARTITIONED and each.oid not in numbers]
    open_ones.sort(key=lambda each: (each.bytes or 0, each.full_name))
    numbers |= _counted(open_ones, open_counting, counting)
    for each in relations:
        _add_up(each, numbers)
    return numbers


def _counted(
    relations: Sequence[Relation], open_counting: Callable[[], Any], counting: Deadline
) -> dict[int, RowNumber]:
    """Count the rows of each relation until the deadline. The rest, and what cannot be read, is estimated."""
    numbers: dict[int, RowNumber] = {}
    try:
        with open_counting() as snapshot:
            for each in relations:
                numbers[each.oid] = _count(each, snapshot, counting)
    except MeasureError as error:
        why = _why_not_counted(error, counting)
        numbers |= {each.oid: each.estimated_rows(why) for each in relations if each.oid not in numbers}
    return numbers


def _count(relation: Relation, snapshot: SnapshotQuery, counting: Deadline) -> RowNumber:
    """Count the rows of a relation, in half of the time left. So a locked one leaves time for the others."""
    share = Deadline.after(timedelta(seconds=counting.left / 2))
    try:
        ((rows,),) = snapshot(relation.count_query, limit=share).rows
    except MeasureError as error:
        return relation.estimated_rows(_why_not_counted(error, counting, share))
    return RowNumber(int(rows), COUNTED)


def _why_not_counted(error: MeasureError, counting: Deadline, share: Deadline | None = None) -> str:
    if counting.over:
        return f"the time for counting, {counting.timeout.total_seconds():g} s, was over"
    if share is not None and share.over:
        return f"counting it takes longer than {share.timeout.total_seconds():.3g} s"
    return f"it cannot be counted: {error}"


def _add_up(relation: Relation, numbers: dict[int, RowNumber]) -> RowNumber:
    """Return the rows of a relation. Those of a partitioned table are the sum of its partitions."""
    if relation.oid in numbers:
        return numbers[relation.oid]
    parts = [(child, _add_up(child, numbers)) for child in relation.children]
    numbers[relation.oid] = _sum_of(parts)
    return numbers[relation.oid]


def _sum_of(parts: Sequence[tuple[Relation, RowNumber]]) -> RowNumber:
    unknown = sorted(child.full_name for child, number in parts if number.rows is None)
    if unknown:
        return RowNumber(None, note=f"the rows of its partition {unknown[0]} are unknown")
    rows = sum(number.rows or 0 for _, number in parts)
    estimates = [number for _, number in parts if number.method == ESTIMATED]
    if not estimates:
        return RowNumber(rows, COUNTED)
    times = [number.since for number in estimates]
    changes = [number.changes for number in estimates]
    return RowNumber(
        rows,
        ESTIMATED,
        f"{len(estimates):,} of its {len(parts):,} partitions are estimated",
        None if None in times else min(moment for moment in times if moment is not None),
        None if None in changes else sum(change for change in changes if change is not None),
    )
