"""Test points in time, the differences between two of them, and the commands that show these."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from dims_worker.analysis.comparison import MetricDifference, check_snapshot_name, compare_metrics, parse_moment
from dims_worker.approvals.decisions import decide_request
from dims_worker.config import load_config
from dims_worker.domain.approvers import Decider
from dims_worker.errors import ConfigError, NotFound
from dims_worker.store import snapshots
from dims_worker.store.engine import transaction
from tests.conftest import REPO, Project
from tests.fixtures.long_history import fill
from tests.integration.helpers import Flow

CONFIG = load_config(REPO / "config" / "dims.yaml", {}, REPO)
TOTAL = "s3_storage.total_objects"


def keep(engine: Engine, name: str) -> None:
    with transaction(engine) as connection:
        assert snapshots.take_snapshot(connection, name, daily=False)


def between(flow: Flow, since: str, until: str = "now", pattern: str = "*") -> dict[str, MetricDifference]:
    with transaction(flow.engine) as connection:
        found = compare_metrics(
            connection, flow.config, parse_moment(connection, since), parse_moment(connection, until), pattern
        )
    return {one.metric: one for one in found}


def test_a_difference_has_both_values_the_change_and_the_decision(flow: Flow) -> None:
    flow.serve(c=100, a=1)
    keep(flow.engine, "start")
    assert between(flow, "start") == {}
    flow.serve(c=150, a=1)
    held = between(flow, "start")["m.c"]
    assert held.then and held.now and held.decision
    assert (held.then.value, held.now.value, held.change, held.drift_pct, held.kind) == (100, 150, 50, 50, "changed")
    assert (held.decision.state, held.decision.decided_by) == ("open", None)
    keep(flow.engine, "middle")
    request = flow.open("m.c")
    assert request is not None
    ada = Decider("ada", "option")
    decide_request(flow.engine, flow.config, "m.c", "approved", version=request.version, person=ada, note="n")
    flow.serve(c=160)
    flow.serve(b=3)
    done = between(flow, "start")["m.c"].decision
    assert done
    assert (done.state, done.decided_by, done.note) == ("approved", "ada", "n")
    middle = between(flow, "start", "middle")
    assert middle["m.c"].now and middle["m.c"].now.value == 150
    assert middle["m.c"].decision and middle["m.c"].decision.state == "open"
    new = between(flow, "start")["m.b"]
    assert (new.kind, new.then, new.change) == ("new", None, None)
    assert new.now and new.now.value == 3
    assert "m.b" not in middle
    assert set(between(flow, "start", pattern="m.c")) == {"m.c"}


def test_an_instant_and_a_snapshot_of_it_give_the_same_differences(flow: Flow) -> None:
    flow.serve(c=100, a=1)
    flow.serve(b=7)
    keep(flow.engine, "then")
    with transaction(flow.engine) as connection:
        at = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    flow.serve(c=104, a=2)
    flow.serve(b=7)
    by_name, by_time = between(flow, "then"), between(flow, at.isoformat())
    assert {"m.a", "m.c"} <= by_name.keys() == by_time.keys()
    assert "m.b" not in by_name
    assert {name: (one.then, one.now) for name, one in by_name.items()} == {
        name: (one.then, one.now) for name, one in by_time.items()
    }


def test_a_retired_metric_is_a_difference(flow: Flow) -> None:
    flow.serve(c=100, a=1)
    keep(flow.engine, "start")
    with transaction(flow.engine) as connection:
        connection.execute(text("UPDATE dims_metrics SET retired_at = clock_timestamp() WHERE metric = 'm.c'"))
    gone = between(flow, "start")["m.c"]
    assert (gone.kind, gone.now) == ("retired", None)


def test_a_snapshot_leaves_out_retired_metrics(flow: Flow) -> None:
    flow.serve(c=100, a=1)
    with transaction(flow.engine) as connection:
        connection.execute(text("UPDATE dims_metrics SET retired_at = clock_timestamp() WHERE metric = 'm.c'"))
    keep(flow.engine, "after")
    with transaction(flow.engine) as connection:
        kept = snapshots.find_snapshot(connection, "after")
        assert kept
        assert "m.c" not in snapshots.values_in(connection, kept.id)
        assert "m.a" in snapshots.values_in(connection, kept.id)


def test_the_integer_1_and_true_are_different(flow: Flow) -> None:
    flow.serve(c=1)
    keep(flow.engine, "one")
    with transaction(flow.engine) as connection:
        connection.execute(text("UPDATE dims_metrics SET value = 'true' WHERE metric = 'm.c'"))
    assert between(flow, "one")["m.c"].change is None


def test_points_in_time_are_names_durations_and_dates(engine: Engine) -> None:
    with transaction(engine) as connection:
        snapshots.take_snapshot(connection, "2026-11-01", daily=True)
        assert parse_moment(connection, "2026-11-01").snapshot is not None
        assert parse_moment(connection, "2026-11-02").at == datetime(2026, 11, 2, tzinfo=UTC)
        assert parse_moment(connection, "2026-11-02T05:00+02:00").at == datetime(2026, 11, 2, 3, tzinfo=UTC)
        week = datetime.now(UTC) - parse_moment(connection, "7d").at
        assert timedelta(days=6.9) < week < timedelta(days=7.1)
        for wrong in ("yesterday", "7x", "9999999999w", ""):
            with pytest.raises(NotFound):
                parse_moment(connection, wrong)
        with pytest.raises(ConfigError):
            compare_metrics(connection, CONFIG, parse_moment(connection, "now"), parse_moment(connection, "7d"))


@pytest.mark.parametrize("name", ["2026-11-01", "7d", "now", "", "a b", "-x", "x" * 101])
def test_a_snapshot_name_cannot_look_like_a_time(name: str) -> None:
    with pytest.raises(ConfigError):
        check_snapshot_name(name)
    assert check_snapshot_name("before-import_2.0") == "before-import_2.0"


def test_the_commands_show_a_long_history(project: Project, engine: Engine) -> None:
    fill(engine, CONFIG, until=datetime.now(UTC), days=120)
    project.env["DIMS_CONFIG"] = str(REPO / "config" / "dims.yaml")
    table = project.dims("history", TOTAL, check=True).stdout
    assert len(table.splitlines()) == 30 + 5  # without a terminal, one line per reading
    picture = project.dims("history", TOTAL, "--days", "90", "--chart", check=True).stdout
    assert "◆ 1 held" in picture
    assert "90 readings in 90 days" in picture
    assert "\x1b" not in picture
    assert max(map(len, picture.splitlines())) <= 100
    assert len(json.loads(project.dims("history", TOTAL, "--json", check=True).stdout)["readings"]) == 30
    project.dims("snapshot", "take", "before-import", "--note", "the season", check=True)
    assert project.dims("snapshot", "take", "before-import").returncode == 1
    assert project.dims("snapshot", "take", "2026-11-01").returncode == 2
    listed = json.loads(project.dims("snapshot", "list", "--json", check=True).stdout)
    (one,) = listed["snapshots"]
    assert (one["name"], one["note"], one["daily"]) == ("before-import", "the season", False)
    assert "before-import" in project.dims("snapshot", "list", check=True).stdout
    document = json.loads(project.dims("diff", "--since", "60d", "--json", check=True).stdout)
    found = {one["metric"]: one for one in document["metrics"]}
    assert found[TOTAL]["now"] - found[TOTAL]["then"] == found[TOTAL]["change"] > 0
    assert type(found[TOTAL]["now"]) is int
    assert found[TOTAL]["decision"]["state"] == "open"
    shown = project.dims("diff", "s3_storage.*", "--since", "60d", check=True).stdout
    assert f"waits for approval (request {found[TOTAL]['decision']['request']})" in shown
    assert "0 metrics changed" in project.dims("diff", "--since", "before-import", check=True).stdout
    project.dims("snapshot", "delete", "before-import", check=True)
    assert project.dims("diff", "--since", "before-import").returncode == 2
