"""Find tables that were emptied, rewritten or exchanged after the snapshot of a transaction.

TRUNCATE, ALTER TABLE and an exchange of names are not MVCC-safe (PostgreSQL manual, section 13.6): a transaction with
an older snapshot sees the new table, but none of its rows. So a query can return 0 rows although the table was never
empty.

A query keeps a lock on everything that it read until its savepoint is rolled back. PostgreSQL lists these locks in
pg_locks, also for the tables behind views, partitions and functions. Such a lock also keeps others from replacing the
table. So it is enough to look once, after the query and under its locks: DIMS locks nothing in advance, and no TRUNCATE
waits longer than the query itself takes.
"""

from __future__ import annotations

# A row of a system catalog that the snapshot sees, and that a committed transaction has replaced, shows that the table
# is no longer the one of the snapshot. pg_class has a row for each table (TRUNCATE, VACUUM FULL, CLUSTER, RENAME,
# ATTACH PARTITION), pg_rewrite for each view (CREATE OR REPLACE VIEW), pg_inherits for each child of a table (DETACH),
# pg_namespace for each schema (RENAME).
# VACUUM, ANALYZE and CREATE INDEX change these rows in place, so they do not count.
# xmax has 32 bits. The snapshot's own number completes it: the two differ by less than 2^31.
REPLACED_TABLES = """
WITH used AS (
    SELECT DISTINCT relation AS oid
    FROM pg_catalog.pg_locks
    WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND relation >= 16384
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
), snapshot AS (
    SELECT pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) AS next
), ended AS (
    SELECT used.oid, class.xmax::text::bigint AS xid
    FROM used JOIN pg_catalog.pg_class AS class ON class.oid = used.oid
    WHERE class.relkind NOT IN ('i', 'I', 'S') AND class.xmax <> '0'
    UNION ALL
    SELECT used.oid, rule.xmax::text::bigint
    FROM used JOIN pg_catalog.pg_rewrite AS rule ON rule.ev_class = used.oid
    WHERE rule.xmax <> '0'
    UNION ALL
    SELECT used.oid, child.xmax::text::bigint
    FROM used JOIN pg_catalog.pg_inherits AS child ON child.inhparent = used.oid
    WHERE child.xmax <> '0'
    UNION ALL
    SELECT used.oid, namespace.xmax::text::bigint
    FROM used JOIN pg_catalog.pg_class AS class ON class.oid = used.oid
    JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE namespace.xmax <> '0'
), replaced AS (
    SELECT oid, next + (((xid - (next & 4294967295)) + 2147483648) & 4294967295) - 2147483648 AS xid
    FROM ended, snapshot
)
SELECT oid::regclass::text AS name
FROM used
WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS class WHERE class.oid = used.oid)
  AND pg_catalog.pg_get_indexdef(oid) IS NULL
UNION
SELECT oid::regclass::text
FROM replaced
WHERE CASE WHEN xid > 2 THEN pg_catalog.txid_status(xid) = 'committed' END
ORDER BY name
"""
