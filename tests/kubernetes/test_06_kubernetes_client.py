"""DAG 06 run by Airflow on a real cluster, with the rights of a worker and no others: what each task says, it does."""

import io
import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from datetime import timedelta
from functools import wraps
from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.serialization.serialized_objects import BaseSerialization
from kubernetes.client import ApiException
from support.dag_runs import load_dag
from support.docker_engine import TASK_UID, image
from support.kubernetes_cluster import Cluster, Watch, wait_until
from support.signals import WAITING, when

from course.paths import AIRFLOW_HOME, REPO

pytestmark = pytest.mark.kubernetes

DAG_ID = "06_kubernetes_client"
K8S = REPO / "k8s"
MiB = 2**20
CONNECTION = "AIRFLOW_CONN_KUBERNETES_DEFAULT"


@pytest.fixture(scope="module")
def cluster(airflow_database: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A namespace with the course's limits, and a connection with the rights of a worker in it."""
    one = Cluster(f"course-test-{uuid.uuid4().hex[:8]}")
    one.kubectl("create", "namespace", one.namespace)
    try:
        for name in ("pipeline/limits", "pipeline/task", "airflow/worker", "airflow/settings", "airflow/logs"):
            manifest = (K8S / f"{name}.yaml").read_text()
            one.kubectl("apply", "-f", "-", given=manifest.replace("namespace: airflow", f"namespace: {one.namespace}"))
        with pytest.MonkeyPatch.context() as patch:
            config = tmp_path_factory.mktemp("worker") / "config"
            config.write_text(kubeconfig_of_a_worker(one))
            patch.setenv(CONNECTION, one.connection(kube_config_path=str(config)))
            patch.setattr(
                "support.kubernetes_cluster.TASK_PODS", ""
            )  # all pods: those that the client makes have other labels
            yield one
            wait_until(lambda: one.task_pods() == [], "a namespace without pods")
    finally:
        one.kubectl("delete", "namespace", one.namespace, "--wait=false")


def kubeconfig_of_a_worker(cluster: Cluster) -> str:
    """Write the cluster's kubeconfig again, with the token of a worker pod."""
    shown = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    token = cluster.core.create_namespaced_service_account_token(
        "airflow-worker", cluster.namespace, {"apiVersion": "authentication.k8s.io/v1", "spec": {}}
    ).status.token
    shown["users"][0]["user"] = {"token": token}
    return yaml.safe_dump(shown)


@pytest.fixture(autouse=True)
def _no_pod_is_left(cluster: Cluster) -> Iterator[None]:
    """Holds after success and failure alike; that the last ones are gone for good, `cluster` waits for."""
    yield
    assert [pod.metadata.name for pod in cluster.living_pods()] == []


class Tour:
    """One run of the DAG: what it printed and left in Airflow's database, and its pods in their last state."""

    def __init__(self, cluster: Cluster, dag: Any) -> None:
        log = io.StringIO()
        with Watch(cluster) as watch, redirect_stdout(log):
            dag_run = dag.test()
        print(log.getvalue())  # pytest shows it
        self.log, self.run_id, self.state = log.getvalue(), dag_run.run_id, dag_run.state
        self.states = {instance.task_id: instance.state for instance in dag_run.get_task_instances()}
        with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
            xcom = "SELECT task_id, value FROM xcom WHERE run_id = ? AND key = 'return_value'"
            self.xcom = {task: json.loads(value) for task, value in metadata.execute(xcom, [self.run_id])}
        self.watch = watch
        self.pods = {pod["metadata"]["name"].rsplit("-", 1)[0]: pod for pod in watch.pods()}

    def printed(self, line: str) -> bool:
        """Return whether a task printed that line."""
        return line in self.log.splitlines()


@pytest.fixture(scope="module")
def tour(cluster: Cluster) -> Tour:
    return Tour(cluster, load_dag(DAG_ID))


def client_of(command: list[str]) -> Any:
    """Load the part of the DAG that uses the client alone, with another command for its pod."""
    dag = load_dag(DAG_ID).partial_subset("client.")
    dag.get_task("client.create_pod").op_args = [command]
    return dag


def test_every_task_succeeds(tour: Tour) -> None:
    assert tour.state == "success"
    assert set(tour.states.values()) == {"success"}
    assert len(tour.states) == 11


def test_a_worker_may_no_more_than_its_role_says(cluster: Cluster) -> None:
    with pytest.raises(ApiException, match=r"airflow-worker.* cannot list resource .*secrets"):
        KubernetesHook().core_v1_client.list_namespaced_secret(cluster.namespace)


def test_the_connection_says_which_cluster_and_namespace(cluster: Cluster, tour: Tour) -> None:
    host = cluster.core.api_client.configuration.host
    assert (tour.xcom["connect"]["host"], tour.xcom["connect"]["namespace"]) == (host, cluster.namespace)
    assert tour.xcom["connect"]["version"] == json.loads(cluster.kubectl("get", "--raw", "/version"))["gitVersion"]
    assert {pod["metadata"]["namespace"] for pod in tour.pods.values()} == {cluster.namespace}


def test_without_its_connection_nothing_reaches_whatever_cluster_is_current(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CONNECTION)
    tour = Tour(cluster, load_dag(DAG_ID))
    assert tour.states.pop("connect") == "failed"
    assert not {"success", "failed"} & set(tour.states.values())
    assert "there is no connection kubernetes_default, or it names no namespace" in tour.log
    assert tour.pods == {}


# --- every pod


def test_pods_keep_to_the_restricted_level_and_get_no_token(tour: Tour) -> None:
    assert set(tour.pods) == {"client", "two-pods-first", "two-pods-second", "function"}
    for pod in tour.pods.values():
        spec, (container,) = pod["spec"], pod["spec"]["containers"]
        assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("task", False)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == TASK_UID
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert container["resources"] == {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "256Mi"},
        }
        assert container["image"] == image("movielens-rank")
        assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "airflow-in-containers"
        assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == "tour"


# --- the client


def test_a_pod_gets_a_name_and_is_found_by_its_run(tour: Tour) -> None:
    pod = tour.pods["client"]
    assert tour.xcom["client.create_pod"] == pod["metadata"]["name"]
    assert pod["metadata"]["labels"]["course/run"] == make_safe_label_value(tour.run_id)
    assert (pod["spec"]["restartPolicy"], pod["spec"]["activeDeadlineSeconds"]) == ("Never", 40)
    assert pod["spec"]["enableServiceLinks"] is False


def test_a_watch_sees_the_phases_of_a_pod_to_its_end(tour: Tour) -> None:
    phases = tour.xcom["client.watch_pod"]
    assert phases[-1] == "Succeeded"
    assert phases == [phase for phase in ("Pending", "Running", "Succeeded") if phase in phases]


def test_a_pod_s_log_is_in_airflow_s(tour: Tour) -> None:
    assert tour.printed("ranking")


def test_a_pod_s_last_words_are_its_result(tour: Tour) -> None:
    assert json.loads(tour.xcom["client.result"]) == {"rows": 3}


def test_an_ended_pod_is_listed_until_it_is_deleted(tour: Tour) -> None:
    name = tour.xcom["client.create_pod"]
    assert tour.xcom["client.list_pods"] == [f"{name} Succeeded"]
    assert tour.xcom["client.delete_pods"] == [name]
    assert [kind for kind, pod in tour.watch.seen if pod["metadata"]["name"] == name][-1] == "DELETED"


def test_a_pod_that_fails_fails_the_run_with_its_log_read_and_is_deleted(cluster: Cluster) -> None:
    tour = Tour(cluster, client_of(["sh", "-c", "echo first; echo the disk is full; exit 3"]))
    assert (tour.state, tour.states["client.result"]) == ("failed", "failed")
    assert {state for task, state in tour.states.items() if task != "client.result"} == {"success"}
    assert tour.xcom["client.watch_pod"][-1] == "Failed"
    assert tour.printed("first")
    assert "AirflowException: the container ended with exit code 3: the disk is full" in tour.log


def test_a_pod_that_somebody_deletes_fails_the_run(cluster: Cluster) -> None:
    def delete() -> None:
        cluster.kubectl("delete", "pod", "--selector=course/made-by=client", "--now", "--wait=false")

    with when(lambda: "Running" in [pod.status.phase for pod in cluster.living_pods()], delete):
        tour = Tour(cluster, client_of(["python3", "-c", WAITING]))
    assert (tour.state, tour.states["client.watch_pod"]) == ("failed", "failed")
    assert "AirflowException: somebody deleted pod client-" in tour.log


def test_a_pod_that_runs_on_when_its_task_is_out_of_time_is_deleted(cluster: Cluster) -> None:
    dag = client_of(["python3", "-c", WAITING])
    dag.get_task("client.watch_pod").execution_timeout = timedelta(seconds=3)
    tour = Tour(cluster, dag)
    assert (tour.state, tour.states["client.watch_pod"]) == ("failed", "failed")
    assert "AirflowTaskTimeout" in tour.log
    assert tour.xcom["client.delete_pods"] == [tour.xcom["client.create_pod"]]


def test_a_pod_whose_name_was_lost_is_deleted(cluster: Cluster) -> None:
    dag = client_of(["python3", "-c", WAITING])
    task = dag.get_task("client.create_pod")
    create = task.python_callable

    @wraps(create)
    def create_and_fail(*args: Any, **kwargs: Any) -> None:
        create(*args, **kwargs)
        raise RuntimeError

    task.python_callable = create_and_fail
    tour = Tour(cluster, dag)
    assert (tour.state, tour.states["client.create_pod"]) == ("failed", "failed")
    assert tour.xcom["client.delete_pods"] == [tour.pods["client"]["metadata"]["name"]]


# --- the operator


def test_two_pods_run_one_after_the_other(tour: Tour) -> None:
    assert tour.pods["two-pods-first"]["status"]["phase"] == "Succeeded"
    first, second = (tour.pods[name]["metadata"]["name"] for name in ("two-pods-first", "two-pods-second"))
    ended = [
        pod["metadata"]["name"] == first and pod["status"]["phase"] == "Succeeded" for _, pod in tour.watch.seen
    ].index(True)
    assert ended < [pod["metadata"]["name"] for _, pod in tour.watch.seen].index(second)


def test_templates_and_the_pod_s_own_fields_reach_the_command(tour: Tour) -> None:
    assert f"first of {tour.run_id}" in tour.log
    node = tour.pods["two-pods-second"]["spec"]["nodeName"]
    assert f"second of {tour.run_id}, on {node}" in tour.log


def test_a_function_runs_in_a_pod_with_the_libraries_of_its_image(tour: Tour) -> None:
    assert tour.pods["function"]["status"]["phase"] == "Succeeded"
    assert "mean 3.75" in tour.log


SIDECAR = {
    "xcom_sidecar_container_image": image("movielens-store"),
    "xcom_sidecar_container_security_context": json.dumps(
        {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    ),
}


@pytest.mark.parametrize("may_exec", [False, True], ids=["a worker", "an administrator"])
def test_xcom_takes_the_right_to_run_commands_in_pods(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, may_exec: bool
) -> None:
    connection = json.loads(os.environ[CONNECTION])
    connection["extra"] |= SIDECAR | ({"kube_config_path": cluster.kubeconfig} if may_exec else {})
    monkeypatch.setenv(CONNECTION, json.dumps(connection))
    dag = load_dag(DAG_ID).partial_subset("two_pods.first")
    task = dag.get_task("two_pods.first")
    task.do_xcom_push, task.termination_grace_period = True, 1
    task.cmds, task.arguments = ["sh", "-c", "echo '{\"rows\": 3}' > /airflow/xcom/return.json"], []
    tour = Tour(cluster, dag)
    assert tour.xcom.get("two_pods.first") == ({"rows": 3} if may_exec else None)
    assert tour.states["two_pods.first"] == ("success" if may_exec else "failed")
    assert ("Forbidden" in tour.log) is not may_exec


# --- the worker's own pod


def test_pod_override_has_no_effect_where_the_worker_is_no_pod(tour: Tour) -> None:
    assert tour.xcom["large_worker"]["size"] == "as any"


def test_pod_override_makes_the_pod_of_a_worker_larger(cluster: Cluster) -> None:
    """The pod that KubernetesExecutor makes from worker-pod.yaml; what runs in it is the task's function alone."""
    task = load_dag(DAG_ID).get_task("large_worker")
    override = BaseSerialization.deserialize(BaseSerialization.serialize(task.executor_config["pod_override"]))
    code = f"{task.get_python_source()}\nimport json; print(json.dumps(large_worker()))"
    pods = {
        name: PodGenerator.construct_pod(
            dag_id=DAG_ID,
            task_id="large_worker",
            pod_id=f"worker-{name}",
            try_number=1,
            kube_image=image("airflow-kubernetes"),
            date=None,
            args=["python3", "-c", code],
            pod_override_object=given,
            base_worker_pod=PodGenerator.deserialize_model_file(str(K8S / "airflow" / "worker-pod.yaml")),
            namespace=cluster.namespace,
            scheduler_job_id="1",
            run_id="a-run",
        )
        for name, given in (("any", None), ("large", override))
    }
    try:
        for pod in pods.values():
            cluster.core.create_namespaced_pod(cluster.namespace, pod)
        wait_until(lambda: [pod.status.phase for pod in cluster.living_pods()] == ["Succeeded"] * 2, "two workers")
        said = {name: json.loads(cluster.kubectl("logs", pod.metadata.name)) for name, pod in pods.items()}
    finally:
        print(cluster.kubectl("describe", "pods"))  # pytest shows it
        cluster.kubectl("delete", "pods", "--selector=kubernetes_executor", "--now", "--wait=false")
    assert said == {
        "any": {"size": "as any", "bytes": str(512 * MiB)},
        "large": {"size": "large", "bytes": str(768 * MiB)},
    }
    large, worker = pods["large"], pods["any"]
    assert large.metadata.labels["course/size"] == "large"
    # what the override does not name stays, and lists are added to
    assert large.spec.containers[0].security_context == worker.spec.containers[0].security_context
    assert large.spec.containers[0].volume_mounts == worker.spec.containers[0].volume_mounts
    assert large.spec.containers[0].args == worker.spec.containers[0].args
    assert {one.name for one in large.spec.containers[0].env} == {"AIRFLOW_IS_K8S_EXECUTOR_POD", "WORKER_SIZE"}
    assert large.spec.service_account_name == "airflow-worker"
