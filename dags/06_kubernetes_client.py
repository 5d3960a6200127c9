"""A tour of Kubernetes in Airflow (cncf.kubernetes provider 10.25): the client, the operator, the worker's own pod.

Trigger it by hand, in the browser or by `airflow dags trigger 06_kubernetes_client`. Then read each task here beside
its log and its XCom in Airflow. The comments say what `kubectl` would.
"""

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk import DAG, TaskGroup, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import models as k8s
from movie_ratings import PULL_POLICY, image
from resilient_kubernetes.pod_diagnosis import CONNECT, ended
from resilient_kubernetes.restricted import RESTRICTED

LABELS = {"app.kubernetes.io/part-of": "airflow-in-containers", "app.kubernetes.io/name": "tour"}
# The namespace's quota takes no pod that does not say what it needs.
RESOURCES = k8s.V1ResourceRequirements(
    requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "1", "memory": "256Mi"}
)

SERVICE_ACCOUNT = "task"  # it has no rights in the cluster


def cluster():
    """Return the client and the namespace that the connection kubernetes_default leads to."""
    # Imports that only a running task needs stand in the task: this file is read again and again.
    from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook

    # The hook logs in, by the service account of a worker pod or by a kubeconfig. So no config.load_kube_config() here.
    hook = KubernetesHook()
    if not (namespace := hook.get_namespace()):  # the hook would go on, to whatever cluster kubectl uses at the moment
        raise AirflowFailException(f"there is no connection {hook.conn_id}, or it names no namespace: {CONNECT}")
    return hook.core_v1_client, namespace


def labels_of(run_id):
    """Return the labels of the pods that the client makes in a run: they find even a pod whose name no task knows."""
    from airflow.providers.cncf.kubernetes.pod_generator import make_safe_label_value

    # a value has 63 characters at most, and no colon, which each run_id has
    return LABELS | {"course/made-by": "client", "course/run": make_safe_label_value(run_id)}


def pods_of(run_id):
    """Return the pods that the client made in a run."""
    core, namespace = cluster()
    selector = ",".join(f"{name}={value}" for name, value in labels_of(run_id).items())
    return core.list_namespaced_pod(namespace, label_selector=selector).items


# kubectl version, and kubectl config view --minify
@task
def connect() -> dict:
    """Return where the connection leads. Nothing else starts when it leads nowhere."""
    from kubernetes.client import VersionApi

    core, namespace = cluster()
    version = VersionApi(core.api_client).get_code().git_version
    return {"host": core.api_client.configuration.host, "version": version, "namespace": namespace}


# kubectl run client --image=course/movielens-rank:$COURSE_VERSION --restart=Never --command -- sh -c '...'
@task
def create_pod(command: list[str], run_id=None) -> str:
    """Create a pod, and return the name that the cluster gave it. It starts once a node has room for it."""
    core, namespace = cluster()
    container = k8s.V1Container(
        name="base",
        image=image("movielens-rank"),
        image_pull_policy=PULL_POLICY,
        command=command,  # in place of the image's ENTRYPOINT; `args` would be in place of its CMD
        resources=RESOURCES,
        security_context=RESTRICTED["container_security_context"],
        termination_message_policy="FallbackToLogsOnError",
    )
    spec = k8s.V1PodSpec(
        containers=[container],
        restart_policy="Never",  # the default, Always, restarts a container even after success
        active_deadline_seconds=40,  # the cluster ends it then, even when no task watches it any more
        enable_service_links=False,
        service_account_name=SERVICE_ACCOUNT,
        automount_service_account_token=RESTRICTED["automount_service_account_token"],
        security_context=RESTRICTED["security_context"],
    )
    metadata = k8s.V1ObjectMeta(generate_name="client-", labels=labels_of(run_id))  # no two pods may share a name
    return core.create_namespaced_pod(namespace, k8s.V1Pod(metadata=metadata, spec=spec)).metadata.name


# kubectl get pod client --watch
@task
def watch_pod(name: str) -> list[str]:
    """Watch a pod to its end, success or failure, and return its phases. The cluster sends each change: no polling."""
    from kubernetes import watch

    core, namespace = cluster()
    phases = []
    for event in watch.Watch().stream(
        core.list_namespaced_pod,
        namespace,
        field_selector=f"metadata.name={name}",
        timeout_seconds=50,  # the hook's client gives up a connection on which nothing comes for 60 seconds
    ):
        pod = event["object"]
        if event["type"] == "DELETED" or pod.metadata.deletion_timestamp:
            raise AirflowException(f"somebody deleted pod {name}")
        if pod.status.phase not in phases:
            phases.append(pod.status.phase)
        if pod.status.phase in ("Succeeded", "Failed"):
            return phases
    raise AirflowException(f"pod {name} has not ended, but is {phases}: `kubectl describe pod` may tell more")


# kubectl logs client
@task
def read_log(name: str) -> None:
    """Copy a pod's log into Airflow's. The cluster deletes it with the pod."""
    core, namespace = cluster()
    # Raw, and decoded here: client 36 would return the text "b'...'".
    log = core.read_namespaced_pod_log(name, namespace, _preload_content=False)
    print(log.data.decode())


# kubectl get pod client --output=jsonpath='{.status.containerStatuses[0].state.terminated.message}'
@task
def result(name: str) -> str:
    """Return what the pod wrote to /dev/termination-log, 4 KiB at most. Raises AirflowException when it failed."""
    core, namespace = cluster()
    pod = core.read_namespaced_pod(name, namespace)
    if problem := ended(pod, "base"):
        raise AirflowException(problem.line)
    [container] = pod.status.container_statuses
    return container.state.terminated.message


# kubectl get pods --selector=course/run=...
@task
def list_pods(run_id=None) -> list[str]:
    """Return name and phase of each pod that this run made. A pod exists until it is deleted, even after its end."""
    return [f"{pod.metadata.name} {pod.status.phase}" for pod in pods_of(run_id)]


# kubectl delete pod --selector=course/run=... --grace-period=10
@task
def delete_pods(run_id=None) -> list[str]:
    """Delete the pods that this run made, even those whose names no task passed on. Return the names."""
    core, namespace = cluster()
    names = [pod.metadata.name for pod in pods_of(run_id)]
    for name in names:  # one that still runs gets a SIGTERM now, and a SIGKILL in ten seconds
        core.delete_namespaced_pod(name, namespace, grace_period_seconds=10)
    return names


with DAG(
    "06_kubernetes_client",
    schedule=None,
    default_args={
        "owner": "course",
        # of the operator's pods
        "image": image("movielens-rank"),
        "image_pull_policy": PULL_POLICY,
        "labels": LABELS,
        "container_resources": RESOURCES,
        "startup_timeout_seconds": 60,
        "startup_check_interval_seconds": 1,  # not 5, which every task would take
        "on_finish_action": "delete_pod",  # the default: even after a failure
        "service_account_name": SERVICE_ACCOUNT,
        **RESTRICTED,
    },
    tags=["kubernetes", "tour"],
    doc_md=__doc__,
):
    connected = connect()

    # The client itself, for what no operator does. It does what it is told, and nothing else.
    with TaskGroup("client") as client:
        created = create_pod(["sh", "-c", "echo ranking; echo '{\"rows\": 3}' > /dev/termination-log"])
        # A teardown runs however the tasks between it and its setup ended. They decide whether the run failed.
        deleted = delete_pods().as_teardown(setups=connected)
        watch_pod(created) >> [read_log(created), result(created), list_pods()] >> deleted

    # Two pods, one after the other. KubernetesPodOperator does all of the above: it makes a pod, copies its log, fails
    # when it failed, deletes it. Nobody names a cluster or a namespace here: the connection kubernetes_default does.
    # DAG 03 has a subclass, ResilientKubernetesPodOperator, for what goes wrong all the same.
    #
    # No XCom: with do_xcom_push=True the first pod could write /airflow/xcom/return.json. A second container in it, the
    # sidecar, would wait until the worker has read that file, by `kubectl exec`. That takes
    # - the right to create and get pods/exec. Who may run commands in one pod of a namespace may do so in all of them,
    #   the databases too. So no worker of this course may. A file on a claim, as in DAG 03, needs no such right, and
    #   neither does result() above.
    # - an image with sh and cat: the connection's xcom_sidecar_container_image, or alpine from Docker Hub
    # - for the level `restricted`, the connection's xcom_sidecar_container_security_context, JSON in a text
    with TaskGroup("two_pods") as two_pods:
        KubernetesPodOperator(
            task_id="first",
            cmds=["echo"],  # the container's `command`, so in place of the image's ENTRYPOINT
            arguments=["first of", "{{ run_id }}"],
        ) >> KubernetesPodOperator(
            task_id="second",
            cmds=["sh", "-c", 'echo "second of $RUN, on $NODE"'],  # with a shell there are variables
            env_vars=[
                k8s.V1EnvVar(name="RUN", value="{{ run_id }}"),
                k8s.V1EnvVar(  # a pod may know its own fields, without a right to ask for them
                    name="NODE",
                    value_from=k8s.V1EnvVarSource(field_ref=k8s.V1ObjectFieldSelector(field_path="spec.nodeName")),
                ),
            ],
        )

    # A function, run in a pod, with the libraries of its image. Its source and its arguments travel in environment
    # variables, so it sees nothing else of this file. Its result would come by XCom, so through a sidecar: see above.
    # The image needs bash and `python`, and a /tmp to write to, which a read-only root file system has not.
    @task.kubernetes(
        name="function",
        volumes=[k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource(size_limit="1Mi"))],
        volume_mounts=[k8s.V1VolumeMount(name="tmp", mount_path="/tmp")],  # noqa: S108 (of the container)
    )
    def function(ratings: list[float]) -> None:
        import pandas

        print("mean", pandas.Series(ratings).mean())

    # The pod of the worker itself. With KubernetesExecutor each task runs in one, made from worker-pod.yaml. What is
    # said here replaces what that says; to lists, such as `env` and `volumes`, it is added. Other executors ignore it.
    @task(
        executor_config={
            "pod_override": k8s.V1Pod(
                metadata=k8s.V1ObjectMeta(labels={"course/size": "large"}),
                spec=k8s.V1PodSpec(
                    containers=[
                        k8s.V1Container(
                            name="base",
                            resources=k8s.V1ResourceRequirements(
                                requests={"cpu": "100m", "memory": "256Mi"}, limits={"cpu": "1", "memory": "768Mi"}
                            ),
                            env=[k8s.V1EnvVar(name="WORKER_SIZE", value="large")],
                        )
                    ]
                ),
            )
        }
    )
    def large_worker() -> dict[str, str]:
        """Return what this process may use: outside a pod of KubernetesExecutor, what the machine gives it."""
        import os
        from pathlib import Path

        limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
        memory = next((path.read_text().strip() for path in limits if path.exists()), "unknown")
        return {"size": os.environ.get("WORKER_SIZE", "as any"), "bytes": memory}

    connected >> [client, two_pods, function([4.0, 3.5]), large_worker()]
