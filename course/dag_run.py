"""Run a DAG once for each month, in this process, through Airflow: `python -m course.dag_run DAG_ID MONTH...`

The parent (course/embedded.py) gives the environment. Each change of state goes to stdout as a line of JSON;
everything that Airflow and the tasks print goes to stderr, which the parent keeps in a log file.
Exit 0 when every run succeeded, 1 when one failed.
"""

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

gc.disable()  # importing Airflow makes many objects and no garbage: looking for some costs a fifth of the first run

events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

import airflow  # noqa: E402 (stdout has to be out of Airflow's way before it is imported)
from airflow.listeners import hookimpl  # noqa: E402
from airflow.sdk.listener import get_listener_manager  # noqa: E402


def tell(**event: Any) -> None:
    """Send one event to the parent."""
    print(json.dumps(event), file=events, flush=True)


class TaskStates:
    """Airflow calls this when the state of a task changes."""

    started = 0.0

    @hookimpl
    def on_task_instance_running(self, previous_state: Any, task_instance: Any) -> None:
        self.started = time.monotonic()
        tell(task=task_instance.task_id, state="running", seconds=0.0)

    @hookimpl
    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        tell(task=task_instance.task_id, state="success", seconds=time.monotonic() - self.started)

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        tell(task=task_instance.task_id, state="failed", seconds=time.monotonic() - self.started, error=str(error))


def prepare_database(airflow_home: Path) -> None:
    """Create Airflow's metadata database, once for each version of Airflow."""
    done = airflow_home / f"migrated-{airflow.__version__}"
    if done.exists():
        return
    from airflow.utils.db import resetdb

    resetdb()  # even when one is there, half made or of another version
    done.touch()


def run(dag_id: str, month: str) -> bool:
    """Run the DAG for one month and return whether it succeeded."""
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    # a fresh DAG for each run, as dag.test() leaves its conf in the params of the one before; from its file alone
    bag = BundleDagBag(folder / f"{dag_id}.py", bundle_path=folder, bundle_name="dags-folder")
    dag = bag.get_dag(dag_id)
    if dag is None:
        tell(error="; ".join(bag.import_errors.values()) or f"no DAG {dag_id} in the dags folder")
        return False
    dag_run = dag.test(logical_date=None, run_conf={"month": month})
    return str(dag_run.state) == "success"


def main() -> int:
    dag_id, *months = sys.argv[1:]
    tell(phase="preparing Airflow's database")
    prepare_database(Path(os.environ["AIRFLOW_HOME"]))
    get_listener_manager().add_listener(TaskStates())  # type: ignore[no-untyped-call]
    for month in months:
        tell(phase="starting the run", month=month)
        if not run(dag_id, month):
            tell(month=month, state="failed")
            return 1
        tell(month=month, state="success")
        gc.freeze()
        gc.enable()
    return 0


if __name__ == "__main__":
    sys.exit(main())
