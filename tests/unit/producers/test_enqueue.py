from __future__ import annotations

import io
import json
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dims_producers.enqueue import main, publish
from dims_producers.spool import Spool
from dims_worker.errors import EventError


@pytest.fixture(autouse=True)
def _here(home: Path, monkeypatch) -> None:
    monkeypatch.chdir(home.parent)


def test_publish_sends_and_returns_the_id(broker, home: Path) -> None:
    id = publish("scraper_complete", "espn", {"games": 12}, env={"DIMS_BROKER_URL": broker.url})
    (event,) = broker.events()
    assert (event.id, event.type, event.subject, event.data) == (id, "scraper_complete", "espn", {"games": 12})
    assert event.producer.startswith("dims:enqueue.") and uuid.UUID(id).version == 4
    assert len(Spool(home / "spool")) == 0


def test_publish_keeps_the_event_if_the_broker_is_unreachable_or_unknown(broker, home: Path, monkeypatch) -> None:
    broker.set_unreachable()
    first = publish("t", env={"DIMS_BROKER_URL": broker.url})
    second = publish("t", home=home)
    assert len(Spool(home / "spool")) == 2
    broker.set_unreachable(False)
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    third = publish("t", id="mine")
    assert [e.id for e in broker.events()] == [first, second, third] and third == "mine"


@pytest.mark.parametrize(
    "data", [{"when": datetime(2026, 1, 1, tzinfo=UTC)}, {"x": float("nan")}, {"x": "\0"}, {"x": "\ud800"}]
)
def test_publish_refuses_what_json_cannot_hold(data, home: Path) -> None:
    with pytest.raises(EventError):
        publish("t", data=data, env={})
    assert not (home / "spool").exists()


def test_main_prints_the_id(broker, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert main(["t", "--subject", "s", "--data", '{"a": "€"}', "--id", "i1"]) == 0
    out = capsys.readouterr()
    assert (out.out, out.err) == ("i1\n", "")
    (event,) = broker.events()
    assert (event.id, event.subject, event.data) == ("i1", "s", {"a": "€"})


@pytest.mark.parametrize("is_known", [True, False])
def test_main_reports_that_the_event_waits(broker, monkeypatch, capsys, home: Path, is_known: bool) -> None:
    broker.set_unreachable()
    if is_known:
        monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    assert main(["t", "--home", str(home)]) == 0
    out = capsys.readouterr()
    assert uuid.UUID(out.out.strip()) and f"waits in {home / 'spool'}" in out.err
    assert "secret" not in out.err
    assert len(Spool(home / "spool")) == 1


def test_data_is_read_from_a_file_or_standard_input(broker, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    (tmp_path / "d.json").write_text(json.dumps({"n": 1}))
    assert main(["t", "--data", f"@{tmp_path / 'd.json'}"]) == 0
    stdin = io.TextIOWrapper(io.BytesIO('{"n": "ü"}'.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["t", "--data", "-"]) == 0
    assert [e.data["n"] for e in broker.events()] == [1, "ü"]


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["t", "--data", "{"], "--data is not JSON"),
        (["t", "--data", "[1]"], "must be a JSON object"),
        (["t", "--data", '{"x": NaN}'], "NaN"),
        (["t", "--data", "@/no/such"], "cannot read /no/such"),
        (["t", "--data", "[" * 100_000], "--data is not JSON"),
        (["", "--data", "{}"], "type must be a non-empty string"),
        (["t", "--subject", "x" * 3000], "subject has 3,000 characters"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_sentence(argv, expected: str, capsys, home: Path) -> None:
    assert main(argv) == 2
    out = capsys.readouterr()
    assert not out.out and expected in out.err
    assert not (home / "spool").exists()


def test_an_invalid_broker_url_is_reported(home: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DIMS_BROKER_URL", "http://:hunter2@x")
    assert main(["t"]) == 0
    err = capsys.readouterr().err
    assert "not the URL of a broker" in err and "hunter2" not in err and len(Spool(home / "spool")) == 1


def test_an_event_that_is_neither_sent_nor_stored_is_exit_code_3(broker, monkeypatch, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert main(["t", "--home", str(tmp_path / "file")]) == 3
    monkeypatch.setenv("DIMS_BROKER_URL", broker.url)
    broker.set_unreachable()
    assert main(["t", "--home", str(tmp_path / "file")]) == 3
    assert not capsys.readouterr().out
