"""What people ask in SQL: views, functions, and the roles that may read, or work."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _split(metric: str) -> str:
    return f"split_part({metric}, '.', 1) AS category, substr({metric}, strpos({metric}, '.') + 1) AS name"


def _number(value: str) -> str:
    return f"CASE WHEN jsonb_typeof({value}) = 'number' THEN {value}::numeric END"


def _text(value: str) -> str:
    return f"CASE WHEN jsonb_typeof({value}) IN ('string', 'boolean') THEN {value} #>> '{{}}' END"


def _three(value: str, name: str) -> str:
    """A value as it is, as a number, as a text."""
    return f"{value} AS {name}, {_number(value)} AS {name}_number, {_text(value)} AS {name}_text"


_CHANGE = "{} - {} AS change"
_OF_METRIC = "h.metric = {0}.category || '.' || {0}.metric AND h.as_of > now() - make_interval(secs => least({0}.days, 36500) * 86400)"

VIEWS = {
    "dims_metrics_latest": (
        f"""
        SELECT m.metric, {_split("m.metric")}, m.source, {_three("m.value", "value")}, m.unit, m.method, m.as_of,
            now() - m.as_of AS age, m.status, m.severity, m.drift_pct, {_three("m.baseline", "baseline")},
            m.baseline_as_of, m.requested_gen > m.measured_gen AS due, m.failures, m.error, m.failed_at,
            r.id AS request, m.retired_at
        FROM dims_metrics m LEFT JOIN dims_approval_requests r ON r.metric = m.metric AND r.state = 'open'
        """,
        "Each metric: its last good reading, its baseline, and what is the matter with it. From when on a reading is "
        "stale is configured, and not known here: compare age.",
    ),
    "dims_pending_approvals": (
        f"""
        SELECT r.id AS request, r.version, r.metric, {_split("r.metric")}, {_three("r.baseline", "baseline")},
            {_three("r.value", "value")}, r.unit, {_CHANGE.format(_number("r.value"), _number("r.baseline"))},
            r.drift_pct, r.severity, r.reason, (r.evidence ->> 'events')::bigint AS events, r.opened_at,
            now() - r.opened_at AS waiting, r.updated_at, r.expires_at, r.run_id
        FROM dims_approval_requests r WHERE r.state = 'open'
        """,
        "What waits for a person. `dims approvals approve REQUEST --version VERSION` decides.",
    ),
    # A metric at a time, by the index of the history, however long that has grown: OFFSET 0 keeps it so
    "dims_recent_drift": (
        f"""
        SELECT m.metric, {_split("m.metric")}, h.as_of, now() - h.as_of AS age, h.run_id, {_three("h.value", "value")},
            {_three("h.baseline", "baseline")}, h.unit, {_CHANGE.format(_number("h.value"), _number("h.baseline"))},
            h.drift_pct, h.status, h.severity, h.tier, h.outcome, h.reason
        FROM dims_metrics m CROSS JOIN LATERAL (
            SELECT * FROM dims_metrics_history h WHERE h.metric = m.metric AND h.as_of > now() - interval '7 days'
            AND h.status IN ('minor', 'moderate', 'major', 'extreme') OFFSET 0
        ) h
        """,
        "The readings of the last 7 days that differed from what they were judged against, and what became of them.",
    ),
}

FUNCTIONS = {
    "dims_metric_trend": (
        """
        as_of timestamp with time zone, value jsonb, value_number numeric, value_text text, change numeric, unit text,
        outcome text, status text, severity text, drift_pct double precision, error text, run_id bigint
        """,
        f"""
        SELECT h.as_of, {_three("h.value", "value")},
            {_CHANGE.format(_number("h.value"), f"lag({_number('h.value')}) OVER (ORDER BY h.as_of, h.id)")}, h.unit,
            h.outcome, h.status, h.severity, h.drift_pct, h.error, h.run_id
        FROM dims_metrics_history h
        WHERE {_OF_METRIC.format("dims_metric_trend")} AND h.outcome <> 'superseded' ORDER BY h.as_of, h.id
        """,
        "A metric''s readings of the last days, oldest first; outcome marks those that are held, rejected, or failed "
        "(which have no value). change: since the reading before.",
    ),
    "dims_metric_stats": (
        """
        n bigint, first numeric, last numeric, min numeric, max numeric, mean numeric, stddev numeric,
        accepted bigint, approved bigint, held bigint, rejected bigint, looked bigint, failed bigint,
        first_as_of timestamp with time zone, last_as_of timestamp with time zone,
        last_accepted numeric, last_accepted_as_of timestamp with time zone
        """,
        f"""
        WITH r AS (
            SELECT h.id, h.as_of, h.outcome, {_number("h.value")} AS number FROM dims_metrics_history h
            WHERE {_OF_METRIC.format("dims_metric_stats")} AND h.outcome NOT IN ('superseded', 'provisional')
        )
        SELECT count(*) FILTER (WHERE r.outcome <> 'failed'),
            (SELECT number FROM r WHERE number IS NOT NULL ORDER BY as_of, id LIMIT 1),
            (SELECT number FROM r WHERE number IS NOT NULL ORDER BY as_of DESC, id DESC LIMIT 1),
            min(r.number), max(r.number), avg(r.number), stddev_samp(r.number),
            {", ".join(f"count(*) FILTER (WHERE r.outcome = '{outcome}')" for outcome in ("accepted", "approved", "held", "rejected", "looked", "failed"))},
            min(r.as_of) FILTER (WHERE r.outcome <> 'failed'), max(r.as_of) FILTER (WHERE r.outcome <> 'failed'),
            (SELECT {_number("m.baseline")} FROM dims_metrics m
                WHERE m.metric = dims_metric_stats.category || '.' || dims_metric_stats.metric),
            (SELECT m.baseline_as_of FROM dims_metrics m
                WHERE m.metric = dims_metric_stats.category || '.' || dims_metric_stats.metric)
        FROM r
        """,
        "A metric''s good readings of the last days in numbers, held and rejected ones among them, how many became "
        "what, and the baseline. stddev: of the sample. One row, with n = 0 where there is none.",
    ),
}
_TAKES = "category text, metric text, days double precision"

# Roles are the cluster's: another database may have made them, or make them at this very moment
ROLES = """
    DO $$
    DECLARE
        wanted text;
    BEGIN
        FOREACH wanted IN ARRAY ARRAY['dims_app', 'dims_reader'] LOOP
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                    EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
                END IF;
            EXCEPTION
                WHEN duplicate_object OR unique_violation THEN NULL;
                WHEN insufficient_privilege THEN
                    RAISE NOTICE 'DIMS: % may not create the role %. Have an administrator run: CREATE ROLE %; '
                        'then: CALL dims_grant()', current_user, wanted, wanted;
            END;
        END LOOP;
    END
    $$
"""

# The worker adds and brings up to date; it takes back nothing of what happened, what was measured, what was decided
GRANT = """
    CREATE PROCEDURE dims_grant() LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    DECLARE
        role text;
        one record;
    BEGIN
        FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('dims_app', 'dims_reader') LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
            EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT SELECT ON TABLES TO %I', current_schema(), role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION dims_metric_trend, dims_metric_stats TO %I', role);
            IF role = 'dims_app' THEN
                EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT INSERT, UPDATE ON TABLES TO dims_app', current_schema());
                EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I GRANT USAGE ON SEQUENCES TO dims_app', current_schema());
            END IF;
            FOR one IN
                SELECT relname AS name, relkind AS kind FROM pg_class
                WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
                    AND (relname LIKE 'dims\\_%' OR relname = 'alembic_version')
            LOOP
                IF one.kind <> 'S' THEN
                    EXECUTE format('GRANT SELECT ON %I TO %I', one.name, role);
                END IF;
                CONTINUE WHEN role <> 'dims_app' OR one.kind = 'v' OR one.name = 'alembic_version';
                IF one.kind = 'S' THEN
                    EXECUTE format('GRANT USAGE ON SEQUENCE %I TO dims_app', one.name);
                ELSE
                    EXECUTE format('GRANT INSERT ON %I TO dims_app', one.name);
                END IF;
                CASE
                    WHEN one.name = 'dims_metrics_history' THEN GRANT UPDATE (outcome) ON dims_metrics_history TO dims_app;
                    WHEN one.name = 'dims_event_log' THEN GRANT UPDATE (replayed_at) ON dims_event_log TO dims_app;
                    WHEN one.name = 'dims_schedules' THEN GRANT UPDATE, DELETE ON dims_schedules TO dims_app;
                    WHEN one.kind = 'S' OR one.name IN ('dims_verification_runs', 'dims_event_marks') THEN NULL;
                    ELSE EXECUTE format('GRANT UPDATE ON %I TO dims_app', one.name);
                END CASE;
            END LOOP;
        END LOOP;
    END
    $$
"""

REVOKE = """
    DO $$
    DECLARE
        role text;
        one record;
    BEGIN
        FOR role IN SELECT rolname FROM pg_roles WHERE rolname IN ('dims_app', 'dims_reader') LOOP
            EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON TABLES FROM %I', current_schema(), role);
            EXECUTE format('ALTER DEFAULT PRIVILEGES IN SCHEMA %I REVOKE ALL ON SEQUENCES FROM %I', current_schema(), role);
            FOR one IN
                SELECT relname AS name, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind FROM pg_class
                WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p', 'S')
                    AND (relname LIKE 'dims\\_%' OR relname = 'alembic_version')
            LOOP
                EXECUTE format('REVOKE ALL ON %s %I FROM %I', one.kind, one.name, role);
            END LOOP;
            EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM %I', current_schema(), role);
        END LOOP;
    END
    $$
"""


def upgrade() -> None:
    for name, (query, comment) in VIEWS.items():
        op.execute(f"CREATE VIEW {name} AS {query}")
        op.execute(f"COMMENT ON VIEW {name} IS '{comment}'")
    for name, (gives, query, comment) in FUNCTIONS.items():
        # Bound to its tables by BEGIN ATOMIC, whatever the caller's search_path; inlined into the caller's query
        op.execute(
            f"CREATE FUNCTION {name}({_TAKES} DEFAULT 30) RETURNS TABLE ({gives}) "
            f"LANGUAGE sql STABLE SECURITY INVOKER PARALLEL SAFE BEGIN ATOMIC {query}; END"
        )
        op.execute(f"COMMENT ON FUNCTION {name} IS '{comment}'")
    op.execute(ROLES)
    op.execute(GRANT)
    op.execute(
        "COMMENT ON PROCEDURE dims_grant IS 'Gives dims_app and dims_reader what they may do, where they exist.'"
    )
    op.execute("REVOKE EXECUTE ON PROCEDURE dims_grant FROM PUBLIC")
    op.execute("CALL dims_grant()")


def downgrade() -> None:
    """The roles stay: they are the cluster's, and people may be members of them."""
    op.execute("DROP PROCEDURE dims_grant")
    for name in FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}")
    for name in VIEWS:
        op.execute(f"DROP VIEW {name}")
    op.execute(REVOKE)
