"""Run the DAGs with `dag.test()`: load one afresh, point it at an API, and read what it left."""

import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from course import embedded
from course.paths import DAGS


class Place:
    """Where one test's pipeline leaves its files and rows."""

    def __init__(self, folder: Path) -> None:
        self.results = folder / "data"
        self.database = folder / "movies.db"

    def file(self, kind: str, start: str) -> bytes:
        """Read the file of an interval: kind is ratings or rankings."""
        return (self.results / kind / f"{start}.csv").read_bytes()

    def rows(self, where: str = "1 = 1") -> list[tuple]:
        """Read the stored rows in the order of their key."""
        with closing(sqlite3.connect(self.database)) as database:
            query = f"SELECT * FROM movie_rankings WHERE {where} ORDER BY 1, 2, 3"  # noqa: S608 (our own tests' words)
            return database.execute(query).fetchall()


def point_airflow_at(api: embedded.Api, place: Place, setenv: Callable[[str, str], None]) -> None:
    """Set the connections of the DAGs and their folder, as `course run` does."""
    environment = embedded.airflow_environment(api, database=place.database, results=place.results)
    for name in ("AIRFLOW_CONN_MOVIELENS", "AIRFLOW_CONN_MOVIES_DB", "AIRFLOW_VAR_DATA_DIR"):
        setenv(name, environment[name])


def load_dag(dag_id: str):
    """Load a DAG afresh, with what it imports: the environment may have changed."""
    from airflow.dag_processing.dagbag import BundleDagBag

    for path in DAGS.glob("*.py"):
        sys.modules.pop(path.stem, None)
    bag = BundleDagBag(DAGS, bundle_path=DAGS, bundle_name="dags-folder")
    assert not bag.import_errors
    return bag.dags[dag_id]


def run_dag(
    month: str | None = None,
    logical_date: datetime | None = None,
    retries: int | None = None,
    dag_id: str = "01_mixed_operators",
):
    """Run a freshly loaded DAG once and return the DagRun."""
    dag = load_dag(dag_id)
    if retries is not None:
        for task in dag.tasks:
            task.retries = retries
    return dag.test(logical_date=logical_date, run_conf={"month": month} if month else None)


def run_mixed(api: embedded.Api, folder: Path, months: Iterable[str]) -> Place:
    """Run DAG 01 for some months, here; return where its files and rows are."""
    place = Place(folder)
    place.results.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        point_airflow_at(api, place, patch.setenv)
        for month in months:
            assert run_dag(month).state == "success"
    return place
