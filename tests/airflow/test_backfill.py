"""Scheduled runs: a real scheduler, DAG processor and API server work off a backfill of three months."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.airflow_servers import airflow, airflow_servers
from support.dag_runs import Place
from support.plain_python import ratings_of, rows_of

from course.embedded import Api, airflow_environment
from course.paths import AIRFLOW_HOME


@pytest.fixture
def env(airflow_database: None, api: Api, place: Place, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of Airflow's servers, which are up."""
    settings = airflow_environment(api, place.database, place.results) | {"AIRFLOW__CORE__PARALLELISM": "2"}
    with airflow_servers(settings, tmp_path) as env:
        yield env


def run_states() -> dict[str, str]:
    """Read the state of each backfill run, by the start of its interval."""
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as database:
        query = "SELECT date(data_interval_start), state FROM dag_run WHERE run_type = 'backfill'"
        return dict(database.execute(query).fetchall())


def test_a_backfill_stores_each_of_its_months(api: Api, env: dict[str, str], place: Place) -> None:
    create = ["backfill", "create", "--dag-id", "01_mixed_operators"]
    create += ["--from-date", "2019-01-01", "--to-date", "2019-03-01"]
    give_up = time.monotonic() + 150
    # until the DAG processor has seen the DAG, there is nothing to fill
    while (done := airflow(env, *create)).returncode:
        assert time.monotonic() < give_up, done.stderr
    assert airflow(env, "dags", "unpause", "--yes", "01_mixed_operators").returncode == 0

    starts = ["2019-01-01", "2019-02-01", "2019-03-01"]
    while run_states() != dict.fromkeys(starts, "success"):
        assert "failed" not in run_states().values()
        assert time.monotonic() < give_up, run_states()
        time.sleep(0.5)
    expected = []
    for start, end in zip(starts, [*starts[1:], "2019-04-01"], strict=True):
        expected += rows_of(ratings_of(api, start, end), start)
    assert [row for row in place.rows() if row[1] in starts] == expected
