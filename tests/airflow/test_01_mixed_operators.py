"""DAG 01 run by Airflow against the real API and SQLite."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from support.dag_runs import Place, point_airflow_at, run_dag
from support.plain_python import ratings_of, rows_of
from support.task_commands import fetch, rank, store

from course.embedded import Api

MONTHS = {"2019-01": "2019-02-01", "2019-02": "2019-03-01", "2023-12": "2024-01-01"}


@pytest.fixture(autouse=True)
def _ready(airflow_database: None) -> None:
    """Every test here runs a DAG."""


def test_each_month_is_fetched_ranked_and_stored(api: Api, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    expected = []
    for month, end in MONTHS.items():
        assert run_dag(month).state == "success"
        ratings = ratings_of(api, f"{month}-01", end)
        lines = place.file("ratings", f"{month}-01").decode().splitlines()
        assert lines[0] == "userId,movieId,rating,timestamp"
        assert lines[1:] == [f"{r['userId']},{r['movieId']},{r['rating']},{r['timestamp']}" for r in ratings]
        expected += rows_of(ratings, f"{month}-01")
    assert len(expected) > 30
    assert place.rows() == expected


def test_a_rerun_replaces_its_interval_and_nothing_else(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    assert run_dag("2019-01").state == "success"
    before = place.rows()
    others = [
        ("01_mixed_operators", "2019-02-01", 1, 1, 4.0, 3),
        ("another", "2019-01-01", 1, 1, 4.0, 3),
    ]
    with closing(sqlite3.connect(place.database)) as database, database:
        database.execute("DELETE FROM movie_rankings WHERE position > 5")
        database.execute("UPDATE movie_rankings SET avg_rating = 0")
        database.executemany("INSERT INTO movie_rankings VALUES (?, ?, ?, ?, ?, ?)", others)
    assert run_dag("2019-01").state == "success"
    assert place.rows() == sorted(before + others)


def test_thirty_percent_faults_leave_the_same_bytes_and_rows(
    api: Api, faulty_api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, stormy = Place(tmp_path / "calm"), Place(tmp_path / "stormy")
    for one, served in ((calm, api), (stormy, faulty_api)):
        one.results.mkdir(parents=True)
        point_airflow_at(served, one, monkeypatch.setenv)
        for month in MONTHS:
            assert run_dag(month).state == "success"
    for month in MONTHS:
        for kind in ("ratings", "rankings"):
            assert stormy.file(kind, f"{month}-01") == calm.file(kind, f"{month}-01")
    assert stormy.rows() == calm.rows()


def test_a_month_without_ratings_succeeds_with_zero_rows(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    assert run_dag("2018-01").state == "success"
    assert place.file("ratings", "2018-01-01") == b"userId,movieId,rating,timestamp\n"
    assert place.file("rankings", "2018-01-01") == b"movieId,avg_rating,num_ratings\n"
    assert place.rows() == []


def test_a_run_with_a_logical_date_takes_the_interval_of_the_schedule(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    assert run_dag(logical_date=datetime(2019, 4, 1, tzinfo=UTC)).state == "success"
    assert {row[1] for row in place.rows()} == {"2019-03-01"}


def test_a_manual_run_without_a_month_fails_at_the_first_try_and_says_what_it_needs(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    dag_run = run_dag()
    assert dag_run.state == "failed"
    assert dag_run.get_task_instance("fetch_ratings").try_number == 1
    assert "this run has no interval: trigger it with a month" in "".join(capsys.readouterr())
    assert not place.database.exists()


def test_a_wrong_password_fails_without_asking_again(
    api: Api, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_airflow_at(api._replace(password="not-the-password"), place, monkeypatch.setenv)
    dag_run = run_dag("2019-01", retries=0)
    assert dag_run.state == "failed"
    fetch = dag_run.get_task_instance("fetch_ratings")
    assert fetch.duration < 5
    printed = "".join(capsys.readouterr())
    assert "401:UNAUTHORIZED" in printed
    assert "not-the-password" not in printed
    assert not place.results.exists()


def test_the_task_commands_make_the_same_bytes_and_rows_at_any_page_size(
    api: Api, faulty_api: Api, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point_airflow_at(api, place, monkeypatch.setenv)
    assert run_dag("2019-01").state == "success"

    def fetch_pages_of(case: tuple[Api, int]) -> Path:
        served, page = case
        ratings = tmp_path / f"{served.port}-{page}.csv"
        fetch(served, "2019-01-01", "2019-02-01", ratings, "--batch_size", str(page))
        return ratings

    with ThreadPoolExecutor() as pool:  # they mostly wait, as faults ask them to
        for ratings in pool.map(fetch_pages_of, product((api, faulty_api), (7, 100, 1_000, 10_000))):
            assert ratings.read_bytes() == place.file("ratings", "2019-01-01")
    rankings = tmp_path / "rankings.csv"
    rank(ratings, rankings)
    assert rankings.read_bytes() == place.file("rankings", "2019-01-01")
    store(rankings, "2019-01-01", "the_commands", f"sqlite:///{place.database}")
    stored = [row[1:] for row in place.rows("pipeline = 'the_commands'")]
    assert stored == [row[1:] for row in place.rows("pipeline = '01_mixed_operators'")]
