"""The second revision: `dims_processes`, and the duration of the last scan of each source."""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    for name in ("processes", "grants"):  # `dims_grant` also grants rights on the new table
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("DROP TABLE dims_processes")
    op.execute("ALTER TABLE dims_sources DROP COLUMN scan_seconds")
