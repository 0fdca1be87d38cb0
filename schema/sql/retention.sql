-- Deleting what is old. Anyone who may call these functions can delete old rows, but no recent row and none that is
-- kept for ever: both the age limit of 7 days and the exceptions are in here, and no role may DELETE from the tables
-- themselves. A batch is small and the tables are not, so the plan is fixed: row by row and by index, whatever the
-- statistics say.

CREATE OR REPLACE FUNCTION dims_prune_readings(before timestamp with time zone, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH old AS (
        SELECT h.id FROM dims_metrics m CROSS JOIN LATERAL (
            SELECT h.id FROM dims_metrics_history h
            WHERE h.metric = m.metric AND h.as_of < least(dims_prune_readings.before, now() - interval '7 days')
            AND h.as_of IS DISTINCT FROM m.as_of AND h.as_of IS DISTINCT FROM m.baseline_as_of
            AND h.as_of IS DISTINCT FROM m.accepted_as_of AND h.as_of IS DISTINCT FROM m.rejected_as_of
            AND h.id NOT IN (
                (SELECT l.id FROM dims_metrics_history l WHERE l.metric = m.metric
                    ORDER BY l.as_of DESC, l.id DESC LIMIT 1)
                UNION ALL
                (SELECT g.id FROM dims_metrics_history g WHERE g.metric = m.metric AND g.method <> 'failed'
                    AND g.outcome <> 'superseded' ORDER BY g.as_of DESC, g.id DESC LIMIT 1)
                UNION ALL
                (SELECT a.id FROM dims_metrics_history a WHERE a.metric = m.metric
                    AND a.outcome IN ('accepted', 'approved') ORDER BY a.as_of DESC, a.id DESC LIMIT 1)
            )
            AND NOT EXISTS (SELECT FROM dims_approval_requests r WHERE r.metric = m.metric
                AND h.as_of IN (r.as_of, r.baseline_as_of))
            ORDER BY h.as_of LIMIT dims_prune_readings.at_most
        ) h LIMIT dims_prune_readings.at_most
    )
    DELETE FROM dims_metrics_history h USING old WHERE h.id = old.id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION dims_prune_readings IS
    'Deletes readings that began before that time, and at least 7 days ago. Kept for ever: each metric''s newest reading, its newest good and its newest accepted one, and the readings of approval requests. Returns how many were deleted.';
REVOKE EXECUTE ON FUNCTION dims_prune_readings FROM PUBLIC;

CREATE OR REPLACE FUNCTION dims_prune_events(before timestamp with time zone, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    deleted bigint;
    batches bigint[];
BEGIN
    WITH old AS (
        SELECT e.seq FROM dims_event_log e WHERE e.received_at < least(dims_prune_events.before, now() - interval '7 days')
        AND NOT EXISTS (
            SELECT FROM dims_ingest_batches k JOIN dims_metrics m USING (metric)
            WHERE k.batch_id = e.batch_id AND k.generation > m.measured_gen AND m.requested_gen > m.measured_gen
        )
        ORDER BY e.received_at LIMIT dims_prune_events.at_most
    ), removed AS (
        DELETE FROM dims_event_log e USING old WHERE e.seq = old.seq RETURNING e.batch_id
    )
    SELECT count(*), array_agg(DISTINCT batch_id) INTO deleted, batches FROM removed;
    DELETE FROM dims_ingest_batches k WHERE k.batch_id = ANY(batches)
        AND NOT EXISTS (SELECT FROM dims_event_log e WHERE e.batch_id = k.batch_id);
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION dims_prune_events IS
    'Deletes events that were received before that time, and at least 7 days ago, and ingest batches that no event belongs to any more. Kept: events that still wait for a reading. Returns how many events were deleted.';
REVOKE EXECUTE ON FUNCTION dims_prune_events FROM PUBLIC;

CREATE OR REPLACE FUNCTION dims_prune_runs(before timestamp with time zone, at_most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    deleted bigint;
BEGIN
    WITH old AS (
        SELECT v.run_id FROM dims_verification_runs v
        WHERE v.started_at < least(dims_prune_runs.before, now() - interval '7 days')
        AND NOT EXISTS (SELECT FROM dims_metrics_history h WHERE h.run_id = v.run_id)
        AND NOT EXISTS (SELECT FROM dims_approval_requests r WHERE r.run_id = v.run_id)
        AND NOT EXISTS (SELECT FROM dims_notifications n WHERE n.run_id = v.run_id)
        AND (v.result IS NULL OR EXISTS (
            SELECT FROM dims_verification_runs newer WHERE newer.source = v.source AND newer.run_id > v.run_id
            AND newer.result IS NOT NULL AND newer.status <> 'superseded'
        ))
        ORDER BY v.started_at LIMIT dims_prune_runs.at_most
    )
    DELETE FROM dims_verification_runs v USING old WHERE v.run_id = old.run_id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
COMMENT ON FUNCTION dims_prune_runs IS
    'Deletes runs that began before that time, and at least 7 days ago, and that no reading, approval request or notification refers to. Kept: each workflow''s newest result. Returns how many were deleted.';
REVOKE EXECUTE ON FUNCTION dims_prune_runs FROM PUBLIC;

-- The search_path is fixed, with pg_temp last, so that a caller's own tables of these names are never used
DO $$
DECLARE
    each text;
BEGIN
    FOREACH each IN ARRAY ARRAY['dims_prune_readings', 'dims_prune_events', 'dims_prune_runs'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', each, current_schema());
    END LOOP;
END
$$;
