"""Turns DATABASE_URL into connections, and what goes wrong with them into one line without the password."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, Connection, NullPool, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from movielens_store.errors import BadInput, StoreFailed

EXAMPLE = "mysql://USER:PASSWORD@HOST:3306/DATABASE"
DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "mysql": "mysql+pymysql",
    "mariadb": "mysql+pymysql",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
}
PORTS = {"mysql": 3306, "postgresql": 5432}
CONNECT_SECONDS = 10
# PyMySQL counts each answer, the server's greeting too. It bounds a server that accepts and then says nothing.
ANSWER_SECONDS = 20
# How long one store waits for another one on the same table.
TURN_SECONDS = 60


def parse_database_url(text: str) -> URL:
    """The URL with the driver that this project brings along, whichever one it names.

    Raises BadInput without repeating the URL, which holds a password.
    """
    try:
        url = make_url(text)
        if not 0 < (url.port or 1) < 65536:
            raise ValueError(url.port)
    except (ArgumentError, ValueError):
        # `from None`: the first error's text may be the URL
        raise BadInput(f"DATABASE_URL is not a database URL such as {EXAMPLE}") from None
    backend = url.drivername.partition("+")[0]
    if backend not in DRIVERS:
        raise BadInput(f"DATABASE_URL must begin with one of {', '.join(DRIVERS)}, such as {EXAMPLE}")
    if backend == "sqlite" and (url.host or url.database in (None, "", ":memory:")):
        raise BadInput("DATABASE_URL names no SQLite file: write sqlite:////absolute/path or sqlite:///relative/path")
    if not url.database:
        raise BadInput(f"DATABASE_URL names no database: it must look like {EXAMPLE}")
    return url.set(drivername=DRIVERS[backend])


@contextmanager
def connect(url: URL) -> Iterator[Connection]:
    """One connection to the database, closed at the end; what was not committed by then is rolled back.

    Raises StoreFailed where the server or file cannot be reached or refuses a statement, BadInput where the URL
    holds an option that its driver does not know.
    """
    # After a lost connection the pool would log a traceback of its own; our one line says it all.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
    try:
        engine = create_engine(url, connect_args=_connect_args(url), poolclass=NullPool, hide_parameters=True)
        connection = engine.connect()
    except (ArgumentError, TypeError, ValueError) as error:
        raise BadInput(f"DATABASE_URL has a part that its driver refuses: {_plain(error, url)}") from None
    except DBAPIError as error:
        raise StoreFailed(f"cannot connect to {_place(url)}: {_plain(error, url)}") from None
    except RuntimeError:  # PyMySQL's, for it asks for a package that we leave out: see pyproject.toml
        raise StoreFailed(f"cannot connect to {_place(url)}: this login needs TLS, which the server lacks") from None
    try:
        with connection:
            yield connection
    except DBAPIError as error:
        raise StoreFailed(f"nothing was stored, {_place(url)}: {_plain(error, url)}") from None


def take_turn(connection: Connection, table: str) -> None:
    """Begins the transaction and waits until no other store works on this table.

    Without turns, two stores of one interval are safe too, for the primary key makes a mix impossible; but on
    InnoDB they deadlock on each other's gaps, on PostgreSQL the later one fails, and both can fail on creating the
    table. Turns need no retries, and a store takes about a second. Each kind of lock ends with its connection, so
    a killed store blocks nobody.
    """
    if connection.dialect.name == "sqlite":
        # IMMEDIATE: a transaction that begins as a reader cannot wait for a writer, it fails.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{TURN_SECONDS}s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (table,))
    else:
        # MySQL's names are for the whole server and at most 64 characters. It is asked again each second,
        # because a longer wait would look like a server that does not answer.
        ask = "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '.', %s)), 1)"
        if not any(connection.exec_driver_sql(ask, (table,)).scalar_one() for _ in range(TURN_SECONDS)):
            raise StoreFailed(f"another store has held the table {table} for {TURN_SECONDS} s")


def _connect_args(url: URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        # isolation_level None: the transaction begins where take_turn says so
        return {"isolation_level": None, "timeout": TURN_SECONDS}
    limits = {"connect_timeout": CONNECT_SECONDS}
    if url.get_backend_name() == "mysql":
        limits |= {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    return {name: seconds for name, seconds in limits.items() if name not in url.query}


def _place(url: URL) -> str:
    kind = url.get_backend_name()
    if kind == "sqlite":
        return f"the SQLite file {url.database}"
    return f"{kind} at {url.host or 'localhost'}:{url.port or PORTS[kind]}, database {url.database}"


def _plain(error: Exception, url: URL) -> str:
    """The driver's own words (without SQLAlchemy's SQL and links) in one line, the password blacked out."""
    cause = (error.orig if isinstance(error, DBAPIError) else None) or error
    words = " ".join(str(cause.args[-1] if cause.args else cause).split())
    for secret in {url.password or "", quote(url.password or ""), quote_plus(url.password or "")} - {""}:
        words = re.sub(re.escape(secret), "***", words)
    return words
