"""The command line: flags, settings, input files, and the message when something is wrong."""

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from movielens_store import database as module
from movielens_store.errors import BadInput, StoreFailed
from movielens_store.rankings import read_rankings
from sqlalchemy import make_url


def test_help_names_every_flag_and_setting():
    text = subprocess.run(
        [sys.executable, "-m", "movielens_store", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for word in ("--input_path", "--interval_start", "--pipeline", "--table", "DATABASE_URL", "DATABASE_URL_FILE"):
        assert word in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"--input_path": None}, "Missing option '--input_path'"),
        ({"--input_path": "/nowhere.csv"}, "File '/nowhere.csv' does not exist"),
        ({"--input_path": "/"}, "is a directory"),
        ({"--interval_start": None}, "Missing option '--interval_start'"),
        ({"--interval_start": "2019-1-1"}, "'2019-1-1' is not a day as YYYY-MM-DD"),
        ({"--interval_start": "20190101"}, "'20190101' is not a day"),
        ({"--interval_start": "2019-02-29"}, "'2019-02-29' is not a day"),
        ({"--pipeline": None}, "Missing option '--pipeline'"),
        ({"--pipeline": ""}, "'--pipeline': ''"),
        ({"--pipeline": "a b"}, "'a b' is not"),
        ({"--pipeline": "x" * 65}, "is not 1 to 64 letters, digits, underscores and dashes"),
        ({"--pipeline": "döcker"}, "is not 1 to 64"),
        ({"--pipeline": "docker\n"}, "is not 1 to 64"),
        ({"--table": "a-b"}, "'a-b' is not"),
        ({"--table": "1a"}, "a digit not first"),
        ({"--table": "x" * 64}, "is not up to 63"),
        ({"--table": 'x"; DROP TABLE y'}, "is not up to 63"),
        ({"--url": "x"}, "No such option '--url'"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(command, sqlite, flags, words):
    command.flags |= flags
    command.fails(2, words, sqlite)
    assert not sqlite.file.exists()


HEADER = "movieId,avg_rating,num_ratings\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "line 1: the header is '', not 'movieId,avg_rating,num_ratings'"),
        ("movieId,rating\n", "line 1: the header is 'movieId,rating'"),
        ("1,4.5,3\n", "line 1: the header is '1,4.5,3'"),
        (HEADER + "1,4.5,3\n2,4.0\n", "line 3: '2,4.0' has 2 values, not 3"),
        (HEADER + "1,4.5,3,4\n", "line 2: '1,4.5,3,4' has 4 values"),
        (HEADER + "\n", "line 2: '' has 0 values"),
        (HEADER + "x,4.5,3\n", "line 2: movieId is 'x', not a whole number"),
        (HEADER + "1.0,4.5,3\n", "movieId is '1.0'"),
        (HEADER + " 1,4.5,3\n", "movieId is ' 1'"),
        (HEADER + "1_0,4.5,3\n", "movieId is '1_0'"),
        (HEADER + "१,4.5,3\n", "movieId is '१'"),
        (HEADER + "-1,4.5,3\n", "movieId is '-1'"),
        (HEADER + "2147483648,4.5,3\n", "movieId is '2147483648', not a whole number up to 2147483647"),
        (HEADER + "1,,3\n", "avg_rating is '', not a number"),
        (HEADER + "1,nan,3\n", "avg_rating is 'nan'"),
        (HEADER + "1,inf,3\n", "avg_rating is 'inf'"),
        (HEADER + "1,1e999,3\n", "avg_rating is '1e999'"),
        (HEADER + "1,4.5,\n", "num_ratings is ''"),
        (HEADER + "1,4.5,3.0\n", "num_ratings is '3.0'"),
        (HEADER + '1,4.5,"3\n', "line 2: "),
        (HEADER + "1,4.5,\x003\n", "line 2: num_ratings is '\\x003'"),
    ],
)
def test_an_invalid_input_file_is_named_with_its_line_and_value(tmp_path, content, words):
    file = tmp_path / "rankings.csv"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        read_rankings(file)
    assert words in raised.value.message
    assert str(file) in raised.value.message


def test_an_invalid_input_file_is_exit_code_2_before_the_database_is_touched(command, sqlite):
    command.fails(2, "line 2: movieId is 'x'", sqlite, HEADER + "x,4.5,3\n")
    assert not sqlite.file.exists()


def test_an_input_file_that_is_not_text_is_one_line(command, sqlite, tmp_path):
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    command.flags["--input_path"] = tmp_path / "picture"
    command.fails(2, "picture is not UTF-8 text", sqlite)


def test_a_whole_number_is_a_rating_too_and_lines_may_end_as_on_windows(command, sqlite):
    command.stores(sqlite, "movieId,avg_rating,num_ratings\r\n7,4,3\r\n8,3.5e0,2\r\n")
    assert sqlite.rows() == [(1, 7, 4.0, 3), (2, 8, 3.5, 2)]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("geheim", "DATABASE_URL is not a database URL such as"),
        ("mysql://someone:geheim@host:port/movies", "DATABASE_URL is not a database URL"),
        ("mysql://someone:geheim@host:99999/movies", "DATABASE_URL is not a database URL"),
        ("oracle://someone:geheim@host/movies", "must begin with one of sqlite, mysql, mariadb, postgres, postgresql"),
        ("mysql://someone:geheim@host", "DATABASE_URL names no database"),
        ("postgresql://someone:geheim@host/", "DATABASE_URL names no database"),
        ("mysql://someone:geheim@host/movies?geheim=1", "DATABASE_URL has a part that its driver refuses"),
        ("sqlite://", "DATABASE_URL names no SQLite file"),
        ("sqlite:///:memory:", "DATABASE_URL names no SQLite file"),
        ("sqlite://folder/movies.db", "DATABASE_URL names no SQLite file"),
    ],
)
def test_a_url_that_cannot_be_used_is_named_but_not_repeated(store, make, url, words):
    with pytest.raises(BadInput) as raised:
        store(url, make(1))
    assert words in raised.value.message
    assert "geheim@" not in raised.value.message


def test_a_url_that_cannot_be_used_is_exit_code_2(command):
    command.fails(2, "DATABASE_URL is not a database URL such as", "mysql://someone:geheim@host:port/movies")


def test_the_url_can_come_from_a_file_that_ends_with_a_newline(command, sqlite, make, tmp_path):
    file = tmp_path / "url"
    file.write_text(sqlite.url + "\n")
    command.environment["DATABASE_URL_FILE"] = str(file)
    command.stores(None, make(2))
    assert sqlite.rows() == make(2)


@pytest.mark.parametrize(
    ("url", "file", "words"),
    [
        (None, None, "set DATABASE_URL, such as mysql://USER:PASSWORD@HOST:3306/DATABASE, or DATABASE_URL_FILE"),
        ("", None, "set DATABASE_URL"),
        (None, "/nowhere", "DATABASE_URL_FILE: cannot read /nowhere: No such file or directory"),
        (None, "/dev/null", "DATABASE_URL_FILE: /dev/null is empty"),
        ("sqlite:///x.db", "/dev/null", "both DATABASE_URL and DATABASE_URL_FILE are set"),
    ],
)
def test_a_missing_setting_is_exit_code_2(command, url, file, words):
    command.environment["DATABASE_URL_FILE"] = file
    command.fails(2, words, url)


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_an_unreachable_server_is_named_without_the_password(command, make, kind):
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    url = f"{kind}://someone:geheim@127.0.0.1:{port}/movies"
    command.fails(1, f"cannot connect to {kind} at 127.0.0.1:{port}, database movies: ", url, make(1))


def test_a_wrong_password_is_exit_code_1_and_not_repeated(server, command, make):
    url = make_url(server.url).set(password="geheim2").render_as_string(hide_password=False)
    command.fails(1, f"cannot connect to {server.place}: ", url, make(1))


def test_a_database_that_is_not_there_is_named(server, store, make):
    with pytest.raises(StoreFailed, match="database nothing: "):
        store(server.url.rpartition("/")[0] + "/nothing", make(1))


@pytest.mark.parametrize("path", ["/nowhere/movies.db", "/dev/full/movies.db", "/"])
def test_a_sqlite_file_that_cannot_be_opened_is_named(store, make, path):
    with pytest.raises(StoreFailed, match=f"the SQLite file {path}: unable to open database file"):
        store(f"sqlite:///{path}", make(1))


def test_a_file_that_is_not_a_database_is_left_as_it_is(store, make, sqlite):
    sqlite.file.write_text("a diary, kept for many years " * 100)
    with pytest.raises(StoreFailed, match="file is not a database"):
        store(sqlite, make(1))
    assert sqlite.file.read_text().startswith("a diary")


def test_a_stdout_that_is_full_is_one_line(command, sqlite, make):
    with Path("/dev/full").open("w") as full, command.popen(sqlite, make(1), stdout=full) as process:
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (1, "Error: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_a_server_that_accepts_and_stays_silent_is_given_up(monkeypatch, kind):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 2)  # the least that PostgreSQL's library takes
    monkeypatch.setattr(module, "READ_TIMEOUT", 1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = module.parse_database_url(f"{kind}://someone:geheim@127.0.0.1:{silent.getsockname()[1]}/movies")
        with pytest.raises(StoreFailed) as raised, module.connect(url):
            pass
    assert "cannot connect" in raised.value.message
    assert "geheim" not in raised.value.message
