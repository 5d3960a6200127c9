"""The pipeline and Airflow on a Kubernetes cluster: up with progress, an endpoint, and down."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from rich.console import Console

from course import images, manifests
from course.doctor import Finding, ask, check_cluster, check_engine, check_kubectl
from course.manifests import NAMESPACE, OURS, SERVICES
from course.paths import HOME, REPO
from course.processes import Command, child
from course.settings import check_passwords, missing_settings, setting, write_env

UP_SECONDS = 300
KIND = "course"  # the name of the kind cluster that is made where there is none
OLD_DATA = (
    "The data on the cluster open with the passwords of their first day: put the old .env back, "
    "or remove the data with `make k8s-down`"
)
MADE = [  # what `up` makes
    *("namespaces", "resourcequotas", "limitranges", "serviceaccounts", "configmaps", "secrets", "services"),
    *("persistentvolumeclaims", "deployments.apps", "statefulsets.apps", "jobs.batch"),
    *("networkpolicies.networking.k8s.io", "roles.rbac.authorization.k8s.io", "rolebindings.rbac.authorization.k8s.io"),
]


class Cluster:
    """One context of kubectl, and what the course does there."""

    def __init__(self, context: str) -> None:
        self.context = context

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl, with `given` on its stdin; return what it printed. Raises ClickException with its last line."""
        done = self._try(*arguments, given=given)
        if done.returncode != 0:
            raise self._failure(arguments[0], done)
        return done.stdout

    def _failure(self, verb: str, done: subprocess.CompletedProcess[str]) -> click.ClickException:
        said = done.stderr.strip().splitlines() or ["no message"]
        return click.ClickException(f"kubectl {verb} failed in context {self.context}: {said[-1]}")

    def _try(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        command = ["kubectl", "--context", self.context, *arguments]
        return subprocess.run(command, input=given, capture_output=True, text=True, check=False)

    def get(self, *what: str) -> Any:
        """Return objects, read as JSON."""
        return json.loads(self.kubectl("get", *what, "--output=json"))

    @property
    def looks_local(self) -> bool:
        """Return whether the cluster's address is on this machine, or in a network of its own on it."""
        if self.context == "minikube":  # on a bridge of this machine
            return True
        view = json.loads(self.kubectl("config", "view", "--minify", "--output=json"))
        clusters = view["clusters"] or [{"cluster": {}}]  # a context may name one that is not there
        host = urlsplit(clusters[0]["cluster"].get("server", "")).hostname or ""
        if host in ("localhost", "host.docker.internal", "kubernetes.docker.internal"):
            return True
        with contextlib.suppress(ValueError):
            address = ip_address(host)
            return address.is_loopback or address.is_unspecified
        return False

    @property
    def namespace(self) -> dict[str, Any] | None:
        """The namespace as the cluster has it; None when there is none. Raises ClickException."""
        done = self._try("get", "namespace", NAMESPACE, "--output=json", "--request-timeout=5s")
        if done.returncode == 0:
            return dict(json.loads(done.stdout))
        if "(NotFound)" in done.stderr:
            return None
        raise self._failure("get", done)

    @property
    def is_ours(self) -> bool | None:
        """Return whether the namespace is the course's; None when there is none. Raises ClickException."""
        if (found := self.namespace) is None:
            return None
        label, value = OURS.split("=")
        return bool(found["metadata"].get("labels", {}).get(label) == value)

    def check_answers(self) -> None:
        """Raise ClickException when the cluster does not answer."""
        _require(check_cluster(self.context))

    def check(self) -> None:
        """Check that the cluster answers, permits what `up` does, and has no other Airflow. Raises ClickException."""
        self.check_answers()
        for what in MADE:
            if self._try("auth", "can-i", "create", what, "--namespace", NAMESPACE).returncode != 0:
                raise click.ClickException(
                    f"context {self.context} has no permission to create {what}: ask for it, or use your own cluster"
                )
        if self.is_ours is False:
            raise click.ClickException(
                f"namespace {NAMESPACE} in context {self.context} exists and is not the course's: use another cluster"
            )

    # --- up

    def up(self, console: Console) -> None:
        """Bring the images to the cluster, apply k8s/, and wait until all is ready. Raises ClickException."""
        _require(check_engine())  # it has the images
        if (found := self.namespace) and found["status"]["phase"] == "Terminating":
            with console.status(f"waiting until the old namespace {NAMESPACE} is gone"):
                self.kubectl("wait", "--for=delete", f"namespace/{NAMESPACE}", "--timeout=180s")
        again = bool(self.is_ours)
        if missing := missing_settings():
            if again:
                raise click.ClickException(f"{', '.join(missing)} missing in .env. {OLD_DATA}")
            write_env()
            console.print("made .env, with passwords for this machine")
        check_passwords()
        if again:
            self._check_databases()
        images.build(console)  # among them Airflow's, with the DAGs as they are now
        anew = self.load_images(console)
        began = time.monotonic()
        with console.status("applying k8s/"):
            self.kubectl("apply", "--filename", str(REPO / "k8s" / "pipeline" / "namespace.yaml"))
            # server-side, or kubectl would write each password into an annotation too
            self.kubectl(
                "apply", "--server-side", "--force-conflicts", "--filename", "-", given=json.dumps(manifests.secrets())
            )
            # a Job cannot be changed, only replaced
            self.kubectl("--namespace", NAMESPACE, "delete", "job", "airflow-migrate", "--ignore-not-found")
            for folder in ("pipeline", "airflow"):
                built = self.kubectl("kustomize", str(REPO / "k8s" / folder))
                self.kubectl("apply", "--filename", "-", given=manifests.with_local_images(built))
            if again and anew:  # the same names stand for other images now
                self.kubectl("--namespace", NAMESPACE, "rollout", "restart", "deployment")
        self._wait(console, began)

    def _check_databases(self) -> None:
        """Raise ClickException when .env is not the one that the databases on the cluster were made with."""
        for name in ("postgres", "mysql"):
            secret = self._try("--namespace", NAMESPACE, "get", "secret", name, "--output=json")
            if secret.returncode != 0:  # an `up` that did not get that far
                continue
            password = b64decode(json.loads(secret.stdout)["data"]["password"]).decode()
            if password != setting(f"{name.upper()}_PASSWORD"):
                raise click.ClickException(f"{name.upper()}_PASSWORD in .env is not the one on the cluster. {OLD_DATA}")

    def load_images(self, console: Console) -> bool:
        """Load the images where the cluster's nodes find them; return whether any was missing."""
        wanted = {name: images.inspect(name) for name in _built_here()}
        ids = {name: str(found["Id"]) for name, found in wanted.items() if found}
        # for another registry they have to be brought again
        state = {"registry": setting("REGISTRY"), "images": ids}
        record = self._record()
        there = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # none, or half of one
            there = json.loads(record.read_text())
        known = there.get("images", {}) if there.get("registry") == state["registry"] else {}
        missing = [name for name, id_ in ids.items() if known.get(name) != id_]
        if not missing:
            return False
        began = time.monotonic()
        with console.status(f"bringing {len(missing)} images to the cluster"):
            self._bring(missing)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(state))
        console.print(f"  {time.monotonic() - began:5.0f} s  {len(missing)} images are there", highlight=False)
        return True

    def _record(self) -> Path:
        """The file that records which images were loaded. `down` removes it, and `up` then loads them all again."""
        # the cluster's own name, so that a new one is not taken for the one before
        uid = self.get("namespace", "kube-system")["metadata"]["uid"]
        return HOME / "clusters" / f"{uid}.json"

    def _bring(self, names: list[str]) -> None:
        """Use the cluster's own way to load images. Raises ClickException for an unknown kind of cluster."""
        kind = self.context.partition("-")
        if registry := setting("REGISTRY"):
            for name in names:
                _run(["docker", "tag", name, f"{registry.rstrip('/')}/{name}"])
                _run(["docker", "push", "--quiet", f"{registry.rstrip('/')}/{name}"])
        elif load := setting("LOAD"):
            try:
                command = shlex.split(load)
            except ValueError as error:
                raise click.ClickException(f"LOAD={load} is not a command: {error}") from None
            with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as archive:  # noqa: S607
                _run(command, stdin=archive.stdout)
            if archive.returncode != 0:
                raise click.ClickException("docker save failed: is the engine up, and is there room on the disk?")
        elif kind[0] == "kind":
            _run(["kind", "load", "docker-image", "--name", kind[2], *names])
        elif kind[0] == "k3d":
            _run(["k3d", "image", "import", "--cluster", kind[2], *names])
        elif self.context == "minikube":
            _run(["minikube", "--profile", "minikube", "image", "load", *names])
        elif self.context not in ("docker-desktop", "orbstack", "rancher-desktop"):  # they share the engine's images
            raise click.ClickException(
                f"how do images get to context {self.context}? Set REGISTRY to a registry that its nodes pull from, "
                "as in REGISTRY=registry.example.org/you, or LOAD to a command that takes `docker save` on stdin, "
                "as in LOAD='sudo k3s ctr images import -'"
            )

    def _wait(self, console: Console, began: float) -> None:
        """Wait until everything is ready, naming each. Raises ClickException that says what is not and why."""
        shown: set[str] = set()
        with console.status("waiting") as status:
            while True:
                items = self.get("--namespace", NAMESPACE, "deployments,statefulsets,jobs", "--selector", OURS)["items"]
                ready = {one["metadata"]["name"] for one in items if _is_ready(one)}
                for name in sorted(ready - shown):
                    console.print(f"  {time.monotonic() - began:5.0f} s  {name}", highlight=False)
                shown |= ready
                waiting = sorted({one["metadata"]["name"] for one in items} - ready)
                if not waiting:
                    break
                failed = [one["metadata"]["name"] for one in items if _has_failed(one)]
                if failed or time.monotonic() - began > UP_SECONDS:
                    raise click.ClickException(self._why_not((failed or waiting)[0]))
                status.update(f"waiting for {', '.join(waiting)}")
                time.sleep(0.5)
        console.print(f"the cluster has it all, {len(shown)} services, in {time.monotonic() - began:.0f} s")

    def _why_not(self, name: str) -> str:
        """Return why something does not become ready: what its pods wait for, the last events, the end of a log."""
        selector = f"app.kubernetes.io/name={name}"
        pods = self.get("--namespace", NAMESPACE, "pods", "--selector", selector)["items"]
        events = self.get("--namespace", NAMESPACE, "events", "--sort-by=.lastTimestamp")["items"]
        about = [one["message"] for one in events if one["involvedObject"]["name"].startswith(name)][-3:]
        log = self._try("--namespace", NAMESPACE, "logs", "--selector", selector, "--tail=10", "--all-containers")
        phase = ", ".join(sorted({one["status"]["phase"] for one in pods})) or "no pod"
        words = [f"{name} does not become ready ({phase})", *about, *log.stdout.splitlines()]
        return "\n".join([*words, "`make k8s-down` removes what was applied"])

    # --- in and out

    @contextlib.contextmanager
    def forwarded(self) -> Iterator[Callable[[], str]]:
        """Forward a free port of this machine to Airflow's; yield a function that returns the address.

        kubectl's forwarding ends with the pod or the API server that it goes to. The function then starts it again.
        """
        command: Command = ["kubectl", "--context", self.context, "--namespace", NAMESPACE]
        command += ["port-forward", "service/airflow-api-server", ":8080"]
        (HOME / "logs").mkdir(parents=True, exist_ok=True)
        with (HOME / "logs" / "port-forward.log").open("w+") as log, contextlib.ExitStack() as running:
            process: subprocess.Popen[str] | None = None
            found = ""

            def address() -> str:
                nonlocal process, found
                if process is None or process.poll() is not None:
                    running.close()
                    process = running.enter_context(child(command, os.environ, log, pipe_stdout=True))
                    assert process.stdout is not None  # noqa: S101 (for the type checker: it is piped)
                    match = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
                    if not match:
                        process.wait()
                        log.seek(0)
                        said = log.read().strip().splitlines() or ["no message"]
                        raise click.ClickException(f"cannot reach Airflow in context {self.context}: {said[-1]}")
                    found = f"http://127.0.0.1:{match[1]}"
                return found

            yield address

    def down(self, console: Console) -> None:
        """Remove the namespace with all that is in it, and the volumes that were made for it. Raises ClickException."""
        self.check_answers()
        if self.is_ours is None:
            console.print(f"nothing of the course is in context {self.context}")
            return
        if not self.is_ours:
            raise click.ClickException(f"namespace {NAMESPACE} in context {self.context} is not the course's: it stays")
        with console.status(f"removing namespace {NAMESPACE}"):
            self.kubectl("delete", "namespace", NAMESPACE, "--timeout=180s")
            # those of an overlay; volumes belong to the cluster, and not everybody may see them
            if volumes := self._try("get", "persistentvolumes", "--selector", OURS, "--output=name").stdout.split():
                self.kubectl("delete", *volumes)
            self._record().unlink(missing_ok=True)
        console.print(f"namespace {NAMESPACE} is gone from context {self.context}")
        if self.context == f"kind-{KIND}":
            console.print(f"the cluster stays: `kind delete cluster --name {KIND}` removes it")

    def print_endpoint(self, console: Console) -> None:
        """Print how to open the web page and how to log in. The password only where a person reads it."""
        password = setting("AIRFLOW_PASSWORD") if console.is_terminal else "AIRFLOW_PASSWORD in .env"
        forward = (
            f"kubectl --context {self.context} --namespace {NAMESPACE} port-forward service/airflow-api-server 8080"
        )
        console.print(f"open   {forward}")
        console.print(f"then   http://localhost:8080  login airflow, password {password}")
        console.print("next: make dag-run DAG=03_kubernetes MONTH=2019-01")


def current_context() -> str:
    """Return the name of kubectl's current context; "" when there is none, or no kubectl."""
    found, name = ask("kubectl", "config", "current-context")
    return name if found else ""


def choose(context: str | None, make: Callable[[], str] | None = None) -> Cluster:
    """Return the cluster to work on: that of the given context, else of kubectl's current one, if that looks local.

    Where there is no current one, `make` makes a cluster and returns its context. Raises ClickException.
    """
    _require(check_kubectl())
    listed = subprocess.run(
        ["kubectl", "config", "get-contexts", "--output=name"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        raise click.ClickException(f"kubectl cannot read its configuration: {listed.stderr.strip().splitlines()[-1]}")
    known = listed.stdout.split()
    current = context or current_context()
    if current and current not in known:
        raise click.ClickException(f"no context {current}; kubectl knows {', '.join(known) or 'none'}")
    if context:
        return Cluster(context)
    if not current:
        if make and shutil.which("kind"):
            return Cluster(make())
        hint = f"choose one of {', '.join(known)} with CONTEXT=, or " if known else ""
        raise click.ClickException(
            f"no cluster: {hint}install kind, minikube or k3d, or turn Kubernetes on in Docker Desktop"
        )
    cluster = Cluster(current)
    if not cluster.looks_local:
        raise click.ClickException(
            f"context {current} does not look like a cluster on this machine: CONTEXT={current} says that you mean it"
        )
    return cluster


def make_kind_cluster(console: Console) -> str:
    """Make a cluster of one node with kind; return its context. Raises ClickException."""
    _require(check_engine())
    with console.status(f"making a kind cluster {KIND}"):
        if KIND in _run(["kind", "get", "clusters"]).split():  # kubectl has forgotten it
            _run(["kind", "export", "kubeconfig", "--name", KIND])
        else:
            _run(["kind", "create", "cluster", "--name", KIND, "--wait", "120s"])
    return f"kind-{KIND}"


def _require(finding: Finding) -> None:
    if finding.fix:
        raise click.ClickException(str(finding))


def _run(command: list[str], stdin: Any = None) -> str:
    """Run a command to its end; return what it printed. Raises ClickException with its last line."""
    try:
        done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise click.ClickException(f"no {command[0]} command, which this cluster needs: install it") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise click.ClickException(f"{shlex.join(command[:3])} failed: {said[-1]}")
    return done.stdout


def _built_here() -> list[str]:
    """Return the images that the cluster cannot pull: those of the course, and service images of offline-images."""
    services = [setting(name) for name in SERVICES.values()]
    return [image.tag for image in images.listed("cluster")] + [one for one in services if one.startswith("course/")]


def _is_ready(one: dict[str, Any]) -> bool:
    """Return whether a Deployment or StatefulSet runs what was applied last, or a Job is done."""
    status, wanted = one.get("status", {}), one["spec"].get("replicas", 1)
    if one["kind"] == "Job":
        return bool(status.get("succeeded"))
    seen = status.get("observedGeneration") == one["metadata"]["generation"]
    return bool(seen and status.get("readyReplicas", 0) == status.get("updatedReplicas", 0) == wanted)


def _has_failed(one: dict[str, Any]) -> bool:
    """Return whether a Job has given up."""
    return any(
        each["type"] == "Failed" for each in one.get("status", {}).get("conditions") or [] if one["kind"] == "Job"
    )
