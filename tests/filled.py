"""A database that has long been in use: what a year of runs leaves of any configuration, made in a few statements.

Reproducible: every number follows from a metric's place and a reading's. In it are good readings, drift that was
accepted, drift of critical metrics that people approved and rejected, failures, one request that waits (the first
critical metric's), a metric that fails now (every 17th), events with commits and uploads, rejected ones too.
"""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import Connection, Engine, text

from dims_worker.config import Config, DerivedMetric
from dims_worker.store.states import register

_METRICS = (
    "jsonb_to_recordset(CAST(:metrics AS jsonb)) "
    "AS m(n int, metric text, unit text, kind text, source text, source_n int, critical boolean, waits boolean)"
)
_READINGS = f"""
    SELECT s.s, m.*, at.as_of, abs(hashint8(s.s * 7919 + m.n)) % 1000 AS x, usual.usual,
        CASE m.kind
            WHEN 'age' THEN to_jsonb(to_char(at.as_of - interval '5 hours', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"'))
            WHEN 'text' THEN '"synced"'::jsonb
            WHEN 'percent' THEN to_jsonb(round(88 + 11.0 * s.s / :slots - m.n % 7, 1))
            WHEN 'float' THEN to_jsonb(round(usual.usual::numeric / 7, 4))
            ELSE to_jsonb(usual.usual) END AS baseline
    FROM generate_series(1, :slots) AS s(s) CROSS JOIN {_METRICS}
    CROSS JOIN LATERAL (SELECT CAST(:until AS timestamptz) - (:slots - s.s) * CAST(:step AS interval) AS as_of) at
    CROSS JOIN LATERAL (SELECT ((m.n + 3) * 1000
        * (1 + (s.s - (m.waits AND s.s = :slots)::int)::float8 / :slots / 2))::bigint AS usual) usual
"""
_JUDGED = f"""
    SELECT r.*,
        CASE
            WHEN r.s = :slots AND r.waits THEN 'held'
            WHEN r.s = :slots AND r.n % 17 = 3 THEN 'failed'
            WHEN r.s = :slots THEN 'accepted'
            WHEN r.x < 6 THEN 'failed'
            WHEN r.x < 16 AND r.critical AND r.kind IN ('int', 'float') THEN
                CASE WHEN r.x % 3 = 0 THEN 'rejected' ELSE 'approved' END
            ELSE 'accepted' END AS outcome,
        CASE WHEN r.s = :slots THEN r.waits ELSE r.x BETWEEN 6 AND 15 END AND r.kind IN ('int', 'float') AS drifts
    FROM ({_READINGS}) r
"""


def fill(
    engine: Engine, config: Config, *, until: datetime, days: float = 365, per_day: float = 1, log: int = 500
) -> None:
    """Give each enabled metric `days` x `per_day` readings, the last one at `until`, and the newest `log` readings'
    times an event of each kind."""
    names = [name for name, metric in config.metrics.items() if metric.enabled]
    sources = sorted({_source(config, name) for name in names})
    waiting = next((name for name in names if config.policy_of(name).critical and _kind(config, name) == "int"), None)
    facts = [
        {
            **{"n": n, "metric": name, "unit": config.metrics[name].shown_unit, "kind": _kind(config, name)},
            **{"source": _source(config, name), "source_n": sources.index(_source(config, name))},
            **{"critical": config.policy_of(name).critical, "waits": name == waiting},
        }
        for n, name in enumerate(names)
    ]
    slots = round(days * per_day)
    values = {
        **{"metrics": json.dumps(facts), "until": until, "slots": slots, "sources": sources, "width": len(sources)},
        **{"step": f"{86400 / per_day} seconds", "log": min(log, slots)},
    }
    with engine.begin() as connection:
        definitions = config.definitions
        register(
            connection,
            [
                {
                    "metric": name,
                    "source": None if isinstance(config.metrics[name], DerivedMetric) else _source(config, name),
                    "definition": definitions[name],
                    "requested_gen": 0,
                }
                for name in names
            ],
        )
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # millions of rows: no foreign keys
        connection.execute(text("SET LOCAL timezone = 'UTC'"))
        for statement in (_RUNS, _HISTORY, _STATES, _EVENTS, _MARKS, _REQUESTS, *_SEQUENCES):
            connection.execute(text(statement), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        _analyze(connection)


def _analyze(connection: Connection) -> None:
    connection.execute(text("VACUUM (ANALYZE) dims_metrics_history"))
    connection.execute(text("ANALYZE"))


def _source(config: Config, name: str) -> str:
    metric = config.metrics[name]
    return "derived" if isinstance(metric, DerivedMetric) else str(metric.source)


def _kind(config: Config, name: str) -> str:
    metric = config.metrics[name]
    if metric.is_age:
        return "age"
    if getattr(metric, "measure", None) == "sync_status":
        return "text"
    if metric.shown_unit == "%":
        return "percent"  # never beyond 100, and so without the drift that is made by a factor
    return "float" if metric.precision else "int"


_RUNS = f"""
    INSERT INTO dims_verification_runs (run_id, trigger, source, status, started_at, finished_at, worker, readings,
        failed, held, requests)
    SELECT (j.s - 1) * :width + j.source_n + 1, CASE WHEN j.s % 30 = 0 THEN 'verify' ELSE 'event' END, j.source,
        CASE WHEN count(*) FILTER (WHERE j.outcome = 'failed') > 0 THEN 'partial' ELSE 'ok' END, j.as_of,
        j.as_of + make_interval(secs => 0.1 + (j.s % 50) * 0.2), 'worker@host', count(*),
        count(*) FILTER (WHERE j.outcome = 'failed'), count(*) FILTER (WHERE j.outcome = 'held'), j.source_n % 3 * 5
    FROM ({_JUDGED}) j GROUP BY j.s, j.source, j.source_n, j.as_of
"""
_VALUE = """
    CASE WHEN j.outcome = 'failed' THEN NULL
        WHEN j.drifts AND j.kind = 'int' THEN to_jsonb(round((j.baseline #>> '{}')::numeric * 1.187)::bigint)
        WHEN j.drifts THEN to_jsonb(round((j.baseline #>> '{}')::numeric * 1.187, 4))
        ELSE j.baseline END
"""
_HISTORY = f"""
    INSERT INTO dims_metrics_history (run_id, metric, value, unit, method, as_of, recorded_at, generation, baseline,
        drift_pct, status, severity, tier, outcome, reason, error)
    SELECT (j.s - 1) * :width + j.source_n + 1, j.metric, {_VALUE}, j.unit,
        CASE WHEN j.outcome = 'failed' THEN 'failed' WHEN j.source = 'derived' THEN 'derived' ELSE 'exact' END,
        j.as_of, j.as_of + interval '1 second', j.s, CASE WHEN j.outcome <> 'failed' AND j.s > 1 THEN j.baseline END,
        CASE WHEN j.outcome <> 'failed' THEN CASE WHEN j.drifts THEN 18.7 ELSE 0 END END,
        CASE WHEN j.outcome = 'failed' THEN 'failed' WHEN j.s = 1 THEN 'new' WHEN j.drifts THEN 'major' ELSE 'ok' END,
        CASE WHEN j.drifts THEN 'high' ELSE 'none' END,
        CASE WHEN j.outcome IN ('held', 'approved', 'rejected') THEN 'approve' WHEN j.drifts THEN 'notify'
            WHEN j.outcome <> 'failed' THEN 'auto' END,
        j.outcome, CASE WHEN j.drifts THEN 'major: 18.7 %' END,
        CASE WHEN j.outcome = 'failed' THEN 'the bucket did not answer within 60 s' END
    FROM ({_JUDGED}) j
"""
_STATES = f"""
    UPDATE dims_metrics d SET requested_gen = :slots, measured_gen = CASE WHEN j.outcome = 'failed' THEN :slots - 1
            ELSE :slots END, due_since = CASE WHEN j.outcome = 'failed' THEN j.as_of END,
        not_before = CASE WHEN j.outcome = 'failed' THEN j.as_of + interval '1 hour' END,
        failures = CASE WHEN j.outcome = 'failed' THEN 2 ELSE 0 END,
        error = CASE WHEN j.outcome = 'failed' THEN 'the bucket did not answer within 60 s' END,
        failed_at = CASE WHEN j.outcome = 'failed' THEN j.as_of END, unit = j.unit, method = 'exact',
        value = CASE WHEN j.outcome = 'failed' THEN j.baseline ELSE {_VALUE} END,
        as_of = CASE WHEN j.outcome = 'failed' THEN j.as_of - CAST(:step AS interval) ELSE j.as_of END,
        status = CASE WHEN j.drifts THEN 'major' ELSE 'ok' END,
        severity = CASE WHEN j.drifts THEN 'high' ELSE 'none' END,
        drift_pct = CASE WHEN j.drifts THEN 18.7 ELSE 0 END, baseline = j.baseline,
        baseline_as_of = CASE WHEN j.outcome = 'accepted' THEN j.as_of ELSE j.as_of - CAST(:step AS interval) END,
        baseline_version = :slots
    FROM ({_JUDGED}) j WHERE j.s = :slots AND d.metric = j.metric
"""
_EVENTS = """
    INSERT INTO dims_event_log (seq, producer, event_id, digest, type, subject, event_time, received_at, stream_id,
        outcome, reason, data, payload, rules, metrics, mark_id)
    SELECT s * 4 + k, CASE k WHEN 0 THEN 'dims/git_hook' WHEN 1 THEN 'aws:s3.us-east-1.lake' WHEN 2 THEN 'dims/beat'
            ELSE 'shell' END, 'event-' || s || '-' || k, 'digest-' || s || '-' || k,
        CASE k WHEN 0 THEN 'dims.git.commit' WHEN 1 THEN 'com.amazonaws.s3.ObjectCreated:Put'
            WHEN 2 THEN 'dims.schedule.tick' END,
        CASE k WHEN 0 THEN md5('c' || s) WHEN 1 THEN 'raw/' || s || '.parquet' WHEN 2 THEN 'daily_sync_check' END,
        at - interval '2 seconds', at - interval '1 second', s || '-' || k,
        CASE WHEN k = 3 THEN 'rejected' WHEN k = 2 AND s % 7 = 0 THEN 'unmatched' ELSE 'planned' END,
        CASE WHEN k = 3 THEN 'no JSON: Expecting value' END,
        CASE k WHEN 0 THEN jsonb_build_object('commit', md5('c' || s), 'subject', 'Work of day ' || s, 'paths',
                jsonb_build_array('docs/a.md'))
            WHEN 1 THEN jsonb_build_object('bucket', 'lake', 'key', 'raw/' || s || '.parquet', 'size', 1000 + s)
            WHEN 2 THEN jsonb_build_object('rule', 'daily_sync_check') END,
        CASE WHEN k = 3 THEN 'not json <b>' END, CASE k WHEN 0 THEN ARRAY['git_post_commit'] WHEN 1
            THEN ARRAY['s3_upload_complete'] WHEN 2 THEN ARRAY['daily_sync_check'] ELSE '{}' END, '{}', s
    FROM generate_series(:slots - :log + 1, :slots) AS s, generate_series(0, 3) AS k,
        LATERAL (SELECT CAST(:until AS timestamptz) - (:slots - s) * CAST(:step AS interval) AS at) a
    WHERE k < 3 OR s % 40 = 0
"""
_MARKS = f"""
    INSERT INTO dims_event_marks (mark_id, metric, generation)
    SELECT s, m.metric, s FROM generate_series(:slots - :log + 1, :slots) AS s CROSS JOIN {_METRICS}
"""
_REQUESTS = """
    INSERT INTO dims_approval_requests (metric, state, value, unit, as_of, anchor, baseline, baseline_as_of,
        baseline_version, drift_pct, severity, reason, run_id, opened_at, updated_at, decided_at, decided_by, known_by,
        note)
    SELECT h.metric, CASE h.outcome WHEN 'held' THEN 'open' ELSE h.outcome END, h.value, h.unit, h.as_of, h.value,
        h.baseline, h.as_of - CAST(:step AS interval), CASE h.outcome WHEN 'held' THEN :slots ELSE h.generation - 1 END,
        h.drift_pct, h.severity, h.reason, h.run_id, h.recorded_at, h.recorded_at,
        CASE WHEN h.outcome <> 'held' THEN h.recorded_at + (h.generation % 40 + 1) * interval '1 hour' END,
        CASE WHEN h.outcome <> 'held' THEN CASE h.generation % 2 WHEN 0 THEN 'ada' ELSE 'grace' END END,
        CASE WHEN h.outcome <> 'held' THEN 'environment' END,
        CASE h.outcome WHEN 'approved' THEN 'the new season' WHEN 'rejected' THEN 'a double upload' END
    FROM dims_metrics_history h WHERE h.outcome IN ('held', 'approved', 'rejected') ORDER BY h.as_of, h.metric
"""
_SEQUENCES = (
    "SELECT setval(pg_get_serial_sequence('dims_verification_runs', 'run_id'), max(run_id)) "
    "FROM dims_verification_runs",
    "SELECT setval(pg_get_serial_sequence('dims_event_log', 'seq'), max(seq)) FROM dims_event_log",
    "SELECT setval('dims_mark_ids', :slots)",
)
