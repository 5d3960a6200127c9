"""What the one line says for a pod that does not start, that ended badly, or that the cluster does not take."""

import json
from datetime import UTC, datetime

import pytest
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from resilient_kubernetes import pod_diagnosis


def pod(phase: str = "Pending", waiting: tuple[str, str] | None = None, ended: dict | None = None, **status: object):
    """Build a pod as the API server would give it."""
    state = k8s.V1ContainerState(
        waiting=k8s.V1ContainerStateWaiting(reason=waiting[0], message=waiting[1]) if waiting else None,
        terminated=k8s.V1ContainerStateTerminated(**ended) if ended else None,
    )
    container = k8s.V1ContainerStatus(
        name="base", image="course/a:1", image_id="", ready=False, restart_count=0, state=state
    )
    limits = k8s.V1ResourceRequirements(limits={"memory": "64Mi"})
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name="a-pod", namespace="airflow"),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", resources=limits)]),
        status=k8s.V1PodStatus(phase=phase, container_statuses=[container] if waiting or ended else None, **status),
    )


def unscheduled(message: str):
    scheduled = k8s.V1PodCondition(type="PodScheduled", status="False", reason="Unschedulable", message=message)
    return pod(conditions=[scheduled])


def warning(message: str):
    return k8s.CoreV1Event(
        involved_object=k8s.V1ObjectReference(), metadata=k8s.V1ObjectMeta(), type="Warning", message=message
    )


def refusal(status: int, message: str) -> ApiException:
    error = ApiException(status=status, reason="Forbidden")
    error.body = json.dumps({"message": message})
    return error


@pytest.mark.parametrize(
    ("message", "line", "final"),
    [
        (
            'persistentvolumeclaim "data-volume" not found',
            "claim data-volume does not exist in namespace airflow",
            True,
        ),
        ('0/3 nodes: persistentvolumeclaim "v" not found. preemption: none', "claim v does not exist in", True),
        ("0/1 nodes: pod has unbound immediate PersistentVolumeClaims", "its claim has no volume yet (", False),
        ("0/1 nodes are available: 1 Insufficient memory.", "no node has room for it (0/1 nodes", False),
        ("0/1 nodes are available: 1 had a taint", "no node takes it (0/1 nodes are available: 1 had", False),
    ],
)
def test_a_pod_without_a_node(message: str, line: str, final: bool) -> None:
    problem = pod_diagnosis.not_started(unscheduled(message), [])
    assert line in problem.line
    assert problem.final is final


@pytest.mark.parametrize(
    ("waiting", "events", "line", "final"),
    [
        (("InvalidImageName", "bad"), [], "course/a:1 is not a valid name of an image", True),
        (("ErrImageNeverPull", "not present"), [], "is not on the node, and must not be pulled: `make images`", True),
        (("ErrImagePull", 'docker.io/course/a:1: not found"'), [], "cannot be pulled (docker.io/course/a:1", True),
        (("ErrImagePull", "pull access denied"), [], "cannot be pulled (pull access denied): `make images`", True),
        (("ErrImagePull", "429 too many requests"), [], "cannot be pulled (429 too many requests)", False),
        (("ErrImagePull", "connection refused"), [], "cannot be pulled (connection refused)", False),
        (("ImagePullBackOff", "Back-off"), ["Failed to pull image: unauthorized"], "unauthorized): `make", True),
        (("ImagePullBackOff", "Back-off"), ["Failed to pull image: EOF"], "(Failed to pull image: EOF)", False),
        (("CreateContainerConfigError", 'secret "s" not found'), [], "Secret s does not exist in namespace", True),
        (("CreateContainerConfigError", "couldn't find key k in Secret"), [], "couldn't find key k", True),
        (("CreateContainerConfigError", "failed to sync secret cache: timed out"), [], "failed to sync", False),
        (("ContainerCreating", ""), ['MountVolume.SetUp failed: secret "s" not found'], "Secret s does not", True),
        (("ContainerCreating", ""), ['MountVolume.SetUp failed: configmap "c" not found'], "ConfigMap c does", True),
        (("ContainerCreating", ""), ["FailedCreatePodSandBox: no addresses"], "no addresses", False),
        (("ContainerCreating", ""), [], "`kubectl describe pod`", False),
        (None, [], "`kubectl get nodes`", False),
    ],
)
def test_a_pod_whose_container_does_not_start(
    waiting: tuple[str, str] | None, events: list[str], line: str, final: bool
) -> None:
    problem = pod_diagnosis.not_started(pod(waiting=waiting), [warning(event) for event in events])
    assert line in problem.line
    assert problem.final is final


@pytest.mark.parametrize(
    ("ended", "line", "final"),
    [
        ({"exit_code": 137, "reason": "OOMKilled"}, "OOMKilled: the task needed more memory than its limit of", False),
        ({"exit_code": 2, "reason": "Error", "message": "one\n--a is not a date\n"}, "--a is not a date", True),
        ({"exit_code": 1, "reason": "Error", "message": "a\nb"}, "the container ended with exit code 1: b", False),
        ({"exit_code": 143, "reason": "Error"}, "the container ended with exit code 143: it printed nothing", False),
    ],
)
def test_a_container_that_failed(ended: dict, line: str, final: bool) -> None:
    problem = pod_diagnosis.ended(pod("Failed", ended=ended), "base")
    assert line in problem.line
    assert problem.final is final


def test_a_pod_that_the_node_ended() -> None:
    evicted = pod("Failed", reason="Evicted", message="The node was low on resource: memory.")
    assert pod_diagnosis.ended(evicted, "base").line.endswith("Evicted: The node was low on resource: memory.")
    assert "before its container started" in pod_diagnosis.ended(pod("Failed"), "base").line


def test_a_pod_that_ended_well_or_not_yet_is_not_a_problem_unless_somebody_deleted_it() -> None:
    succeeded = pod("Succeeded", ended={"exit_code": 0})
    assert pod_diagnosis.ended(succeeded, "base") is None
    assert pod_diagnosis.ended(pod("Running"), "base") is None
    succeeded.metadata.deletion_timestamp = datetime.now(UTC)
    assert pod_diagnosis.ended(succeeded, "base") == pod_diagnosis.DELETED


@pytest.mark.parametrize(
    ("status", "message", "line", "final"),
    [
        (401, "Unauthorized", "does not know the user of the connection cluster", True),
        (403, 'pods is forbidden: User "u" cannot create resource "pods"', "lacks a right (pods is forbidden", True),
        (403, "pods is forbidden: exceeded quota: q, used: pods=1", "the quota of namespace airflow is used up", False),
        (403, 'pods "p" is forbidden: serviceaccount "task" not found', "`make k8s-up`", True),
        (404, 'namespaces "airflow" not found', "names namespace airflow): `make k8s-up`", True),
        (403, 'violates PodSecurity "restricted:latest"', "the cluster refuses the pod: violates PodSecurity", True),
        (422, "spec.containers[0].image: Required value", "the cluster refuses the pod: spec", True),
        (500, "etcdserver: leader changed", "the cluster refuses the pod: etcdserver", False),
    ],
)
def test_a_pod_that_the_cluster_does_not_take(status: int, message: str, line: str, final: bool) -> None:
    problem = pod_diagnosis.refused(refusal(status, message), "airflow", "cluster")
    assert line in problem.line
    assert problem.final is final


def test_an_answer_that_is_not_the_api_servers_is_told_by_its_reason() -> None:
    error = ApiException(status=502, reason="Bad Gateway")
    error.body = "<html>"
    assert pod_diagnosis.refused(error, "airflow", "cluster").line.endswith("Bad Gateway")
