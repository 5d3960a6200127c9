"""The databases that the tests run on, each a real one, and the command as a process.

SQLite is always there. MariaDB and PostgreSQL are started from the machine's own binaries, each as a server of its
own on a free port of 127.0.0.1; where they are not installed, their tests are skipped. REQUIRE=databases turns that
skip into a failure.
"""

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

import psycopg
import pymysql
import pytest
from movielens_store.rankings import Ranking
from movielens_store.store import store_rankings

USER, PASSWORD = "tester", "geheim/p@ss:word"
QUOTED_PASSWORD = "geheim%2Fp%40ss%3Aword"
NAME = "postgres"  # of the database: the one that every PostgreSQL server has
KEY = ("docker", "2019-01-01")


def wait_until(condition, seconds=20, every=0.01):
    """Poll the condition; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"condition not met after {seconds} s"
        time.sleep(every)


# --- the servers


def binary(name):
    """A server's binary: on PATH, or where Debian keeps it. Skips where it is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, versions)])
    if found := shutil.which(name, path=path):
        return found
    if "databases" in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE=databases, but {name} is not installed")
    pytest.skip(f"{name} is not installed")


def server_user(*names):
    """How subprocess drops root's rights, with which these servers refuse to run: {} for any other user."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in (*names, "nobody") if name in known)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


@contextmanager
def running(command, folder, user, answers, end):
    """A server from when it answers until the end of the block; its log is shown if it does not come up.

    `end` is the signal that ends it soonest without leaving anything behind.
    """
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder, **user
        ) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or answers())
            if process.poll() is not None:
                pytest.fail(f"{command[0]} ended: {log.read_text()}")
            yield
        finally:
            process.send_signal(end)


@contextmanager
def server_folder(user):
    # not below tmp_path, which no other user may enter
    folder = Path(tempfile.mkdtemp())
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        yield folder
    finally:
        shutil.rmtree(folder)


def connects(connect, port):
    try:
        connect(port).close()
    except (psycopg.OperationalError, pymysql.OperationalError):
        return False
    return True


@pytest.fixture(scope="session")
def mariadb_port():
    install, server = binary("mariadb-install-db"), binary("mariadbd")
    user, port = server_user("mysql"), free_port()
    with server_folder(user) as folder:
        data = f"--datadir={folder}/data"
        subprocess.run(
            [install, "--no-defaults", data, "--skip-test-db", "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            **user,
        )
        start = folder / "start.sql"
        start.write_text(
            f"CREATE DATABASE {NAME};\nGRANT ALL ON *.* TO {USER}@'%' IDENTIFIED BY '{PASSWORD}' WITH GRANT OPTION;\n"
        )
        start.chmod(0o644)
        command = [
            server,
            "--no-defaults",
            data,
            f"--socket={folder}/socket",
            f"--port={port}",
            "--bind-address=127.0.0.1",
            f"--init-file={start}",
            "--innodb-flush-log-at-trx-commit=0",
            # an engine without transactions, as a server may have it by default
            "--default-storage-engine=MyISAM",
        ]
        answers = partial(connects, Mariadb.connect, port)
        with running(command, folder, user, answers, signal.SIGKILL):
            yield port


@pytest.fixture(scope="session")
def postgresql_port():
    initdb, server = binary("initdb"), binary("postgres")
    user, port = server_user("postgres"), free_port()
    with server_folder(user) as folder:
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        subprocess.run(
            [initdb, "-D", folder / "data", "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"],
            check=True,
            capture_output=True,
            **user,
        )
        command = [
            server,
            "-D",
            folder / "data",
            "-p",
            str(port),
            "-k",
            folder,
            "-c",
            "listen_addresses=127.0.0.1",
            "-F",
        ]
        with running(command, folder, user, lambda: connects(Postgresql.connect, port), signal.SIGINT):
            yield port


# --- the databases, without tables at the beginning of each test


class Database:
    """What the tests ask of a database, by its own driver and past the code under test."""

    def execute(self, statement, *values):
        with closing(self.open()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(statement, *([values] if values else []))
            rows = list(cursor.fetchall()) if cursor.description else []
            connection.commit()
            return rows

    def rows(self, key=KEY, table="movie_rankings"):
        """(position, movie_id, avg_rating, num_ratings) of one pipeline and interval, in order."""
        mark = "?" if isinstance(self, Sqlite) else "%s"
        return self.execute(
            f"SELECT position, movie_id, avg_rating, num_ratings FROM {table} "  # noqa: S608 - a test's own name
            f"WHERE pipeline = {mark} AND interval_start = {mark} ORDER BY position",
            *key,
        )


class Sqlite(Database):
    def __init__(self, folder):
        self.file = folder / "movies.db"
        self.url = f"sqlite:///{self.file}"
        self.place = f"the SQLite file {self.file}"

    def open(self):
        return sqlite3.connect(self.file, timeout=0)

    @contextmanager
    def store_held_up(self):
        """A reader, which keeps every writer from its commit. Yields a function that waits for a writer."""
        with closing(self.open()) as reader, closing(self.open()) as prober:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM movie_rankings").fetchall()

            def a_store_is_at_work():
                try:
                    prober.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
                prober.rollback()
                return False

            yield lambda: wait_until(a_store_is_at_work)


class Mariadb(Database):
    def __init__(self, port):
        self.port = port
        self.url = f"mysql://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port}/{NAME}"
        self.place = f"mysql at 127.0.0.1:{port}, database {NAME}"
        self.execute("DROP TABLE IF EXISTS movie_rankings, `select`")

    @staticmethod
    def connect(port):
        return pymysql.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, database=NAME)

    def open(self):
        return self.connect(self.port)

    @contextmanager
    def store_held_up(self):
        """An open transaction with a row inside the interval. Yields a function that waits for a blocked store."""
        waiting = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        with closing(self.open()) as holder, holder.cursor() as cursor:
            cursor.execute("INSERT INTO movie_rankings VALUES (%s, %s, 500, 1, 1, 1)", KEY)
            # that view stays as it is for whoever looks more often than each 0.1 s
            yield lambda: wait_until(lambda: self.execute(waiting), every=0.15)

    def end_other_connections(self):
        for (number,) in self.execute(
            "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND info LIKE '%movie_ran%'"
        ):
            self.execute(f"KILL {number}")


class Postgresql(Database):
    def __init__(self, port):
        self.port = port
        self.url = f"postgresql://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{port}/{NAME}"
        self.place = f"postgresql at 127.0.0.1:{port}, database {NAME}"
        self.execute('DROP TABLE IF EXISTS movie_rankings, "select"')

    @staticmethod
    def connect(port):
        return psycopg.connect(host="127.0.0.1", port=port, user=USER, password=PASSWORD, dbname=NAME)

    def open(self):
        return self.connect(self.port)

    @contextmanager
    def store_held_up(self):
        """As for MariaDB."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with closing(self.open()) as holder:
            holder.execute("INSERT INTO movie_rankings VALUES (%s, %s, 500, 1, 1, 1)", KEY)
            yield lambda: wait_until(lambda: self.execute(waiting))

    def end_other_connections(self):
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


@pytest.fixture
def sqlite(tmp_path):
    return Sqlite(tmp_path)


@pytest.fixture
def mariadb(mariadb_port):
    return Mariadb(mariadb_port)


@pytest.fixture
def postgresql(postgresql_port):
    return Postgresql(postgresql_port)


@pytest.fixture(params=["sqlite", "mariadb", "postgresql"])
def database(request):
    """Each kind in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["mariadb", "postgresql"])
def server(request):
    """Each kind that is a server."""
    return request.getfixturevalue(request.param)


# --- the command


@dataclass
class Command:
    """The command, to be run in a process of its own. A flag or variable set to None is left out."""

    folder: Path
    flags: dict = field(default_factory=lambda: {"--interval_start": KEY[1], "--pipeline": KEY[0]})
    environment: dict = field(default_factory=lambda: {"PYTHONDONTWRITEBYTECODE": "1"})

    def file(self, content, name="rankings.csv"):
        path = self.folder / name
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        else:
            lines = [f"{movie},{rating!r},{ratings}\n" for _, movie, rating, ratings in content]
            path.write_text("movieId,avg_rating,num_ratings\n" + "".join(lines))
        return path

    def popen(self, database, content, name="rankings.csv", **more):
        """Start to store `content`, rows as Database.rows() returns them or the text of a file."""
        flags = {"--input_path": self.file(content, name)} | self.flags
        words = [str(word) for flag, value in flags.items() if value is not None for word in (flag, value)]
        url = {"DATABASE_URL": getattr(database, "url", database)}
        environment = {key: value for key, value in (url | self.environment).items() if value is not None}
        return subprocess.Popen(
            [sys.executable, "-m", "movielens_store", *words],
            env=environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more,
        )

    def run(self, database, content):
        with self.popen(database, content) as process:
            return finished(process)

    def stores(self, database, content):
        done = self.run(database, content)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def fails(self, exit_code, words, database="sqlite:////nowhere/movies.db", content=()):
        """Run; check exit code and that there is one line `Error: ...`, with `words`, and nothing else."""
        done = self.run(database, content)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (exit_code, "", 1), done.stderr
        assert done.stderr.startswith("Error: ")
        assert words in done.stderr
        return done.stderr


def finished(process):
    """Wait for the end of the command; its output holds no traceback and no password."""
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert "geheim" not in out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def command(tmp_path):
    return Command(tmp_path)


@pytest.fixture
def store():
    """The library function, for rows as Database.rows() returns them."""

    def store(database, rows, key=KEY, **more):
        rankings = [Ranking(*row[1:]) for row in rows]
        url, (pipeline, interval) = getattr(database, "url", database), key
        return store_rankings(rankings, url, interval_start=date.fromisoformat(interval), pipeline=pipeline, **more)

    return store


@pytest.fixture
def make():
    """Make rows that differ in every value from those of another `kind`."""

    def row(place, kind):
        return place, kind * 100_000 + place, kind + 1 / (place + 2), kind * 10 + place

    return lambda count, kind=1: [row(place, kind) for place in range(1, count + 1)]
