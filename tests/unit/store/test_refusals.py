"""The messages of PostgreSQL and PgBouncer when a connection fails, which have no SQLSTATE."""

from __future__ import annotations

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError

from dims_worker.errors import ConfigError, DatabaseRefused, DatabaseUnreachable, DimsError
from dims_worker.store.refusals import translate

PLACE = "the database dims at db:5432"
HEAD = 'connection to server at "db" (10.0.0.5), port 5432 failed: '


def translated(message: str) -> DimsError | None:
    error = DBAPIError.instance("", {}, psycopg2.OperationalError(message), psycopg2.Error)
    assert isinstance(error, DBAPIError)
    return translate(error, PLACE, "ada", "dims")


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("FATAL:  sorry, too many clients already", "raise the limit"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "raise the limit"),
        ('FATAL:  too many connections for role "ada"', "raise the limit"),
        ('FATAL:  too many connections for database "dims"', "raise the limit"),
        ("FATAL:  no more connections allowed (max_client_conn)", "raise the limit"),
        ("FATAL:  the database system is starting up", "DIMS tries again"),
        ("FATAL:  the database system is shutting down", "DIMS tries again"),
        ("FATAL:  the database system is in recovery mode", "DIMS tries again"),
        ("FATAL:  the database system is not yet accepting connections", "DIMS tries again"),
        ('FATAL:  password authentication failed for user "ada"', "Check the user and the password"),
        ("fe_sendauth: no password supplied", "Check the user and the password"),
        ("FATAL:  SASL authentication failed", "Check the user and the password"),
        ('FATAL:  role "ada" does not exist', "Create the user"),
        ('FATAL:  role "ada" is not permitted to log in', 'ALTER ROLE "ada" LOGIN'),
        ('FATAL:  database "dims" does not exist', "Create it, or correct its name"),
        ("FATAL:  no such database: dims", "Create it, or correct its name"),
        ('FATAL:  permission denied for database "dims"', 'GRANT CONNECT ON DATABASE "dims" TO "ada"'),
        ('FATAL:  no pg_hba.conf entry for host "h", user "ada", database "dims", no encryption', "sslmode"),
        (
            'FATAL:  no pg_hba.conf entry for host "h", user "ada", database "dims", SSL encryption',
            "pg_hba.conf",
        ),
        ("FATAL:  SSL required", "sslmode=verify-full"),
        ("server does not support SSL, but SSL was required", "Turn SSL on"),
        ('root certificate file "/x/root.crt" does not exist', "docs/security.md"),
        ("session is read-only", "Name the primary server"),
        ("FATAL:  query_wait_timeout", "log of PgBouncer"),
        (
            "FATAL:  server login has been failing, cached error: connect failed",
            "log of PgBouncer",
        ),
        ('could not translate host name "db" to address: Name or service not known', "Correct the host"),
    ],
)
def test_a_refused_connection_has_a_fix(message: str, fix: str) -> None:
    error = translated(HEAD + message + "\n")
    assert isinstance(error, DatabaseRefused)
    assert fix in str(error) and str(error).startswith(PLACE) and "\n" not in str(error)
    assert error.exit_code == 3


@pytest.mark.parametrize(
    "message", ["Connection refused\n\tIs the server running on that host?", "timeout expired", "Verbindung verweigert"]
)
def test_a_server_that_does_not_answer(message: str) -> None:
    error = translated(HEAD + message)
    assert type(error) is DatabaseUnreachable
    assert str(error).endswith("Start the server, or correct DIMS_DATABASE_URL.") and "\n" not in str(error)


def test_an_option_that_libpq_does_not_know_is_an_error_of_the_configuration() -> None:
    assert isinstance(translated('invalid dsn: invalid connection option "sslmodus"'), ConfigError)
