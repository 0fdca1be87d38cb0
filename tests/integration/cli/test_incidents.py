"""Test `dims incidents`, `dims changes`, and what other commands show of incidents, on a real database."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import Engine

from dims_worker.cli.incidents import by_story, exit_code
from dims_worker.cli.main import main
from dims_worker.store.engine import clock, transaction
from dims_worker.store.incidents import Incident, find_incident, insert_incidents, open_incidents
from dims_worker.text.activity import ActivityFollower
from tests.conftest import Project
from tests.integration.cli.test_explain import documented_keys
from tests.integration.helpers import Flow

CONFIG = """
sources:
  tree: {type: files, path: "."}
metrics:
  m:
    files: {source: tree, measure: count, paths: "data/**", owner: ada}
    bytes: {source: tree, measure: bytes, paths: "data/**"}
    held: {source: tree, measure: count, paths: "data/**", critical: true}
rules:
  changed: {on: dims.files.changed}
"""
Open = Callable[..., Incident]


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Dims = Callable[..., Result]


@pytest.fixture
def dims(project: Project, monkeypatch: pytest.MonkeyPatch) -> Dims:
    """Run `dims` in the folder of the project, in this process."""
    monkeypatch.chdir(project.folder)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, code: int = 0) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def lost(project: Project, dims: Dims, engine: Engine) -> Incident:
    """The incident of a project that has lost 39 of 40 files."""
    project.write({"dims.yaml": CONFIG, **{f"data/{number}": "x" * 100 for number in range(40)}})
    dims("verify", "--update")
    for number in range(1, 40):
        (project.folder / f"data/{number}").unlink()
    dims("verify", "--update", code=1)
    return active(engine)["m.files", "drift"]


def active(engine: Engine) -> dict[tuple[str, str], Incident]:
    with transaction(engine) as connection:
        return {(each.metric, each.kind): each for each in open_incidents(connection)}


def incident(engine: Engine, number: int) -> Incident:
    with transaction(engine) as connection:
        found = find_incident(connection, number)
    assert found
    return found


def document(dims: Dims, *arguments: str, code: int = 0) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(dims(*arguments, "--json", code=code).out)
    return loaded


def test_a_loss_is_listed_shown_acknowledged_and_closed(lost: Incident, dims: Dims, engine: Engine) -> None:
    listed = dims("incidents", code=1)
    row = next(line for line in listed.out.splitlines() if " m.files " in line)
    assert "lost" in row and "40 -> 1 file, -97.5 %" in row and " ada " in row and "open" in row

    shown = dims("incidents", "show", str(lost.id)).out
    assert shown.startswith(f"incident {lost.id}, version 1: m.files: lost\n")
    assert "  before       40 files, measured" in shown
    assert f"  next         dims incidents close {lost.id} --reason TEXT" in shown
    hint = f"  incident     lost: 40 -> 1 file, -97.5 %; open   (dims incidents show {lost.id})"
    assert hint in dims("explain", "m.files").out.splitlines()

    done = dims("incidents", "ack", str(lost.id), "--note", "I restore them", "--as", "ada")
    assert done.out.startswith(f"incident {lost.id} acknowledged by ada: m.files: lost, acknowledged: 40 -> 1 file")
    listed = dims("incidents", "list", "--metric", "m.files", code=1)
    assert "acknowledged by ada" in listed.out and "I restore them" in listed.out

    dims("incidents", "close", "m.files", "--reason", "they moved", "--as", "ada")
    closed = incident(engine, lost.id)
    assert (closed.state, closed.resolution, closed.closed_by) == ("closed", "expected", "ada")
    assert closed.closing_reason == "they moved"
    assert dims("incidents", "--metric", "m.files").out == "no incident is open\n"
    past = dims("incidents", "--state", "closed").out
    assert "closed as expected by ada" in past and "“they moved”" in past


def test_a_held_value_is_decided_by_its_request(lost: Incident, dims: Dims, engine: Engine) -> None:
    held = active(engine)["m.held", "approval"]
    shown = dims("incidents", "show", str(held.id)).out
    assert f"  next         dims approvals approve {held.request} --version 1" in shown
    assert "incidents close" not in shown
    listed = dims("approvals", "list").out
    assert "2 other incidents not closed: `dims incidents` lists them" in listed


def test_closing_the_incident_of_a_held_value_approves_it(lost: Incident, dims: Dims, engine: Engine) -> None:
    held = active(engine)["m.held", "approval"]
    dims("incidents", "close", str(held.id), "--reason", "it is fine", "--as", "ada")
    closed = incident(engine, held.id)
    assert (closed.state, closed.resolution, closed.closed_by) == ("closed", "approved", "ada")
    assert "it is fine" in dims("approvals", "history").out


def test_a_story_is_decided_at_once_and_an_error_does_not_stop_the_others(
    lost: Incident, dims: Dims, engine: Engine
) -> None:
    assert {each.story for each in active(engine).values()} == {lost.story}
    first, second, third = sorted(each.id for each in active(engine).values())
    reason = ("--reason", "a new season")
    dims("incidents", "close", str(second), *reason)
    done = dims("incidents", "close", str(second), str(first), *reason, code=1)  # one of them is closed already
    assert done.out.count(" closed by ") == 1
    assert done.err.startswith(f"dims: incident {second} is closed already")
    assert dims("incidents", "close", "--story", str(lost.story), *reason).out.count(" closed by ") == 1
    assert active(engine) == {}
    assert incident(engine, third).resolution in ("approved", "expected")


def test_the_json_of_incidents_has_every_column(lost: Incident, dims: Dims) -> None:
    listed = document(dims, "incidents", code=1)
    found = next(each for each in listed["incidents"] if each["metric"] == "m.files")
    assert (found["label"], found["sentence"][:22], found["owner"]) == ("lost", "lost: 40 -> 1 file, -9", "ada")
    assert (found["story_size"], found["anchor"], found["value"], found["drift_pct"]) == (3, 40, 1, 97.5)
    assert listed["active"] == 3
    (shown,) = document(dims, "incidents", "show", str(lost.id))["incidents"]
    assert set(shown) == documented_keys("dims incidents") - {"active", "incidents"}
    assert shown.keys() - found.keys() == {"others", "approval", "events", "unexplained", "gaps"}
    assert len(shown["others"]) == 2
    assert shown["events"]["number"] >= 1


def test_changes_and_history_show_the_loss_with_its_incident(lost: Incident, dims: Dims) -> None:
    changes = document(dims, "changes")["changes"]
    change = next(each for each in changes if each["metric"] == "m.files")
    nested = {"since", "changes", "how", "at", "by", "known_by", "note", "request"}
    assert set(change) == documented_keys("dims changes") - nested
    assert (change["before"], change["after"], change["accepted"]["how"]) == (40, 1, "policy")
    assert change["incident"]["id"] == lost.id
    assert {each["metric"] for each in changes} == {"m.files", "m.bytes"}  # a held value is not accepted
    shown = dims("changes", "--since", "1h", "--limit", "1").out
    assert "  accepted     by policy" in shown and "; --limit 1 may hide others" in shown
    history = dims("history", "m.files", "--table").out
    rows = [line.split() for line in history.splitlines() if " extreme " in line or " new " in line]
    assert [row[-1] for row in rows] == ["baseline", str(lost.id)]
    assert f"\nincident {lost.id}, since " in history
    assert [each["id"] for each in document(dims, "history", "m.files")["incidents"]] == [lost.id]
    assert "neither a span" in dims("changes", "--since", "yesterday", code=2).err


def test_names_and_versions_are_checked_before_anything_changes(lost: Incident, dims: Dims, engine: Engine) -> None:
    number, story = str(lost.id), str(lost.story)
    for arguments, code, message in (
        (("ack",), 2, "INCIDENT is missing"),
        (("ack", number, "999"), 2, "there is no incident 999"),
        (("ack", "9" * 30), 2, "there is no incident 999"),
        (("ack", "--story", "999"), 2, "story 999 has no open incident"),
        (("ack", "m.nothing"), 2, "m.nothing has no open incident"),
        (("ack", "--story", story, "--version", "1"), 2, "--version is about one incident"),
        (("ack", number, "--version", "7"), 1, "has changed since version 7"),
        (("close", number), 2, "--reason"),
        (("close", number, "--reason", " "), 2, "needs a reason"),
        (("list", "--metric", "m.nothing"), 2, "no metric is called m.nothing"),
        (("--json", "show", number), 2, "unexpected extra argument"),
    ):
        assert message in dims("incidents", *arguments, code=code).err
    assert {each.state for each in active(engine).values()} == {"open"}


@pytest.fixture
def opened(flow: Flow) -> Open:
    """Return a function that opens an incident."""

    def insert(metric: str = "m.a", **columns: Any) -> Incident:
        with transaction(flow.engine) as connection:
            now = clock(connection)
            row = {"metric": metric, "kind": "drift", "severity": "high", "reason": "down", "opened_at": now}
            return insert_incidents(connection, [row | {"updated_at": now} | columns])[0]

    return insert


def test_the_exit_code_counts_severities_and_held_values(opened: Open) -> None:
    medium, high = opened("m.a", severity="medium"), opened("m.b")
    held = opened("m.c", kind="approval", severity="low")
    assert exit_code([], "low") == 0
    assert exit_code([medium], "high") == 0
    assert exit_code([medium], "medium") == 1
    assert exit_code([medium, high], "high") == 1
    assert exit_code([held], "urgent") == 1


def test_the_worst_story_comes_first_and_its_worst_incident(flow: Flow, opened: Open) -> None:
    low, urgent, medium = (
        opened("m.a", severity="low"),
        opened("m.b", severity="urgent"),
        opened("m.c", severity="medium"),
    )
    with transaction(flow.engine) as connection:
        connection.exec_driver_sql(f"UPDATE dims_incidents SET story = {low.story} WHERE id = {urgent.id}")
        listed = open_incidents(connection)
    assert [each.id for each in by_story(listed)] == [urgent.id, low.id, medium.id]


def test_following_shows_when_incidents_open_change_and_end(flow: Flow, opened: Open) -> None:
    old = opened("m.b")
    follower = ActivityFollower(flow.config)
    with transaction(flow.engine) as connection:
        follower.start(connection)
        assert list(follower.sentences(connection)) == []
    new = opened("m.a", value=1, anchor=40, unit="files", as_of=flow.clock(), anchor_as_of=flow.clock())
    with transaction(flow.engine) as connection:
        (sentence,) = follower.sentences(connection)
        assert sentence[10:] == (
            f"incident {new.id} opened: m.a: lost: 40 -> 1 file, -97.5 % (dims incidents show {new.id})"
        )
        assert list(follower.sentences(connection)) == []
        connection.exec_driver_sql(
            "UPDATE dims_incidents SET state = 'acknowledged', version = 2, acknowledged_at = clock_timestamp(), "
            f"acknowledged_by = 'ada', updated_at = clock_timestamp() WHERE id = {new.id}"
        )
        (sentence,) = follower.sentences(connection)
        assert f"incident {new.id} changed: m.a: lost, acknowledged: 40 -> 1 file" in sentence
        assert sentence.endswith("acknowledged by ada just now")
        connection.exec_driver_sql(
            "UPDATE dims_incidents SET state = 'closed', version = version + 1, resolution = 'recovered', "
            "closed_at = clock_timestamp()"
        )
        ended = list(follower.sentences(connection))
        assert [sentence.partition(": ")[0][10:] for sentence in ended] == [
            f"incident {old.id} ended",
            f"incident {new.id} ended",
        ]
        assert all(sentence.endswith("; recovered just now") for sentence in ended)
        short = opened_and_closed(connection)
        (sentence,) = follower.sentences(connection)
        assert f"incident {short} ended" in sentence


def opened_and_closed(connection: Any) -> int:
    """Insert an incident that ended before the follower could see it open."""
    now = clock(connection)
    row = {"metric": "m.e", "kind": "failing", "severity": "high", "reason": "no folder", "opened_at": now}
    ended = {"state": "closed", "closed_at": now, "resolution": "recovered", "updated_at": now}
    return insert_incidents(connection, [row | ended])[0].id
