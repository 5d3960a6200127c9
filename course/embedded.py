"""The pipeline on this machine alone: no Docker, no cluster. A local API, Airflow in one process, results in SQLite."""

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from course.months import Month
from course.paths import AIRFLOW_HOME, API_COMMAND, DAGS, DATABASE, HOME, LOGS, PLUGINS, RESULTS, movielens_data, shown
from course.processes import Command, child

SEED = 1
API_LOG = LOGS / "api.log"
RUN_LOG = LOGS / "run.log"


class Api(NamedTuple):
    """A running MovieLens API and its login."""

    host: str
    port: int
    user: str
    password: str


@contextlib.contextmanager
def only_run() -> Iterator[None]:
    """Hold the course's folder for one run: two at once would share one Airflow database."""
    HOME.mkdir(exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException("another run is under way in this folder: wait for its end") from None
        yield


def generate_data(profile: str) -> None:
    """Generate the ratings of a profile, once."""
    data = movielens_data(profile)
    if data.exists():
        return
    if not API_COMMAND.exists():
        raise click.ClickException("the MovieLens API is not installed: run it through `make run`")
    command: Command = [API_COMMAND, "generate", "--profile", profile, "--seed", str(SEED), "--output", data]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        raise click.ClickException(f"the ratings of profile {profile} could not be generated")


@contextlib.contextmanager
def movielens_api(profile: str) -> Iterator[Api]:
    """Serve the ratings of a profile on a free loopback port, with a login made for this one run."""
    LOGS.mkdir(parents=True, exist_ok=True)
    port_file = HOME / "api-port"
    port_file.unlink(missing_ok=True)
    user, password = "course", secrets.token_urlsafe(24)
    env = {**os.environ, "API_USER": user, "API_PASSWORD": password}
    data = movielens_data(profile)
    command: Command = [API_COMMAND, "serve", "--data", data, "--port", "0", "--port-file", port_file]
    with API_LOG.open("w") as log, child(command, env, log) as process:
        give_up = time.monotonic() + 60
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > give_up:
                raise click.ClickException(f"the MovieLens API did not start: {_last_line(API_LOG)}")
            time.sleep(0.05)
        yield Api("127.0.0.1", int(port_file.read_text()), user, password)


def airflow_environment(api: Api, database: Path = DATABASE, results: Path = RESULTS) -> dict[str, str]:
    """Return the environment that makes Airflow and the DAGs work embedded, whatever the learner's own has."""
    movielens = {"conn_type": "http", "host": api.host, "port": api.port, "login": api.user, "password": api.password}
    return {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")} | {
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), api.host])),  # a proxy would not find the API
        "AIRFLOW_HOME": str(AIRFLOW_HOME),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_MOVIELENS": json.dumps(movielens),
        "AIRFLOW_CONN_MOVIES_DB": json.dumps({"conn_type": "sqlite", "host": str(database)}),
        "AIRFLOW_VAR_DATA_DIR": str(results),
    }


def run_dag(dag_id: str, months: list[Month], api: Api) -> Iterator[dict[str, Any]]:
    """Run a DAG once for each month and yield what happens (see course/dag_run.py).

    Raises ClickException when a run fails.
    """
    AIRFLOW_HOME.mkdir(parents=True, exist_ok=True)
    command: Command = [sys.executable, "-m", "course.dag_run", dag_id, *map(str, months)]
    with RUN_LOG.open("w") as log, child(command, airflow_environment(api), log, pipe_stdout=True) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        error = ""
        for line in process.stdout:
            event = json.loads(line)
            error = event.get("error") or error
            yield event
        if process.wait() != 0:
            cause = f": {error.strip().splitlines()[-1]}" if error else ""
            raise click.ClickException(f"the run failed{cause}. The whole log is in {shown(RUN_LOG)}")


def count_ratings(month: Month) -> int:
    """Return how many ratings the last run of a month fetched."""
    with (RESULTS / "ratings" / f"{month.first_day}.csv").open() as file:
        return sum(1 for _ in file) - 1


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
