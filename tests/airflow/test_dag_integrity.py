"""What must hold for every DAG file before any of them runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.docker.operators.docker import DockerOperator
from resilient_kubernetes.restricted import RESTRICTED
from support.dag_runs import load_dag

from course.paths import DAGS, REPO

PIPELINES = ["01_mixed_operators", "02_docker", "03_kubernetes"]
REGISTRY = "04_registry"
TOURS = {"05_docker_operator_tour": "docker", "06_kubernetes_client": "kubernetes"}
ALL_MONTHS = "07_all_months"
FILES = sorted(DAGS.glob("[0-9]*.py"))

# Parses the folder as Airflow does, in a new process, and prints what that did.
PARSE = """
import json, socket, sys
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.sdk import Variable
from airflow.sdk.bases.hook import BaseHook

def forbidden(*args, **kwargs):
    raise RuntimeError("work at parse time")

socket.socket.connect = BaseHook.get_connection = Variable.get = forbidden
folder = sys.argv[1]
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
print(json.dumps({
    "errors": bag.import_errors,
    "heavy": sorted({"pandas", "numpy", "docker_registry.hook"} & set(sys.modules)),
    "dags": {dag.dag_id: {
        "tags": sorted(dag.tags),
        "catchup": dag.catchup,
        "timetable": type(dag.timetable).__name__,
        "params": list(dag.params),
        "owners": sorted({task.owner for task in dag.tasks}),
        "retries": [task.retries for task in dag.tasks],
        "order": [task.task_id for task in dag.topological_sort()],
    } for dag in bag.dags.values()},
}), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def parsed(airflow_database: None) -> dict:
    """What parsing the folder gave, on a machine where nothing is configured."""
    done = subprocess.run([sys.executable, "-c", PARSE, DAGS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stderr.strip().splitlines()[-1])


def test_every_dag_imports_with_nothing_configured_and_without_work(parsed: dict) -> None:
    assert not [name for name in os.environ if name.startswith(("AIRFLOW_CONN_", "AIRFLOW_VAR_"))]
    assert parsed["errors"] == {}
    assert sorted(parsed["dags"]) == sorted(file.stem for file in FILES), "a DAG is called as its file is"
    kinds = {*PIPELINES, REGISTRY, *TOURS, ALL_MONTHS}
    assert set(parsed["dags"]) == kinds, (
        "a DAG of a new kind needs a name above, and a test that says what it must have"
    )


def test_parsing_does_not_load_what_only_tasks_need(parsed: dict) -> None:
    assert parsed["heavy"] == []


@pytest.mark.parametrize("dag_id", PIPELINES)
def test_each_version_has_owner_tags_retries_and_a_real_interval(parsed: dict, dag_id: str) -> None:
    dag = parsed["dags"][dag_id]
    assert "movie-ratings" in dag["tags"]
    assert dag["owners"] == ["course"]
    assert all(retries >= 1 for retries in dag["retries"])
    assert dag["timetable"] == "CronDataIntervalTimetable"
    assert dag["catchup"] is False
    assert dag["params"] == (["month", "deferrable"] if dag_id == "03_kubernetes" else ["month"])
    assert dag["order"] == ["fetch_ratings", "rank_movies", "store_rankings"]


def test_the_dag_of_the_registry_is_daily_and_resolves_before_it_runs(parsed: dict) -> None:
    dag = parsed["dags"][REGISTRY]
    assert dag["timetable"] == "CronDataIntervalTimetable"
    assert dag["catchup"] is False
    assert all(retries >= 1 for retries in dag["retries"])
    assert dag["params"] == ["month", "tag", "pin", "digests"]
    assert dag["order"] == ["resolve_images", "fetch_ratings", "rank_movies", "store_rankings", "record_images"]


def test_the_dag_of_the_year_runs_only_when_asked_and_ranks_after_its_months(parsed: dict) -> None:
    dag = parsed["dags"][ALL_MONTHS]
    assert dag["timetable"] == "NullTimetable"
    assert all(retries >= 1 for retries in dag["retries"])
    assert dag["params"] == ["year"]
    assert dag["owners"] == ["course"]
    assert dag["order"] == ["month.fetch_ratings", "month.sum_ratings", "rank_sums", "store_rankings"]


@pytest.mark.parametrize("dag_id", TOURS)
def test_a_tour_runs_only_by_hand(parsed: dict, dag_id: str) -> None:
    dag = parsed["dags"][dag_id]
    assert dag["timetable"] == "NullTimetable"
    assert dag["owners"] == ["course"]
    assert dag["tags"] == [TOURS[dag_id], "tour"]


def test_every_version_in_containers_gives_each_task_the_same_image_and_command(airflow_database: None) -> None:
    in_docker, in_pods = load_dag("02_docker").tasks, load_dag("03_kubernetes").tasks
    assert [(one.task_id, one.image, one.command) for one in in_docker] == [
        (one.task_id, one.image, one.arguments) for one in in_pods
    ]
    assert not any(one.entrypoint for one in in_docker)
    assert not any(one.cmds for one in in_pods)
    from_a_registry = load_dag(REGISTRY)
    for one in in_docker:
        assert from_a_registry.get_task(one.task_id).command == one.command


every_dag = pytest.mark.parametrize("dag_id", [file.stem for file in FILES])


@every_dag
def test_every_container_says_of_which_stack_and_dag_it_is(dag_id: str, airflow_database: None) -> None:
    for task in load_dag(dag_id).tasks:
        if isinstance(task, DockerOperator):
            assert {"course.stack", "course.dag_id"} <= set(task.labels), f"{task.task_id}: the labels of DAG 02"


@every_dag
def test_every_pod_keeps_to_the_restricted_level_and_is_known_to_the_network_policies(
    dag_id: str, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_ENGINE", "kubernetes")
    for task in load_dag(dag_id).tasks:
        if isinstance(task, KubernetesPodOperator):
            for name, value in RESTRICTED.items():
                assert getattr(task, name) == value, f"{task.task_id}: {name} of RESTRICTED"
            assert task.service_account_name == "task"
            # the NetworkPolicies let a `task` reach the API and the database, a `tour` nothing
            assert task.labels["app.kubernetes.io/name"] in ("task", "tour"), f"{task.task_id}: the labels of DAG 03"


@every_dag
def test_only_where_the_images_come_from_a_registry_is_it_asked_before_each_pod(
    dag_id: str, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_ENGINE", "kubernetes")
    for registry, policy in (("", "IfNotPresent"), ("registry.example.org/you/", "Always")):
        monkeypatch.setenv("COURSE_REGISTRY", registry)
        pods = [task for task in load_dag(dag_id).tasks if isinstance(task, KubernetesPodOperator)]
        assert all(pod.image.startswith(f"{registry}course/") for pod in pods)
        assert {pod.image_pull_policy for pod in pods} <= {policy}


NOT_FOR_THE_CLUSTER = REPO / "images" / "airflow" / "Dockerfile.dockerignore"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_image_of_the_cluster_has_the_dags_that_run_pods_and_no_other(
    file: Path, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_ENGINE", "kubernetes")
    runs_pods = any(isinstance(task, KubernetesPodOperator) for task in load_dag(file.stem).tasks)
    left_out = re.findall(r"^dags/(.+)$", NOT_FOR_THE_CLUSTER.read_text(), re.MULTILINE)
    line = f"dags/{file.name[:3]}*.py"
    if any(file.match(pattern) for pattern in left_out):
        assert not runs_pods, f"{file.name} runs pods: take the line {line} out of {NOT_FOR_THE_CLUSTER.name}"
    else:
        assert runs_pods, f"{file.name} runs no pods: put the line {line} into {NOT_FOR_THE_CLUSTER.name}"


@pytest.mark.parametrize("dag_id", ["02_docker", "03_kubernetes", REGISTRY])
def test_without_a_version_a_dag_is_read_and_its_images_say_what_is_missing(
    dag_id: str, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine or the cluster then fails the task with the name of the image."""
    monkeypatch.delenv("COURSE_VERSION")
    dag = load_dag(dag_id)
    if dag_id == REGISTRY:  # its images are known when it runs
        assert dag.params["tag"] == "COURSE_VERSION-is-not-set"
    else:
        assert dag.get_task("rank_movies").image == "course/movielens-rank:COURSE_VERSION-is-not-set"
