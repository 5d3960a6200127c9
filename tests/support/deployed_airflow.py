"""A whole Airflow, on the stack or on the cluster: commands of the course, runs over REST, rows, secrets."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.plain_python import ratings_of, rows_of

from course.embedded import Api
from course.rest import ENDED, Airflow
from course.settings import MAKERS, setting

COURSE = Path(sys.executable).with_name("course")
TASKS = ("fetch_ratings", "rank_movies", "store_rankings")
SECRETS = [name for name in MAKERS if not name.endswith(("_UID", "_GID"))]
# every answer of the MovieLens API comes late, so that a fault meets the middle of a run
SLOW_API = {"API_FAULT_RATE": "1", "API_FAULT_KINDS": "slow", "API_FAULT_DELAY": "4"}


class Run(NamedTuple):
    """One run of a DAG."""

    dag: str
    month: str
    path: str  # under /api/v2


def course(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the course."""
    return subprocess.run([COURSE, *arguments], env=os.environ | env, capture_output=True, text=True, check=False)


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command refused with one line that has these words."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(r"Error: .*\n", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr


def wait_until(condition: Callable[[], object], seconds: float = 180) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.5)  # each look is a process of docker or kubectl


# --- runs


def start(airflow: Airflow, dag: str, month: str) -> Run:
    return Run(dag, month, f"/dags/{dag}/dagRuns/{airflow.trigger(dag, {'month': month})}")


def state_of(airflow: Airflow, run: Run) -> str:
    return str(airflow.patient_get(run.path)["state"])


def tasks_of(airflow: Airflow, run: Run) -> dict[str, str]:
    """Read the state of each task of a run."""
    return {task["task_id"]: task["state"] for task in _task_instances(airflow, run)}


def tries_of(airflow: Airflow, run: Run) -> dict[str, int]:
    """Read how many tries each task of a run took."""
    return {task["task_id"]: task["try_number"] for task in _task_instances(airflow, run)}


def _task_instances(airflow: Airflow, run: Run) -> list[dict]:
    return airflow.patient_get(f"{run.path}/taskInstances")["task_instances"]


def assert_success(airflow: Airflow, runs: list[Run], seconds: float = 180) -> None:
    """Wait until the runs have ended, and check that each of their tasks succeeded."""
    wait_until(lambda: all(state_of(airflow, run) in ENDED for run in runs), seconds)
    assert {run: tasks_of(airflow, run) for run in runs} == {run: dict.fromkeys(TASKS, "success") for run in runs}


# --- rows


def stored_rows(client: Callable[[str], str], month: str) -> list[tuple]:
    """Read a month's rows of every pipeline, in the order of their key; `client` runs a shell command beside MySQL."""
    columns = "pipeline, interval_start, position, movie_id, avg_rating, num_ratings"
    query = f"SELECT {columns} FROM movie_rankings WHERE interval_start = '{month}-01' ORDER BY 1, 2, 3"  # noqa: S608
    command = f'MYSQL_PWD="$MYSQL_PASSWORD" mysql --batch --skip-column-names -u "$MYSQL_USER" movies -e "{query}"'
    rows = (line.split("\t") for line in client(command).splitlines())
    return [
        rounded((dag, day, int(place), int(movie), float(mean), int(n))) for dag, day, place, movie, mean, n in rows
    ]


def expected_rows(api: Api, month: str, *dags: str) -> list[tuple]:
    """Work out in plain Python the rows that these DAGs have to store for a month."""
    year, number = map(int, month.split("-"))
    first, after = f"{month}-01", f"{year + number // 12}-{number % 12 + 1:02}-01"
    ratings = ratings_of(api, first, after, page=10_000)
    rows = [row for dag in dags for row in rows_of(ratings, first, dag)]
    assert rows
    return [rounded(row) for row in rows]


def rounded(row: tuple) -> tuple:
    """Cut those digits of the average that a database may print or not."""
    return (*row[:4], round(row[4], 9), row[5])


# --- secrets


def found_secrets(text: str) -> list[str]:
    """List which secrets of .env are in a text."""
    assert text
    return [secret for secret in SECRETS if setting(secret) in text]
