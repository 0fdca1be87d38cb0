"""Which process holds which lease."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress

import psycopg2


def lease_holders(url: str) -> Mapping[int, str]:
    """Return the pid of each lease holder, and the source of its lease. Empty if the database does not answer."""
    with (
        suppress(psycopg2.Error),
        closing(
            psycopg2.connect(url.replace("+psycopg2", ""), connect_timeout=2, options="-c statement_timeout=1000")
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT lease_holder, source FROM dims_sources WHERE lease_until > clock_timestamp()")
        return {int(holder.rpartition(":")[2]): source for holder, source in cursor.fetchall()}
    return {}
