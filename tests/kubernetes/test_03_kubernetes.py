"""DAG 03 run by Airflow from outside the cluster: real pods, the real API, a real MySQL server."""

import json
import os
import signal
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value
from kubernetes.client import CoreV1Api
from kubernetes.client import models as k8s
from support import task_commands
from support.dag_runs import load_dag, run_dag
from support.docker_engine import image
from support.kubernetes_cluster import TASK_PODS, Cluster, KubernetesPipeline, Line, Watch, secret, wait_until
from support.plain_python import ratings_of, rows_of
from support.signals import WAITING, sigterm_when, when

from course.paths import AIRFLOW_HOME

pytestmark = pytest.mark.kubernetes

MONTHS = {"2019-01": "2019-02-01", "2019-02": "2019-03-01", "2023-12": "2024-01-01"}
CONNECTION = "AIRFLOW_CONN_KUBERNETES_DEFAULT"
SOON = timedelta(seconds=1)


@pytest.fixture(scope="module")
def pipeline(airflow_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesPipeline]:
    with KubernetesPipeline(tmp_path_factory.mktemp("pipeline")).up() as one, pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONNECTION, one.cluster.connection())
        yield one
        wait_until(lambda: one.cluster.task_pods() == [], "a namespace without task pods", 20)


@pytest.fixture(scope="module")
def cluster(pipeline: KubernetesPipeline) -> Cluster:
    return pipeline.cluster


@pytest.fixture(autouse=True)
def _no_pod_is_left(cluster: Cluster) -> Iterator[None]:
    """Holds after success, failure, kill and timeout alike; that all of them go in the end, `pipeline` waits for."""
    yield
    assert [pod.metadata.name for pod in cluster.living_pods()] == []


DAY = datetime(2019, 2, 1, tzinfo=UTC)  # a run of a logical date has no random part in its run_id


def run(deferrable: bool = False, retries: int | None = None, run_after: datetime | None = None, **changes: object):
    """Run the first task of DAG 03 with other settings, and retries that come soon; the others count as done."""
    dag = load_dag("03_kubernetes")
    for task in dag.tasks:
        task.retry_delay = SOON
        task.retries = task.retries if retries is None else retries
    for name, value in changes.items():
        setattr(dag.get_task("fetch_ratings"), name, value)
    conf = {"month": "2019-01", "deferrable": deferrable}
    logical_date = DAY if run_after else None
    return dag.test(run_after, logical_date, conf, mark_success_pattern="rank_movies|store_rankings")


def python(code: str) -> dict[str, object]:
    """Return the settings of a task that runs Python instead of its image's command."""
    return {"cmds": ["python3", "-c", code], "arguments": []}


def fails(capsys: pytest.CaptureFixture[str], retries: int | None = 0, **changes: object) -> str:
    """Run DAG 03 until its first task fails, and return what was printed."""
    dag_run = run(retries=retries, **changes)
    assert (dag_run.state, dag_run.get_task_instance("fetch_ratings").state) == ("failed", "failed")
    return "".join(capsys.readouterr())


def fails_at_once(capsys: pytest.CaptureFixture[str], deferrable: bool = False, **changes: object) -> str:
    """Run DAG 03 with its retries; check that the first task used none of them, and return what was printed."""
    dag_run = run(deferrable=deferrable, **changes)
    task = dag_run.get_task_instance("fetch_ratings")
    assert (dag_run.state, task.state, task.try_number, task.max_tries) == ("failed", "failed", 1, 2)
    return "".join(capsys.readouterr())


both_modes = pytest.mark.parametrize("deferrable", [False, True], ids=["waiting", "deferred"])


# --- the same results


@pytest.fixture(scope="module")
def ran(pipeline: KubernetesPipeline, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Three months through DAG 03, the last one deferrable, and the same by the task commands without a container."""
    folder, files = tmp_path_factory.mktemp("ran"), []
    with Watch(pipeline.cluster) as watch:
        runs = [run_dag(month, dag_id="03_kubernetes") for month in list(MONTHS)[:2]]
        runs.append(
            load_dag("03_kubernetes").test(logical_date=None, run_conf={"month": "2023-12", "deferrable": True})
        )
    assert [one.state for one in runs] == ["success"] * 3
    for month, end in MONTHS.items():
        ratings, rankings = (folder / f"{kind}-{month}.csv" for kind in ("ratings", "rankings"))
        task_commands.fetch(pipeline.api, f"{month}-01", end, ratings)
        task_commands.rank(ratings, rankings)
        files += [ratings.read_bytes(), rankings.read_bytes()]
    return SimpleNamespace(watch=watch, runs=runs, files=files)


def test_each_month_gives_the_rows_that_plain_python_gives(pipeline: KubernetesPipeline, ran: SimpleNamespace) -> None:
    expected = []
    for month, end in MONTHS.items():
        expected += rows_of(ratings_of(pipeline.api, f"{month}-01", end), f"{month}-01", "03_kubernetes")
    assert len(expected) > 30
    assert pipeline.rows("pipeline = '03_kubernetes'") == expected


def test_the_pods_leave_the_files_that_the_commands_write_without_a_container(
    pipeline: KubernetesPipeline, ran: SimpleNamespace
) -> None:
    paths = [f"{kind}/{month}-01.csv" for month in MONTHS for kind in ("ratings", "rankings")]
    assert pipeline.files(*paths) == ran.files
    assert all(file.count(b"\n") > 20 for file in ran.files)


def test_a_pod_says_whose_it_is_and_is_one_of_a_kind(ran: SimpleNamespace) -> None:
    labels = [pod["metadata"]["labels"] for pod in ran.watch.pods()]
    assert [one["task_id"] for one in labels] == ["fetch_ratings", "rank_movies", "store_rankings"] * 3
    assert len({one["run_id"] for one in labels}) == 3
    for one in labels:
        assert one["dag_id"] == "03_kubernetes"
        assert one["try_number"] == "1"
        assert one["app.kubernetes.io/part-of"] == "airflow-in-containers"
        assert one["app.kubernetes.io/name"] == "task"


def test_a_pod_has_no_rights_that_its_task_does_not_need(ran: SimpleNamespace) -> None:
    mounted = {}
    for pod in ran.watch.pods():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert spec["serviceAccountName"] == "task"
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"] == {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        }
        sources = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {
            mount["mountPath"]: sources[mount["name"]].get("secret", {}).get("secretName", mount["name"])
            for mount in container["volumeMounts"]
        }
        mounted[pod["metadata"]["labels"]["task_id"]] = mounts
    assert mounted == {
        "fetch_ratings": {"/data": "data", "/run/secrets/movielens": "movielens-login"},
        "rank_movies": {"/data": "data"},
        "store_rankings": {"/data": "data", "/run/secrets/database": "database-login"},
    }


def test_no_secret_shows_anywhere(
    pipeline: KubernetesPipeline, ran: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    with Watch(pipeline.cluster) as watch:
        dag_run = run_dag("2019-01", dag_id="03_kubernetes")
    log = "".join(capfd.readouterr())
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
        rendered = metadata.execute(
            "SELECT task_id, rendered_fields FROM rendered_task_instance_fields WHERE run_id = ?", [dag_run.run_id]
        ).fetchall()
        everything = "\n".join(metadata.iterdump())
    # these hold what they should, so it is worth looking for what they should not
    assert len(watch.pods()) == len(rendered) == 3
    assert "MOVIELENS_PASSWORD_FILE" in dict(rendered)["fetch_ratings"]
    assert '"rows"' in log
    kubeconfig = yaml.safe_load(Path(pipeline.cluster.kubeconfig).read_text())
    logins = [value for user in kubeconfig["users"] for name, value in user["user"].items() if name != "exec"]
    for hidden in [*pipeline.passwords, *filter(lambda value: isinstance(value, str), logins)]:
        for place, text in (
            ("the pods", json.dumps([watch.seen, ran.watch.seen])),
            ("Airflow's database", everything),
            ("the logs", log),
        ):
            assert hidden not in text, f"a secret is in {place}"


# --- what is missing or wrong


def test_without_its_connection_nothing_reaches_whatever_cluster_is_current(
    pipeline: KubernetesPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(CONNECTION)
    assert "there is no connection kubernetes_default, or it names no namespace" in fails_at_once(capsys)


def test_a_wrong_context_fails_at_once_and_names_the_connection(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CONNECTION, cluster.connection(cluster_context="nowhere"))
    assert "the connection kubernetes_default leads nowhere (" in fails_at_once(capsys)


def kubeconfig(cluster: Cluster, path: Path, user: dict | None = None, port: int | None = None) -> str:
    """Write the cluster's kubeconfig again, with another user or to another port; return the connection to it."""
    shown = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    if user:
        shown["users"][0]["user"] = user
    if port:
        shown["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        shown["clusters"][0]["cluster"]["tls-server-name"] = cluster.host
    path.write_text(yaml.safe_dump(shown))
    return cluster.connection(kube_config_path=str(path))


def test_a_cluster_that_is_down_is_worth_another_try_and_the_error_names_the_connection(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CONNECTION, kubeconfig(cluster, tmp_path / "config", port=1))
    printed = fails(capsys)
    assert "no cluster answers at https://127.0.0.1:1 (" in printed
    assert "start it, or correct the connection kubernetes_default" in printed
    assert "AirflowFailException" not in printed


def test_a_user_without_rights_fails_at_once_with_the_right_that_is_missing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = cluster.core.create_namespaced_service_account_token(
        "task", cluster.namespace, {"apiVersion": "authentication.k8s.io/v1", "spec": {"expirationSeconds": 600}}
    ).status.token
    monkeypatch.setenv(CONNECTION, kubeconfig(cluster, tmp_path / "config", user={"token": token}))
    printed = fails_at_once(capsys)
    assert "the user of the connection kubernetes_default lacks a right" in printed
    assert "cannot list resource" in printed
    assert token not in printed


def test_a_namespace_without_the_course_fails_at_once_with_the_command(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(CONNECTION, cluster.connection(namespace="course-test-nowhere"))
    printed = fails_at_once(capsys)
    assert 'namespaces "course-test-nowhere" not found' in printed
    assert "`make k8s-up` makes" in printed


def test_an_image_that_is_not_on_the_node_and_must_not_be_pulled_fails_at_once(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = fails_at_once(capsys, image="course/not-built:1", image_pull_policy="Never")
    assert "image course/not-built:1 is not on the node, and must not be pulled: `make images`" in printed
    assert "Pod Event: ErrImageNeverPull" in printed


def test_an_image_that_cannot_be_pulled_fails_within_the_timeout(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = "registry.invalid/course/movielens-fetch:9.9.9"
    printed = fails(capsys, image=missing, startup_timeout_seconds=20)
    assert f"image {missing} is not on the node and cannot be pulled (" in printed
    assert "Pod Event: Failed" in printed


def test_a_wrong_name_of_an_image_fails_at_once(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    assert "course/Movielens Fetch is not a valid name of an image" in fails_at_once(
        capsys, image="course/Movielens Fetch"
    )


@both_modes
def test_a_claim_that_does_not_exist_fails_at_once_with_the_command(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="no-such-volume")
    volumes = [k8s.V1Volume(name="data", persistent_volume_claim=claim)]
    printed = fails_at_once(capsys, deferrable, volumes=volumes)
    assert f"claim no-such-volume does not exist in namespace {cluster.namespace}: `make k8s-up` makes" in printed
    assert "Pod Event: FailedScheduling" in printed


def test_a_secret_that_does_not_exist_fails_at_once_with_the_command(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.kubectl("delete", "secret", "movielens-login")
    try:
        printed = fails_at_once(capsys)
    finally:
        cluster.apply(secret("movielens-login", password="not-the-password"))
    assert f"Secret movielens-login does not exist in namespace {cluster.namespace}: `make k8s-up` makes" in printed
    assert "Pod Event: FailedMount" in printed


def test_a_claim_without_a_volume_is_waited_for(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Mi"}}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "unbound"}, "spec": spec})
    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="unbound")
    printed = fails(
        capsys, startup_timeout_seconds=3, volumes=[k8s.V1Volume(name="data", persistent_volume_claim=claim)]
    )
    assert "its claim has no volume yet (" in printed
    assert "AirflowFailException" not in printed


def test_a_node_without_memory_is_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    roomy = Cluster(f"{cluster.namespace}-roomy")  # without limits that would refuse the pod before
    roomy.kubectl("create", "namespace", roomy.namespace)
    try:
        wait_until(lambda: roomy.core.list_namespaced_service_account(roomy.namespace).items, "an account")
        monkeypatch.setenv(CONNECTION, roomy.connection())
        resources = k8s.V1ResourceRequirements(requests={"memory": "4Ti"}, limits={"memory": "4Ti"})
        bare = {"service_account_name": "default", "volumes": [], "volume_mounts": [], "secrets": []}
        printed = fails(capsys, startup_timeout_seconds=3, container_resources=resources, **bare)
        assert roomy.task_pods() == []
    finally:
        roomy.kubectl("delete", "namespace", roomy.namespace, "--wait=false")
    assert "no node has room for it (" in printed
    assert "Insufficient memory" in printed


@pytest.fixture
def full(cluster: Cluster) -> Iterator[None]:
    """A quota that lets no further pod in."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply(quota)
    wait_until(lambda: cluster.core.read_namespaced_resource_quota("full", cluster.namespace).status.hard, "a quota")
    yield
    cluster.kubectl("delete", "quota", "full", "--ignore-not-found")


def test_a_quota_that_stays_used_up_fails_with_its_numbers(
    cluster: Cluster, full: None, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = fails(capsys, startup_timeout_seconds=3)
    assert f"the quota of namespace {cluster.namespace} is used up (" in printed
    assert "exceeded quota: full, requested: pods=1" in printed


def test_a_quota_that_frees_up_in_time_costs_no_try(cluster: Cluster, full: None) -> None:
    freed = threading.Timer(3, cluster.kubectl, ["delete", "quota", "full"])
    freed.start()
    try:
        dag_run = run(**python("pass"))
    finally:
        freed.join()
    assert dag_run.get_task_instance("fetch_ratings").state == "success"
    assert dag_run.get_task_instance("fetch_ratings").try_number == 1


def test_a_pod_that_the_cluster_does_not_allow_fails_at_once(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    greedy = k8s.V1ResourceRequirements(requests={"memory": "1Gi"}, limits={"memory": "100Gi"})
    printed = fails_at_once(capsys, container_resources=greedy)
    assert "the cluster refuses the pod: " in printed
    assert "maximum memory usage per Container is 3Gi" in printed


@both_modes
def test_a_wrong_password_of_the_api_fails_at_once_without_showing_it(
    pipeline: KubernetesPipeline, capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    pipeline.use_password("not-the-password")
    try:
        printed = fails_at_once(capsys, deferrable)
    finally:
        pipeline.use_password(pipeline.password)
    assert "AirflowFailException" in printed
    assert "401" in printed
    assert "not-the-password" not in printed


@both_modes
def test_a_task_that_outgrows_its_memory_says_so_with_the_limit(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    limit = k8s.V1ResourceRequirements(requests={"memory": "48Mi"}, limits={"memory": "48Mi"})
    printed = fails(capsys, deferrable=deferrable, container_resources=limit, **python("b'x' * (1 << 28)"))
    assert "OOMKilled: the task needed more memory than its limit of 48Mi" in printed


@both_modes
def test_a_failure_that_may_pass_gives_the_exit_code_and_the_last_line(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    printed = fails(capsys, deferrable=deferrable, cmds=["sh", "-c", "echo first; echo the disk is full; exit 1"])
    assert "the container ended with exit code 1: the disk is full" in printed
    assert "AirflowFailException" not in printed


# --- what is killed, deleted, cut off


def test_a_killed_task_deletes_its_pod_and_is_no_success_even_when_that_ends_with_0(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    with sigterm_when(lambda: cluster.prints("ready")):
        printed = fails(capsys, **python(WAITING))
    assert "fetch_ratings was killed, and its pod deleted" in printed


@pytest.mark.parametrize("step", ["_check_connection", "create_namespaced_pod", "find_pod"])
def test_a_task_killed_around_the_making_of_its_pod_leaves_none(
    cluster: Cluster, step: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dag = load_dag("03_kubernetes")
    fetch = dag.get_task("fetch_ratings")
    fetch.retries, fetch.cmds, fetch.arguments = 0, ["python3", "-c", WAITING], []
    owner = CoreV1Api if hasattr(CoreV1Api, step) else type(fetch)
    whole = getattr(owner, step)

    def killed_here(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(*args, **kwargs)

    monkeypatch.setattr(owner, step, killed_here)
    with Watch(cluster) as watch, sigterm_when(lambda: False):
        dag_run = dag.test(logical_date=None, run_conf={"month": "2019-01"})
    assert dag_run.get_task_instance("fetch_ratings").state == "failed"
    assert "fetch_ratings was killed" in "".join(capsys.readouterr())
    assert len(watch.pods()) == (step != "_check_connection")


def test_a_task_that_takes_too_long_fails_with_the_timeout_and_not_with_what_came_after(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = fails(capsys, execution_timeout=timedelta(seconds=4), **python(WAITING))
    assert "AirflowTaskTimeout" in printed
    assert "AirflowException" not in printed


def leave(cluster: Cluster, run_after: datetime, code: str, **labels: str) -> str:
    """Start a pod of the first task as an earlier try makes it, and wait until it is ready; return its name."""
    mine = {"dag_id": "03_kubernetes", "task_id": "fetch_ratings", "kubernetes_pod_operator": "True"}
    mine |= {"run_id": make_safe_label_value(f"manual__{run_after.isoformat()}"), "try_number": "1"}
    mine |= load_dag("03_kubernetes").get_task("fetch_ratings").labels
    name = cluster.start(image("movielens-fetch"), mine | labels, code)
    wait_until(lambda: cluster.prints("ready", name), f"the pod {name}")
    return name


def test_a_retry_takes_over_the_pod_that_a_killed_worker_left_running(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    code = "import os, time; print('ready', flush=True)\nwhile not os.path.exists('/tmp/go'): time.sleep(0.1)\n"
    orphan = leave(cluster, now, f"{code}print('and done')")

    class GoOn(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_creation(**arguments: object) -> None:
            cluster.kubectl("exec", orphan, "--", "touch", "/tmp/go")  # noqa: S108 (of the pod)

    with Watch(cluster) as watch:
        dag_run = run(run_after=now, retries=0, callbacks=[GoOn])
    assert dag_run.get_task_instance("fetch_ratings").state == "success"
    assert watch.pods() == []
    printed = "".join(capsys.readouterr())
    assert f"taking over pod {orphan}, which an earlier try left running" in printed
    assert "and done" in printed


def test_a_retry_runs_nothing_before_the_pods_of_earlier_tries_are_gone(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(120)"
    mine = leave(cluster, now, stubborn), leave(cluster, now, WAITING)
    other = leave(cluster, now, WAITING, run_id="another")
    cluster.core.delete_namespaced_pod(mine[0], cluster.namespace, grace_period_seconds=4)
    with Watch(cluster) as watch:
        dag_run = run(run_after=now, retries=0, **python("pass"))
        assert other in [pod.metadata.name for pod in cluster.task_pods()]
        cluster.kubectl("delete", "pod", other, "--now")
    assert dag_run.get_task_instance("fetch_ratings").state == "success"
    assert f"deleting pod {mine[1]}, which an earlier try left behind" in "".join(capsys.readouterr())
    made = watch.pods()[0]["metadata"]["name"]
    assert watch.company()[made].isdisjoint(mine)


@both_modes
def test_a_pod_that_somebody_deletes_is_no_success_even_when_it_ends_with_0_and_the_retry_succeeds(
    cluster: Cluster, capsys: pytest.CaptureFixture[str], deferrable: bool
) -> None:
    def delete() -> None:
        cluster.kubectl("delete", "pods", "--selector", TASK_PODS, "--wait=false")

    seen = f"/data/{uuid.uuid4()}"
    code = f"import pathlib, sys; seen = pathlib.Path({seen!r}); seen.exists() and sys.exit(); seen.touch()\n{WAITING}"
    with Watch(cluster) as watch, when(lambda: cluster.prints("ready"), delete):
        dag_run = run(deferrable=deferrable, retries=1, **python(code))
    task = dag_run.get_task_instance("fetch_ratings")
    assert (task.state, task.try_number) == ("success", 2)
    assert "somebody deleted the pod before its task was done" in "".join(capsys.readouterr())
    first, second = (pod["metadata"]["name"] for pod in watch.pods()[:2])
    assert first not in watch.company()[second]


def test_an_evicted_pod_says_why_it_had_to_go(cluster: Cluster, capsys: pytest.CaptureFixture[str]) -> None:
    scratch = k8s.V1EmptyDirVolumeSource(size_limit="1Mi")
    code = "import pathlib, time; pathlib.Path('/scratch/big').write_bytes(bytes(1 << 24)); time.sleep(120)"
    printed = fails(
        capsys,
        volumes=[k8s.V1Volume(name="scratch", empty_dir=scratch)],
        volume_mounts=[k8s.V1VolumeMount(name="scratch", mount_path="/scratch")],
        **python(code),
    )
    assert "the node ended the pod: Evicted: " in printed
    assert "exceeds the limit" in printed
    assert "Pod Event: Evicted" in printed


def test_an_api_server_that_is_away_for_20_seconds_costs_no_try(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = Line(cluster.host, cluster.port)
    monkeypatch.setenv(CONNECTION, kubeconfig(cluster, tmp_path / "config", port=line.port))
    restored = threading.Timer(20, line.restore)

    def cut() -> None:
        line.cut()
        restored.start()

    code = "import time; print('ready', flush=True); time.sleep(5); print('and done', flush=True)"
    with when(lambda: cluster.prints("ready"), cut):
        dag_run = run(**python(code))
    restored.join()
    line.close()
    task = dag_run.get_task_instance("fetch_ratings")
    assert (task.state, task.try_number) == ("success", 1)
    assert "and done" in "".join(capsys.readouterr())
