"""`ResilientKubernetesPodOperator`: one pod per task, no false success, and failures that say what to do.

The members it overrides, in the order in which they are called (cncf.kubernetes provider 10.25.0):

    execute(context)                  by Airflow
      build_pod_request_obj(context)
      get_or_create_pod(pod_request_obj, context)
      find_pod(namespace, context)
      await_pod_start(pod)
      await_pod_completion(pod)         copies the log until the container ends
      cleanup(pod, remote_pod, ...)     even after an exception of one of these

    execute(context)                  by Airflow, with deferrable=True
      execute_async(context)
        build_pod_request_obj(context)
        get_or_create_pod(pod_request_obj, context)
        invoke_defer_method(context=...)  raises TaskDeferred: the task goes on in the triggerer, and this process ends
          convert_config_file_to_dict()
    trigger_reentry(context, event)   by Airflow in a new process, once the container has ended; copies the log
      cleanup(pod, remote_pod, ...)

    on_kill()                         by Airflow's signal handler, at any moment of the above
    pod_manager                       is read by most of them
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import generic_api_retry
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodNotFoundException
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException
from kubernetes.client import models as k8s
from kubernetes.config import ConfigException
from pendulum import DateTime
from tenacity import stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError

from resilient_kubernetes.pod_diagnosis import CONNECT, DELETED, Problem, ended, not_started, refused

# How long a task tolerates an API server that does not answer. The provider gives up after 15 seconds.
PATIENCE = {"stop": stop_after_delay(60), "wait": wait_fixed(1)}


class PatientPodManager(PodManager):
    """PodManager that outlasts a restart of the API server. Pods run on without it."""

    read_pod = PodManager.read_pod.retry_with(**PATIENCE)
    delete_pod = PodManager.delete_pod.retry_with(**PATIENCE)


class ResilientKubernetesPodOperator(KubernetesPodOperator):
    """Runs an image as KubernetesPodOperator does, and covers what that leaves open.

    - A killed task fails. The provider counts it as a success when its pod handles SIGTERM and exits with 0.
    - So does a task whose pod somebody deleted, whatever exit code the pod ended with.
    - A retry takes over the one pod that an earlier try left running. Anything else of earlier tries is gone before
      a new pod is created; the provider may run two, or fail when it finds two.
    - A pod that cannot start fails within startup_timeout_seconds, at once where waiting is pointless, and the error
      says why and how to fix it. Deferrable tasks wait for the start here too: it takes a second or two.
    - Exit code 2, by the contract of the images, is a wrong argument or setting: another try would not help.
    - A DAG may have a param `deferrable`.

    The arguments named here have another default than the provider's, and `durable` is always False: see
    get_or_create_pod.
    """

    def __init__(
        self,
        *,
        startup_check_interval_seconds: int = 1,  # not 5, which would delay every task
        startup_timeout_seconds: int = 60,
        termination_message_policy: str = "FallbackToLogsOnError",  # a failure then carries the end of the log
        container_name_log_prefix_enabled: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            durable=False,
            startup_check_interval_seconds=startup_check_interval_seconds,
            startup_timeout_seconds=startup_timeout_seconds,
            termination_message_policy=termination_message_policy,
            container_name_log_prefix_enabled=container_name_log_prefix_enabled,
            **kwargs,
        )
        self.final_pod: k8s.V1Pod | None = None  # the pod as it was when the task was done with it

    @cached_property
    def pod_manager(self) -> PodManager:
        """The provider's, with more patience."""
        return PatientPodManager(kube_client=self.client, callbacks=self.callbacks)

    def execute(self, context: Context) -> Any:
        """Check the connection first, and judge the pod's end afterwards."""
        self.deferrable = context["params"].get("deferrable", self.deferrable)
        self._check_connection()
        with self._pod_judged():
            result = super().execute(context)
        return result

    # --- create the pod

    def build_pod_request_obj(self, context: Context | None = None, *, dry_run: bool = False) -> k8s.V1Pod:
        """Leave out the variables for every Service of the namespace: the operator has no argument for that."""
        pod = super().build_pod_request_obj(context, dry_run=dry_run)
        pod.spec.enable_service_links = False
        return pod

    def get_or_create_pod(self, pod_request_obj: k8s.V1Pod, context: Context) -> k8s.V1Pod:
        """Return the pod that an earlier try left running, or else a new one, after nothing of earlier tries is left.

        The provider's looks for one pod in any state, or with durable=True for the one whose name it has stored.
        """
        deadline = self._deadline()
        self.pod = self._adopt_or_remove_pods_of_earlier_tries(pod_request_obj.metadata.namespace, context, deadline)
        if not self.pod:
            self._create(pod_request_obj, deadline)
        if self._killed:  # while there was no pod to delete yet
            self.on_kill()
        self._check_not_killed()
        return self.pod

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> k8s.V1Pod | None:
        """Read the pod by its name. The provider looks for labels, and fails when two pods have them."""
        return self.pod_manager.read_pod(self.pod)

    # --- wait for it

    def await_pod_start(self, pod: k8s.V1Pod) -> None:
        """Wait until the pod is no longer Pending. The provider only says that it took too long, not why."""
        deadline = self._deadline()
        while (current := self.pod_manager.read_pod(pod)).status.phase == "Pending":
            self._wait(not_started(current, self.pod_manager.read_pod_events(pod).items), deadline)

    def await_pod_completion(self, pod: k8s.V1Pod) -> None:  # type: ignore[override] # tenacity hides the parameter
        """Do without a log that the node has removed, as it does when it evicts a pod."""
        try:
            super().await_pod_completion(pod)
        except ApiException as error:
            if error.status != 400:
                raise
            self.log.warning("the log of the pod is gone: %s", error.body)

    # --- or defer the waiting

    def execute_async(self, context: Context) -> None:
        """Clean up after a failure. The provider does that only once the task was deferred."""
        try:
            super().execute_async(context)
        except Exception:  # TaskDeferred is none
            self.cleanup(self.pod, self.pod)
            raise

    def invoke_defer_method(self, last_log_time: DateTime | None = None, context: Context | None = None) -> None:
        """Wait for the start before deferring: the triggerer could not say why a pod does not start."""
        self.await_pod_start(self.pod)
        super().invoke_defer_method(last_log_time=last_log_time, context=context)

    def convert_config_file_to_dict(self) -> None:
        """Do nothing: $KUBECONFIG would go to the trigger, which refuses it beside the connection's own."""

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Judge the pod's end, as execute() does."""
        with self._pod_judged():
            result = super().trigger_reentry(context, event)
        return result

    # --- remove it

    def cleanup(
        self,
        pod: k8s.V1Pod,
        remote_pod: k8s.V1Pod,
        xcom_result: dict[Any, Any] | None = None,
        context: Context | None = None,
    ) -> None:
        """Remove the pod and remember its end. An exception raised here would hide the one that is being handled."""
        if self._killed or self.final_pod or not remote_pod:
            return
        self.final_pod = remote_pod
        if sys.exception() or ended(remote_pod, self.base_container_name):
            self._read_pod_events(remote_pod, reraise=False)
        self.process_pod_deletion(remote_pod, reraise=False)

    def on_kill(self) -> None:
        """Remember the kill. Airflow goes on with execute() after its signal handler: the pod is then deleted."""
        self._killed = True
        if not self.final_pod:  # else it is being removed already
            super().on_kill()

    # --- what the overrides are made of

    def _check_connection(self) -> None:
        """Raise an exception that names the connection when that leads to no cluster, or to one that refuses it."""
        connection, namespace = self.kubernetes_conn_id, self.namespace or self.hook.get_namespace()
        if not namespace:  # the provider would take the current context, whatever cluster that is, and `default`
            raise AirflowFailException(f"there is no connection {connection}, or it names no namespace: {CONNECT}")
        try:
            generic_api_retry(self.client.list_namespaced_pod)(namespace, limit=1)
        except ConfigException as error:
            raise AirflowFailException(f"the connection {connection} leads nowhere ({error}): {CONNECT}") from None
        except ApiException as error:
            raise _exception(refused(error, namespace, connection)) from None
        except HTTPError as error:
            host, why = self.client.api_client.configuration.host, getattr(error, "reason", error)
            why = f"no cluster answers at {host} ({why})"
            raise AirflowException(f"{why}: start it, or correct the connection {connection}") from None

    def _adopt_or_remove_pods_of_earlier_tries(
        self, namespace: str, context: Context, deadline: float
    ) -> k8s.V1Pod | None:
        """Return the pod of an earlier try if it is the only one and still runs; else wait until none is left."""
        selector = self._build_find_pod_label_selector(context, exclude_checked=False)
        list_pods = generic_api_retry(self.client.list_namespaced_pod)
        while pods := list_pods(namespace, label_selector=selector).items:
            staying = [pod for pod in pods if not pod.metadata.deletion_timestamp]
            if len(pods) == len(staying) == 1 and pods[0].status.phase in ("Pending", "Running"):
                self.log.warning("taking over pod %s, which an earlier try left running", pods[0].metadata.name)
                return pods[0]
            for pod in staying:
                self.log.warning("deleting pod %s, which an earlier try left behind", pod.metadata.name)
                self.pod_manager.delete_pod(pod)
            names = ", ".join(pod.metadata.name for pod in pods)
            self._wait(Problem(f"pods of earlier tries do not go away ({names}): is their node up?"), deadline)
        return None

    def _create(self, pod_request_obj: k8s.V1Pod, deadline: float) -> None:
        """Create the pod, as `self.pod` for on_kill(); wait where the cluster may take it later."""
        namespace = pod_request_obj.metadata.namespace
        while not self.pod:
            self._check_not_killed()
            try:
                self.pod = generic_api_retry(self.client.create_namespaced_pod)(namespace, pod_request_obj)
            except ApiException as error:
                self._wait(refused(error, namespace, self.kubernetes_conn_id), deadline)

    def _deadline(self) -> float:
        return time.monotonic() + self.startup_timeout_seconds

    def _wait(self, problem: Problem, deadline: float) -> None:
        """Sleep for one interval. Raises an exception where waiting is pointless, or after the deadline."""
        if problem.final or time.monotonic() > deadline:
            raise _exception(problem)
        time.sleep(self.startup_check_interval_seconds)
        self._check_not_killed()

    @contextmanager
    def _pod_judged(self) -> Iterator[None]:
        """Raise an exception that says how the pod ended, unless it succeeded, whatever the provider makes of it."""
        try:
            yield
        except Exception as error:  # TaskDeferred and AirflowTaskTimeout are none
            self._check_not_killed()
            if isinstance(error, PodNotFoundException) or getattr(error, "status", None) == 404:
                raise AirflowException(DELETED.line) from None
            if self.final_pod and (problem := ended(self.final_pod, self.base_container_name)):
                raise _exception(problem) from None
            raise
        self._check_not_killed()
        if problem := ended(self.final_pod, self.base_container_name) if self.final_pod else DELETED:
            raise _exception(problem)

    def _check_not_killed(self) -> None:
        if self._killed:
            raise AirflowException(f"{self.task_id} was killed, and its pod deleted") from None


def _exception(problem: Problem) -> AirflowException:
    return (AirflowFailException if problem.final else AirflowException)(problem.line)
