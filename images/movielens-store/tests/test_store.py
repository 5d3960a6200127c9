"""What is in the table afterwards, on each kind of database."""

import json
import signal

import pytest
from movielens_store.errors import StoreFailed
from sqlalchemy import make_url


def test_the_rows_are_stored_in_their_order_with_their_exact_values(database, store, make):
    rows = make(1000)[::-1]
    assert store(database, rows) == 0
    stored = database.rows()
    assert [row[1:] for row in stored] == [row[1:] for row in rows]
    assert [row[0] for row in stored] == list(range(1, 1001))


def test_it_ends_with_one_json_line_on_stdout(database, command, make):
    command.stores(database, make(3))
    line = json.loads(command.stores(database, make(2)))
    assert 0 < line.pop("seconds") < 20
    assert line == {
        "rows": 2,
        "replaced": 3,
        "table": "movie_rankings",
        "pipeline": "docker",
        "interval_start": "2019-01-01",
    }


@pytest.mark.parametrize("count", [0, 1, 5, 9], ids=["none", "fewer", "as many", "more"])
def test_a_second_store_replaces_the_rows_of_the_first(database, store, make, count):
    store(database, make(5, kind=1))
    assert store(database, make(count, kind=2)) == 5
    assert database.rows() == make(count, kind=2)


def test_no_rankings_at_all_make_an_empty_table(database, store):
    store(database, [])
    assert database.rows() == []


def test_other_intervals_and_pipelines_are_left_alone(database, store, make):
    others = [("docker", "2019-02-01"), ("mixed", "2019-01-01"), ("Docker", "2019-01-01"), ("docker-2", "2019-01-01")]
    for kind, other in enumerate(others, start=2):
        store(database, make(4, kind), other)
    store(database, make(5))
    store(database, make(3))
    assert database.rows() == make(3)
    for kind, other in enumerate(others, start=2):
        assert database.rows(other) == make(4, kind)


def test_another_table_can_be_named_even_by_an_sql_keyword(database, store, make):
    store(database, make(2), table="select")
    quote = "`" if database.url.startswith("mysql") else '"'
    assert database.rows(table=f"{quote}select{quote}") == make(2)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["KILL", "TERM", "INT"]
)
def test_a_kill_in_the_middle_of_the_store_leaves_the_old_rows(database, command, store, make, number, code):
    store(database, make(400, kind=1))
    with database.store_held_up() as wait_until_it_waits, command.popen(database, make(900, kind=2)) as process:
        wait_until_it_waits()
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert database.rows() == make(400, kind=1)
    store(database, make(900, kind=2))
    assert database.rows() == make(900, kind=2)


def test_a_store_waits_for_a_transaction_that_blocks_it(database, command, store, make):
    store(database, make(400, kind=1))
    with command.popen(database, make(900, kind=2)) as process:
        with database.store_held_up() as wait_until_it_waits:
            wait_until_it_waits()
        assert process.wait(30) == 0, process.stderr.read()
    assert database.rows() == make(900, kind=2)


def test_stores_of_one_interval_at_the_same_time_leave_one_complete_copy(database, command, make):
    """Of different lengths, and with the table still to be created."""
    contents = [make(count, kind) for kind, count in enumerate((2000, 1, 0, 3000), start=1)]
    processes = [command.popen(database, content, name=f"{number}.csv") for number, content in enumerate(contents)]
    for process in processes:
        with process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert database.rows() in contents


def test_stores_of_neighbouring_intervals_at_the_same_time_are_all_there(database, command, make):
    intervals = [f"2019-{month:02}-01" for month in range(1, 4)]
    processes = []
    for kind, interval in enumerate(intervals, start=1):
        command.flags["--interval_start"] = interval
        processes.append(command.popen(database, make(1000, kind), name=f"{kind}.csv"))
    for process in processes:
        with process:
            _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    for kind, interval in enumerate(intervals, start=1):
        assert database.rows(("docker", interval)) == make(1000, kind)


def test_a_connection_lost_in_the_middle_is_one_line_and_leaves_the_old_rows(server, command, store, make):
    store(server, make(400, kind=1))
    with server.store_held_up() as wait_until_it_waits, command.popen(server, make(900, kind=2)) as process:
        wait_until_it_waits()
        server.end_other_connections()
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith(f"Error: nothing was stored, {server.place}: ")
    assert server.rows() == make(400, kind=1)


def test_a_user_who_may_not_create_tables_can_store_into_one_that_is_there(mariadb, store, make):
    store(mariadb, make(3))
    mariadb.execute("CREATE OR REPLACE USER clerk@'%' IDENTIFIED BY 'geheim'")
    mariadb.execute("GRANT SELECT, INSERT, DELETE ON *.* TO clerk@'%'")
    url = make_url(mariadb.url).set(username="clerk", password="geheim").render_as_string(hide_password=False)
    store(url, make(2))
    assert mariadb.rows() == make(2)
    with pytest.raises(StoreFailed, match="CREATE command denied"):
        store(url, make(2), table="new")


def test_a_table_with_other_columns_is_an_error(database, store, make):
    database.execute("CREATE TABLE movie_rankings (pipeline VARCHAR(64))")
    with pytest.raises(StoreFailed) as raised:
        store(database, make(1))
    assert raised.value.message.startswith(f"nothing was stored, {database.place}: ")
    assert "interval_start" in raised.value.message


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mysql+mysqldb", "mariadb+mariadbconnector"])
def test_each_way_to_write_mysql_works(mariadb, store, make, scheme):
    store(mariadb.url.replace("mysql", scheme, 1), make(1))
    assert mariadb.rows() == make(1)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_each_way_to_write_postgresql_works(postgresql, store, make, scheme):
    store(postgresql.url.replace("postgresql", scheme, 1), make(1))
    assert postgresql.rows() == make(1)
