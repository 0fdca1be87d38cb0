"""Define `dims config` and `dims migrate`."""

from __future__ import annotations

import json
import re
from typing import Any

import click

from dims_worker.checks.config_files import HIDDEN_FIX, hidden_file
from dims_worker.checks.judging import FIX
from dims_worker.cli.session import Session, examples, pass_session
from dims_worker.config import DerivedMetric, SourceMetric, config_schema
from dims_worker.domain.unjudged import unjudged_metrics
from dims_worker.formatting import pluralize
from dims_worker.notifications.rules import owners_without_channel
from dims_worker.store.migrations import migrate as migrate_database


@click.group()
@examples("dims config check", "dims config show")
def config() -> None:
    """Check or show the configuration, or print its JSON Schema.

    The configuration is dims.yaml and the files that it includes. It declares sources (where your data is), metrics
    (what to measure), rules (which events matter) and policy (how much drift is acceptable).
    """


@config.command()
@examples("dims config check", "dims --config other.yaml config check")
@pass_session
def check(session: Session) -> None:
    """Check the configuration and print every error at once.

    An error names its file, line and key, and the exit code is 2. For a valid configuration, the command warns about
    each critical metric that no event or schedule ever judges, about each owner that no channel is named after, and
    about a second configuration file that DIMS does not read. The exit code is 0 then.
    """
    loaded = session.config
    counts = {"source": len(loaded.sources), "metric": len(loaded.metrics), "rule": len(loaded.rules)}
    click.echo(f"{loaded.file} is valid: {', '.join(pluralize(count, noun) for noun, count in counts.items())}")
    for name, channel in loaded.notify.channels.items():
        if not channel.on:
            click.echo(f"the channel {name} is off: its url is empty")
    for owner, owned in owners_without_channel(loaded).items():
        click.echo(f"warning: no channel is called {owner}, the owner of {', '.join(owned)}")
        click.echo(f"fix: add `notify: {{channels: {{{owner}: {{url: ...}}}}}}`, or name a channel as the owner")
    unjudged = unjudged_metrics(loaded)
    for metric in unjudged:
        click.echo(f"warning: no event or schedule judges the critical metric {metric}")
    if unjudged:
        click.echo(f"fix: {FIX}")
    if hidden := hidden_file(loaded, session.env):
        click.echo(f"warning: {hidden}\nfix: {HIDDEN_FIX}")


@config.command("schema")
@examples("dims config schema > dims.schema.json")
def schema_() -> None:
    """Print the JSON Schema (2020-12) of the configuration, for editors.

    To use it, write `# yaml-language-server: $schema=dims.schema.json` as the first line of dims.yaml.
    """
    click.echo(json.dumps(config_schema(), indent=2))


@config.command("show")
@examples("dims config show", "dims config show | jq .policy")
@pass_session
def show_config(session: Session) -> None:
    """Print the configuration with every default, without passwords."""
    loaded = session.config
    metrics = {}
    for name, metric in loaded.metrics.items():
        metrics[name] = metric.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if isinstance(metric, SourceMetric | DerivedMetric):
            metrics[name]["unit"] = metric.shown_unit
    session.print_json(
        {
            "file": str(loaded.file),
            "project": str(loaded.project),
            "home": str(loaded.home),
            "database": "DIMS_DATABASE_URL" if loaded.database_url else "local",
            "broker": "DIMS_BROKER_URL" if loaded.broker_url else "local",
            "settings": loaded.settings.model_dump(mode="json"),
            "policy": loaded.policy.model_dump(mode="json"),
            "sources": {
                name: _without_password(source.model_dump(mode="json")) for name, source in loaded.sources.items()
            },
            "metrics": metrics,
            "rules": {name: rule.model_dump(mode="json") for name, rule in loaded.rules.items()},
            "watch": list(loaded.watch),
            "notify": loaded.notify.model_dump(mode="json"),
            "maintenance": {name: window.model_dump(mode="json") for name, window in loaded.maintenance.items()},
        }
    )


def _without_password(source: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source without the user and password of any URL."""
    return {key: re.sub(r"//[^/@\s]*@", "//…@", v) if isinstance(v, str) else v for key, v in source.items()}


@click.command()
@examples("dims migrate")
@pass_session
def migrate(session: Session) -> None:
    """Create or upgrade the tables of DIMS in the database.

    Run it after every installation of DIMS if DIMS_DATABASE_URL names your own database. `dims up` migrates the local
    database itself.
    """
    with session.database(check=False) as engine:
        before, after = migrate_database(engine)
    click.echo(f"the database is at revision {after}" + ("" if before == after else f" (was {before or 'empty'})"))
