-- A decided approval request never changes: not even the table's owner changes or removes one by mistake.

CREATE FUNCTION dims_protect_decisions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'approval request % is %: a decided request cannot be changed', OLD.id, OLD.state
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER dims_protect_decisions BEFORE UPDATE OR DELETE ON dims_approval_requests
    FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION dims_protect_decisions();

CREATE FUNCTION dims_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'dims_approval_requests cannot be truncated: decided requests are kept'
        USING ERRCODE = 'restrict_violation';
END
$$;
CREATE TRIGGER dims_refuse_truncate BEFORE TRUNCATE ON dims_approval_requests
    EXECUTE FUNCTION dims_refuse_truncate();

-- A notification wakes open dashboards. It carries no fact: the listener queries for what changed. Each statement
-- sends one, and PostgreSQL folds equal notifications of one transaction. While a transaction that notified commits,
-- no other one that notified can (async.c, PreCommit_Notify, holds one lock for the whole server). So only tables of
-- few, large transactions notify. The history does not: its rows are committed together with their run's.

CREATE FUNCTION dims_notify_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('dims', TG_TABLE_NAME);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION dims_notify_change IS 'Notifies the channel dims that something changed in this table.';
CREATE TRIGGER dims_notify_change AFTER INSERT ON dims_event_log
    FOR EACH STATEMENT EXECUTE FUNCTION dims_notify_change();
CREATE TRIGGER dims_notify_change AFTER INSERT ON dims_verification_runs
    FOR EACH STATEMENT EXECUTE FUNCTION dims_notify_change();
CREATE TRIGGER dims_notify_change AFTER INSERT OR UPDATE ON dims_approval_requests
    FOR EACH STATEMENT EXECUTE FUNCTION dims_notify_change();
