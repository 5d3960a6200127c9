"""KubernetesPodOperator as this course runs it: one pod a task, no false success, and failures that say what to do."""

import sys
import time
from functools import cached_property

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodNotFoundException
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from kubernetes.config import ConfigException
from movie_ratings import PULL_POLICY
from pod_problem import DELETED, Problem, ended, not_started, refused
from tenacity import stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError

# What the Pod Security Standard `restricted` asks of a pod, and no rights in the cluster. 10001 is the images' user.
RESTRICTED = {
    "service_account_name": "task",
    "automount_service_account_token": False,
    "security_context": k8s.V1PodSecurityContext(
        run_as_non_root=True,
        run_as_user=10001,
        run_as_group=10001,
        fs_group=10001,
        seccomp_profile=k8s.V1SeccompProfile(type="RuntimeDefault"),
    ),
    "container_security_context": k8s.V1SecurityContext(
        allow_privilege_escalation=False,
        capabilities=k8s.V1Capabilities(drop=["ALL"]),
        read_only_root_filesystem=True,
    ),
}

CONNECT = "AIRFLOW_CONN_KUBERNETES_DEFAULT takes it, as chapters/03-kubernetes.md shows"

# How long a task bears an API server that does not answer. Provider 10.25 gives up after 15 seconds.
PATIENCE = {"stop": stop_after_delay(60), "wait": wait_fixed(1)}


class PatientPodManager(PodManager):
    """PodManager that outlasts a restart of the API server. Pods run on without it."""

    read_pod = PodManager.read_pod.retry_with(**PATIENCE)
    delete_pod = PodManager.delete_pod.retry_with(**PATIENCE)


class TaskPod(KubernetesPodOperator):
    """Runs an image as KubernetesPodOperator does, and covers what it leaves open (cncf.kubernetes provider 10.25).

    - A killed task fails. The provider counts it as a success when its pod takes the SIGTERM and ends with 0.
    - So does a task whose pod somebody deleted, whatever exit code the pod ended with.
    - A retry takes over the one pod that an earlier try left running. Anything else of earlier tries is gone before
      a new pod is made; the provider may run two, or fail on meeting two.
    - A pod that cannot start fails within startup_timeout_seconds, at once where waiting is pointless, and the error
      says why and what mends it. Deferrable tasks wait for the start here too: it takes a second or two.
    - Exit code 2, by the contract of the images, is a wrong argument or setting: trying again would not help.
    - A DAG may have a param `deferrable`.
    """

    def __init__(self, **kwargs):
        defaults = {
            "durable": False,  # see get_or_create_pod
            "image_pull_policy": PULL_POLICY,
            "startup_check_interval_seconds": 1,  # not 5, which every task would take
            "startup_timeout_seconds": 60,
            "termination_message_policy": "FallbackToLogsOnError",  # an error then ends with the task's last words
            "container_name_log_prefix_enabled": False,
        }
        super().__init__(**defaults | kwargs)
        self.end = None  # the pod as it was when the task was through with it

    def execute(self, context):
        self.deferrable = context["params"].get("deferrable", self.deferrable)
        self._connect()
        return self._judged(super().execute, context)

    def trigger_reentry(self, context, event):
        return self._judged(super().trigger_reentry, context, event)

    def _judged(self, run, *args):
        """Run, and raise an exception that tells how the pod ended unless it ended well."""
        try:
            result = run(*args)
        except Exception as error:  # neither TaskDeferred nor AirflowTaskTimeout
            self._check_not_killed()
            if isinstance(error, PodNotFoundException) or getattr(error, "status", None) == 404:
                raise AirflowException(DELETED.line) from None
            if self.end and (problem := ended(self.end, self.base_container_name)):
                raise self._exception(problem) from None
            raise
        self._check_not_killed()
        if problem := ended(self.end, self.base_container_name) if self.end else DELETED:
            raise self._exception(problem)
        return result

    def execute_async(self, context):
        try:
            super().execute_async(context)
        except Exception:  # not TaskDeferred
            self.cleanup(self.pod, self.pod)
            raise

    def invoke_defer_method(self, *args, **kwargs):
        self.await_pod_start(self.pod)
        super().invoke_defer_method(*args, **kwargs)

    def convert_config_file_to_dict(self):
        """Do nothing: $KUBECONFIG would go to the trigger, which refuses it beside the connection's own."""

    @cached_property
    def pod_manager(self):
        return PatientPodManager(kube_client=self.client, callbacks=self.callbacks)

    def build_pod_request_obj(self, *args, **kwargs):
        pod = super().build_pod_request_obj(*args, **kwargs)
        pod.spec.enable_service_links = False  # no variables for every Service; the operator has no argument for it
        return pod

    def get_or_create_pod(self, pod_request_obj, context):
        """Give the pod that an earlier try left running, else a new one once nothing of earlier tries is left."""
        namespace, deadline = pod_request_obj.metadata.namespace, self._deadline()
        mine = self._build_find_pod_label_selector(context, exclude_checked=False)
        list_pods = generic_api_retry(self.client.list_namespaced_pod)
        while pods := list_pods(namespace, label_selector=mine).items:
            staying = [pod for pod in pods if not pod.metadata.deletion_timestamp]
            if len(pods) == len(staying) == 1 and pods[0].status.phase in ("Pending", "Running"):
                self.log.warning("taking over pod %s, which an earlier try left running", pods[0].metadata.name)
                self.pod = pods[0]
                break
            for pod in staying:
                self.log.warning("deleting pod %s, which an earlier try left behind", pod.metadata.name)
                self.pod_manager.delete_pod(pod)
            names = ", ".join(pod.metadata.name for pod in pods)
            self._wait(Problem(f"pods of earlier tries do not go away ({names}): is their node up?"), deadline)
        while not self.pod:
            self._check_not_killed()
            try:
                self.pod = generic_api_retry(self.client.create_namespaced_pod)(namespace, pod_request_obj)
            except ApiException as error:
                self._wait(refused(error, namespace, self.kubernetes_conn_id), deadline)
        if self._killed:  # while there was no pod to delete yet
            self.on_kill()
        self._check_not_killed()
        return self.pod

    def find_pod(self, namespace, context, *, exclude_checked=True):
        """Read the pod by its name. The provider looks for labels, and fails when two pods have them."""
        return self.pod_manager.read_pod(self.pod)

    def await_pod_start(self, pod):
        deadline = self._deadline()
        while (now := self.pod_manager.read_pod(pod)).status.phase == "Pending":
            self._wait(not_started(now, self.pod_manager.read_pod_events(pod).items), deadline)

    def await_pod_completion(self, pod):
        try:
            super().await_pod_completion(pod)
        except ApiException as error:
            if error.status != 400:
                raise
            self.log.warning("the log of the pod is gone: %s", error.body)  # as the node's evictions leave it

    def cleanup(self, pod, remote_pod, xcom_result=None, context=None):
        """Remove the pod and remember its end. An exception raised here would hide the one that is under way."""
        if self._killed or self.end or not remote_pod:
            return
        self.end = remote_pod
        if sys.exception() or ended(remote_pod, self.base_container_name):
            self._read_pod_events(remote_pod, reraise=False)
        self.process_pod_deletion(remote_pod, reraise=False)

    def on_kill(self):
        # Airflow calls this in a signal handler; the task goes on afterwards, and finds its pod gone.
        self._killed = True
        if not self.end:  # else it is being removed already
            super().on_kill()

    def _connect(self):
        """Raise an exception that names the connection when that leads to no cluster, or to one that refuses it."""
        connection, namespace = self.kubernetes_conn_id, self.namespace or self.hook.get_namespace()
        if not namespace:  # the provider would take the current context, whatever cluster that is, and `default`
            raise AirflowFailException(f"there is no connection {connection}, or it names no namespace: {CONNECT}")
        try:
            generic_api_retry(self.client.list_namespaced_pod)(namespace, limit=1)
        except ConfigException as error:
            raise AirflowFailException(f"the connection {connection} leads nowhere ({error}): {CONNECT}") from None
        except ApiException as error:
            raise self._exception(refused(error, namespace, connection)) from None
        except HTTPError as error:
            host, why = self.client.api_client.configuration.host, getattr(error, "reason", error)
            why = f"no cluster answers at {host} ({why})"
            raise AirflowException(f"{why}: start it, or correct the connection {connection}") from None

    def _deadline(self):
        return time.monotonic() + self.startup_timeout_seconds

    def _wait(self, problem, deadline):
        """Wait a moment; raise an exception when that is pointless, or was done for long enough."""
        if problem.final or time.monotonic() > deadline:
            raise self._exception(problem)
        time.sleep(self.startup_check_interval_seconds)
        self._check_not_killed()

    def _check_not_killed(self):
        if self._killed:
            raise AirflowException(f"{self.task_id} was killed, and its pod deleted") from None

    def _exception(self, problem):
        return (AirflowFailException if problem.final else AirflowException)(problem.line)
