"""make k8s-up: Airflow on a cluster, its runs over REST, its rights, its secrets, what it survives; and make k8s-down.

The tests run in this order, in the namespace `airflow` of the cluster of kubectl's current context.
"""

import base64
import json
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from support.dag_runs import run_mixed
from support.deployed_airflow import (
    SLOW_API,
    TASKS,
    Run,
    assert_one_line,
    assert_success,
    course,
    expected_rows,
    found_secrets,
    rounded,
    start,
    state_of,
    stored_rows,
    tries_of,
    wait_until,
)
from support.docker_engine import DockerPipeline, engine
from support.kubernetes_cluster import Cluster
from support.required import cannot_run
from support.typed_pages import TYPED_ON, shell, type_all

from course.cluster import NAMESPACE, choose
from course.embedded import Api
from course.paths import REPO
from course.rest import ENDED, Airflow
from course.settings import setting

pytestmark = pytest.mark.kubernetes

DAG = "03_kubernetes"
CI_CLUSTER = REPO / "ci" / "kubernetes.sh"
MONTHS = ("2019-01", "2019-02", "2019-03")
TASK_POD = "kubernetes_pod_operator=True"
RUNNING = "--field-selector=status.phase=Running"
DELETED = {"task": "2019-06", "worker": "2019-07", "scheduler": "2019-08"}  # whose pod, in the run of which month
# what each ServiceAccount may do, beyond what every account of the cluster may ask about itself
RIGHTS = {
    "airflow-scheduler": {"pods": {"create", "delete", "list", "patch", "watch"}},
    "airflow-worker": {
        "pods": {"create", "delete", "get", "list", "patch", "watch"},
        "pods/log": {"get"},
        "events": {"list"},
    },
    "airflow-triggerer": {
        "pods": {"create", "delete", "get", "list", "patch"},
        "pods/log": {"get"},
        "events": {"list"},
    },
    "airflow-api-server": {},
    "airflow-dag-processor": {},
    "airflow-migrate": {},
    "task": {},
    "movielens-api": {},
    "mysql": {},
    "postgres": {},
    "default": {},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The cluster, without the course on it; at the end too."""
    if choose(None).is_ours is not None:
        cannot_run("kubernetes", f"namespace {NAMESPACE} is there already: make k8s-down")
    yield Cluster(NAMESPACE)
    if choose(None).is_ours:
        assert course("k8s-down").returncode == 0


# --- before anything is applied


def test_a_namespace_of_somebody_else_is_left_alone(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", NAMESPACE)
    try:
        assert_one_line(course("k8s-up"), f"namespace {NAMESPACE}", "not the course's")
        assert_one_line(course("k8s-down"), f"namespace {NAMESPACE}", "not the course's")
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE)


def test_without_the_rights_it_says_so_before_anything_is_applied(cluster: Cluster, tmp_path: Path) -> None:
    view = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    name = cluster.kubectl(
        "get", "serviceaccount", "default", "--namespace=default", "--output=jsonpath={.secrets[0].name}"
    )
    if not name:
        pytest.skip("this cluster makes no token for a ServiceAccount by itself")
    token = cluster.core.read_namespaced_secret(name, "default").data["token"]
    view["users"][0]["user"] = {"token": base64.b64decode(token).decode()}
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(json.dumps(view))
    assert_one_line(course("k8s-up", KUBECONFIG=str(kubeconfig)), "no permission to create namespaces")
    assert choose(None).is_ours is None


def test_without_a_way_in_for_images_it_names_the_ways(cluster: Cluster, tmp_path: Path) -> None:
    if cluster.context != "course-ci":
        pytest.skip("this cluster has a way in of its own")
    # a home of its own: in that of the tests stands that the images are there
    assert_one_line(course("k8s-up", LOAD="", COURSE_HOME=str(tmp_path)), "REGISTRY=", "LOAD=")
    assert choose(None).is_ours is None


# --- up


@pytest.fixture(scope="module")
def said(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """What `course k8s-up` said when all was ready."""
    failed_before = request.session.testsfailed
    done = course("k8s-up")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    yield done.stdout
    if request.session.testsfailed > failed_before:
        print(cluster.kubectl("get", "pods"), cluster.kubectl("get", "events", "--sort-by=.lastTimestamp"))
        for name in ("airflow-scheduler", "airflow-api-server"):
            print(cluster.kubectl("logs", f"deployment/{name}", "--tail=30"))


@pytest.fixture(scope="module")
def airflow(said: str, cluster: Cluster) -> Iterator[Airflow]:
    """The REST API of the Airflow on the cluster."""
    with choose(None).forwarded() as address:
        yield Airflow(address, "airflow", setting("AIRFLOW_PASSWORD"))


@pytest.fixture
def api(said: str, cluster: Cluster) -> Iterator[Api]:
    """The MovieLens API of the cluster; never for long, for a pod does not end before its visitors."""
    with cluster.forwarded("movielens-api", 80) as port:
        yield Api("127.0.0.1", port, "course", setting("MOVIELENS_PASSWORD"))


def stored(cluster: Cluster, month: str) -> list[tuple]:
    """Read a month's rows from the database, in the order of their key."""
    return stored_rows(lambda command: cluster.kubectl("exec", "mysql-0", "--", "sh", "-c", command), month)


def expected(api: Api, month: str) -> list[tuple]:
    """Work out in plain Python the rows that a month has, the same for every version of the pipeline."""
    return expected_rows(api, month, DAG)


def task_pods(cluster: Cluster, task: str = "", *options: str) -> list[str]:
    """List the names of the pods that tasks run in, those of one task or all."""
    selector = f"{TASK_POD},task_id={task}" if task else TASK_POD
    return cluster.kubectl("get", "pods", f"--selector={selector}", "--output=name", *options).split()


def test_k8s_up_says_what_is_ready_and_how_to_go_on(said: str) -> None:
    assert re.search(r"the cluster has it all, 8 services, in (\d+) s\n", said), said
    assert "port-forward service/airflow-api-server 8080" in said
    assert "make dag-run" in said
    assert not found_secrets(said)


def test_each_service_account_may_do_what_is_listed_and_nothing_else(said: str, cluster: Cluster) -> None:
    names = cluster.kubectl("get", "serviceaccounts", "--output=jsonpath={.items[*].metadata.name}").split()
    assert set(names) == RIGHTS.keys()
    for name, rights in RIGHTS.items():
        listed = cluster.kubectl("auth", "can-i", "--list", f"--as=system:serviceaccount:{NAMESPACE}:{name}")
        found = {}
        for line in listed.splitlines()[1:]:
            resource, verbs = line.split()[0], re.findall(r"\[([^\]]*)\]", line)[-1]
            if not resource.startswith("[") and not resource.startswith("selfsubject"):
                found[resource] = set(verbs.split())
        assert found == rights, name


# --- runs


@pytest.fixture(scope="module")
def seen_pods(airflow: Airflow, cluster: Cluster) -> str:
    """Three months, one after the other is not waited for; yields all that the cluster knew of the pods meanwhile."""
    runs = [start(airflow, DAG, month) for month in MONTHS]
    seen: list[str] = []

    def have_ended() -> bool:
        seen.append(cluster.kubectl("get", "pods", "--output=yaml"))
        return all(state_of(airflow, run) in ENDED for run in runs)

    wait_until(have_ended, 300)
    assert_success(airflow, runs, 300)
    return "\n".join(seen)


@pytest.mark.parametrize("month", MONTHS)
def test_airflow_on_the_cluster_stores_each_month_as_every_version_does(
    seen_pods: str, cluster: Cluster, api: Api, month: str
) -> None:
    assert stored(cluster, month) == expected(api, month)


@pytest.fixture(scope="module")
def other_versions(airflow_database: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple]]:
    """The rows of the same months by versions 1 and 2, run by Airflow on this machine."""
    folder = tmp_path_factory.mktemp("versions")
    with engine() as docker_engine, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STACK", docker_engine.name)
        docker = DockerPipeline(docker_engine, secrets.token_urlsafe(24))
        places = run_mixed(docker.api, folder / "mixed", MONTHS), docker.run(folder / "docker", MONTHS)
    return dict(zip(("01_mixed_operators", "02_docker"), (place.rows() for place in places), strict=True))


@pytest.mark.docker
def test_the_three_versions_store_the_same_rows(
    seen_pods: str, cluster: Cluster, other_versions: dict[str, list[tuple]]
) -> None:
    on_cluster = [row for month in MONTHS for row in stored(cluster, month)]
    assert {row[0] for row in on_cluster} == {DAG}
    for version, rows in other_versions.items():
        assert {row[0] for row in rows} == {version}
        assert [rounded(row)[1:] for row in rows] == [row[1:] for row in on_cluster]


def test_no_pod_is_left_and_none_had_a_secret_in_its_specification(seen_pods: str, cluster: Cluster) -> None:
    for task in TASKS:
        assert f"task_id: {task}" in seen_pods
    assert found_secrets(seen_pods) == []
    assert task_pods(cluster) == []


def test_task_pods_have_no_token_and_no_rights(seen_pods: str) -> None:
    assert "serviceAccountName: task" in seen_pods
    for pod in re.split(r"^- apiVersion: v1$", seen_pods, flags=re.MULTILINE):
        if 'kubernetes_pod_operator: "True"' in pod:
            assert "kube-api-access" not in pod
            assert "token" not in re.sub(r"automountServiceAccountToken: false", "", pod)


def test_dag_run_follows_a_run_on_the_cluster_and_deferred_tasks_give_the_same_rows(
    seen_pods: str, cluster: Cluster, api: Api
) -> None:
    done = course("dag-run", "--dag", DAG, "--month", "2019-04", "--conf", '{"deferrable": true}', "--on", "cluster")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"rank_movies +deferred", done.stdout)
    assert done.stdout.endswith(f"{DAG} for 2019-04: success\n")
    assert stored(cluster, "2019-04") == expected(api, "2019-04")


def test_a_log_outlives_the_pods_that_wrote_it(seen_pods: str, airflow: Airflow) -> None:
    runs = airflow.call("GET", f"/dags/{DAG}/dagRuns", params={"order_by": "-start_date", "limit": 1})["dag_runs"]
    path = f"/dags/{DAG}/dagRuns/{runs[0]['dag_run_id']}/taskInstances/rank_movies/logs/1"
    assert any('"rows"' in line for line in airflow.log_of(path))


def test_k8s_up_again_changes_nothing_and_is_quick(seen_pods: str, cluster: Cluster, api: Api) -> None:
    services = ("--selector=!job-name,!kubernetes_executor,!kubernetes_pod_operator", "--output=name")
    pods = cluster.kubectl("get", "pods", *services)
    again = course("k8s-up")
    assert again.returncode == 0, again.stderr
    assert "images are there" not in again.stdout
    assert cluster.kubectl("get", "pods", *services) == pods
    assert stored(cluster, "2019-01") == expected(api, "2019-01")


# --- what is wrong, and what is killed


def test_a_wrong_password_in_the_secret_fails_at_once_without_showing_it(
    seen_pods: str, cluster: Cluster, airflow: Airflow
) -> None:
    wrong, right = secrets.token_urlsafe(24), setting("MOVIELENS_PASSWORD")
    for password, outcome in ((wrong, "failed"), (right, "success")):
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "movielens-login"},
                "stringData": {"password": password},
            }
        )
        run = start(airflow, DAG, "2019-05")
        wait_until(lambda run=run: state_of(airflow, run) in ENDED)
        assert state_of(airflow, run) == outcome
        assert tries_of(airflow, run)["fetch_ratings"] == 1
        if outcome == "failed":
            log = "\n".join(airflow.log_of(f"{run.path}/taskInstances/fetch_ratings/logs/1"))
            assert "refused the login (401)" in log
            assert wrong not in log


@pytest.fixture(scope="module")
def slow_api(airflow: Airflow, cluster: Cluster) -> None:
    """Let the MovieLens API answer late, so that a fault meets the middle of a run."""
    cluster.kubectl("set", "env", "deployment/movielens-api", *(f"{name}={value}" for name, value in SLOW_API.items()))
    cluster.kubectl("rollout", "status", "deployment/movielens-api", "--timeout=60s")


@pytest.fixture(scope="module")
def faulted(slow_api: None, cluster: Cluster, airflow: Airflow) -> dict[str, Run]:
    """Three runs at once, each hit by the deletion of another pod in the middle of its first task; all have ended."""
    runs = {fault: start(airflow, DAG, month) for fault, month in DELETED.items()}

    def fetching(fault: str) -> str:
        return f"{TASK_POD},task_id=fetch_ratings,run_id={make_safe_label_value(runs[fault].path.rsplit('/', 1)[1])}"

    def all_fetch() -> bool:
        found = cluster.kubectl("get", "pods", f"--selector={TASK_POD},task_id=fetch_ratings", RUNNING, "--output=name")
        return len(found.split()) == len(runs)

    wait_until(all_fetch)
    cluster.kubectl("delete", "pods", "--wait=false", "--selector", fetching("task"))
    # gently: what KubernetesPodOperator alone counts as a success
    worker = fetching("worker").replace(TASK_POD, "kubernetes_executor=True")
    cluster.kubectl("delete", "pods", "--wait=false", "--selector", worker)
    scheduler = "--selector=app.kubernetes.io/name=airflow-scheduler"
    cluster.kubectl("delete", "pods", scheduler, "--grace-period=0", "--force")
    assert_success(airflow, list(runs.values()), 300)
    return runs


@pytest.mark.parametrize(("fault", "tries"), [("task", 2), ("worker", 2), ("scheduler", 1)])
def test_a_pod_deleted_in_the_middle_of_a_run_costs_neither_a_row_nor_a_pod(
    faulted: dict[str, Run], cluster: Cluster, airflow: Airflow, fault: str, tries: int
) -> None:
    assert tries_of(airflow, faulted[fault])["fetch_ratings"] == tries
    wait_until(lambda: task_pods(cluster) == [], 60)


@pytest.mark.alone("cluster")
@pytest.mark.parametrize(
    ("month", "program", "seconds"), [("2019-09", "kubelet", 0), ("2019-10", "kube-apiserver", 20)]
)
def test_a_program_of_the_cluster_that_is_away_for_a_while_costs_neither_a_row_nor_a_pod(
    slow_api: None, cluster: Cluster, airflow: Airflow, month: str, program: str, seconds: int
) -> None:
    if cluster.context != "course-ci":
        pytest.skip("the programs of this cluster are not ours to stop")
    run = start(airflow, DAG, month)
    wait_until(lambda: task_pods(cluster, "fetch_ratings", RUNNING))
    subprocess.run([CI_CLUSTER, "stop", program], check=True)
    time.sleep(seconds)  # this is the fault itself
    subprocess.run([CI_CLUSTER, "start", program], check=True)
    assert_success(airflow, [run], 300)
    wait_until(lambda: task_pods(cluster) == [], 60)


def test_no_row_is_lost_or_doubled_by_the_faults(slow_api: None, cluster: Cluster) -> None:
    cluster.kubectl("set", "env", "deployment/movielens-api", *(f"{name}-" for name in SLOW_API))
    cluster.kubectl("rollout", "status", "deployment/movielens-api", "--timeout=60s")
    with cluster.forwarded("movielens-api", 80) as port:
        api = Api("127.0.0.1", port, "course", setting("MOVIELENS_PASSWORD"))
        for month in (*DELETED.values(), "2019-09", "2019-10"):
            assert stored(cluster, month) == expected(api, month), month


# --- what all of that left behind


def test_no_secret_is_in_a_log_or_in_airflows_database(seen_pods: str, airflow: Airflow, cluster: Cluster) -> None:
    dump = cluster.kubectl("exec", "postgres-0", "--", "pg_dump", "--username", "airflow", "--data-only", "airflow")
    assert "rendered_task_instance_fields" in dump
    assert found_secrets(dump) == []
    read = "find /opt/airflow/logs -name '*.log' -exec cat {} +"
    logs = cluster.kubectl("exec", "deployment/airflow-api-server", "--", "sh", "-c", read)
    assert found_secrets(logs) == []
    for name in ("airflow-scheduler", "airflow-api-server", "airflow-triggerer", "airflow-dag-processor"):
        assert found_secrets(cluster.kubectl("logs", f"deployment/{name}", "--all-containers")) == []


@pytest.mark.parametrize("chapter", [chapter for chapter, engine in TYPED_ON.items() if engine == "kubernetes"])
def test_a_chapter_typed_from_top_to_bottom_gives_what_it_shows_and_leaves_nothing(
    airflow: Airflow, cluster: Cluster, chapter: str
) -> None:
    others = cluster.kubectl("get", "namespaces", "--output=name").split()
    type_all(chapter, shell())  # its first command is `make k8s-up`, its last `make k8s-down`
    left = cluster.kubectl("get", "namespaces", "--output=name").split()
    assert f"namespace/{NAMESPACE}" not in left
    assert set(others) - set(left) <= {f"namespace/{NAMESPACE}"} | {one for one in others if "course-test-" in one}
    owners = ("get", "persistentvolumes", "--output=jsonpath={.items[*].spec.claimRef.namespace}")
    wait_until(lambda: NAMESPACE not in cluster.kubectl(*owners).split(), 60)
    assert course("k8s-down").returncode == 0


@pytest.mark.alone("machine")
def test_the_cluster_has_it_all_within_100_seconds(cluster: Cluster) -> None:
    done = course("k8s-up")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"the cluster has it all, 8 services, in (\d+) s\n", done.stdout)
    assert found, done.stdout
    assert int(found[1]) <= 100
