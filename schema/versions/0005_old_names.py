"""The fifth revision: the names of the original DIMS in SQL: one view, one function, and columns of the views."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    for name in ("views", "grants"):  # a new database has the views already: 0001 runs the same files
        op.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))


def downgrade() -> None:
    """Keep the names. They depend on no column of this revision, and no older version of DIMS minds them."""
