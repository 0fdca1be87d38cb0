"""Say that something happened: `dims-enqueue scraper_complete`, or `publish(...)` from a scraper's code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dims_worker.errors import DimsError, EventError, UsageError
from dims_worker.events import Event
from producers.home import NAME, find_home, spool_folder
from producers.name import producer_name
from producers.publish import broker_url
from producers.spool import Spool, send


def publish(
    type: str,
    subject: str | None = None,
    data: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,
    env: Mapping[str, str] | None = None,
    home: Path | None = None,
) -> str:
    """Publish one event of `type` (an event type or a rule's name) and return its id.

    The event is on disk before anything is sent: with the broker away it waits in the spool, and the call
    returns as usual. `data` is what JSON can hold; without an `id` a UUID is drawn (give one where the same
    happening may be told twice). `env` defaults to the process's environment; `home` to what it names, else
    the nearest `.dims`, else `.dims` in the current folder. Raises EventError where the event is unfit.
    """
    event = event_of(type, subject, data, id)
    deliver(event, os.environ if env is None else env, home)
    return event.id


def main(argv: Sequence[str] | None = None) -> int:
    """The command `dims-enqueue`: prints the event's id. Exit code 0 (sent, or kept), 2 usage, 3 neither."""
    args = _parser().parse_args(argv)
    try:
        event = event_of(args.type, args.subject, data_of(args.data), args.id)
        waits = deliver(event, os.environ, args.home)
    except (DimsError, OSError) as error:
        sys.stderr.write(f"dims-enqueue: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    sys.stdout.write(f"{event.id}\n")
    if waits:
        sys.stderr.write(f"dims-enqueue: {waits}\n")
    return 0


def event_of(type: str, subject: str | None, data: Mapping[str, Any] | None, id: str | None) -> Event:
    now = datetime.now(UTC)
    try:
        return Event.new(type, producer_name("enqueue"), now=now, subject=subject, data=data, id=id)
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, a circle: json says which
        raise EventError(f"the data is nothing that JSON can hold: {error}") from None


def deliver(event: Event, env: Mapping[str, str], home: Path | None) -> str | None:
    """Keep and send the event; None, or the sentence that says where it waits and why."""
    found = home or find_home(env, Path.cwd()) or Path.cwd() / NAME
    spool = Spool(spool_folder(found.absolute()))
    try:
        url = broker_url(env, found)
    except DimsError as error:
        send(event, spool, None)
        return f"the event waits in {spool.folder}: {error}"
    if send(event, spool, url):
        return None
    return f"the broker cannot be reached; the event waits in {spool.folder} and is sent with the next one"


def data_of(text: str | None) -> Mapping[str, Any] | None:
    """The object that `--data` gives: JSON, `@FILE`, or `-` for standard input. Raises UsageError."""
    if text is None:
        return None
    try:
        if text == "-":
            text = sys.stdin.buffer.read().decode()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise UsageError(f"--data: {error.filename} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--data is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"--data must be a JSON object, such as {{}}, not {type(data).__name__}")
    return data


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dims-enqueue",
        description="Publish one event. With the broker away it waits in the spool; nothing is lost.",
    )
    parser.add_argument("type", metavar="EVENT_TYPE", help="such as dims.scraper.complete, or a rule's name")
    parser.add_argument("--subject", metavar="S", help="what it is about, such as a key or a name")
    parser.add_argument("--data", metavar="JSON|@FILE|-", help="a JSON object; - reads standard input")
    parser.add_argument("--id", metavar="ID", help="the event's id, instead of one that is drawn")
    parser.add_argument("--home", metavar="DIR", type=Path, help="the DIMS home (default: DIMS_HOME, .dims)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
