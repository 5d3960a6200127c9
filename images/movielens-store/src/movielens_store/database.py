"""Connections to the database of DATABASE_URL; their errors become one line without the password."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from movielens_store.errors import BadInput, StoreFailed
from movielens_store.settings import EXAMPLE_URL

DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
PORTS = {"mysql": 3306, "postgresql": 5432}
# in seconds
CONNECT_TIMEOUT = 10
# PyMySQL's limit for each answer, even for the greeting of a server that accepts the connection and is then silent
READ_TIMEOUT = 20
# how long a store waits for another one on the same table
LOCK_TIMEOUT = 60


def parse_database_url(text: str) -> URL:
    """Return the URL with the driver that this project depends on, whichever one it names.

    Raises BadInput without repeating the URL, which holds a password.
    """
    try:
        url = make_url(text)
        if not 0 < (url.port or 1) < 65536:
            raise ValueError(url.port)
    except (ArgumentError, ValueError):
        # `from None`: the first error's text may be the URL
        raise BadInput(f"DATABASE_URL is not a database URL such as {EXAMPLE_URL}") from None
    backend = url.drivername.partition("+")[0]
    if backend not in DRIVERS:
        raise BadInput(f"DATABASE_URL must begin with one of {', '.join(DRIVERS)}, such as {EXAMPLE_URL}")
    if backend == "sqlite" and (url.host or url.database in (None, "", ":memory:")):
        raise BadInput("DATABASE_URL names no SQLite file: write sqlite:////absolute/path or sqlite:///relative/path")
    if not url.database:
        raise BadInput(f"DATABASE_URL names no database: it must look like {EXAMPLE_URL}")
    return url.set(drivername=DRIVERS[backend])


@contextmanager
def connect(url: URL) -> Iterator[Connection]:
    """Yield a connection to the database; at the end it is closed, and what was not committed is rolled back.

    Raises StoreFailed where the server or file is not reachable or refuses a statement, BadInput where the URL
    holds an option that its driver does not know.
    """
    # After a lost connection the pool would log a traceback of its own; our one line is enough.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    try:
        engine = create_engine(url, connect_args=_connect_args(url), poolclass=NullPool, hide_parameters=True)
        connection = engine.connect()
    except (ArgumentError, TypeError, ValueError) as error:
        raise BadInput(f"DATABASE_URL has a part that its driver refuses: {_driver_message(error, url)}") from None
    except DBAPIError as error:
        raise StoreFailed(f"cannot connect to {_address(url)}: {_driver_message(error, url)}") from None
    except RuntimeError:  # PyMySQL's, which asks for a package that we leave out: see pyproject.toml
        raise StoreFailed(f"cannot connect to {_address(url)}: this login needs TLS, which the server lacks") from None
    try:
        with connection:
            yield connection
    except DBAPIError as error:
        raise StoreFailed(f"nothing was stored, {_address(url)}: {_driver_message(error, url)}") from None


def begin_exclusively(connection: Connection, table: str) -> None:
    """Begin the transaction with a lock that only one store into this table can hold.

    Even without the lock, two stores of one interval are safe, because the primary key makes a mix impossible; but
    on InnoDB they deadlock on each other's gap locks, on PostgreSQL the later one fails, and both can fail on
    creating the table. With it no retries are needed, and a store takes about a second. Each kind of lock is
    released with its connection, so a killed store blocks nobody.
    """
    if connection.dialect.name == "sqlite":
        # IMMEDIATE: a transaction that begins as a reader cannot wait for a writer, it fails.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (table,))
    else:
        # MySQL's names are for the whole server and at most 64 characters. It is asked again each second,
        # because a longer wait would exceed READ_TIMEOUT.
        ask = "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '.', %s)), 1)"
        if not any(connection.exec_driver_sql(ask, (table,)).scalar_one() for _ in range(LOCK_TIMEOUT)):
            raise StoreFailed(f"another store has held the table {table} for {LOCK_TIMEOUT} s")


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the transaction begins where begin_exclusively says so
        return {"isolation_level": None, "timeout": LOCK_TIMEOUT}
    limits = {"connect_timeout": CONNECT_TIMEOUT}
    if url.get_backend_name() == "mysql":
        limits |= {"read_timeout": READ_TIMEOUT, "write_timeout": READ_TIMEOUT}
    return {name: seconds for name, seconds in limits.items() if name not in url.query}


def _address(url: URL) -> str:
    kind = url.get_backend_name()
    if kind == "sqlite":
        return f"the SQLite file {url.database}"
    return f"{kind} at {url.host or 'localhost'}:{url.port or PORTS[kind]}, database {url.database}"


def _driver_message(error: Exception, url: URL) -> str:
    """Return the driver's own message (without SQLAlchemy's SQL and links) in one line, the password masked."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    message = " ".join(str(cause.args[-1] if cause.args else cause).split())
    for secret in {url.password or "", quote(url.password or ""), quote_plus(url.password or "")} - {""}:
        message = re.sub(re.escape(secret), "***", message)
    return message
