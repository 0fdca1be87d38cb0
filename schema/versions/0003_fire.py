"""What the machine under fire needs: attempts, how long a metric is due, retired metrics, schedules' ticks."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STATEMENTS = (
    "ALTER TABLE dims_metrics ADD COLUMN attempts INTEGER DEFAULT '0' NOT NULL",
    "COMMENT ON COLUMN dims_metrics.attempts IS 'claims since the last record: leases that were lost'",
    "ALTER TABLE dims_metrics ADD COLUMN due_since TIMESTAMP WITH TIME ZONE",
    "COMMENT ON COLUMN dims_metrics.due_since IS 'no event that waits for a reading is older'",
    "ALTER TABLE dims_metrics ADD COLUMN retired_at TIMESTAMP WITH TIME ZONE",
    "COMMENT ON COLUMN dims_metrics.retired_at IS 'no longer configured: never due'",
    # Digests are made another way now: an empty one is taken for what is configured
    "UPDATE dims_metrics SET definition = ''",
    """
    CREATE TABLE dims_schedules (
        rule TEXT NOT NULL,
        since TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
        last_tick TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (rule)
    )
    """,
    "COMMENT ON TABLE dims_schedules IS 'Rules with a schedule: what was missed is told by the last tick.'",
    "COMMENT ON COLUMN dims_schedules.since IS 'first seen: earlier ticks were not missed'",
    "COMMENT ON COLUMN dims_schedules.last_tick IS 'the newest that was stored'",
    "ALTER TABLE dims_event_log ADD COLUMN replayed_at TIMESTAMP WITH TIME ZONE",
    "COMMENT ON COLUMN dims_event_log.replayed_at IS 'when it was last sent again'",
    # A stream that was mended may give an entry's id again
    "DROP INDEX dims_event_log_rejected",
    "CREATE UNIQUE INDEX dims_event_log_rejected ON dims_event_log (stream_id, digest) WHERE outcome = 'rejected'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP INDEX dims_event_log_rejected")
    op.execute("CREATE UNIQUE INDEX dims_event_log_rejected ON dims_event_log (stream_id) WHERE outcome = 'rejected'")
    op.execute("ALTER TABLE dims_event_log DROP COLUMN replayed_at")
    op.execute("DROP TABLE dims_schedules")
    for column in ("retired_at", "due_since", "attempts"):
        op.execute(f"ALTER TABLE dims_metrics DROP COLUMN {column}")
