"""A real Kubernetes cluster for tests: a namespace of its own for what a test module makes, removed at the end."""

import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import yaml
from kubernetes import client, config, watch
from kubernetes.client import ApiException
from support.docker_engine import answers, image, service_image

from course.embedded import Api
from course.paths import REPO
from course.settings import version

PIPELINE = REPO / "k8s" / "pipeline"
TASK_UID = 10001
TASK_PODS = "kubernetes_pod_operator=True"


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    """Wait for a condition; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: that did not come in {seconds} seconds")
        time.sleep(0.1)


class Cluster:
    """A namespace on the cluster of kubectl's current context, and the ways to look into it."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.context = config.list_kube_config_contexts()[1]["name"]
        self.kubeconfig = os.environ.get("KUBECONFIG", str(Path("~/.kube/config").expanduser()))
        self.core = client.CoreV1Api(config.new_client_from_config(context=self.context))
        address = urlsplit(self.core.api_client.configuration.host)
        self.host, self.port = str(address.hostname), address.port or 443

    def connection(self, **changes: object) -> str:
        """Write the Airflow connection that leads here."""
        extra = {"kube_config_path": self.kubeconfig, "cluster_context": self.context, "namespace": self.namespace}
        return json.dumps({"conn_type": "kubernetes", "extra": extra | changes})

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl in the namespace; return what it printed."""
        command = ["kubectl", "--context", self.context, "--namespace", self.namespace, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def task_pods(self) -> list[client.V1Pod]:
        """List the pods of the DAGs' tasks, but for those that are on their way out without ever having started.

        The kubelet of Kubernetes 1.20 takes a minute to let such a pod go.
        """
        pods = self.core.list_namespaced_pod(self.namespace, label_selector=TASK_PODS).items
        return [pod for pod in pods if not (pod.metadata.deletion_timestamp and pod.status.phase == "Pending")]

    def living_pods(self) -> list[client.V1Pod]:
        """List the task pods that nobody deleted."""
        return [pod for pod in self.task_pods() if not pod.metadata.deletion_timestamp]

    def prints(self, word: str, name: str | None = None) -> bool:
        """Return whether a task pod that nobody deleted, or the one of that name, has printed a word."""
        for one in [name] if name else [pod.metadata.name for pod in self.living_pods()]:
            with suppress(ApiException):  # it has no log yet, or is gone
                if word in (self.core.read_namespaced_pod_log(one, self.namespace) or ""):
                    return True
        return False

    def start(self, image: str, labels: dict[str, str], code: str) -> str:
        """Start a pod that runs Python; return its name."""
        name = f"orphan-{uuid.uuid4().hex[:8]}"
        container = {"name": "base", "image": image, "command": ["python3", "-c", code]}
        spec = {"containers": [container], "restartPolicy": "Never"}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
        return name

    @contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """Forward a free port of this machine to one of a Service, and yield its number."""
        command = ["kubectl", "--context", self.context, "--namespace", self.namespace]
        forward = subprocess.Popen(
            [*command, "port-forward", f"service/{service}", f":{port}"], stdout=subprocess.PIPE, text=True
        )
        try:
            assert forward.stdout is not None
            yield int(re.search(r":(\d+) ->", forward.stdout.readline())[1])
        finally:
            forward.terminate()
            forward.wait()


class Watch:
    """While it is entered, keeps every state of every task pod of a namespace, as the API server reports them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.seen: list[tuple[str, dict]] = []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        stream = watch.Watch()
        list_pods, namespace = self.cluster.core.list_namespaced_pod, self.cluster.namespace
        arguments = {"label_selector": TASK_PODS, "timeout_seconds": 1}
        while not self.over.is_set():
            seen_to = stream.resource_version or self.start
            for event in stream.stream(list_pods, namespace, resource_version=seen_to, **arguments):
                self.seen.append((event["type"], event["raw_object"]))

    def __enter__(self) -> "Watch":
        pods = self.cluster.core.list_namespaced_pod(self.cluster.namespace, label_selector=TASK_PODS)
        self.before = {pod.metadata.name for pod in pods.items}
        self.start = pods.metadata.resource_version
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.thread.join()

    def pods(self) -> list[dict]:
        """List the pods that were made meanwhile, in that order, each in its last state."""
        made = {pod["metadata"]["name"] for kind, pod in self.seen if kind == "ADDED"}
        last = {pod["metadata"]["name"]: pod for _, pod in self.seen}
        return [pod for name, pod in last.items() if name in made]

    def company(self) -> dict[str, set[str]]:
        """Return for each pod which others were there when it came, even those on their way out."""
        there = set(self.before)
        met: dict[str, set[str]] = {}
        for kind, pod in self.seen:
            name = pod["metadata"]["name"]
            met.setdefault(name, set(there) - {name})
            (there.discard if kind == "DELETED" else there.add)(name)
        return met


class Line:
    """A way to the API server that can be cut, as a restart of the API server cuts it."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.whole = True
        self.open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                near, _ = self.listener.accept()
                if not self.whole:
                    near.close()
                    continue
                far = socket.create_connection(self.target)
                self.open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        self.whole = False
        for end in self.open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        self.whole = True

    def close(self) -> None:
        self.cut()
        self.listener.close()


class KubernetesPipeline:
    """What DAG 03 needs around it: k8s/pipeline and its Secrets, in a namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(f"course-test-{uuid.uuid4().hex[:8]}")
        self.folder = folder
        self.password, database_password = secrets.token_urlsafe(24), secrets.token_urlsafe(12) + "@:/%"
        self.database_url = f"mysql://course:{quote(database_password, safe='')}@mysql/movies"
        self.passwords = [self.password, database_password, quote(database_password, safe="")]
        name, tag = service_image("MYSQL_IMAGE", "mysql:8.4").rsplit(":", 1)
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.cluster.namespace,
            "resources": [os.path.relpath(PIPELINE, folder.resolve())],
            "images": [
                {"name": "mysql", "newName": name, "newTag": tag},
                {"name": "course/movielens-api", "newTag": version()},
            ],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        self.cluster.kubectl("create", "namespace", self.cluster.namespace)
        self.use_password(self.password)
        self.use_database(self.database_url)
        self.cluster.apply(secret("mysql", password=database_password))

    @contextmanager
    def up(self) -> Iterator["KubernetesPipeline"]:
        """Apply it, wait until it serves, and remove it at the end."""
        kubectl = self.cluster.kubectl
        try:
            kubectl("apply", "-k", str(self.folder))
            try:
                for workload in ("deployment/movielens-api", "statefulset/mysql"):
                    kubectl("rollout", "status", workload, "--timeout=180s")
            except AssertionError:
                print(kubectl("describe", "pods"))  # pytest shows it
                raise
            with self.cluster.forwarded("movielens-api", 80) as port:
                self.api = Api("127.0.0.1", port, "course", self.password)
                wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), "an API that serves")
                yield self
        finally:
            kubectl("delete", "namespace", self.cluster.namespace, "--wait=false")

    def use_password(self, password: str) -> None:
        self.cluster.apply(secret("movielens-login", password=password))

    def use_database(self, url: str) -> None:
        self.cluster.apply(secret("database-login", url=url))

    def rows(self, where: str = "1 = 1") -> list[tuple]:
        """Read the stored rows in the order of their key, as Place.rows does."""
        query = f"SELECT * FROM movie_rankings WHERE {where} ORDER BY 1, 2, 3"  # noqa: S608 (our own tests' words)
        command = 'MYSQL_PWD="$MYSQL_PASSWORD" exec mysql -N -B -h 127.0.0.1 -u "$MYSQL_USER" movies -e "$0"'
        table = self.cluster.kubectl("exec", "mysql-0", "--", "sh", "-c", command, query)
        lines = (line.split("\t") for line in table.splitlines())
        return [(who, day, int(place), int(movie), float(mean), int(n)) for who, day, place, movie, mean, n in lines]

    def files(self, *paths: str) -> list[bytes]:
        """Read files of the claim, with a pod that mounts it."""
        mounted = {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data-volume"}}]}
        reader: dict[str, Any] = {"name": "reader", "image": image("movielens-store"), "command": ["sleep", "60"]}
        reader["volumeMounts"] = [{"name": "data", "mountPath": "/data", "readOnly": True}]
        spec = mounted | {"containers": [reader], "securityContext": {"runAsUser": TASK_UID}}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"}, "spec": spec})
        kubectl = self.cluster.kubectl
        try:
            kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=60s")
            return [kubectl("exec", "reader", "--", "cat", f"/data/{path}").encode() for path in paths]
        finally:
            kubectl("delete", "pod", "reader", "--now", "--wait=false")


def secret(name: str, **values: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
