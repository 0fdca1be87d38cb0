"""Test `dims explain` on a database: the complete output, for metrics of every type and in every state."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dims_worker.analysis.explanation import Explanation, explain_metric, explain_request
from dims_worker.approvals.decisions import BaselineInput, Choice, decide_request, load_request, set_baselines
from dims_worker.config import Config, load_config
from dims_worker.domain.approvers import Decider
from dims_worker.errors import NotFound
from dims_worker.events import SCHEDULE_TICK, Event
from dims_worker.pipeline.record import Measurement, record_run
from dims_worker.probes.base import Reading
from dims_worker.store.approval_requests import expire_requests
from dims_worker.store.baselines import Acceptance, accepted_since, last_accepted
from dims_worker.store.engine import transaction
from dims_worker.text.explanation import explanation_document, explanation_lines, headline
from tests.integration.helpers import Down, Flow, event

ADA = Decider("ada", "option")
Make = Callable[[str], Flow]
CONFIG = """
sources:
  lake: {type: s3, bucket: lake}
  repo: {type: git, path: "."}
  base: {type: sql, url: "sqlite://"}
metrics:
  m:
    objects: {source: lake, measure: count, prefix: raw/, critical: true}
    size: {source: lake, measure: bytes, prefix: raw/, unit: GB, precision: 2}
    last: {source: lake, measure: newest_age, prefix: raw/, max_age: 48h}
    commits: {source: repo, measure: commits}
    rows: {source: base, query: SELECT 1, unit: rows}
    cost: {derive: "m.size * prices.gb + m.size.extra", unit: USD, precision: 2}
    off: {source: base, query: SELECT 2, enabled: false}
rules:
  uploads: {on: "com.amazonaws.s3.*"}
  commits: {on: "dims.git.*"}
  scraped: {on: dims.scraper.complete, metrics: ["m.*"]}
  daily: {schedule: "0 9 * * *", metrics: ["m.*"]}
policy: {categories: {m: {require_approval_pct: 15}}}
prices: {gb: 0.5}
"""
_keys = itertools.count()


@pytest.fixture
def flow(make_flow: Make) -> Flow:
    return make_flow(CONFIG)


def explain(flow: Flow, metric: str, config: Config | None = None) -> Explanation:
    with transaction(flow.engine) as connection:
        return explain_metric(connection, config or flow.config, metric)


def explain_output(flow: Flow, metric: str, text: str | None = None) -> str:
    """Return what `dims explain` prints, with T for each duration. `text` is a configuration not applied yet."""
    config = flow.config
    if text is not None:
        (config.project / "dims.yaml").write_text(text)
        config = load_config(None, {}, config.project)
    one = explain(flow, metric, config)
    assert explanation_document(config, one)["metric"] == metric  # the document exists for every state
    lines = explanation_lines(config, one)
    text = "\n".join([headline(config, one), *(f"  {about:<13}{sentence}" for about, sentence in lines)])
    text = text.replace("just now", "0 seconds ago")
    text = re.sub(r"\d[\d.]* (second|minute|hour|day|week)s?(?= ago| for a|\n|,|$)", "T", text)
    return re.sub(r"\(\d{4}-[^)]* UTC\)", "(UTC)", text)


def lines_by_topic(flow: Flow, metric: str, text: str | None = None) -> dict[str, str]:
    """Return the same sentences by topic."""
    return {line[2:15].strip(): line[15:] for line in explain_output(flow, metric, text).splitlines()[1:]}


def upload(key: str | None = None, kind: str = "ObjectCreated:Put") -> Event:
    key = key or f"raw/2026/{next(_keys):05}.json"
    data = {"bucket": "lake", "key": key}
    return Event.new(f"com.amazonaws.s3.{kind}", "aws:s3", now=datetime.now(UTC), subject=key, data=data)


def choose(flow: Flow, choice: Choice, note: str | None = "counted again", metric: str = "m.objects") -> None:
    version = load_request(flow.engine, metric).version
    decide_request(flow.engine, flow.config, metric, choice, version=version, person=ADA, note=note)


def block(text: str) -> str:
    return text.strip("\n")


# --- complete outputs


def test_a_held_reading_is_explained_with_its_baseline_and_evidence(flow: Flow) -> None:
    set_baselines(flow.engine, flow.config, [BaselineInput("m.objects", 172_726, "the audit of October")], ADA)
    first = next(_keys)
    flow.store(*[upload(f"raw/2026/{first + n}.json") for n in range(3)], event("dims.scraper.complete"))
    flow.serve(objects=205_000)
    assert explain_output(flow, "m.objects") == block(f"""
m.objects: 205,000 objects, waits for approval
  incident     waits for approval: 172,726 -> 205,000 objects, +18.7 %, request 2; open   (dims incidents show 1)
  reading      205,000 objects, measured T ago (UTC), run 1 of lake
  baseline     172,726 objects, set by hand by ada (option) T ago: “the audit of October” (request 1)
  drift        |205,000 - 172,726| / 172,726 x 100 = 18.7 %
  status       major: 15 % or more, less than 25 % (thresholds: default)
  expected     none: 0 of 14 accepted daily values, so the drift alone counts
               values of incident 1 (open) do not teach
  severity     high: a major drift of a volatile metric (volatility: default)
  tier         approve: it is critical (metric), and 18.7 % reaches require_approval_pct = 15 (category m)
  outcome      held: the baseline does not change, and request 2 waits for approval
  events       5 events between the baseline and the reading
  upload       3 created in s3://lake/raw/2026/, the newest {first + 2}.json, {first + 1}.json, {first}.json
  others       1 dims.scraper.complete
  requested    1 manual run (no change event)
  seen         +32,274 objects; events report 3 created and 0 removed
  unexplained  32,271 objects more than events can explain. Likely: events that name no keys
  request      2, version 1, opened T ago; a reading of 200,900 to 209,100 objects updates it
  decide       dims approvals approve 2 --version 1   (or reject)
  before       172,726 objects set by hand by ada (option) T ago: “the audit of October” (request 1)
""")


def test_the_formula_of_a_derived_metric_shows_its_values(flow: Flow) -> None:
    def measure(size: float) -> None:
        claim = flow.claimed("m.size")
        readings = {"m.size": Reading("m.size", size, "GB", "exact", None, {"extra": 3})}
        with transaction(flow.engine) as connection:
            record_run(
                connection, flow.config, Measurement(readings, claim.as_of, "event", "test", "lake", claim=claim)
            )

    assert explain_output(flow, "m.cost").splitlines()[0] == "m.cost: not measured yet"
    measure(118.25)
    flow.store(upload())
    measure(130)
    assert explain_output(flow, "m.cost") == block(
        """
m.cost: 68.00 USD, ok
  reading      68.00 USD, measured T ago (UTC), run 2 of lake
  baseline     68.00 USD, accepted by policy T ago (run 2)
  formula      m.size * prices.gb + m.size.extra = 130 * 0.5 + 3 = 68.00 USD
  input        m.size: 130 GB, T ago
  input        prices.gb: 0.5, a price
  input        m.size.extra: 3, T ago
  against      62.12 USD, the first good reading, T ago (run 1)
  drift        |68 - 62.125| / 62.125 x 100 = 9.5 %
  status       moderate: 5 % or more, less than 15 % (thresholds: default)
  expected     none: 0 of 14 accepted daily values, so the drift alone counts
  severity     medium: a moderate drift of a volatile metric (volatility: default)
  tier         auto: severity is below high
  outcome      accepted: it became the baseline
  events       2 events between the baseline and the reading
  upload       1 created in s3://lake/raw/2026/: 00000.json
  requested    1 manual run (no change event)
""".replace("00000", f"{next(_keys) - 1:05}")
    )


def test_a_commit_is_named_by_its_hash_and_subject(flow: Flow) -> None:
    flow.serve(commits=10)
    root = str(flow.config.project)
    flow.store(event("dims.git.commit", commit="3f2a9c1d5e", subject="Fix the loader", root=root, paths=["a.py"]))
    flow.serve(commits=12)
    assert explain_output(flow, "m.commits") == block("""
m.commits: 12 commits, drifted
  incident     drifted: 10 -> 12 commits, +20.0 %; open   (dims incidents show 1)
  reading      12 commits, measured T ago (UTC), run 2 of repo
  baseline     12 commits, accepted by policy T ago (run 2)
  against      10 commits, the first good reading, T ago (run 1)
  drift        |12 - 10| / 10 x 100 = 20.0 %
  status       major: 15 % or more, less than 25 % (thresholds: default)
  expected     none: 0 of 14 accepted daily values, so the drift alone counts
               values of incident 1 (open) do not teach
  severity     high: a major drift of a volatile metric (volatility: default)
  tier         notify: severity is high or worse; it is not critical (default), so it needs no approval
  outcome      accepted: it became the baseline
  events       2 events between the baseline and the reading
  commit       3f2a9c1 “Fix the loader”, T ago
  requested    1 manual run (no change event)
""")


def test_an_age_is_judged_at_the_current_time(flow: Flow) -> None:
    instant = (flow.clock() - timedelta(hours=60)).isoformat()
    claim = flow.claimed("m.last")
    readings = {"m.last": Reading("m.last", instant, "hours", "exact")}
    with transaction(flow.engine) as connection:
        record_run(connection, flow.config, Measurement(readings, claim.as_of, "event", "test", "lake", claim=claim))
    assert explain_output(flow, "m.last") == block(f"""
m.last: T, beyond its limit
  incident     beyond its limit: 2.5 days old, more than max_age = 2 days; open   (dims incidents show 1)
  reading      60.0 hours (since {instant}), measured T ago (UTC), run 1 of lake
  status       new: it is the first good reading
  limit        60.0 hours is more than max_age = 2 days (metric)
  expected     none: it is an age
  severity     high: a broken limit makes it high or worse
  tier         notify: severity is high or worse
  outcome      accepted: it became the baseline
""")
    assert explain(flow, "m.last").evidence is None


def test_unmeasured_disabled_and_unknown_metrics(flow: Flow) -> None:
    assert explain_output(flow, "m.rows") == block("""
m.rows: not measured yet
  baseline     none: the next good reading becomes it
""")
    assert explain_output(flow, "m.off") == block("""
m.off: off
  off          measured only if you name it in full (enabled: false)
  baseline     none: the next good reading becomes it
""")
    flow.record(flow.claimed("m.rows"), {"m.rows": Down("no such table: games")})
    assert explain_output(flow, "m.rows") == block("""
m.rows: failing; not measured yet
  failing      T ago: no such table: games; 1 failure in a row, next attempt in T
  due          has waited T for a measurement
  baseline     none: the next good reading becomes it
""")
    with pytest.raises(NotFound, match=r"no metric is called m\.unknown: `dims metrics` lists them"):
        explain_output(flow, "m.unknown")


# --- states


def test_text_booleans_and_null_have_readable_explanations(flow: Flow) -> None:
    for old, new, drift in (
        ("synced", "major_drift", "“synced” became “major_drift”: different, which counts as 100 %"),
        (True, False, "true became false: different, which counts as 100 %"),
        (None, 3, "null became 3 rows: different, which counts as 100 %"),
        (3, None, "3 rows became null: different, which counts as 100 %"),
    ):
        flow.do("UPDATE dims_metrics SET baseline_as_of = NULL")
        flow.serve(rows=old)
        flow.serve(rows=new)
        found = lines_by_topic(flow, "m.rows")
        assert found["drift"] == drift
        assert found["status"] == "extreme: 25 % or more (thresholds: default)"
        assert found["unexplained"] == "sql sources send no events, so the cause is unknown"
        shown = {str: new, bool: "false", type(None): "null", int: "3 rows"}[type(new)]
        assert found["baseline"] == f"{shown}, accepted by policy T ago (run {found['reading'].split('run ')[1][0]})"


def test_a_change_without_an_event_is_unexplained(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.store(event(SCHEDULE_TICK, rule="daily"))
    flow.serve(objects=104)
    found = lines_by_topic(flow, "m.objects")
    assert found["requested"] == "1 scheduled run, 1 manual run (no change event)"
    assert found["unexplained"] == "no event reports a change. Likely: S3's notifications do not reach DIMS"
    flow.store(upload())
    assert lines_by_topic(flow, "m.objects")["unexplained"].endswith(", or the event after the reading reports it")
    assert lines_by_topic(flow, "m.objects")["due"] == "has waited T for a measurement"


def test_reported_keys_count_by_the_last_event_of_each(flow: Flow) -> None:
    flow.serve(objects=100)
    one, two, three = (f"raw/x/{name}.json" for name in ("one", "two", "three"))
    removed = "ObjectRemoved:Delete"
    flow.store(upload(one), upload(one), upload(two), upload(three, removed))
    flow.store(upload(two, removed), upload("raw/x/four.json", "ObjectTagging:Put"))
    flow.serve(objects=103)
    found = lines_by_topic(flow, "m.objects")
    assert found["upload"] == "1 created, 2 removed in s3://lake/raw/x/, the newest two.json, three.json, one.json"
    assert found["others"] == "1 com.amazonaws.s3.ObjectTagging:Put"
    assert found["seen"] == "+3 objects; events report 1 created and 2 removed"
    assert found["unexplained"].startswith("2 objects more than events can explain")
    flow.store(*[upload(f"raw/y/{n}") for n in range(5)])
    flow.serve(objects=107)
    found = lines_by_topic(flow, "m.objects")
    assert found["seen"] == "+4 objects; events report 5 created and 0 removed"  # one key existed before
    assert "unexplained" not in found


def test_a_check_is_marked_as_one(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.look(objects=103)
    found = lines_by_topic(flow, "m.objects")
    assert explain_output(flow, "m.objects").splitlines()[0] == "m.objects: 103 objects, ok"
    assert found["reading"] == "103 objects, measured T ago (UTC), run 2, a check"
    assert found["outcome"] == "looked: a check does not change the baseline"
    assert found["baseline"] == "100 objects, the first good reading, T ago (run 1)"


def test_a_rejected_value_shows_its_band_and_who_rejected_it(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.serve(objects=150)
    choose(flow, "rejected", "a copy of last year")
    flow.serve(objects=151)
    found = lines_by_topic(flow, "m.objects")
    assert explain_output(flow, "m.objects").splitlines()[0] == "m.objects: 151 objects, drifted, acknowledged"
    assert found["outcome"] == (
        "rejected: the baseline does not change; "
        "a reading of 147 to 153 objects opens no new request until a value is accepted"
    )
    assert found["before"] == (
        "150 objects against 100 objects rejected by ada (option) T ago: “a copy of last year” (request 1)"
    )


def test_an_approved_value_shows_the_baseline_that_it_replaced(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.serve(objects=150)
    choose(flow, "approved")
    found = lines_by_topic(flow, "m.objects")
    assert explain_output(flow, "m.objects").splitlines()[0] == "m.objects: 150 objects, ok"
    assert found["baseline"] == "150 objects, approved by ada (option) T ago: “counted again” (request 1)"
    assert found["against"] == "100 objects, the first good reading, T ago (run 1)"
    assert found["drift"] == "|150 - 100| / 100 x 100 = 50.0 %"
    assert found["outcome"] == "approved: it became the baseline"
    assert "policy" not in found
    flow.serve(objects=150)
    flow.serve(objects=150)
    found = lines_by_topic(flow, "m.objects")
    assert found["baseline"] == (
        "150 objects, approved by ada (option) T ago: “counted again” (request 1); measured the same until T ago"
    )
    assert found["events"] == "1 event between the baseline and the reading, and no change"
    assert not {"against", "unexplained", "requested"} & found.keys()


def test_small_steps_are_compared_with_the_value_a_person_last_accepted(flow: Flow) -> None:
    for value in (100, 110, 120):
        flow.serve(objects=value)
    found = lines_by_topic(flow, "m.objects")
    assert found["baseline"] == "110 objects, accepted by policy T ago (run 2)"
    assert found["drift"] == "|120 - 110| / 110 x 100 = 9.1 %"
    assert found["person"] == (
        "|120 - 100| / 100 x 100 = 20.0 % from what a person last accepted: the first good reading, T ago (run 1)"
    )
    assert found["tier"] == (
        "approve: it is critical (metric), and 20.0 % from what a person last accepted "
        "reaches require_approval_pct = 15 (category m)"
    )
    choose(flow, "approved")
    found = lines_by_topic(flow, "m.objects")  # the value it was held against, although a person has accepted it since
    assert found["person"].startswith("|120 - 100| / 100 x 100 = 20.0 %")
    assert found["against"] == "110 objects, accepted by policy T ago (run 2)"


def test_a_reading_is_judged_against_a_baseline_that_was_set_later(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.serve(objects=150)
    set_baselines(flow.engine, flow.config, [BaselineInput("m.objects", 140)], ADA)
    found = lines_by_topic(flow, "m.objects")
    assert explain_output(flow, "m.objects").splitlines()[0] == "m.objects: 150 objects, ok"
    assert found["drift"] == "|150 - 140| / 140 x 100 = 7.1 %"
    assert found["outcome"] == "held: the baseline does not change, and its request has ended"
    assert not {"events", "unexplained", "policy"} & found.keys()
    assert found["before"] == "140 objects (was 100 objects) set by hand by ada (option) T ago (request 2)"


def test_failed_and_stale_metrics(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("unit: rows}", "unit: rows, stale_after: 1h}"))
    flow.serve(rows=7)
    flow.do("UPDATE dims_metrics SET as_of = as_of - interval '2 hours', baseline_as_of = as_of - interval '2 hours'")
    flow.do("UPDATE dims_metrics_history SET as_of = as_of - interval '2 hours'")
    flow.record(flow.claimed("m.rows"), {"m.rows": Down("the server is away\x1b[31m")})
    found = lines_by_topic(flow, "m.rows")
    assert explain_output(flow, "m.rows").splitlines()[0] == "m.rows: 7 rows, failing; stale"
    assert found["failing"].startswith(r"T ago: the server is away\x1b[31m; 1 failure in a row, next attempt in ")
    assert found["stale"] == ("not measured for T, longer than stale_after = 1 hour (metric): no event arrived")


def test_a_provisional_value_waits_for_its_input(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("m.size * prices.gb + m.size.extra", "m.size + m.rows"))
    spaced = CONFIG.replace("m.size * prices.gb + m.size.extra", "m . size + m.rows")
    assert "m . size" in lines_by_topic(flow, "m.cost", spaced)["formula"]  # spaces in a formula do not matter
    flow.serve(size=1.5)
    flow.serve(rows=2)
    flow.ask("m.size", "m.rows")
    claim = flow.claim("lake")
    flow.record(claim, {"m.size": 2.5})
    found = lines_by_topic(flow, "m.cost")
    assert found["reading"].startswith("3.50 USD, ")
    assert found["waits"] == "4.50 USD is provisional and has no verdict yet: m.rows is still due"
    assert found["formula"] == "m.size + m.rows = 2.5 + 2"
    assert found["input"].startswith("m.rows: 2 rows, T ago; due")
    flow.record(flow.claim("base"), {"m.rows": Down("away")})
    assert lines_by_topic(flow, "m.cost")["input"].endswith("; failed: away")


def test_a_derived_value_has_the_events_up_to_its_newest_input(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("m.size * prices.gb + m.size.extra", "m.size + m.rows"))
    flow.serve(rows=2)
    flow.store(upload())
    flow.serve(size=100)  # the first
    flow.store(upload(), upload())
    flow.serve(size=104)
    found = lines_by_topic(flow, "m.cost")
    assert flow.scalar("SELECT count(DISTINCT as_of) FROM dims_metrics_history WHERE metric = 'm.cost'") == 1
    assert found["against"] == "102 USD, the first good reading, T ago (run 2)"
    assert found["upload"].startswith("2 created in s3://lake/raw/2026/")
    assert "unexplained" not in found


def test_the_request_of_a_derived_metric_has_the_events_up_to_its_newest_input(make_flow: Make) -> None:
    text = CONFIG.replace("m.size * prices.gb + m.size.extra", "m.size + m.rows")
    flow = make_flow(text.replace("unit: USD,", "unit: USD, critical: true,"))
    flow.serve(rows=2)
    flow.serve(size=100)
    flow.store(upload(), upload())
    flow.serve(size=200)
    with transaction(flow.engine) as connection:
        found, _ = explain_request(connection, flow.config, load_request(flow.engine, "m.cost"))
    assert found is not None
    assert (found.reported.created, found.unexplained) == (2, None)
    choose(flow, "approved", metric="m.cost")
    with transaction(flow.engine) as connection:  # the approved reading has the same time
        again, _ = explain_request(connection, flow.config, load_request(flow.engine, "m.cost"))
    assert again is not None
    assert again.reported.created == 2


def test_a_retired_metric_keeps_its_data(flow: Flow, restart: Make) -> None:
    flow.serve(objects=100)
    flow.serve(objects=150)
    choose(flow, "rejected")
    gone = restart(CONFIG.replace("    objects: {source: lake, measure: count, prefix: raw/, critical: true}\n", ""))
    known = "acknowledged by ada T ago: “counted again”"
    assert explain_output(gone, "m.objects") == block(f"""
m.objects is no longer configured
  incident     drifted, acknowledged: 100 -> 150 objects, +50.0 %; {known}   (dims incidents show 2)
  reading      150 objects, measured T ago (UTC), run 2 of lake
  retired      T ago (UTC); its data stays, and it is never due
  baseline     100 objects, the first good reading, T ago (run 1)
  outcome      rejected: the baseline does not change
  events       1 event between the baseline and the reading
  requested    1 manual run (no change event)
  unexplained  no event reports a change
  before       150 objects against 100 objects rejected by ada (option) T ago: “counted again” (request 1)
""")
    assert lines_by_topic(gone, "m.objects", CONFIG)["retired"].endswith(
        "it is configured again, and becomes due when a worker starts with this configuration"
    )


OTHER = CONFIG.replace("measure: count, prefix: raw/", "measure: count, prefix: other/")


def test_a_metric_that_measures_something_else_now_has_no_baseline(flow: Flow, restart: Make) -> None:
    flow.serve(objects=100)
    lines = explain_output(flow, "m.objects", OTHER).splitlines()
    assert lines[3] == "               what it measures has changed: the next good reading is new"
    changed = restart(OTHER)
    found = lines_by_topic(changed, "m.objects")
    assert found["baseline"] == "none: what it measures has changed; the next good reading becomes it"
    assert found["due"] == "has waited T for a measurement"
    changed.record(changed.claim("lake"), {"m.objects": 100, "m.size": 1, "m.last": None})
    assert lines_by_topic(changed, "m.objects")["baseline"] == "100 objects, the first good reading, T ago (run 2)"


def test_a_changed_policy_is_shown(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.serve(objects=104)
    assert "policy" not in lines_by_topic(flow, "m.objects")
    found = lines_by_topic(
        flow, "m.objects", CONFIG.replace("critical: true", "critical: true, require_approval_pct: 2")
    )
    assert found["tier"] == "approve: it is critical (metric), and 4.0 % reaches require_approval_pct = 2 (metric)"
    assert found["policy"] == "has changed since; the recorded verdict is minor, low, auto"


def test_a_workflow_is_explained_like_a_metric(make_flow: Make) -> None:
    text = CONFIG.replace("sources:", "sources:\n  tree: {type: files, path: .}", 1)
    flow = make_flow(text + "workflows: {file_inventory: {source: tree}}\n")
    name = "workflow.file-inventory"
    assert explain_output(flow, name).splitlines()[0] == f"{name}: not measured yet"
    flow.record(None, {name: "ok"})
    flow.record(None, {name: "attention"})
    assert explain_output(flow, name).splitlines()[0] == f"{name}: attention, ok"
    assert lines_by_topic(flow, name)["drift"] == "“ok” became “attention”: different, which counts as 100 %"
    with pytest.raises(NotFound):
        explain_output(flow, "workflow.gap-analysis")


def test_an_open_request_shows_when_it_expires_and_an_expired_one_is_listed(make_flow: Make) -> None:
    flow = make_flow(CONFIG.replace("policy: {", "policy: {expire_after: 7d, "))
    flow.serve(objects=100)
    flow.serve(objects=150)
    assert re.search(
        r"a reading of 147 to 153 objects updates it; it expires in T$", lines_by_topic(flow, "m.objects")["request"]
    )
    flow.do("UPDATE dims_approval_requests SET expires_at = clock_timestamp() - interval '1 s'")
    with transaction(flow.engine) as connection:
        expire_requests(connection)
    found = lines_by_topic(flow, "m.objects")
    assert found["before"] == "150 objects against 100 objects expired T ago (request 1)"
    assert found["outcome"] == "held: the baseline does not change, and its request has ended"


# --- approval requests


def test_a_request_has_the_same_evidence_long_after_it_was_decided(flow: Flow) -> None:
    flow.serve(objects=100)
    flow.store(upload())
    flow.serve(objects=150)
    choose(flow, "approved")
    flow.store(upload(), upload())
    flow.serve(objects=151)
    with transaction(flow.engine) as connection:
        found, names = explain_request(connection, flow.config, load_request(flow.engine, "1"))
    assert found is not None
    assert (found.reported.number, found.reported.created, found.seen, names) == (2, 1, 50, [])
    assert found.unexplained is not None
    assert (found.unexplained.what, found.unexplained.objects, found.unexplained.later) == ("more", 49, 3)


def test_a_baseline_by_hand_has_no_evidence(flow: Flow) -> None:
    (made,) = set_baselines(flow.engine, flow.config, [BaselineInput("m.objects", 5)], ADA)
    with transaction(flow.engine) as connection:
        assert explain_request(connection, flow.config, load_request(flow.engine, str(made.id))) == (None, [])


# --- acceptances


def since(flow: Flow, metric: str = "m.objects") -> Acceptance:
    found = explain(flow, metric).since
    assert found is not None
    return found


def test_a_baseline_is_current_since_it_last_became_that_value(flow: Flow) -> None:
    runs = [flow.serve(objects=value)["m.objects"].as_of for value in (100, 101, 100, 100, 100)]
    assert (since(flow).value, since(flow).as_of, since(flow).how) == (100, runs[2], "policy")
    set_baselines(flow.engine, flow.config, [BaselineInput("m.objects", 100)], ADA)
    assert since(flow).as_of == runs[2]  # it already had that value
    set_baselines(flow.engine, flow.config, [BaselineInput("m.objects", 90, "by hand")], ADA)
    assert (since(flow).how, since(flow).decided_by, since(flow).note) == ("by hand", "ada", "by hand")
    flow.serve(objects=90)
    assert since(flow).how == "by hand"
    flow.serve(objects=91)
    flow.serve(objects=90)
    assert since(flow).how == "policy"


@pytest.mark.parametrize("values", [(None, 3, None), ("a", "b", "a"), (True, 1, True), (0.5, 0.25, 0.5)])
def test_the_acceptance_is_found_for_every_type_of_value(flow: Flow, values: tuple[Any, Any, Any]) -> None:
    runs = [flow.serve(rows=value)["m.rows"].as_of for value in (*values, values[-1])]
    found = since(flow, "m.rows")
    assert (found.value, found.as_of) == (values[-1], runs[2])
    if type(values[1]) is type(values[0]):
        set_baselines(flow.engine, flow.config, [BaselineInput("m.rows", values[1])], ADA)
        assert (since(flow, "m.rows").value, since(flow, "m.rows").how) == (values[1], "by hand")
    set_baselines(flow.engine, flow.config, [BaselineInput("m.rows", None)], ADA)
    assert (since(flow, "m.rows").value, since(flow, "m.rows").how) == (
        None,
        "policy" if values[2] is None else "by hand",
    )
    flow.serve(rows=None)
    assert since(flow, "m.rows").value is None


def test_the_last_acceptance_before_a_reading_or_by_a_person(flow: Flow) -> None:
    for value in (100, 110, 150):
        flow.serve(objects=value)
    choose(flow, "approved")
    flow.serve(objects=151)
    now = flow.clock()
    with transaction(flow.engine) as connection:
        newest = last_accepted(connection, "m.objects", now)
        person = last_accepted(connection, "m.objects", now, by_person=True)
        assert newest and person
        assert (newest.value, newest.how, person.value, person.how, person.request) == (
            151,
            "policy",
            150,
            "approved",
            1,
        )
        number = flow.scalar("SELECT max(id) FROM dims_metrics_history")
        before = last_accepted(connection, "m.objects", newest.as_of, before=number)
        assert before == person
        assert last_accepted(connection, "m.objects", now - timedelta(days=1)) is None
        assert last_accepted(connection, "m.unknown", now) is None
        assert accepted_since(connection, "m.objects", 7, now) is None


def test_an_explanation_takes_a_bounded_number_of_queries(flow: Flow, queries: list[str]) -> None:
    flow.serve(objects=100)
    for number in range(30):
        flow.store(*[upload() for _ in range(5)])
        flow.serve(objects=101 + number)
    queries.clear()
    explain(flow, "m.objects")
    assert len([query for query in queries if query.lstrip().startswith(("SELECT", "WITH"))]) <= 16
