"""Say that something happened: `dims-enqueue scraper_complete`, or `publish(...)` from a scraper's code."""

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

    The event is on disk before anything is sent: with the broker away it waits in the spool, and the call
    returns as usual. `data` is what JSON can hold; without an `id` a UUID is drawn (give one where the same
    happening may be told twice). `env` defaults to the process's environment; `home` to what it names, else
    the nearest `.dims`, else `.dims` in the current folder. Raises EventError where the event is unfit.
    """
    event = event_of(type, subject, data, id)
    deliver(event, os.environ if env is None else env, home)
    return event.id


def main(argv: Sequence[str] | None = None) -> int:
    """The command `dims-enqueue`: prints the event's id, or those of a file's events, one a line.

    Exit code 0 (sent, or kept), 2 usage or a bad line, 3 neither sent nor kept.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if args.from_file:
            if args.type or args.subject or args.data or args.id:
                raise UsageError("--from-file takes EVENT_TYPE, --subject, --data and --id from its lines")
            return enqueue_file(args.from_file, os.environ, args.home, "dims-enqueue")
        if args.type is None:
            parser.error("EVENT_TYPE is missing (or --from-file)")
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
    """Send the events of a file (`-`: standard input; see `dims_producers.jsonl`); the exit code.

    Prints the ids of those that are sent or kept, and names the bad lines on standard error. Raises
    UsageError where the file cannot be read.
    """
    spool, url, unknown = _way(env, home)
    sender = BatchSender(spool, url)
    number = good = bad = 0
    failed = False
    with _opened(name) as lines:
        try:
            for number, found in sender.send(events_in(lines, event_of)):
                if isinstance(found, Event):
                    good += 1
                    sys.stdout.write(f"{found.id}\n")
                else:
                    bad += 1
                    sys.stderr.write(f"{program}: line {number}: {found}\n")
        except OSError as error:
            failed = True
            sys.stderr.write(f"{program}: what follows line {number} is neither sent nor kept: {error}\n")
    if waits := good and (unknown or sender.away):
        sys.stderr.write(f"{program}: events wait in {spool.folder}: {waits}\n")
    if bad:
        sys.stderr.write(f"{program}: {bad:,} of {good + bad:,} lines were not sent\n")
    return 2 if bad else 3 if failed else 0


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below; here is only what a user may have got wrong
    except OSError as error:
        raise UsageError(f"--from-file: {name} cannot be read: {error.strerror}") from None
    with file:
        yield file


def event_of(type: str, subject: str | None, data: Mapping[str, Any] | None, id: str | None) -> Event:
    now = datetime.now(UTC)
    try:
        return Event.new(type, producer_name("enqueue"), now=now, subject=subject, data=data, id=id)
    except (TypeError, ValueError, RecursionError) as error:  # a date, a set, a circle: json says which
        raise EventError(f"the data is nothing that JSON can hold: {error}") from None


def deliver(event: Event, env: Mapping[str, str], home: Path | None) -> str | None:
    """Keep and send the event; None, or the sentence that says where it waits and why."""
    spool, url, unknown = _way(env, home)
    if spool_and_send(event, spool, url):
        return None
    if unknown:
        return f"the event waits in {spool.folder}: {unknown}"
    return f"the broker cannot be reached; the event waits in {spool.folder} and is sent with the next one"


def _way(env: Mapping[str, str], home: Path | None) -> tuple[Spool, str | None, DimsError | None]:
    """The spool, and the broker's URL or why none is known."""
    found = home or find_home(env, Path.cwd()) or Path.cwd() / NAME
    spool = Spool(spool_folder(found.absolute()))
    try:
        return spool, broker_url(env, found), None
    except DimsError as error:
        return spool, None, error


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
        description="Publish an event, or many. With the broker away they wait in the spool; nothing is lost.",
    )
    parser.add_argument("type", metavar="EVENT_TYPE", nargs="?", help="such as dims.scraper.complete, or a rule's name")
    parser.add_argument("--subject", metavar="S", help="what it is about, such as a key or a name")
    parser.add_argument("--data", metavar="JSON|@FILE|-", help="a JSON object; - reads standard input")
    parser.add_argument("--id", metavar="ID", help="the event's id, instead of one that is drawn")
    parser.add_argument(
        "--from-file", metavar="FILE|-", help="many events, a JSON object a line; - reads standard input"
    )
    parser.add_argument("--home", metavar="DIR", type=Path, help="the DIMS home (default: DIMS_HOME, .dims)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
