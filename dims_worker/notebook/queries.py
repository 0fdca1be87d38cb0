"""The SQL of the frames and the columns of each frame.

Spans are in days and end when the transaction began: an index can bound `now()`, but not the clock, which moves while a
query runs.
"""

from __future__ import annotations

# A cursor runs one query that returns rows, so that no COMMIT can follow it
OPEN = """DO $$
    DECLARE answer refcursor := 'dims_answer';
    BEGIN OPEN answer NO SCROLL FOR EXECUTE current_setting('dims.query'); END
$$"""
LATEST = (
    "SELECT metric, category, name, value, unit, baseline, as_of, extract(epoch FROM age)::float8 / 3600 AS age_hours, "
    "status, severity, drift_pct, due, failures, error, request, baseline_as_of, method, (SELECT r.drift_pct "
    "FROM dims_approval_requests r WHERE r.id = request) AS request_drift_pct FROM dims_metrics_latest "
    "WHERE retired_at IS NULL ORDER BY metric"
)
HISTORY_COLUMNS = (
    *("metric", "as_of", "value", "number", "unit", "outcome", "shown", "status", "severity", "drift_pct"),
    *("baseline", "baseline_number", "run_id", "reason", "error"),
)
HISTORY = (
    "SELECT h.metric, as_of, value, unit, outcome, status, severity, drift_pct, baseline, run_id, reason, error "
    "FROM unnest(CAST(:metrics AS text[])) AS m(metric) CROSS JOIN LATERAL (SELECT * FROM dims_metrics_history h "
    "WHERE h.metric = m.metric AND h.as_of > now() - make_interval(secs => :days * 86400) "
    "AND h.outcome NOT IN ('superseded', 'provisional')) AS h ORDER BY h.metric, as_of, id"
)
DAILY_COLUMNS = ("metric", "day", "as_of", "value", "number", "outcome", "status", "drift_pct", "baseline")
RUN_COLUMNS = (
    *("run_id", "trigger", "source", "status", "started_at", "finished_at", "seconds", "readings", "failed"),
    *("held", "api_calls"),
)
RUNS = (
    "SELECT run_id, trigger, coalesce(source, 'several') AS source, status, started_at, finished_at, "
    "extract(epoch FROM finished_at - started_at)::float8 AS seconds, readings, failed, held, api_calls "
    "FROM dims_verification_runs WHERE started_at > now() - make_interval(secs => :days * 86400) "
    "ORDER BY started_at, run_id"
)
REQUEST_COLUMNS = (
    *("request", "metric", "kind", "state", "version", "value", "number", "unit", "baseline", "baseline_number"),
    *("drift_pct", "compared_with", "severity", "reason", "opened_at", "decided_at", "decided_by", "note", "hours"),
)
REQUESTS = (
    "SELECT id AS request, metric, kind, state, version, value, unit, baseline, drift_pct, "
    "coalesce(evidence -> 'compared_with', baseline) AS compared_with, severity, reason, opened_at, "
    "decided_at, decided_by, note, extract(epoch FROM coalesce(decided_at, CASE WHEN state = 'open' "
    "THEN clock_timestamp() ELSE updated_at END) - opened_at)::float8 / 3600 AS hours "
    "FROM dims_approval_requests ORDER BY opened_at, id"
)
INCIDENT_COLUMNS = (
    *("incident", "story", "metric", "kind", "state", "label", "severity", "reason", "value", "number", "unit"),
    *("anchor", "anchor_number", "drift_pct", "expected_low", "expected_high", "as_of", "opened_at", "hours"),
    *("acknowledged_at", "acknowledged_by", "note", "closed_at", "resolution", "closed_by", "closing_reason"),
    *("request", "run_id", "flaps"),
)
CHANGE_COLUMNS = (
    *("metric", "as_of", "value", "number", "unit", "baseline", "baseline_number", "drift_pct", "expected_low"),
    *("expected_high", "band_widths", "severity", "accepted", "decided_at", "decided_by", "note", "reason"),
    *("incident", "request", "run_id"),
)
EVENT_COLUMNS = (
    *("seq", "producer", "event_id", "type", "subject", "event_time", "received_at", "lag_seconds", "outcome"),
    *("reason", "rules"),
)
EVENTS = (
    "SELECT seq, producer, event_id, type, subject, event_time, received_at, "
    "extract(epoch FROM received_at - event_time)::float8 AS lag_seconds, outcome, reason, "
    "array_to_string(rules, ', ') AS rules FROM dims_event_log "
    "WHERE received_at > now() - make_interval(secs => :days * 86400) ORDER BY received_at, seq"
)
FLOW_COLUMNS = ("day", "producer", "events", "rejected", "unmatched", "lag_p50", "lag_max")
FLOW = (
    "SELECT date_trunc('day', received_at, 'UTC') AS day, coalesce(producer, 'unknown') AS producer, "
    "count(*) AS events, count(*) FILTER (WHERE outcome = 'rejected') AS rejected, "
    "count(*) FILTER (WHERE outcome = 'unmatched') AS unmatched, "
    "percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM received_at - event_time)::float8) AS lag_p50, "
    "extract(epoch FROM max(received_at - event_time))::float8 AS lag_max FROM dims_event_log "
    "WHERE received_at > now() - make_interval(secs => :days * 86400) GROUP BY 1, 2 ORDER BY 1, 2"
)
