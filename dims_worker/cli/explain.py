"""Define `dims explain`: why the value of a metric has its verdict."""

from __future__ import annotations

from collections.abc import Iterable

import click

from dims_worker.analysis.explanation import explain_metric
from dims_worker.cli.session import Session, examples, json_option, pass_session
from dims_worker.store.engine import transaction
from dims_worker.text.explanation import explanation_document, explanation_lines, headline
from dims_worker.text.phrases import Line


@click.command()
@examples("dims explain s3_storage.total_objects", "dims explain s3_storage.total_objects --json")
@click.argument("metric")
@json_option
@pass_session
def explain(session: Session, metric: str, as_json: bool) -> None:
    """Explain why a metric has its verdict.

    It prints the formula, the thresholds and where they are set, the baseline, the events since then, changes without
    an event, and past decisions.
    """
    with session.database() as engine, transaction(engine) as connection:
        explanation = explain_metric(connection, session.config, metric)
    if as_json:
        session.print_json(explanation_document(session.config, explanation))
        return
    session.print_text(headline(session.config, explanation), "bold")
    print_lines(session, explanation_lines(session.config, explanation))


def print_lines(session: Session, lines: Iterable[Line]) -> None:
    """Print sentences, each after its topic."""
    for topic, sentence in lines:
        session.print_text(f"  {topic:<13}{sentence}")
