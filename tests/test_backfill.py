"""Scheduled runs: a real scheduler, DAG processor and API server work off a backfill of three months."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from drive import Place, ratings_of, rows_of

from course.embedded import Api, airflow_environment
from course.places import AIRFLOW_HOME
from course.processes import child

AIRFLOW = Path(sys.executable).with_name("airflow")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def airflow(airflow_database: None, api: Api, place: Place, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Airflow's servers, on the database that the tests share; yields their environment."""
    port = free_port()
    env = airflow_environment(api, place.database, place.results) | {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__API_AUTH__JWT_SECRET": os.urandom(64).hex(),
    }
    with ExitStack() as stack:
        for server in ("api-server", "dag-processor", "scheduler"):
            log = stack.enter_context((tmp_path / f"{server}.log").open("w"))
            stack.enter_context(child([AIRFLOW, server], env, log))
        yield env
        for log_file in tmp_path.glob("*.log"):
            print(f"== {log_file.name}\n{log_file.read_text()[-3000:]}")  # shown when the test fails


def run_states() -> dict[str, str]:
    """Read the state of each backfill run, by the start of its interval."""
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as database:
        query = "SELECT date(data_interval_start), state FROM dag_run WHERE run_type = 'backfill'"
        return dict(database.execute(query).fetchall())


def test_a_backfill_stores_each_of_its_months(api: Api, airflow: dict[str, str], place: Place) -> None:
    create = [AIRFLOW, "backfill", "create", "--dag-id", "01_mixed_operators"]
    create += ["--from-date", "2019-01-01", "--to-date", "2019-03-01"]
    unpause = [AIRFLOW, "dags", "unpause", "--yes", "01_mixed_operators"]
    give_up = time.monotonic() + 150
    # until the DAG processor has seen the DAG, there is nothing to fill
    while (done := subprocess.run(create, env=airflow, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < give_up, done.stderr
    subprocess.run(unpause, env=airflow, capture_output=True, check=True)

    starts = ["2019-01-01", "2019-02-01", "2019-03-01"]
    while run_states() != dict.fromkeys(starts, "success"):
        assert "failed" not in run_states().values()
        assert time.monotonic() < give_up, run_states()
        time.sleep(0.5)
    expected = []
    for start, end in zip(starts, [*starts[1:], "2019-04-01"], strict=True):
        expected += rows_of(ratings_of(api, start, end), start)
    assert [row for row in place.rows() if row[1] in starts] == expected
