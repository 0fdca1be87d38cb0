-- The worker adds rows and keeps state current. It takes back nothing of what happened, was measured, or was decided
CREATE OR REPLACE PROCEDURE dims_grant() LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    role text;
    object record;
BEGIN
    FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('dims_app', 'dims_reader') LOOP
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
        EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', current_schema(), role);
        EXECUTE format(
            'GRANT EXECUTE ON FUNCTION dims_metric_trend, dims_metric_stats, dims_get_metric_trend TO %I', role
        );
        IF role = 'dims_app' THEN
            EXECUTE format(
                'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT INSERT, UPDATE ON TABLES TO dims_app', current_schema()
            );
            GRANT EXECUTE ON FUNCTION dims_prune_readings, dims_prune_events, dims_prune_runs TO dims_app;
            EXECUTE format(
                'ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT USAGE ON SEQUENCES TO dims_app', current_schema()
            );
        END IF;
        FOR object IN
            SELECT relname AS name, relkind AS kind FROM pg_class
            WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
                AND relname LIKE 'dims\_%'
        LOOP
            IF object.kind <> 'S' THEN
                EXECUTE format('GRANT SELECT ON %I TO %I', object.name, role);
            END IF;
            IF role = 'dims_app' AND object.kind = 'v' THEN
                EXECUTE format('REVOKE INSERT, UPDATE ON %I FROM dims_app', object.name); -- as for dims_database below
            END IF;
            CONTINUE WHEN role <> 'dims_app' OR object.kind = 'v' OR object.name = 'dims_alembic_version';
            IF object.name = 'dims_database' THEN
                REVOKE INSERT, UPDATE ON dims_database FROM dims_app; -- the default privileges had granted them
                CONTINUE;
            END IF;
            IF object.kind = 'S' THEN
                EXECUTE format('GRANT USAGE ON SEQUENCE %I TO dims_app', object.name);
            ELSE
                EXECUTE format('GRANT INSERT ON %I TO dims_app', object.name);
            END IF;
            CASE
                WHEN object.name = 'dims_metrics_history' THEN
                    GRANT UPDATE (outcome) ON dims_metrics_history TO dims_app;
                WHEN object.name = 'dims_event_log' THEN
                    GRANT UPDATE (replayed_at) ON dims_event_log TO dims_app;
                WHEN object.name = 'dims_snapshots' THEN
                    GRANT DELETE ON dims_snapshots TO dims_app;
                WHEN object.name = 'dims_schedules' THEN
                    GRANT UPDATE, DELETE ON dims_schedules TO dims_app;
                WHEN object.name = 'dims_processes' THEN
                    GRANT UPDATE, DELETE ON dims_processes TO dims_app;
                WHEN object.kind = 'S'
                    OR object.name IN ('dims_verification_runs', 'dims_ingest_batches', 'dims_snapshot_values') THEN NULL;
                ELSE EXECUTE format('GRANT UPDATE ON %I TO dims_app', object.name);
            END CASE;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE dims_grant IS 'Grants dims_app and dims_reader their rights, if these roles exist.';
REVOKE EXECUTE ON PROCEDURE dims_grant FROM PUBLIC;
CALL dims_grant();
