-- Removes everything that revision 0001 made, except the roles: they belong to the server and may have members.

DO $$
DECLARE
    role text;
BEGIN
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('dims_app', 'dims_reader') LOOP
        EXECUTE format(
            'ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON TABLES FROM %I', current_schema(), role
        );
        EXECUTE format(
            'ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON SEQUENCES FROM %I', current_schema(), role
        );
        EXECUTE format('REVOKE ALL ON dims_alembic_version FROM %I', role);
        EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', current_schema(), role);
    END LOOP;
END
$$;

DROP PROCEDURE dims_grant;
DROP FUNCTION dims_metric_trend, dims_metric_stats, dims_get_metric_trend;
DROP FUNCTION dims_prune_readings, dims_prune_events, dims_prune_runs;
DROP VIEW dims_metrics_latest, dims_pending_approvals, dims_recent_drift, dims_approval_log;
DROP TABLE
    dims_approval_requests,
    dims_channels,
    dims_event_log,
    dims_ingest_batches,
    dims_retention_runs,
    dims_metrics,
    dims_metrics_history,
    dims_notifications,
    dims_schedules,
    dims_snapshot_values,
    dims_snapshots,
    dims_sources,
    dims_verification_runs;
DROP FUNCTION dims_protect_decisions, dims_refuse_truncate, dims_notify_change;
DROP SEQUENCE dims_batch_ids;
