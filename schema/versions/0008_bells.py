"""A bell where something happens, for pages that are open; the events that were not planned, by an index."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A notification is only a bell: it carries no fact, and who hears it looks for itself. One statement rings once, and
# PostgreSQL folds equal bells of one transaction. While a transaction that rang commits, no other one that rang can
# (async.c, PreCommit_Notify, holds one lock for the whole server): so tables of few, large transactions ring, and the
# history, whose rows come with a run's, does not.
BELLS = {
    "dims_event_log": "INSERT",
    "dims_verification_runs": "INSERT",
    "dims_approval_requests": "INSERT OR UPDATE",
}

KNOWN_BY = "COMMENT ON COLUMN dims_approval_requests.known_by IS 'how who decided is known: option, environment, system"


def upgrade() -> None:
    op.execute(
        """
        CREATE FUNCTION dims_ring() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_catalog.pg_notify('dims', TG_TABLE_NAME);
            RETURN NULL;
        END
        $$
        """
    )
    op.execute("COMMENT ON FUNCTION dims_ring IS 'Rings on the channel dims: something happened in this table.'")
    for table, what in BELLS.items():
        op.execute(f"CREATE TRIGGER dims_ring AFTER {what} ON {table} FOR EACH STATEMENT EXECUTE FUNCTION dims_ring()")
    # Few among many: to be found however long ago they came; planned ones, nearly all, cost nothing
    op.execute("CREATE INDEX dims_event_log_unplanned ON dims_event_log (outcome, seq) WHERE outcome <> 'planned'")

    op.execute(KNOWN_BY + ", token, link, proxy'")


def downgrade() -> None:
    op.execute(KNOWN_BY + "'")
    op.execute("DROP INDEX dims_event_log_unplanned")
    for table in BELLS:
        op.execute(f"DROP TRIGGER dims_ring ON {table}")
    op.execute("DROP FUNCTION dims_ring()")
