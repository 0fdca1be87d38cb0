"""Publish an event by hand: `dims-enqueue scraper_complete`, or `publish(...)` from the code of a scraper."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from dims_producers.home import NAME, find_home, spool_folder
from dims_producers.jsonl import BatchSender, events_in
from dims_producers.producer_name import producer_name
from dims_producers.publish import broker_url
from dims_producers.spool import Spool, spool_and_send
from dims_worker.errors import DimsError, EventError, UsageError
from dims_worker.events import Event


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

    The event is on disk before it is sent. If the broker is unreachable, it waits in the spool, and the call returns as
    usual.

    Args:
        data: anything that JSON can hold.
        id: give one if you may publish the same event twice. The default is a new UUID.
        env: defaults to the environment of the process.
        home: the data directory. Defaults to DIMS_HOME, else the nearest `.dims`, else `.dims` in the current folder.

    Raises:
        EventError: the event is not valid.
    """
    event = event_of(type, subject, data, id)
    deliver(event, os.environ if env is None else env, home)
    return event.id


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dims-enqueue`. It prints the id of the event, or those of a file's events, one per line.

    Exit code 0: sent or stored. 2: wrong usage or a bad line. 3: neither sent nor stored.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.from_file:
            if args.type or args.subject or args.data or args.id:
                raise UsageError("--from-file reads EVENT_TYPE, --subject, --data and --id from its lines")
            return enqueue_file(args.from_file, os.environ, args.home, "dims-enqueue")
        if args.type is None:
            parser.error("give an EVENT_TYPE, or --from-file")
        event = event_of(args.type, args.subject, data_of(args.data), args.id)
        waits = deliver(event, os.environ, args.home)
    except (DimsError, OSError) as error:
        sys.stderr.write(f"dims-enqueue: {error}\n")
        return error.exit_code if isinstance(error, DimsError) else 3
    sys.stdout.write(f"{event.id}\n")
    if waits:
        sys.stderr.write(f"dims-enqueue: {waits}\n")
    return 0


def enqueue_file(name: str, env: Mapping[str, str], home: Path | None, program: str) -> int:
    """Send the events of a file (`-` is standard input, see `dims_producers.jsonl`) and return the exit code.

    Prints the ids of the events that are sent or stored, and the errors of bad lines on standard error. Raises
    UsageError if the file cannot be read.
    """
    spool, url, unknown = _spool_and_url(env, home)
    sender = BatchSender(spool, url)
    number = good = bad = 0
    failed = False
    with _opened(name) as lines:
        try:
            for number, event in sender.send(events_in(lines, event_of)):
                if isinstance(event, Event):
                    good += 1
                    sys.stdout.write(f"{event.id}\n")
                else:
                    bad += 1
                    sys.stderr.write(f"{program}: line {number}: {event}\n")
        except OSError as error:
            failed = True
            sys.stderr.write(f"{program}: the lines after line {number} are neither sent nor stored: {error}\n")
    if reason := good and (unknown or sender.failure):
        sys.stderr.write(f"{program}: events wait in {spool.folder}: {reason}\n")
    if bad:
        sys.stderr.write(f"{program}: {bad:,} of {good + bad:,} lines were not sent\n")
    return 2 if bad else 3 if failed else 0


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below: only opening it is the user's error
    except OSError as error:
        raise UsageError(f"--from-file: cannot read {name}: {error.strerror}") from None
    with file:
        yield file


def event_of(type: str, subject: str | None, data: Mapping[str, Any] | None, id: str | None) -> Event:
    now = datetime.now(UTC)
    try:
        return Event.new(type, producer_name("enqueue"), now=now, subject=subject, data=data, id=id)
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, a cycle: json says which
        raise EventError(f"JSON cannot hold the data: {error}") from None


def deliver(event: Event, env: Mapping[str, str], home: Path | None) -> str | None:
    """Store and send the event. Return None, or a sentence that says where it waits and why."""
    spool, url, unknown = _spool_and_url(env, home)
    if spool_and_send(event, spool, url):
        return None
    if unknown:
        return f"the event waits in {spool.folder}: {unknown}"
    return f"the broker is unreachable. The event waits in {spool.folder} and is sent with the next one."


def _spool_and_url(env: Mapping[str, str], home: Path | None) -> tuple[Spool, str | None, DimsError | None]:
    """Return the spool, and the broker's URL or the reason why it is unknown."""
    home = home or find_home(env, Path.cwd()) or Path.cwd() / NAME
    spool = Spool(spool_folder(home.absolute()))
    try:
        return spool, broker_url(env, home), None
    except DimsError as error:
        return spool, None, error


def data_of(text: str | None) -> Mapping[str, Any] | None:
    """Return the object of `--data`: JSON, `@FILE`, or `-` for standard input. Raises UsageError."""
    if text is None:
        return None
    try:
        if text == "-":
            text = sys.stdin.buffer.read().decode()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        data = json.loads(text)
    except OSError as error:
        raise UsageError(f"--data: cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--data is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"--data must be a JSON object, such as {{}}, not {type(data).__name__}")
    return data


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dims-enqueue",
        description="Publish one event or many. If the broker is unreachable, they wait in the spool. Nothing is lost.",
    )
    parser.add_argument("type", metavar="EVENT_TYPE", nargs="?", help="dims.scraper.complete, or the name of a rule")
    parser.add_argument("--subject", metavar="S", help="what the event is about: a key or a name")
    parser.add_argument("--data", metavar="JSON|@FILE|-", help="a JSON object (-: standard input)")
    parser.add_argument("--id", metavar="ID", help="the id of the event (default: a new UUID)")
    parser.add_argument(
        "--from-file", metavar="FILE|-", help="many events, one JSON object per line (-: standard input)"
    )
    parser.add_argument("--home", metavar="DIR", type=Path, help="the data directory (default: DIMS_HOME, else .dims)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
