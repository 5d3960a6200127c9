"""What is wrong with a pod, in one line: why the cluster refuses it, why it does not start, how it ended."""

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from kubernetes.client import ApiException
from kubernetes.client import models as k8s

# how to fix it, on a machine of the course
CONNECT = "AIRFLOW_CONN_KUBERNETES_DEFAULT takes it, as chapters/03-kubernetes.md shows"
MAKE = "`make k8s-up` makes what the course needs"
IMAGES = "`make images` and `make k8s-up` bring those of the course"
# A pull that failed like this will fail again: no such repository or tag, no right to it, no such registry.
NO_SUCH_IMAGE = re.compile(r"not found|denied|unauthorized|authorization failed|no such host", re.IGNORECASE)


class Problem(NamedTuple):
    """One line for the error, and whether it is final: neither waiting nor another try would help."""

    line: str
    final: bool = False


# A container may handle SIGTERM and exit with 0, so its exit code says nothing.
DELETED = Problem("somebody deleted the pod before its task was done")


def refused(error: ApiException, namespace: str, connection: str | None) -> Problem:
    """Return why the API server refused a request."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):  # not from the API server itself: a proxy, or nothing at all
        message = error.reason
    if error.status == 401:
        return Problem(f"the cluster does not know the user of the connection {connection}: check its login", True)
    if error.status == 403 and " cannot " in message:
        return Problem(f"the user of the connection {connection} lacks a right ({message}): {MAKE}", True)
    if error.status == 403 and "exceeded quota" in message:
        return Problem(f"the quota of namespace {namespace} is used up ({message}): end other pods, or raise the quota")
    if error.status == 404 or "serviceaccount" in message:
        return Problem(f"{message} (the connection {connection} names namespace {namespace}): {MAKE}", True)
    return Problem(f"the cluster refuses the pod: {message}", error.status in (400, 403, 422))


def not_started(pod: k8s.V1Pod, events: Iterable[k8s.CoreV1Event]) -> Problem:
    """Return why a pod is still Pending, from its status and its events."""
    message = " ".join(
        condition.message or condition.reason or ""
        for condition in pod.status.conditions or []
        if condition.type == "PodScheduled" and condition.status == "False"
    )
    if found := re.search(r'persistentvolumeclaim "(\S+)" not found', message):
        return Problem(f"claim {found[1]} does not exist in namespace {pod.metadata.namespace}: {MAKE}", True)
    if "unbound" in message:
        return Problem(f"its claim has no volume yet ({message}): `kubectl describe pvc` says what that waits for")
    if "Insufficient" in message:
        return Problem(f"no node has room for it ({message}): ask for less, or end other pods")
    if message:
        return Problem(f"no node takes it ({message})")

    warnings = [event.message or "" for event in events if event.type == "Warning"]
    for status in pod.status.container_statuses or []:
        if waiting := status.state.waiting:
            if waiting.reason in ("ErrImagePull", "ImagePullBackOff"):
                # during the back-off only the events have the reason
                why = next((text for text in reversed(warnings) if "Failed to pull" in text), waiting.message or "")
                line = f"image {status.image} is not on the node and cannot be pulled ({why}): {IMAGES}"
                return Problem(line, final=bool(NO_SUCH_IMAGE.search(why)))
            if waiting.reason == "ErrImageNeverPull":
                return Problem(f"image {status.image} is not on the node, and must not be pulled: {IMAGES}", True)
            if waiting.reason == "InvalidImageName":
                return Problem(f"{status.image} is not a valid name of an image", True)
            if waiting.reason != "ContainerCreating":
                warnings.append(f"{waiting.reason}: {waiting.message}")
    for message in reversed(warnings):
        if found := re.search(r'(secret|configmap) "(\S+)" not found', message):
            kind = {"secret": "Secret", "configmap": "ConfigMap"}[found[1]]
            return Problem(f"{kind} {found[2]} does not exist in namespace {pod.metadata.namespace}: {MAKE}", True)
        if "couldn't find key" in message or "runAsNonRoot" in message:
            return Problem(message, True)
    if warnings:
        return Problem(warnings[-1])
    return Problem("the cluster gives no reason: `kubectl describe pod` and `kubectl get nodes` may tell more")


def ended(pod: k8s.V1Pod, container: str) -> Problem | None:
    """Return how a pod failed, judged by the container of this name; None if it did not fail, or has not ended."""
    status = pod.status
    if pod.metadata.deletion_timestamp:
        return DELETED
    if status.phase in ("Pending", "Running", "Succeeded"):
        return None
    if status.reason:  # the node ended it: Evicted, OutOfmemory, NodeShutdown, DeadlineExceeded, ...
        return Problem(f"the node ended the pod: {status.reason}: {status.message}")
    states = [one.state.terminated for one in status.container_statuses or [] if one.name == container]
    if not states or not states[0]:
        return Problem(f"the pod failed before its container started: {status.message}")
    (state,) = states
    # with terminationMessagePolicy FallbackToLogsOnError this is the end of the log
    lines = (state.message or "").strip().splitlines()
    last_line = lines[-1] if lines else "it printed nothing"
    if state.reason == "OOMKilled":
        limits = [one.resources.limits for one in pod.spec.containers if one.name == container]
        limit = (limits[0] or {}).get("memory")
        return Problem(
            f"OOMKilled: the task needed more memory than {f'its limit of {limit}' if limit else 'the node has'}"
        )
    if state.exit_code == 2:  # by the contract of the images: a wrong argument, setting or login
        return Problem(last_line, True)
    return Problem(f"the container ended with exit code {state.exit_code}: {last_line}")
