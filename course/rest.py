"""Trigger a DAG over Airflow's REST API and follow the run to its end."""

import time
from collections.abc import Callable
from typing import Any

import click
import requests
from rich.console import Console

from course.paths import DAGS

ENDED = {"success", "failed"}
COLOURS = {"success": "green", "failed": "red", "up_for_retry": "yellow", "upstream_failed": "yellow"}
OUTAGE = 90  # seconds that a run may be followed without an answer: a restart of the API server takes less
PARSING = 60  # seconds that a DAG file may take to show after the start of the stack
LOG_LINES = 40


class Airflow:
    """Airflow's REST API (v2), logged in.

    `address` is called before each request, since it may restore a connection that was cut. `start` is the command
    that starts Airflow. Raises ClickException, one line, when nothing answers or the login is refused.
    """

    def __init__(self, address: Callable[[], str], user: str, password: str, start: str = "make compose-up") -> None:
        self._address, self._start = address, start
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc: the stack is on this machine
        answer = self._ask("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code == requests.codes.unauthorized:
            raise click.ClickException(
                f"{address()} refuses the login {user}: is AIRFLOW_PASSWORD in .env the one it was made with?"
            )
        self._session.headers["Authorization"] = f"Bearer {self._json(answer)['access_token']}"

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        address = self._address()
        try:
            return self._session.request(method, address + path, timeout=30, **more)
        except requests.ConnectionError:
            raise click.ClickException(f"nothing answers at {address}: start Airflow with `{self._start}`") from None
        except requests.Timeout:
            raise click.ClickException(f"{address} did not answer in 30 s") from None

    @staticmethod
    def _json(answer: requests.Response) -> Any:
        if answer.ok:
            return answer.json()
        is_json = "json" in answer.headers.get("Content-Type", "")
        said = answer.json().get("detail") if is_json else answer.text[:200]
        raise click.ClickException(f"Airflow answered {answer.status_code}: {' '.join(str(said).split())}")

    def call(self, method: str, path: str, **more: Any) -> Any:
        """Call a path under /api/v2 and return its JSON. Raises ClickException with Airflow's own message."""
        return self._json(self._ask(method, f"/api/v2{path}", **more))

    def patient_get(self, path: str, **more: Any) -> Any:
        """Return the JSON of a path under /api/v2, retrying through an outage of the API server if need be."""
        deadline = time.monotonic() + OUTAGE
        while True:
            try:
                return self.call("GET", path, **more)
            except click.ClickException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def params_of(self, dag_id: str) -> set[str]:
        """Return the params of a DAG, once Airflow has read its file. Raises ClickException for an unknown DAG."""
        self._wait_for(dag_id)
        return set(self.call("GET", f"/dags/{dag_id}/details")["params"] or {})

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run of a DAG, unpause the DAG, and return the run's id."""
        self._wait_for(dag_id)
        # The run comes first: unpausing also starts the latest one of the schedule, which can wait.
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        return str(run["dag_run_id"])

    def _wait_for(self, dag_id: str) -> None:
        """Wait until Airflow has read the file of a DAG. Raises ClickException for one that it cannot read."""
        deadline = time.monotonic() + PARSING
        while True:
            for error in self.call("GET", "/importErrors")["import_errors"]:
                if error["filename"] == f"{dag_id}.py":
                    why = error["stack_trace"].strip().splitlines()[-1]
                    raise click.ClickException(f"Airflow cannot read dags/{dag_id}.py: {why}")
            known = [dag["dag_id"] for dag in self.call("GET", "/dags?limit=100")["dags"]]
            if dag_id in known:
                return
            if not (DAGS / f"{dag_id}.py").exists() or time.monotonic() > deadline:
                raise click.ClickException(f"no DAG {dag_id}; there are {', '.join(known) or 'none yet'}")
            time.sleep(1)

    def follow(self, console: Console, dag_id: str, run_id: str) -> bool:
        """Print each change of a task's state until the run ends; return whether it succeeded.

        Prints the log of a task whenever a try of it failed.
        """
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        began = time.monotonic()
        seen: dict[tuple[str, int, int], str] = {}
        while True:
            run_state = self.patient_get(path)["state"]
            for task in self.patient_get(f"{path}/taskInstances?order_by=start_date")["task_instances"]:
                key, state = (task["task_id"], task["map_index"], task["try_number"]), task["state"]
                if state is None or seen.get(key) == state:
                    continue
                seen[key] = state
                seconds = time.monotonic() - began
                colour = COLOURS.get(state, "default")
                name = task["task_id"] + (f" {task['rendered_map_index']}" if task["map_index"] >= 0 else "")
                console.print(f"  {seconds:5.0f} s  {name:<15} [{colour}]{state}[/]", highlight=False)
                if state in ("failed", "up_for_retry"):
                    log = f"{path}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
                    for line in self.log_of(log, task["map_index"]):
                        console.print(f"           {line}", markup=False, highlight=False)
            if run_state in ENDED:
                return bool(run_state == "success")
            time.sleep(0.5)

    def log_of(self, path: str, map_index: int = -1) -> list[str]:
        """Return the last lines of the log of one try of a task: its output, and what went wrong."""
        params = {"full_content": "true", "map_index": map_index}
        answer = self.patient_get(path, params=params, headers={"Accept": "application/json"})
        lines, in_group = [], False
        for entry in answer["content"]:
            event = entry.get("event", "") if isinstance(entry, dict) else str(entry)
            if event.startswith(("::group::", "::endgroup::")):  # what Airflow says about itself
                in_group = event.startswith("::group::")
                continue
            errors = [error for error in entry.get("error_detail") or [] if isinstance(entry, dict)]
            if event and (errors or not in_group):
                lines.append(event)
            lines += [f"{error['exc_type']}: {error['exc_value']}" for error in errors]
        return lines[-LOG_LINES:] or ["(the task left no log)"]
