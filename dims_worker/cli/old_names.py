"""Define the commands of the original DIMS under their old names. The help of `dims` does not list them.

Each one calls the command that replaced it, so the output and the exit codes are the same. docs/quick_reference.md
lists the old names.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from dims_worker import __version__
from dims_worker.cli.approvals import approvals
from dims_worker.cli.session import Session
from dims_worker.cli.status import status
from dims_worker.cli.verify import verify
from dims_worker.errors import UsageError
from dims_worker.formatting import escape_control, pluralize

_ACTIONS = {"list": "list", "review": "show", "accept": "approve", "reject": "reject"}
"""The actions of the old `approve`, and the commands of `dims approvals` that replaced them."""


@click.command(hidden=True)
@click.argument("action", metavar="REQUEST|list|review|accept|reject")
@click.argument("request", required=False)
@click.option("--id", "number", type=int, help="The number of the request.")
@click.option("--version", type=int, help="Decide this version only. DIMS refuses if the request has changed.")
@click.option("--notes", "--note", "note", help="Why you decide so. It is kept in the history.")
@click.option("--reviewer", "--as", "name", metavar="NAME", help="Decide under this name.")
@click.pass_context
def approve(
    ctx: click.Context,
    action: str,
    request: str | None,
    number: int | None,
    version: int | None,
    note: str | None,
    name: str | None,
) -> None:
    """Approve a request, or list, show or reject requests. `dims approvals` is the new name."""
    known = _ACTIONS.get(action)
    named = request if known else action
    if known and named is None and number is not None:
        named = str(number)
    if (known is None and (request is not None or number is not None)) or (known and request and number is not None):
        raise UsageError("name one request: `dims approvals approve REQUEST`")
    if known == "list":
        ctx.invoke(approvals.commands["list"])
        return
    if named is None:
        raise UsageError(f"the number of the request is missing: `dims approvals {known} REQUEST`")
    if known == "show":
        ctx.invoke(approvals.commands["show"], request=named)
        return
    decision = approvals.commands[known or "approve"]
    ctx.invoke(decision, request=named, version=version, note=note, name=name)


@click.command(hidden=True)
@click.option("--category", "categories", multiple=True, help="Measure only this category. Repeatable.")
@click.option("--metric", "metrics", multiple=True, help="Measure only this metric.")
@click.pass_context
def update(ctx: click.Context, categories: Sequence[str], metrics: Sequence[str]) -> None:
    """Measure metrics and accept their values as policy allows. `dims verify --update` is the new name."""
    ctx.invoke(verify, categories=categories, metrics=metrics, update=True)


@click.command(hidden=True)
@click.pass_context
def info(ctx: click.Context) -> None:
    """Show the version, the configuration and the state of the system. `dims status` is the new name."""
    session = ctx.find_object(Session)
    assert session is not None
    config = session.config
    enabled = sum(metric.enabled for metric in config.metrics.values())
    session.print_text(f"DIMS {__version__}")
    session.print_text(f"project          {escape_control(config.project)}")
    session.print_text(f"configuration    {escape_control(config.file)}")
    session.print_text(f"metrics          {pluralize(len(config.metrics), 'metric')} configured, {enabled:,} enabled")
    ctx.invoke(status)
