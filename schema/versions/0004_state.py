"""The fourth revision: what each metric was measured from, so that DIMS can find that nothing has changed."""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    for name in ("state", "retention"):  # a comparison moves `as_of`, and retention keeps the reading behind it
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    op.execute("ALTER TABLE dims_metrics DROP COLUMN reading_gen, DROP COLUMN state")
