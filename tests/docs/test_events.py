"""Every event type, envelope, key and bound that a page names is the one of the code."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from dims_producers.s3_record import event_of_record
from dims_worker import events
from dims_worker.broker.queues import VERIFY_SLOW
from dims_worker.events import Event
from tests.docs.pages import SPAN, TEXTS, blocks, each_page, rows, sections
from tests.fixtures.s3_notifications import record


def event_types() -> set[str]:
    values = [getattr(events, name) for name in dir(events) if name.isupper()]
    return {value for value in values if isinstance(value, str) and re.fullmatch(r"dims(\.\w+){2}", value)}


@each_page
def test_each_envelope_is_accepted(page: str) -> None:
    text = TEXTS[page]
    envelopes = [body for body in blocks(text, "json") if "specversion" in body]
    envelopes += re.findall(r"'(\{\"specversion\".*?\})'", text)
    for envelope in envelopes:
        assert Event.from_json(envelope).type in event_types()
    assert envelopes or page not in ("docs/events.md", "docs/producers.md")


def test_the_page_on_events_has_a_row_for_every_type_and_no_other() -> None:
    types = rows(sections(TEXTS["docs/events.md"], 2)["Types"], "type")
    named = {SPAN.findall(row[0])[0] for row in types if SPAN.findall(row[0])}
    assert {name for name in named if name.startswith("dims.")} == event_types()
    assert [name for name in named if not name.startswith("dims.")] == ["com.amazonaws.s3.ObjectCreated:Put"]


@each_page
def test_every_event_type_that_a_page_names_exists(page: str) -> None:
    types = event_types()
    groups = "|".join({name.split(".")[1] for name in types})
    assert set(re.findall(rf"\bdims\.(?:{groups})\.[a-z_]+", TEXTS[page])) <= types | {VERIFY_SLOW}
    assert all(name.startswith(events.S3_PREFIX) for name in re.findall(r"\bcom\.amazonaws[\w.:]+", TEXTS[page]))


def test_the_data_of_objects_is_what_the_lambda_sends() -> None:
    types = rows(sections(TEXTS["docs/events.md"], 2)["Types"], "type")
    (row,) = [row for row in types if "ObjectCreated" in row[0]]
    restored = {"lifecycleRestorationExpiryTime": "2026-11-29T00:00:00Z", "lifecycleRestoreStorageClass": "GLACIER"}
    tier = {"intelligentTieringEventData": {"destinationAccessTier": "ARCHIVE_ACCESS"}}
    given = record(versionId="1") | tier | {"glacierEventData": {"restoreEventData": restored}}
    assert set(SPAN.findall(row[2])) == set(event_of_record(given, datetime.now(UTC)).data)


def test_the_bounds_of_an_event_are_those_of_the_code() -> None:
    bounds = [row[1] for row in rows(sections(TEXTS["docs/events.md"], 2)["What is refused"], "reason") if row[1]]
    assert bounds == [
        f"{events.MAX_BYTES:,} bytes",
        f"{events.MAX_TEXT:,} characters",
        f"{events.YEARS.start} to {events.YEARS.stop - 1}",
        f"{events.MAX_DEPTH} levels",
        f"{events.MAX_CONTAINERS:,}",
        f"{events.MAX_LARGE_NUMBERS:,}",
        f"{events.MAX_PATH:,} bytes",
        f"{events.MAX_KEY:,} bytes",
        f"{events.MAX_REQUESTED} patterns",
        f"{events.MAX_PATTERN} characters",
        f"{events.MAX_WILDCARDS}",
    ]
