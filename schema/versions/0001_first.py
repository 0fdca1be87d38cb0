"""The first revision: all tables, views, functions, triggers and roles, from the files in `schema/sql`."""

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    for name in ("tables", "views", "triggers", "retention", "roles", "grants"):
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute((SQL / "drop.sql").read_text(encoding="utf-8"))
