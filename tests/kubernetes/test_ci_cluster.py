"""What the cluster of ci/kubernetes.sh must do for the course: each thing that a manifest or a task of it leans on."""

import json
import ssl
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_cluster import Cluster, secret, wait_until

pytestmark = pytest.mark.kubernetes

IMAGE = "course/busybox:1.35"  # every cluster of ci/kubernetes.sh has it
UIDS = (10001, 999, 50000)  # of the course's tasks, of Postgres and MySQL, of Airflow
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
LARGE = {"memory": "2Gi"}
SMALL = {"storage": "10Mi"}


def an_object(kind: str, name: str, version: str = "v1", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}


def a_container(script: str, uid: int = 10001, **fields: Any) -> dict[str, Any]:
    """A container without any right that the pods of the course do not have."""
    rights = {
        "runAsUser": uid,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    return {
        "name": f"uid-{uid}",
        "image": IMAGE,
        "command": ["sh", "-ec", script],
        "securityContext": rights,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        **fields,
    }


def a_pod(name: str, *containers: dict[str, Any], data: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod with a volume at /data, empty if no other is given."""
    defaults = {
        "containers": containers,
        "volumes": [{"name": "data", **(data or {"emptyDir": {}})}],
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    return an_object("Pod", name, spec=defaults | spec)


def a_claim(name: str, **spec: Any) -> dict[str, Any]:
    """A claim of the default class, if no other is given."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": SMALL}, **spec}
    return an_object("PersistentVolumeClaim", name, spec=spec)


def claimed(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}


def ended(cluster: Cluster, name: str) -> dict[str, Any]:
    """Wait for the end of a pod and return its status."""
    status: dict[str, Any] = {}

    def over() -> bool:
        status.update(json.loads(cluster.kubectl("get", "pod", name, "--output", "json"))["status"])
        return status["phase"] in ("Succeeded", "Failed")

    wait_until(over, f"the end of the pod {name}", 30)
    return status


def log_of_success(cluster: Cluster, name: str) -> str:
    status = ended(cluster, name)
    log = cluster.kubectl("logs", name, "--all-containers")
    assert status["phase"] == "Succeeded", log
    return log


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A namespace with default limits, a quota, and a web server that never ends."""
    cluster = Cluster(f"course-ci-{uuid.uuid4().hex[:8]}")
    if cluster.context != "course-ci":
        pytest.skip(
            f"kubectl's current context is {cluster.context}; these tests are for the cluster of ci/kubernetes.sh"
        )
    cluster.kubectl("create", "namespace", cluster.namespace)
    try:
        limits = {"default": {"memory": "64Mi"}, "defaultRequest": {"memory": "16Mi"}, "type": "Container"}
        pages = a_container(
            "echo served > /data/page; exec httpd -f -p 8080 -h /data",
            readinessProbe={"httpGet": {"path": "/page", "port": 8080}, "periodSeconds": 1},
        )
        web = a_pod("web", pages, hostname="first", subdomain="webs")
        web["metadata"]["labels"] = selector = {"app": "web"}
        cluster.apply(
            an_object("LimitRange", "limits", spec={"limits": [limits]}),
            an_object("ResourceQuota", "quota", spec={"hard": {"requests.memory": "1Gi"}}),
            an_object("Service", "web", spec={"selector": selector, "ports": [{"port": 80, "targetPort": 8080}]}),
            an_object("Service", "webs", spec={"selector": selector, "clusterIP": "None"}),
        )
        wait_until(lambda: "default" in cluster.kubectl("get", "serviceaccounts"), "the default service account")
        cluster.apply(web)
        cluster.kubectl("wait", "--for", "condition=Ready", "pod/web", "--timeout", "30s")
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", cluster.namespace, "--wait=false")


def test_a_claim_of_the_default_class_keeps_the_files_of_any_user(cluster: Cluster) -> None:
    writers = [a_container(f"id -u > /data/{uid}", uid) for uid in UIDS]
    cluster.apply(a_claim("kept"), a_pod("writers", *writers, data=claimed("kept")))
    log_of_success(cluster, "writers")
    cluster.kubectl("delete", "pod", "writers")
    cluster.apply(a_pod("reader", a_container("cat /data/*"), data=claimed("kept")))

    assert sorted(map(int, log_of_success(cluster, "reader").split())) == sorted(UIDS)


def test_a_volume_may_be_a_folder_of_the_node(cluster: Cluster, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "in").write_text("from the node")
    volume = {
        "capacity": SMALL,
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(tmp_path)},
        "claimRef": {"namespace": cluster.namespace, "name": "folder"},
    }
    name = cluster.namespace  # volumes are in none
    cluster.apply(an_object("PersistentVolume", name, spec=volume))
    try:
        cluster.apply(
            a_claim("folder", storageClassName="", volumeName=name),
            a_pod("copy", a_container("cp /data/in /data/out"), data=claimed("folder")),
        )
        log_of_success(cluster, "copy")
        assert (tmp_path / "out").read_text() == "from the node"
    finally:
        cluster.kubectl("delete", "persistentvolume", name, "--wait=false")


def test_services_have_names_and_so_do_the_pods_of_a_headless_one(cluster: Cluster) -> None:
    full = f"web.{cluster.namespace}.svc.cluster.local"
    names = ["web", f"web.{cluster.namespace}", full, "webs:8080", "first.webs:8080"]
    script = f"for name in {' '.join(names)}; do wget -q -O - http://$name/page; done"
    cluster.apply(a_pod("client", a_container(script)))

    assert log_of_success(cluster, "client").split() == ["served"] * len(names)


def test_a_pod_that_calls_out_of_the_machine_is_refused_at_once(cluster: Cluster) -> None:
    uptime = "cut -d . -f 1 /proc/uptime"
    script = f"{uptime}; ! nslookup example.com > /dev/null; ! nc -w 10 203.0.113.1 80; {uptime}"
    cluster.apply(a_pod("caller", a_container(script)))

    before, *_, after = log_of_success(cluster, "caller").splitlines()
    assert int(after) - int(before) < 5


def test_a_pod_beyond_the_quota_is_refused_with_the_reason(cluster: Cluster) -> None:
    with pytest.raises(AssertionError, match=r"exceeded quota: quota, requested: requests\.memory=2Gi"):
        cluster.apply(a_pod("large", a_container("true", resources={"requests": LARGE, "limits": LARGE})))


def test_a_secret_is_a_file_that_its_group_may_read(cluster: Cluster) -> None:
    login = {"secret": {"secretName": "login", "defaultMode": 0o440}}
    script = "cat /data/password; stat -L -c ' %a %g' /data/password"
    cluster.apply(secret("login", password="swordfish"), a_pod("secretive", a_container(script), data=login))

    assert log_of_success(cluster, "secretive").split() == ["swordfish", "440", "10001"]


def test_a_service_account_may_do_what_its_role_says_and_no_more(cluster: Cluster) -> None:
    rbac = "rbac.authorization.k8s.io"
    cluster.apply(
        an_object("ServiceAccount", "lister"),
        an_object(
            "Role", "lister", f"{rbac}/v1", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        ),
        an_object(
            "RoleBinding",
            "lister",
            f"{rbac}/v1",
            roleRef={"apiGroup": rbac, "kind": "Role", "name": "lister"},
            subjects=[{"kind": "ServiceAccount", "name": "lister"}],
        ),
        a_pod("no-account", a_container(f"! ls {ACCOUNT}")),
    )
    script = f"cat {ACCOUNT}/token; echo; cat {ACCOUNT}/ca.crt"
    account = {"serviceAccountName": "lister", "automountServiceAccountToken": True}
    cluster.apply(a_pod("account", a_container(script), **account))
    token, authority = log_of_success(cluster, "account").split("\n", 1)
    tls = ssl.create_default_context(cadata=authority)
    tls.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on

    def answer_to(kind: str) -> int:
        url = f"https://{cluster.host}:{cluster.port}/api/v1/namespaces/{cluster.namespace}/{kind}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, context=tls, timeout=10) as response:  # noqa: S310 (the cluster)
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert (answer_to("pods"), answer_to("secrets")) == (200, 403)
    log_of_success(cluster, "no-account")


def test_a_pod_out_of_memory_says_so(cluster: Cluster) -> None:
    cluster.apply(a_pod("hungry", a_container("exec tail /dev/zero", resources={"limits": {"memory": "16Mi"}})))

    [container] = ended(cluster, "hungry")["containerStatuses"]
    assert container["state"]["terminated"]["reason"] == "OOMKilled"


def test_a_log_streams_while_its_pod_runs(cluster: Cluster) -> None:
    script = "echo running; until [ -e /data/go ]; do sleep 0.1; done; echo told"
    cluster.apply(a_pod("talker", a_container(script)))
    cluster.kubectl("wait", "--for", "condition=Ready", "pod/talker", "--timeout", "30s")

    command = ["kubectl", "--context", cluster.context, "--namespace", cluster.namespace, "logs", "--follow", "talker"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as logs:
        assert logs.stdout is not None
        assert logs.stdout.readline() == "running\n"
        cluster.kubectl("exec", "talker", "--", "touch", "/data/go")
        assert logs.stdout.read() == "told\n"


def test_a_port_of_a_service_is_forwarded(cluster: Cluster) -> None:
    with (
        cluster.forwarded("web", 80) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=10) as response,
    ):
        assert response.read() == b"served\n"


def test_a_finished_job_goes_after_its_time_and_takes_its_pods(cluster: Cluster) -> None:
    template = {"spec": a_pod("", a_container("true"))["spec"]}
    cluster.apply(an_object("Job", "brief", "batch/v1", spec={"ttlSecondsAfterFinished": 1, "template": template}))

    wait_until(lambda: "brief" not in cluster.kubectl("get", "jobs,pods", "--output", "name"), "the end of the job", 30)


def test_the_events_of_a_pod_name_the_image_that_the_node_does_not_have(cluster: Cluster) -> None:
    missing = a_container("true") | {"image": "course/missing:1", "imagePullPolicy": "Never"}
    cluster.apply(a_pod("stuck", missing))

    def told() -> bool:
        events = cluster.kubectl("get", "events", "--field-selector", "involvedObject.name=stuck")
        return "ErrImageNeverPull" in events and "course/missing:1" in events

    wait_until(told, "an event that names the image", 20)
