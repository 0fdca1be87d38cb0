"""The sixth revision: incidents, expected bands and mutes."""

from pathlib import Path

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    for name in ("incidents", "grants"):  # `dims_grant` also grants rights on the new tables
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("DROP TABLE dims_incidents, dims_expectations, dims_mutes")
    op.execute(
        "ALTER TABLE dims_metrics DROP COLUMN history_since, DROP COLUMN expected_low, DROP COLUMN expected_high"
    )
    op.execute("ALTER TABLE dims_metrics_history DROP COLUMN expected_low, DROP COLUMN expected_high")
    op.execute("ALTER TABLE dims_schedules DROP COLUMN last_event_at")
    op.execute(
        "COMMENT ON TABLE dims_schedules IS 'Rules with a schedule. The last tick shows which ticks were missed.'"
    )
