"""What a reading keeps beside its value, and what a workflow found."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE dims_metrics ADD COLUMN details JSONB")
    op.execute("COMMENT ON COLUMN dims_metrics.details IS 'what the latest good reading keeps beside its value'")
    op.execute("ALTER TABLE dims_verification_runs ADD COLUMN result JSONB")
    op.execute("COMMENT ON COLUMN dims_verification_runs.result IS 'of a workflow: everything that its report tells'")


def downgrade() -> None:
    op.execute("ALTER TABLE dims_verification_runs DROP COLUMN result")
    op.execute("ALTER TABLE dims_metrics DROP COLUMN details")
