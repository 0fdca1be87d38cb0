"""What people decide: requests that expire, that were made by hand, that keep their evidence, and cannot be changed
once they are decided; values that were rejected."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE dims_metrics ADD COLUMN rejected JSONB",
    "COMMENT ON COLUMN dims_metrics.rejected IS 'what a person rejected: in its band nobody is asked again'",
    "ALTER TABLE dims_metrics ADD COLUMN rejected_as_of TIMESTAMP WITH TIME ZONE",
    "ALTER TABLE dims_approval_requests ADD COLUMN kind TEXT DEFAULT 'drift' NOT NULL",
    "COMMENT ON COLUMN dims_approval_requests.kind IS 'drift; baseline: set by hand'",
    "ALTER TABLE dims_approval_requests ADD COLUMN baseline_as_of TIMESTAMP WITH TIME ZONE",
    "ALTER TABLE dims_approval_requests ADD COLUMN evidence JSONB",
    "COMMENT ON COLUMN dims_approval_requests.evidence IS 'events since the baseline, and the reading''s details'",
    "ALTER TABLE dims_approval_requests ADD COLUMN expires_at TIMESTAMP WITH TIME ZONE",
    "ALTER TABLE dims_approval_requests ADD COLUMN known_by TEXT",
    "COMMENT ON COLUMN dims_approval_requests.known_by IS 'how who decided is known: option, environment, system'",
    "ALTER TABLE dims_approval_requests ALTER COLUMN run_id DROP NOT NULL",
    "COMMENT ON COLUMN dims_approval_requests.run_id IS 'NULL: set by hand'",
    "COMMENT ON COLUMN dims_approval_requests.state IS 'open, approved, rejected, superseded, withdrawn, expired'",
    "CREATE INDEX dims_approval_requests_metric ON dims_approval_requests (metric, id)",
    "CREATE INDEX dims_event_log_received ON dims_event_log (received_at)",
    """
    CREATE FUNCTION dims_decided_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'request % is %: what was decided is kept as it is', OLD.id, OLD.state
            USING ERRCODE = 'restrict_violation';
    END
    $$
    """,
    """
    CREATE TRIGGER dims_decided_is_kept BEFORE UPDATE OR DELETE ON dims_approval_requests
        FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION dims_decided_is_kept()
    """,
    """
    CREATE FUNCTION dims_requests_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'what was decided is kept: dims_approval_requests cannot be truncated'
            USING ERRCODE = 'restrict_violation';
    END
    $$
    """,
    """
    CREATE TRIGGER dims_requests_are_kept BEFORE TRUNCATE ON dims_approval_requests
        EXECUTE FUNCTION dims_requests_are_kept()
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for name in ("dims_requests_are_kept", "dims_decided_is_kept"):
        op.execute(f"DROP TRIGGER {name} ON dims_approval_requests")
        op.execute(f"DROP FUNCTION {name}()")
    op.execute("DROP INDEX dims_event_log_received")
    op.execute("DROP INDEX dims_approval_requests_metric")
    op.execute("DELETE FROM dims_approval_requests WHERE run_id IS NULL")
    op.execute("ALTER TABLE dims_approval_requests ALTER COLUMN run_id SET NOT NULL")
    op.execute("COMMENT ON COLUMN dims_approval_requests.run_id IS NULL")
    op.execute("COMMENT ON COLUMN dims_approval_requests.state IS 'open, approved, rejected, superseded, withdrawn'")
    for column in ("known_by", "expires_at", "evidence", "baseline_as_of", "kind"):
        op.execute(f"ALTER TABLE dims_approval_requests DROP COLUMN {column}")
    for column in ("rejected_as_of", "rejected"):
        op.execute(f"ALTER TABLE dims_metrics DROP COLUMN {column}")
