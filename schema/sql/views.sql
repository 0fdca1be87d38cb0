-- What users query: views and functions (docs/api.md). Each JSONB value comes three ways: as it is, as a number, and as
-- a text. The last columns of the first three views, and what follows "The old names", have the names of the original
-- DIMS. Revision 0005 runs this file again on older databases, so a view can only gain columns at its end.

CREATE OR REPLACE VIEW dims_metrics_latest AS
SELECT
    m.metric,
    split_part(m.metric, '.', 1) AS category,
    substr(m.metric, strpos(m.metric, '.') + 1) AS name,
    m.source,
    m.value,
    CASE WHEN jsonb_typeof(m.value) = 'number' THEN m.value::numeric END AS value_number,
    CASE WHEN jsonb_typeof(m.value) IN ('string', 'boolean') THEN m.value #>> '{}' END AS value_text,
    m.unit,
    m.method,
    m.as_of,
    now() - m.as_of AS age,
    m.status,
    m.severity,
    m.drift_pct,
    m.baseline,
    CASE WHEN jsonb_typeof(m.baseline) = 'number' THEN m.baseline::numeric END AS baseline_number,
    CASE WHEN jsonb_typeof(m.baseline) IN ('string', 'boolean') THEN m.baseline #>> '{}' END AS baseline_text,
    m.baseline_as_of,
    m.requested_gen > m.measured_gen AS due,
    m.failures,
    m.error,
    m.failed_at,
    r.id AS request,
    m.retired_at,
    split_part(m.metric, '.', 1) AS metric_category,
    substr(m.metric, strpos(m.metric, '.') + 1) AS metric_name,
    CASE WHEN jsonb_typeof(m.value) = 'number' THEN m.value::numeric END AS numeric_value
FROM dims_metrics m LEFT JOIN dims_approval_requests r ON r.metric = m.metric AND r.state = 'open';
COMMENT ON VIEW dims_metrics_latest IS
    'Each metric: its last good reading, its baseline, and what is wrong with it. The configuration says when a reading is stale, and the database does not know it: compare age.';

CREATE OR REPLACE VIEW dims_pending_approvals AS
SELECT
    r.id AS request,
    r.version,
    r.metric,
    split_part(r.metric, '.', 1) AS category,
    substr(r.metric, strpos(r.metric, '.') + 1) AS name,
    r.baseline,
    CASE WHEN jsonb_typeof(r.baseline) = 'number' THEN r.baseline::numeric END AS baseline_number,
    CASE WHEN jsonb_typeof(r.baseline) IN ('string', 'boolean') THEN r.baseline #>> '{}' END AS baseline_text,
    r.value,
    CASE WHEN jsonb_typeof(r.value) = 'number' THEN r.value::numeric END AS value_number,
    CASE WHEN jsonb_typeof(r.value) IN ('string', 'boolean') THEN r.value #>> '{}' END AS value_text,
    r.unit,
    CASE WHEN jsonb_typeof(r.value) = 'number' THEN r.value::numeric END
        - CASE WHEN jsonb_typeof(r.baseline) = 'number' THEN r.baseline::numeric END AS change,
    r.drift_pct,
    r.severity,
    r.reason,
    (r.evidence ->> 'events')::bigint AS events,
    r.opened_at,
    now() - r.opened_at AS waiting,
    r.updated_at,
    r.expires_at,
    r.run_id,
    split_part(r.metric, '.', 1) AS metric_category,
    substr(r.metric, strpos(r.metric, '.') + 1) AS metric_name,
    CASE WHEN jsonb_typeof(r.value) = 'number' THEN r.value::numeric END AS numeric_value
FROM dims_approval_requests r
WHERE r.state = 'open';
COMMENT ON VIEW dims_pending_approvals IS
    'What waits for a person''s approval. `dims approvals approve REQUEST --version VERSION` decides.';

-- OFFSET 0 keeps the subquery apart, so that it reads each metric by the history's index, however long the history is
CREATE OR REPLACE VIEW dims_recent_drift AS
SELECT
    m.metric,
    split_part(m.metric, '.', 1) AS category,
    substr(m.metric, strpos(m.metric, '.') + 1) AS name,
    h.as_of,
    now() - h.as_of AS age,
    h.run_id,
    h.value,
    CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END AS value_number,
    CASE WHEN jsonb_typeof(h.value) IN ('string', 'boolean') THEN h.value #>> '{}' END AS value_text,
    h.baseline,
    CASE WHEN jsonb_typeof(h.baseline) = 'number' THEN h.baseline::numeric END AS baseline_number,
    CASE WHEN jsonb_typeof(h.baseline) IN ('string', 'boolean') THEN h.baseline #>> '{}' END AS baseline_text,
    h.unit,
    CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END
        - CASE WHEN jsonb_typeof(h.baseline) = 'number' THEN h.baseline::numeric END AS change,
    h.drift_pct,
    h.status,
    h.severity,
    h.tier,
    h.outcome,
    h.reason,
    split_part(m.metric, '.', 1) AS metric_category,
    substr(m.metric, strpos(m.metric, '.') + 1) AS metric_name,
    CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END AS numeric_value
FROM dims_metrics m CROSS JOIN LATERAL (
    SELECT * FROM dims_metrics_history h
    WHERE h.metric = m.metric
        AND h.as_of > now() - interval '7 days'
        AND h.status IN ('minor', 'moderate', 'major', 'extreme')
    OFFSET 0
) h;
COMMENT ON VIEW dims_recent_drift IS
    'The readings of the last 7 days that differed from what they were judged against, and their outcome.';

-- BEGIN ATOMIC binds a function to its tables, whatever the caller's search_path, and lets the planner inline it

CREATE OR REPLACE FUNCTION dims_metric_trend(category text, metric text, days double precision DEFAULT 30)
RETURNS TABLE (
    as_of timestamptz,
    value jsonb,
    value_number numeric,
    value_text text,
    change numeric,
    unit text,
    outcome text,
    status text,
    severity text,
    drift_pct double precision,
    error text,
    run_id bigint
)
LANGUAGE sql STABLE SECURITY INVOKER PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        h.as_of,
        h.value,
        CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END AS value_number,
        CASE WHEN jsonb_typeof(h.value) IN ('string', 'boolean') THEN h.value #>> '{}' END AS value_text,
        CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END
            - lag(CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END)
                OVER (ORDER BY h.as_of, h.id) AS change,
        h.unit,
        h.outcome,
        h.status,
        h.severity,
        h.drift_pct,
        h.error,
        h.run_id
    FROM dims_metrics_history h
    WHERE h.metric = dims_metric_trend.category || '.' || dims_metric_trend.metric
        AND h.as_of > now() - make_interval(secs => least(dims_metric_trend.days, 36500) * 86400)
        AND h.outcome <> 'superseded'
    ORDER BY h.as_of, h.id;
END;
COMMENT ON FUNCTION dims_metric_trend IS
    'A metric''s readings of the last days, oldest first. outcome shows which ones are held, rejected, or failed (these have no value). change: since the previous reading.';

CREATE OR REPLACE FUNCTION dims_metric_stats(category text, metric text, days double precision DEFAULT 30)
RETURNS TABLE (
    n bigint,
    first numeric,
    last numeric,
    min numeric,
    max numeric,
    mean numeric,
    stddev numeric,
    accepted bigint,
    approved bigint,
    held bigint,
    rejected bigint,
    looked bigint,
    failed bigint,
    first_as_of timestamptz,
    last_as_of timestamptz,
    last_accepted numeric,
    last_accepted_as_of timestamptz
)
LANGUAGE sql STABLE SECURITY INVOKER PARALLEL SAFE
BEGIN ATOMIC
    WITH r AS (
        SELECT
            h.id,
            h.as_of,
            h.outcome,
            CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END AS number
        FROM dims_metrics_history h
        WHERE h.metric = dims_metric_stats.category || '.' || dims_metric_stats.metric
            AND h.as_of > now() - make_interval(secs => least(dims_metric_stats.days, 36500) * 86400)
            AND h.outcome NOT IN ('superseded', 'provisional')
    )
    SELECT
        count(*) FILTER (WHERE r.outcome <> 'failed'),
        (SELECT number FROM r WHERE number IS NOT NULL ORDER BY as_of, id LIMIT 1),
        (SELECT number FROM r WHERE number IS NOT NULL ORDER BY as_of DESC, id DESC LIMIT 1),
        min(r.number),
        max(r.number),
        avg(r.number),
        stddev_samp(r.number),
        count(*) FILTER (WHERE r.outcome = 'accepted'),
        count(*) FILTER (WHERE r.outcome = 'approved'),
        count(*) FILTER (WHERE r.outcome = 'held'),
        count(*) FILTER (WHERE r.outcome = 'rejected'),
        count(*) FILTER (WHERE r.outcome = 'looked'),
        count(*) FILTER (WHERE r.outcome = 'failed'),
        min(r.as_of) FILTER (WHERE r.outcome <> 'failed'),
        max(r.as_of) FILTER (WHERE r.outcome <> 'failed'),
        (SELECT CASE WHEN jsonb_typeof(m.baseline) = 'number' THEN m.baseline::numeric END FROM dims_metrics m
            WHERE m.metric = dims_metric_stats.category || '.' || dims_metric_stats.metric),
        (SELECT m.baseline_as_of FROM dims_metrics m
            WHERE m.metric = dims_metric_stats.category || '.' || dims_metric_stats.metric)
    FROM r;
END;
COMMENT ON FUNCTION dims_metric_stats IS
    'Statistics of a metric''s good readings of the last days, including held and rejected ones, the number of readings per outcome, and the baseline. stddev: of the sample. One row, with n = 0 if there is none.';

-- The old names

CREATE OR REPLACE VIEW dims_approval_log AS
SELECT
    r.id,
    split_part(r.metric, '.', 1) AS metric_category,
    substr(r.metric, strpos(r.metric, '.') + 1) AS metric_name,
    r.baseline #>> '{}' AS old_value,
    r.value #>> '{}' AS new_value,
    r.drift_pct::numeric AS drift_pct,
    CASE WHEN r.state = 'open' THEN 'pending' ELSE r.state END AS status,
    r.severity,
    CASE WHEN r.kind = 'baseline' THEN r.decided_by ELSE 'DIMS' END AS requested_by,
    r.opened_at AS requested_at,
    r.decided_by AS reviewed_by,
    r.decided_at AS reviewed_at,
    r.note AS review_notes,
    r.state = 'approved' AS auto_applied,
    r.run_id AS verification_run_id,
    r.evidence AS metadata,
    r.opened_at AS created_at
FROM dims_approval_requests r;
COMMENT ON VIEW dims_approval_log IS
    'Every approval request under the column names of the original DIMS. status: pending, approved, rejected, superseded, withdrawn, expired.';

CREATE OR REPLACE FUNCTION dims_get_metric_trend(p_category text, p_metric text, p_days double precision DEFAULT 30)
RETURNS TABLE (
    date date,
    value text,
    numeric_value numeric,
    verification_method text,
    recorded_at timestamptz,
    outcome text
)
LANGUAGE sql STABLE SECURITY INVOKER PARALLEL SAFE
BEGIN ATOMIC
    SELECT
        (h.as_of AT TIME ZONE 'UTC')::date,
        h.value #>> '{}',
        CASE WHEN jsonb_typeof(h.value) = 'number' THEN h.value::numeric END,
        h.method,
        h.as_of,
        h.outcome
    FROM dims_metrics_history h
    WHERE h.metric = p_category || '.' || p_metric
        AND h.as_of > now() - make_interval(secs => least(p_days, 36500) * 86400)
        AND h.outcome NOT IN ('superseded', 'failed')
    ORDER BY h.as_of, h.id;
END;
COMMENT ON FUNCTION dims_get_metric_trend IS
    'The old name of dims_metric_trend: a metric''s good readings of the last days, oldest first. A failed reading has no value, so it has no row here.';
