"""`dims baseline`: values that a person knows to be right, one by one or out of a file of an older inventory."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from dims_worker.approvals.decisions import BaselineInput, set_baselines
from dims_worker.cli.approvals import as_option, person_of
from dims_worker.cli.session import Session, pass_session
from dims_worker.errors import UsageError
from dims_worker.formatting import format_value, pluralize
from dims_worker.pipeline.ingest import register_config
from dims_worker.store.engine import clock, transaction


@click.group()
def baseline() -> None:
    """Baselines by hand: a person's acceptance, under the same rules and in the same log as an approval.

    \b
    Examples:
      dims baseline set s3_storage.total_objects 172726 --note "the audit of October"
      dims baseline import inventory.csv --note "from the old inventory"
    """


@baseline.command("set")
@click.argument("metric")
@click.argument("value")
@click.option("--note", required=True, help="Where the value comes from, for those who come after.")
@as_option
@pass_session
def set_(session: Session, metric: str, value: str, note: str, who: str | None) -> None:
    """Make VALUE the baseline of METRIC: a number, true, false, null, or a text."""
    _accept(session, [BaselineInput(metric, scalar(value), note)], who)


@baseline.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--note", help="Where the values come from; a note in the file stands before it.")
@as_option
@pass_session
def import_(session: Session, file: Path, note: str | None, who: str | None) -> None:
    """Make the values of FILE baselines: all of them, or none.

    YAML and JSON: `category.name: value`, or categories with names below them; in the place of a value also
    `{value: …, note: …}`. CSV: columns `metric`, `value` and, if wanted, `note`.
    """
    _accept(session, read(file, note), who)


def read(file: Path, note: str | None) -> list[BaselineInput]:
    """The baselines of a file, by its ending. Raises UsageError, which names the place."""
    kind = file.suffix.lower()
    try:
        content = file.read_text(encoding="utf-8-sig")
        if kind == ".csv":
            found = list(_of_csv(file, content, note))
        elif kind in (".yaml", ".yml", ".json"):
            tree = json.loads(content) if kind == ".json" else yaml.safe_load(content)
            found = list(_of_tree(file, tree, "", note))
        else:
            raise UsageError(f"{file}: .yaml, .json and .csv can be read")
    except (OSError, UnicodeError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    names = [one.metric for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{file}: {twice[0]} stands twice")
    if not found:
        raise UsageError(f"{file}: there is no value in it")
    return found


def scalar(text: str) -> Any:
    """A number, a boolean or null as JSON writes it; anything else is the text that it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str | list | dict) else value


def _of_csv(file: Path, content: str, note: str | None) -> Iterator[BaselineInput]:
    rows = csv.DictReader(content.splitlines())
    if not {"metric", "value"} <= set(rows.fieldnames or ()):
        raise UsageError(f"{file}:1: the columns are metric, value and, if wanted, note")
    for number, row in enumerate(rows, 2):
        if not row["metric"] or row["value"] is None:
            raise UsageError(f"{file}:{number}: a metric and a value are wanted")
        yield BaselineInput(row["metric"].strip(), scalar(row["value"].strip()), row.get("note") or note)


def _of_tree(file: Path, tree: Any, within: str, note: str | None) -> Iterator[BaselineInput]:
    if not isinstance(tree, Mapping):
        raise UsageError(f"{file}: {within or 'the whole'} must be a mapping of metrics to values")
    for key, value in tree.items():
        name = f"{within}.{key}" if within else str(key)
        if isinstance(value, Mapping) and set(value) <= {"value", "note"} and "value" in value:
            yield BaselineInput(name, _plain(file, name, value["value"]), value.get("note") or note)
        elif isinstance(value, Mapping) and not within:
            yield from _of_tree(file, value, name, note)
        else:
            yield BaselineInput(name, _plain(file, name, value), note)


def _plain(file: Path, name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"{file}: {name}: a value is a number, a text, a boolean or null, not {type(value).__name__}")


def _accept(session: Session, baselines: list[BaselineInput], who: str | None) -> None:
    config = session.config
    with session.database() as engine:
        with transaction(engine) as connection:
            register_config(connection, config)
        accepted = set_baselines(engine, config, baselines, person_of(session, who))
        with transaction(engine) as connection:
            now = clock(connection)
    for request in accepted:
        metric = config.metrics[request.metric]
        value, before = (format_value(v, request.unit, metric, now) for v in (request.value, request.baseline))
        was = f" (was {before})" if request.baseline_as_of else ""
        session.out.print(f"{request.metric}: {value} is the baseline now{was}", soft_wrap=True)
    session.out.print(f"{pluralize(len(accepted), 'baseline')} accepted by {accepted[0].decided_by}", soft_wrap=True)
