"""Trigger a DAG over Airflow's REST API and follow the run to its end."""

import time
from typing import Any

import click
import requests
from rich.console import Console

ENDED = {"success", "failed"}
COLOURS = {"success": "green", "failed": "red", "up_for_retry": "yellow", "upstream_failed": "yellow"}


class Airflow:
    """Airflow's REST API (v2) behind one address, logged in.

    Raises ClickException, one line, when nothing answers there or the login is refused.
    """

    def __init__(self, address: str, user: str, password: str) -> None:
        self.address = address
        self._session = requests.Session()
        answer = self._ask("POST", "/auth/token", json={"username": user, "password": password})
        if answer.status_code == requests.codes.unauthorized:
            raise click.ClickException(
                f"{address} refuses the login {user}: is AIRFLOW_PASSWORD in .env the one it was made with?"
            )
        answer.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            return self._session.request(method, self.address + path, timeout=30, **more)
        except requests.ConnectionError:
            raise click.ClickException(
                f"nothing answers at {self.address}: start the stack with `make compose-up`"
            ) from None
        except requests.Timeout:
            raise click.ClickException(f"{self.address} did not answer in 30 s") from None

    def call(self, method: str, path: str, **more: Any) -> Any:
        """Call a path under /api/v2 and return its JSON. Raises ClickException with what Airflow said against it."""
        answer = self._ask(method, f"/api/v2{path}", **more)
        if not answer.ok:
            said = (
                answer.json().get("detail") if "json" in answer.headers.get("Content-Type", "") else answer.text[:200]
            )
            raise click.ClickException(f"Airflow answered {answer.status_code}: {said}")
        return answer.json()

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run of a DAG, unpausing it first, and return the run's id."""
        known = [dag["dag_id"] for dag in self.call("GET", "/dags?limit=100")["dags"]]
        if dag_id not in known:
            raise click.ClickException(
                f"no DAG {dag_id}; there are {', '.join(known) or 'none yet, wait some seconds'}"
            )
        self.call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})
        run = self.call("POST", f"/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def follow(self, console: Console, dag_id: str, run_id: str) -> bool:
        """Print each change of a task's state until the run ends; tell whether it succeeded.

        Prints the log of a task whenever a try of it failed.
        """
        path = f"/dags/{dag_id}/dagRuns/{run_id}"
        began = time.monotonic()
        seen: dict[tuple[str, int], str] = {}
        while True:
            run_state = self.call("GET", path)["state"]
            for task in self.call("GET", f"{path}/taskInstances?order_by=start_date")["task_instances"]:
                key, state = (task["task_id"], task["try_number"]), task["state"]
                if state is None or seen.get(key) == state:
                    continue
                seen[key] = state
                seconds = time.monotonic() - began
                colour = COLOURS.get(state, "default")
                console.print(f"  {seconds:5.0f} s  {task['task_id']:<15} [{colour}]{state}[/]", highlight=False)
                if state in ("failed", "up_for_retry"):
                    self.print_log(console, f"{path}/taskInstances/{task['task_id']}/logs/{task['try_number']}")
            if run_state in ENDED:
                return bool(run_state == "success")
            time.sleep(1)

    def print_log(self, console: Console, path: str) -> None:
        """Print the log of one try of a task."""
        answer = self.call("GET", path, params={"full_content": "true"}, headers={"Accept": "application/json"})
        for line in answer["content"]:
            if isinstance(line, dict) and line.get("event"):
                where = line.get("error_detail") or []
                console.print(f"    {line['event']}", markup=False, highlight=False, soft_wrap=True)
                for error in where:
                    console.print(
                        f"    {error.get('exc_type')}: {error.get('exc_value')}", markup=False, soft_wrap=True
                    )
