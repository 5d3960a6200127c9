"""Run the ranking task of one DAG again and again, and beside it the same step without Airflow.

python task_runs.py DAG_ID RUNS FOLDER

Prints as JSON the medians of its times, with the names of TaskOverhead in figures.py. The ways alternate, so that
whatever else the machine does meets all of them. FOLDER is for the files of the step.
"""

import gc
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course.dag_run import prepare_database, tell  # isort: skip (it takes stdout out of Airflow's way)
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.listeners import hookimpl
from airflow.sdk.listener import get_listener_manager

from course.bench.one_profile import RANK_COMMAND
from course.paths import DAGS

TASK, OTHER_TASKS = "rank_movies", "fetch_ratings|store_rankings"

# A whole task in small: it starts Python, loads pandas, reads, ranks and writes. (`rank-movies --help` does not load
# pandas.) The ranking itself takes next to nothing, and there is nothing to fetch and nothing to mount: what is left
# is what runs the task. A shell makes the ratings first, in the folder that is its $0.
RATINGS = "movieId,rating\n1,5\n1,4\n1,3\n"
SHELL = ["sh", "-c"]
STEP = f"""
cd "$0" && printf '{RATINGS}' > ratings.csv && exec rank-movies --input_path ratings.csv --output_path rankings.csv
"""
MEMORY = "/dev/shm"  # noqa: S108 (where a pod can write without a volume)


class Failure:
    """Airflow calls this when a task fails."""

    error = "it gave no reason"

    @hookimpl
    def on_task_instance_failed(self, previous_state: Any, task_instance: Any, error: Any) -> None:
        self.error = str(error)


def main(dag_id: str, runs: str, folder: str) -> None:
    """Measure. A first run of each does not count: it loads what later ones find loaded."""
    prepare_database(Path(os.environ["AIRFLOW_HOME"]))
    failure = Failure()
    get_listener_manager().add_listener(failure)  # type: ignore[no-untyped-call]
    bare = {"01_mixed_operators": call_function, "02_docker": run_container, "03_kubernetes": run_pod}[dag_id]
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(int(runs) + 1):
        # a fresh DAG each time: a task keeps its connection and its pod
        times["task_seconds"].append(run_task(small_dag(dag_id, folder), failure))
        times["bare_seconds"].append(seconds_of(bare, small_dag(dag_id, folder).get_task(TASK)))
        if bare is not call_function:
            times["process_seconds"].append(seconds_of(run_process, folder))
        gc.enable()  # course.dag_run turned it off while Airflow was loaded
    tell(**{name: statistics.median(each[1:]) for name, each in times.items()})


def small_dag(dag_id: str, folder: str) -> Any:
    """Load a DAG and make its ranking the small step: with all its settings, but for its storage."""
    dag: Any = BundleDagBag(DAGS / f"{dag_id}.py", bundle_path=DAGS, bundle_name="dags-folder").get_dag(dag_id)
    task = dag.get_task(TASK)
    task.retries = 0
    if dag_id == "01_mixed_operators":
        ratings, rankings = Path(folder, "ratings.csv"), Path(folder, "rankings.csv")
        ratings.write_text(RATINGS)
        task.op_kwargs = {"ratings_csv": str(ratings), "rankings_csv": str(rankings)}
    elif dag_id == "02_docker":
        task.entrypoint, task.command, task.mounts = SHELL, [STEP, MEMORY], []
    else:
        task.cmds, task.arguments, task.volumes, task.volume_mounts = SHELL, [STEP, MEMORY], [], []
    return dag


def run_task(dag: Any, failure: Failure) -> float:
    """Run the task through Airflow, in this process, and return its duration as Airflow shows it, in seconds."""
    run = dag.test(logical_date=None, mark_success_pattern=OTHER_TASKS)
    done = run.get_task_instance(TASK)
    if done.state != "success":
        sys.exit(f"{dag.dag_id}, {TASK}: {failure.error}")
    return float((done.end_date - done.start_date).total_seconds())


def seconds_of(run: Callable[[Any], object], what: Any) -> float:
    started = time.monotonic()
    run(what)
    return time.monotonic() - started


# --- the same step without Airflow


def call_function(task: Any) -> None:
    task.python_callable(**task.op_kwargs)


def run_process(folder: str) -> None:
    path = f"{RANK_COMMAND.parent}:{os.environ['PATH']}"
    subprocess.run([*SHELL, STEP, folder], env=os.environ | {"PATH": path}, capture_output=True, check=True)


def run_container(task: Any) -> None:
    """Make, start and await a container as the task does, read its log, remove it."""
    limits = {"cpu_shares": round(task.cpus * 1024), "mem_limit": task.mem_limit, "network_mode": task.network_mode}
    container = task.cli.create_container(
        task.image,
        task.command,
        entrypoint=task.entrypoint,
        host_config=task.cli.create_host_config(**limits),
        labels={"course.stack": task.labels["course.stack"]},
    )
    task.cli.start(container)
    code = task.cli.wait(container)["StatusCode"]
    log = task.cli.logs(container)
    task.cli.remove_container(container)
    if code != 0:
        sys.exit(f"the bare container ended with exit code {code}: {log.decode().strip()}")


def run_pod(task: Any) -> None:
    """Make the pod that the task makes, watch it to its end, read its log, delete it."""
    from kubernetes.watch import Watch

    pod = task.build_pod_request_obj()
    name, namespace = pod.metadata.name, pod.metadata.namespace
    task.client.create_namespaced_pod(namespace, pod)
    phase, watch = "Pending", Watch()
    only = {"field_selector": f"metadata.name={name}", "timeout_seconds": 60}
    for event in watch.stream(task.client.list_namespaced_pod, namespace, **only):
        phase = event["object"].status.phase
        if phase in ("Succeeded", "Failed"):
            watch.stop()
    log = task.client.read_namespaced_pod_log(name, namespace)
    task.client.delete_namespaced_pod(name, namespace)
    if phase != "Succeeded":
        sys.exit(f"the bare pod ended as {phase}: {log.strip()}")


if __name__ == "__main__":
    main(*sys.argv[1:])
