"""`dims init`, `dims config`, `dims migrate`: getting ready."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from dims_worker.cli.init_template import draft_config
from dims_worker.cli.session import Session, pass_session
from dims_worker.config import DerivedMetric, SourceMetric, config_schema, load_config
from dims_worker.errors import UsageError
from dims_worker.formatting import pluralize
from dims_worker.store.migrations import migrate as migrate_database

IGNORED = ".dims/"


@click.command()
@click.option("--force", is_flag=True, help="Replace a dims.yaml that is there.")
@pass_session
def init(session: Session, force: bool) -> None:
    """Write a dims.yaml that fits the repository you stand in, and have git ignore `.dims/`.

    It counts what is there: files and lines by language, tests, documents, commits. Edit it to your taste.
    """
    file = session.cwd / "dims.yaml"
    if file.exists() and not force:
        raise UsageError(f"{file} is there already; `dims init --force` replaces it")
    text = draft_config(session.cwd)
    file.write_text(text, encoding="utf-8")
    config = load_config(file, session.env, session.cwd)
    click.echo(
        f"wrote dims.yaml: {pluralize(len(config.metrics), 'metric')} of {pluralize(len(config.sources), 'source')}"
    )
    if (session.cwd / ".git").exists() and _ignore(session.cwd / ".gitignore"):
        click.echo(f"wrote .gitignore: {IGNORED} is this machine's own")
    click.echo("next: `dims verify` measures once; `dims hook install && dims up` reacts from now on")


def _ignore(file: Path) -> bool:
    """Append to the bytes that are there, whatever their encoding and line ends."""
    known = file.read_bytes() if file.exists() else b""
    if any(line.strip().strip(b"/") == IGNORED.strip("/").encode() for line in known.splitlines()):
        return False
    with file.open("ab") as out:
        out.write((b"\n" if known and not known.endswith(b"\n") else b"") + IGNORED.encode() + b"\n")
    return True


@click.group()
def config() -> None:
    """The configuration: check it, show it, print its JSON Schema."""


@config.command()
@pass_session
def check(session: Session) -> None:
    """Say every error at once, with file, line and key (exit 2), or that all is well."""
    loaded = session.config
    parts = (
        pluralize(len(loaded.sources), "source"), pluralize(len(loaded.metrics), "metric"), pluralize(len(loaded.rules), "rule")
    )  # fmt: skip
    click.echo(f"{loaded.file}: fine: {', '.join(parts)}")
    for name, channel in loaded.notify.channels.items():
        if not channel.on:
            click.echo(f"the channel {name} is off: its url is empty")


@config.command("schema")
def schema_() -> None:
    """Print the JSON Schema (2020-12) that editors use.

    \b
    Example, as the first line of dims.yaml, after `dims config schema > dims.schema.json`:
      # yaml-language-server: $schema=dims.schema.json
    """
    click.echo(json.dumps(config_schema(), indent=2))


@config.command("show")
@pass_session
def show_config(session: Session) -> None:
    """Print the configuration as it is understood: every default filled in, no URL with a password."""
    loaded = session.config
    metrics = {}
    for name, metric in loaded.metrics.items():
        facts = metric.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if isinstance(metric, SourceMetric | DerivedMetric):
            facts["unit"] = metric.shown_unit
        metrics[name] = facts
    session.print_json(
        {
            "file": str(loaded.file),
            "project": str(loaded.project),
            "home": str(loaded.home),
            "database": "DIMS_DATABASE_URL" if loaded.database_url else "this machine's own",
            "broker": "DIMS_BROKER_URL" if loaded.broker_url else "this machine's own",
            "settings": loaded.settings.model_dump(mode="json"),
            "policy": loaded.policy.model_dump(mode="json"),
            "sources": {name: _without_user(source.model_dump(mode="json")) for name, source in loaded.sources.items()},
            "metrics": metrics,
            "rules": {name: rule.model_dump(mode="json") for name, rule in loaded.rules.items()},
            "watch": list(loaded.watch),
            "notify": loaded.notify.model_dump(mode="json"),
        }
    )


def _without_user(facts: dict[str, Any]) -> dict[str, Any]:
    """A source's facts without what stands before the @ of a URL."""
    return {key: re.sub(r"//[^/@\s]*@", "//…@", v) if isinstance(v, str) else v for key, v in facts.items()}


@click.command()
@pass_session
def migrate(session: Session) -> None:
    """Bring the database to this version's tables. Run it once for a database that DIMS_DATABASE_URL names."""
    with session.database() as engine:
        before, after = migrate_database(engine)
    click.echo(f"the database is at revision {after}" + ("" if before == after else f" now (was {before or 'empty'})"))
