-- A decided approval request never changes: not even the table's owner changes or removes one by mistake.

CREATE FUNCTION dims_decided_is_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'request % is %: what was decided is kept as it is', OLD.id, OLD.state
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER dims_decided_is_kept BEFORE UPDATE OR DELETE ON dims_approval_requests
    FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION dims_decided_is_kept();

CREATE FUNCTION dims_requests_are_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was decided is kept: dims_approval_requests cannot be truncated'
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER dims_requests_are_kept BEFORE TRUNCATE ON dims_approval_requests
    EXECUTE FUNCTION dims_requests_are_kept();

-- A notification wakes open dashboards. It carries no fact: the listener queries for what changed. Each statement
-- sends one, and PostgreSQL folds equal notifications of one transaction. While a transaction that notified commits,
-- no other one that notified can (async.c, PreCommit_Notify, holds one lock for the whole server). So only tables of
-- few, large transactions notify. The history does not: its rows are committed together with their run's.

CREATE FUNCTION dims_ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('dims', TG_TABLE_NAME);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION dims_ring IS 'Rings on the channel dims: something happened in this table.';
CREATE TRIGGER dims_ring AFTER INSERT ON dims_event_log
    FOR EACH STATEMENT EXECUTE FUNCTION dims_ring();
CREATE TRIGGER dims_ring AFTER INSERT ON dims_verification_runs
    FOR EACH STATEMENT EXECUTE FUNCTION dims_ring();
CREATE TRIGGER dims_ring AFTER INSERT OR UPDATE ON dims_approval_requests
    FOR EACH STATEMENT EXECUTE FUNCTION dims_ring();
