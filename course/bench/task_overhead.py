"""What Airflow and an engine add to one task: a small step in the three versions, each as a task and bare."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console

from course import cluster, images
from course.bench.figures import TaskOverhead
from course.bench.measuring import measure
from course.doctor import Finding, check_cluster, check_engine
from course.paths import DAGS, HOME, PLUGINS, REPO
from course.processes import Command
from course.settings import setting

TASK_RUNS = Path(__file__).with_name("task_runs.py")

Engine = Callable[[Console], AbstractContextManager[dict[str, str]]]
"""While it is entered, tasks can run. It yields the settings for their DAG, and removes at the end what they left.

Raises ClickException when there is no such engine here.
"""


def measure_tasks(runs: int, console: Console) -> list[TaskOverhead]:
    """Measure the three versions. What cannot be measured here says why, and is not an error."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=HOME) as folder, console.status("") as status:
        # a home of its own: these are not runs of the learner's
        env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")} | {
            "AIRFLOW_HOME": str(Path(folder, "airflow")),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        }
        Path(folder, "airflow").mkdir()
        measured = []
        for dag_id, engine in ENGINES.items():
            status.update(f"{dag_id}: one task")
            try:
                with engine(console) as settings:
                    command: Command = [sys.executable, TASK_RUNS, dag_id, str(runs), folder]
                    took = measure(command, Path(folder, "log"), env | settings, runs=1)
                measured.append(TaskOverhead(dag_id, runs, **took.printed))
            except click.ClickException as error:
                measured.append(TaskOverhead(dag_id, not_measured=error.message))
    return measured


@contextlib.contextmanager
def docker_engine(console: Console) -> Iterator[dict[str, str]]:
    """Run tasks as containers."""
    _require(check_engine())
    _require_image()
    stack = _own_name()  # a label of every task's container
    try:
        yield {"COURSE_STACK": stack}
    finally:
        left = _docker("ps", "--all", "--quiet", f"--filter=label=course.stack={stack}").split()
        if left:
            _docker("rm", "--force", *left)


@contextlib.contextmanager
def local_cluster(console: Console) -> Iterator[dict[str, str]]:
    """Run tasks as pods, on the cluster of kubectl's current context if that looks local."""
    chosen = cluster.choose(None)
    _require(check_cluster(chosen.context))
    _require(check_engine())  # it has the images
    _require_image()
    chosen.load_images(console)
    namespace = _own_name()
    chosen.kubectl("create", "namespace", namespace)
    try:
        # who the task pods are
        chosen.kubectl("apply", "--namespace", namespace, "--filename", str(REPO / "k8s" / "pipeline" / "task.yaml"))
        extra = {"cluster_context": chosen.context, "namespace": namespace}
        yield {
            "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps({"conn_type": "kubernetes", "extra": extra}),
            "COURSE_REGISTRY": f"{setting('REGISTRY').rstrip('/')}/" if setting("REGISTRY") else "",
        }
    finally:
        try:
            chosen.kubectl("delete", "namespace", namespace, "--wait=false")
        except click.ClickException as error:  # must not hide how the bench ended
            console.print(f"namespace {namespace} stays. {error.message}", markup=False)


ENGINES: dict[str, Engine] = {
    "01_mixed_operators": lambda console: contextlib.nullcontext({}),
    "02_docker": docker_engine,
    "03_kubernetes": local_cluster,
}


def _require(finding: Finding) -> None:
    if finding.fix:
        raise click.ClickException(str(finding))


def _require_image() -> None:
    image = images.tag("movielens-rank")
    if images.inspect(image) is None:
        raise click.ClickException(f"image {image} is not here: `make images` builds it")


def _own_name() -> str:
    return f"course-bench-{secrets.token_hex(4)}"


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False).stdout  # noqa: S607
