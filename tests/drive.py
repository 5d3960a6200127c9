"""Drive the real parts of the course from a test: the API's client, the task commands, DAG 01 through Airflow."""

import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from course import embedded
from course.places import DAGS, REPO


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
    """Give the DAGs their connections and their folder, as `course run` does."""
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
    """Run DAG 01 for some months, here; tell where its files and rows are."""
    place = Place(folder)
    place.results.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        point_airflow_at(api, place, patch.setenv)
        for month in months:
            assert run_dag(month).state == "success"
    return place


def ratings_of(api: embedded.Api, start: str, end: str, page: int = 100) -> list[dict]:
    """Read an interval as the book's client does: basic auth, offset and limit, until total."""
    session = requests.Session()
    session.auth = (api.user, api.password)
    ratings: list[dict] = []
    total = None
    while total is None or len(ratings) < total:
        params = {"start_date": start, "end_date": end, "offset": len(ratings), "limit": page}
        response = session.get(f"http://{api.host}:{api.port}/ratings", params=params, timeout=30)
        response.raise_for_status()
        answer = response.json()
        ratings += answer["result"]
        total = answer["total"]
    return ratings


def rows_of(ratings: list[dict], start: str, pipeline: str = "01_mixed_operators") -> list[tuple]:
    """Rank in plain Python: the rows that the table must hold."""
    scores = defaultdict(list)
    for rating in ratings:
        scores[rating["movieId"]].append(rating["rating"])
    ranked = sorted(
        ((movie, sum(given) / len(given), len(given)) for movie, given in scores.items() if len(given) >= 3),
        key=lambda row: (-row[1], -row[2], row[0]),
    )
    return [(pipeline, start, position, *row) for position, row in enumerate(ranked, start=1)]


def fetch(api: embedded.Api, start: str, end: str, output: Path, *more: str) -> None:
    """Fetch an interval with the task command."""
    login = {"MOVIELENS_USER": api.user, "MOVIELENS_PASSWORD": api.password}
    host = f"http://{api.host}:{api.port}"
    arguments = ["--start_date", start, "--end_date", end, "--output_path", output, "--host", host, *more]
    _command("movielens-fetch", "fetch-ratings", arguments, login)


def rank(ratings: Path, rankings: Path, *more: str) -> None:
    """Rank a file with the task command."""
    _command("movielens-rank", "rank-movies", ["--input_path", ratings, "--output_path", rankings, *more], {})


def store(rankings: Path, start: str, pipeline: str, url: str) -> None:
    """Store a ranking with the task command."""
    arguments = ["--input_path", rankings, "--interval_start", start, "--pipeline", pipeline]
    _command("movielens-store", "store-rankings", arguments, {"DATABASE_URL": url})


def _command(project: str, command: str, arguments: list[Any], env: dict[str, str]) -> None:
    path = REPO / "images" / project / ".venv" / "bin" / command
    done = subprocess.run([path, *arguments], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
