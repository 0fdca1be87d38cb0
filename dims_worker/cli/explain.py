"""`dims explain`: why a metric's value has its verdict, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.text import Text

from dims_worker.analysis.explanation import explain_metric as facts_of
from dims_worker.cli.session import Session, json_option, pass_session
from dims_worker.store.engine import transaction
from dims_worker.text.explanation import explanation_document, explanation_lines, headline
from dims_worker.text.phrases import Line


@click.command()
@click.argument("metric")
@json_option
@pass_session
def explain(session: Session, metric: str, as_json: bool) -> None:
    """Why METRIC has its verdict: formula, policy, baseline, events in between, what nothing explains, decisions.

    \b
    Example:
      dims explain s3_storage.total_objects
    """
    with session.database() as engine, transaction(engine) as connection:
        one = facts_of(connection, session.config, metric)
    if as_json:
        session.print_json(explanation_document(session.config, one))
        return
    session.out.print(Text(headline(session.config, one), "bold"), soft_wrap=True)
    print_lines(session, explanation_lines(session.config, one))


def print_lines(session: Session, told: Iterable[Line]) -> None:
    """Sentences, each after the word that says what it is about."""
    for about, sentence in told:
        session.out.print(f"  {about:<10}{sentence}", soft_wrap=True)
