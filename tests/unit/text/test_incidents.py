"""Test the sentences and documents of incidents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dims_worker.config import Config, load_config
from dims_worker.numbers import loads
from dims_worker.store.incidents import Incident
from dims_worker.text.incidents import incident_document, incident_sentence, incident_status
from dims_worker.text.json_documents import json_text

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
CONFIG = """
sources:
  one: {type: files, path: one}
metrics:
  m:
    files: {source: one, measure: count, owner: ada}
    grows: {source: one, measure: count, direction: up}
    size: {source: one, measure: bytes}
    newest: {source: one, measure: newest_age}
rules:
  nightly: {schedule: "0 3 * * *", metrics: ["m.*"]}
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "dims.yaml").write_text(CONFIG)
    return load_config(None, {}, tmp_path)


def incident(kind: str, **changes: Any) -> Incident:
    columns: dict[str, Any] = dict.fromkeys(Incident.__slots__)
    columns |= {
        "id": 12,
        "story": 12,
        "metric": "m.files",
        "kind": kind,
        "state": "open",
        "version": 1,
        "severity": "urgent",
        "reason": "down 97.5 %",
        "value": 1,
        "unit": "files",
        "as_of": NOW - timedelta(hours=1),
        "first_as_of": NOW - timedelta(hours=3),
        "anchor": 40,
        "anchor_as_of": NOW - timedelta(days=2),
        "opened_at": NOW - timedelta(hours=3),
        "updated_at": NOW - timedelta(hours=1),
        "flaps": 0,
    }
    return Incident(**(columns | changes))


UNKNOWN: dict[str, Any] = {"value": None, "as_of": None, "anchor": None, "anchor_as_of": None}
CASES = {
    "lost: 40 -> 1 file, -97.5 %": incident("drift"),
    "lost: 40 -> 1 file, -97.5 %, expected 37.6 to 42": incident("drift", low=37.6, high=42.0),
    "drifted: 40 -> 80 files, +100.0 %": incident("drift", value=80),
    "drifted: 40 -> 1 file, -97.5 %": incident("drift", metric="m.grows"),
    "drifted: v1 -> v2, 100.0 %": incident("drift", anchor="v1", value="v2", unit=""),
    "drifted: 40 files -> null, 100.0 %": incident("drift", value=None),
    "lost: 0.5 -> 0.25 GB, -50.0 %": incident("drift", metric="m.gone", anchor=0.5, value=0.25, unit="GB"),
    "waits for approval: 40 -> 1 file, -97.5 %, request 7": incident("approval", request=7),
    "beyond its limit: 1 is below min = 10": incident("limit", reason="1 is below min = 10"),
    "in the future: 2030-01-01 00:00 UTC was 3 years ahead when DIMS read it": incident(
        "limit", reason="in the future: 2030-01-01 00:00 UTC was 3 years ahead when DIMS read it"
    ),
    "failing since 2026-11-30 09:00 UTC: the folder one does not exist\\x1b": incident(
        "failing", reason="the folder one does not exist\x1b", **UNKNOWN
    ),
    "stale: last measured 2026-11-30 11:00 UTC": incident("stale"),
    "stale: never measured": incident("stale", reason="never measured", **UNKNOWN),
    "lost, acknowledged: 40 -> 1 file, -97.5 %": incident("drift", state="acknowledged", acknowledged_by="ada"),
}


@pytest.mark.parametrize("sentence", CASES)
def test_a_sentence_has_the_label_and_what_is_wrong(config: Config, sentence: str) -> None:
    assert incident_sentence(config, CASES[sentence], NOW) == sentence


def test_the_sentence_of_a_silence_names_its_rule_and_since_when(config: Config) -> None:
    silence = incident(
        "silence", metric="rule:nightly", **UNKNOWN | {"first_as_of": None, "anchor_as_of": NOW - timedelta(hours=26)}
    )
    sentence = incident_sentence(config, silence, NOW)
    assert sentence == "silent: nothing from rule nightly since 2026-11-29 10:00 UTC"


def test_the_status_says_what_people_did_and_how_it_ended() -> None:
    hour = timedelta(hours=1)
    known = {"acknowledged_at": NOW - hour, "acknowledged_by": "ada", "note": "a new disk"}
    closed = {"state": "closed", "closed_at": NOW - 2 * hour}
    person = {"closed_by": "bo", "known_by": "token", "closing_reason": "we moved them"}
    assert incident_status(incident("drift"), NOW) == "open"
    assert incident_status(incident("drift", flaps=3), NOW) == "open, flaps: it came back 3 times"
    assert (
        incident_status(incident("drift", state="acknowledged", **known), NOW)
        == "acknowledged by ada 1 hour ago: “a new disk”"
    )
    ended = incident("drift", resolution="recovered", **closed)
    assert incident_status(ended, NOW) == "recovered 2 hours ago"
    expected = incident("drift", resolution="expected", **closed, **person)
    assert incident_status(expected, NOW) == "closed as expected by bo 2 hours ago: “we moved them”"


def test_the_document_has_every_column_and_what_every_output_says(config: Config) -> None:
    document = loads(json_text(incident_document(config, incident("drift"), NOW, story_size=9)))
    assert document.keys() >= set(Incident.__slots__)
    assert document["label"] == "lost"
    assert document["sentence"] == "lost: 40 -> 1 file, -97.5 %"
    assert (document["owner"], document["story_size"], document["drift_pct"]) == ("ada", 9, 97.5)
    assert (document["value"], document["anchor"], document["rule"]) == (1, 40, None)
    silence = incident_document(config, incident("silence", metric="rule:nightly", **UNKNOWN), NOW)
    assert (silence["rule"], silence["owner"], silence["drift_pct"]) == ("nightly", None, None)
