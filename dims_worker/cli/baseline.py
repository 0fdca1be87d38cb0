"""Define `dims baseline`: set baselines by hand, one at a time or from a file."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import click
import yaml

from dims_worker.approvals.decisions import BaselineInput, set_baselines
from dims_worker.cli.approvals import as_option, decider
from dims_worker.cli.session import EXISTING_FILE, Session, examples, pass_session
from dims_worker.errors import UsageError
from dims_worker.formatting import format_value, pluralize
from dims_worker.numbers import loads, parse_fraction
from dims_worker.pipeline.ingest import register_config
from dims_worker.store.engine import clock, transaction

_FRACTION = re.compile(r"[+-]?[0-9]+\.[0-9]+")


class _NumberLoader(yaml.SafeLoader):
    """Reads YAML in which no number loses a digit."""


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float | Decimal:
    return parse_fraction(node.value) if _FRACTION.fullmatch(node.value) else loader.construct_yaml_float(node)


_NumberLoader.add_constructor("tag:yaml.org,2002:float", _number)


@click.group()
@examples(
    'dims baseline set s3_storage.objects 172726 --note "the audit of October"',
    'dims baseline import inventory.csv --note "from the old inventory"',
)
def baseline() -> None:
    """Set baselines by hand, for example from an older inventory.

    A baseline is the value that the next readings are compared with. Setting one follows the same rules as an
    approval and is recorded in the same history.
    """


@baseline.command("set")
@examples('dims baseline set s3_storage.objects 172726 --note "the audit of October"')
@click.argument("metric")
@click.argument("value")
@click.option("--note", required=True, help="Why this value is right. It is kept in the history.")
@as_option
@pass_session
def set_(session: Session, metric: str, value: str, note: str, name: str | None) -> None:
    """Set the baseline of METRIC to VALUE.

    VALUE is a number, true, false, null or a text.
    """
    _accept(session, [BaselineInput(metric, scalar(value), note)], name)


@baseline.command("import")
@examples('dims baseline import inventory.csv --note "from the old inventory"', "dims baseline import inventory.yaml")
@click.argument("file", type=EXISTING_FILE)
@click.option("--note", help="Why these values are right. A note in the file has precedence.")
@as_option
@pass_session
def import_(session: Session, file: Path, note: str | None, name: str | None) -> None:
    """Set the baselines in FILE: all of them, or none after an error.

    In YAML or JSON, write `category.name: value`, or categories that contain names. Instead of a value, you can write
    `{value: ..., note: ...}`. In CSV, the columns are `metric`, `value` and optionally `note`.
    """
    _accept(session, read_baselines(file, note), name)


def read_baselines(file: Path, note: str | None) -> list[BaselineInput]:
    """Return the baselines in a YAML, JSON or CSV file. Raises UsageError, which names the place of the problem."""
    kind = file.suffix.lower()
    try:
        content = file.read_text(encoding="utf-8-sig")
        if kind == ".csv":
            baselines = list(_parse_csv(file, content, note))
        elif kind in (".yaml", ".yml", ".json"):
            tree = loads(content) if kind == ".json" else _NumberLoader(content).get_single_data()
            baselines = list(_parse_tree(file, tree, "", note))
        else:
            raise UsageError(f"{file}: cannot be read. Use a .yaml, .json or .csv file.")
    except (OSError, UnicodeError, ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from None
    names = [baseline.metric for baseline in baselines]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{file}: {repeated[0]} appears twice. Keep one of the two.")
    if not baselines:
        raise UsageError(f"{file}: contains no value")
    return baselines


def scalar(text: str) -> Any:
    """Return the number, boolean or null that the text is in JSON, or else the text itself."""
    try:
        value = loads(text)
    except ValueError:
        return text
    return text if isinstance(value, str | list | dict) else value


def _parse_csv(file: Path, content: str, note: str | None) -> Iterator[BaselineInput]:
    rows = csv.DictReader(content.splitlines())
    if not {"metric", "value"} <= set(rows.fieldnames or ()):
        raise UsageError(f"{file}:1: the first line must name the columns metric, value and optionally note")
    for number, row in enumerate(rows, 2):
        if not row["metric"] or row["value"] is None:
            raise UsageError(f"{file}:{number}: the metric or the value is missing")
        yield BaselineInput(row["metric"].strip(), scalar(row["value"].strip()), row.get("note") or note)


def _parse_tree(file: Path, tree: Any, within: str, note: str | None) -> Iterator[BaselineInput]:
    if not isinstance(tree, Mapping):
        raise UsageError(f"{file}: {within or 'the document'} must be a mapping of metrics to values")
    for key, value in tree.items():
        name = f"{within}.{key}" if within else str(key)
        if isinstance(value, Mapping) and set(value) <= {"value", "note"} and "value" in value:
            yield BaselineInput(name, _check_scalar(file, name, value["value"]), value.get("note") or note)
        elif isinstance(value, Mapping) and not within:
            yield from _parse_tree(file, value, name, note)
        else:
            yield BaselineInput(name, _check_scalar(file, name, value), note)


def _check_scalar(file: Path, name: str, value: Any) -> Any:
    if value is None or isinstance(value, str | int | float | Decimal | bool):
        return value
    raise UsageError(f"{file}: {name}: a value must be a number, a text, a boolean or null, not {type(value).__name__}")


def _accept(session: Session, baselines: list[BaselineInput], name: str | None) -> None:
    config = session.config
    with session.database() as engine:
        with transaction(engine) as connection:
            register_config(connection, config)
        accepted = set_baselines(engine, config, baselines, decider(session, name))
        with transaction(engine) as connection:
            now = clock(connection)
    for request in accepted:
        metric = config.metrics[request.metric]
        value, before = (format_value(v, request.unit, metric, now) for v in (request.value, request.baseline))
        was = f" (was {before})" if request.baseline_as_of else ""
        session.out.print(f"{request.metric}: {value} is the baseline now{was}", soft_wrap=True)
    session.out.print(f"{pluralize(len(accepted), 'baseline')} accepted by {accepted[0].decided_by}", soft_wrap=True)
