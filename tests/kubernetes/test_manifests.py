"""k8s/: what kubectl builds is valid for every Kubernetes, and asks for no more than it needs.

All but the last test, of the host-path variant, do without a cluster.
"""

import copy
import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from support.required import cannot_run

from course import manifests
from course.paths import REPO
from course.settings import COMPOSE_FILE, checkout_version

Manifest = dict[str, Any]

K8S = REPO / "k8s"
COMPONENTS = ["images"]  # parts of the others
FOLDERS = sorted({str(file.parent.relative_to(K8S)) for file in K8S.rglob("kustomization.yaml")} - {*COMPONENTS})
WORKER_POD = K8S / "airflow" / "worker-pod.yaml"  # the scheduler makes pods from it
VERSIONS = [f"1.{minor}" for minor in range(25, 38)]
# The Secrets that `make k8s-up` makes, and their keys.
SECRETS = {one["metadata"]["name"]: {*one["stringData"]} for one in manifests.secrets()["items"]}
SMALL_UNITS = {"m": 0.001, "Mi": 1 / 1024, "Gi": 1.0, "": 1.0}


@pytest.fixture(scope="module", autouse=True)
def kubectl() -> None:
    if shutil.which("kubectl") is None:
        cannot_run("kubernetes", "kubectl is not here: it builds the manifests")


@cache
def build(folder: str) -> list[Manifest]:
    """Build a kustomization as `kubectl apply -k` does."""
    command = ["kubectl", "kustomize", str(K8S / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "kubectl warns of a deprecated field"
    return list(yaml.safe_load_all(done.stdout))


def everything() -> list[Manifest]:
    """What a learner has after `make k8s-up`."""
    return build("pipeline") + build("airflow")


def find(kind: str, name: str, manifests: list[Manifest] | None = None) -> Manifest:
    found = [one for one in manifests or everything() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


class Pod(NamedTuple):
    """The pod that a manifest asks for."""

    name: str
    kind: str
    metadata: Manifest
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        return self.spec["containers"] + self.spec.get("initContainers", [])


def pods_of(manifests: list[Manifest]) -> Iterator[Pod]:
    for one in manifests:
        if one["kind"] == "Pod":
            yield Pod(one["metadata"]["name"], "Pod", one["metadata"], one["spec"])
        elif "template" in one.get("spec", {}):
            template = one["spec"]["template"]
            yield Pod(one["metadata"]["name"], one["kind"], template["metadata"], template["spec"])


def worker_pod() -> Manifest:
    return yaml.safe_load(WORKER_POD.read_text())


def all_pods() -> list[Pod]:
    return list(pods_of([*everything(), worker_pod()]))


# --- what the cluster's versions take


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_version_of_kubernetes_takes_it(folder: str) -> None:
    """1.25 to 1.37. A kind that a version does not have, or has no more, is an error here."""
    of_variants = folder.startswith("overlays")
    for manifest in [*build(folder), worker_pod()]:
        if of_variants and manifest in [*everything(), worker_pod()]:
            continue  # is checked where it comes from
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    manifest = copy.deepcopy(find("Deployment", "movielens-api"))
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_has_the_labels_of_the_course_and_lives_in_its_namespace(folder: str) -> None:
    for manifest in build(folder):
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "airflow-in-containers", manifest["metadata"]["name"]
        assert labels["app.kubernetes.io/name"], manifest["metadata"]["name"]
        if manifest["kind"] not in ("Namespace", "PersistentVolume"):
            assert manifest["metadata"]["namespace"] == "airflow", manifest["metadata"]["name"]


def test_the_namespace_lets_only_restricted_pods_in() -> None:
    labels = find("Namespace", "airflow")["metadata"]["labels"]
    for mode in ("enforce", "warn", "audit"):
        assert labels[f"pod-security.kubernetes.io/{mode}"] == "restricted"


# --- what every pod keeps to


def broken_rules(pod: Pod) -> list[str]:
    """List the rules that a pod breaks, each with the pod's and the container's name."""
    spec, security = pod.spec, pod.spec.get("securityContext", {})
    mounts_claims = any("persistentVolumeClaim" in volume for volume in spec.get("volumes", []))
    rules = {
        "is not root": security.get("runAsNonRoot") is True and security.get("runAsUser", 0) > 0,
        "has seccomp's default profile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
        "sets fsGroup for its claims": not mounts_claims or "fsGroup" in security,
        "gets no service links": spec.get("enableServiceLinks") is False,
        "says whether it gets a token": isinstance(spec.get("automountServiceAccountToken"), bool),
        "names its service account": spec.get("serviceAccountName", "default") != "default",
        "shares nothing with its node": not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(),
        "has no folder of its node": not any("hostPath" in volume for volume in spec.get("volumes", [])),
    }
    broken = [f"{pod.name}: {rule}" for rule, kept in rules.items() if not kept]
    for container in pod.containers:
        inner, resources = container.get("securityContext", {}), container.get("resources", {})
        serves = "ports" in container
        rules = {
            "has a read-only root file system": inner.get("readOnlyRootFilesystem") is True,
            "cannot gain privileges": inner.get("allowPrivilegeEscalation") is False,
            "has no capability": inner.get("capabilities") == {"drop": ["ALL"]},
            "requests processor and memory": {"cpu", "memory"} <= resources.get("requests", {}).keys(),
            "has limits on both": {"cpu", "memory"} <= resources.get("limits", {}).keys(),
            "does not pull an image that is there": container.get("imagePullPolicy") == "IfNotPresent",
            "names its image's version": pod.kind == "Pod" or fixed(container.get("image", "")),
            "has probes, as it serves": not serves or {"startupProbe", "readinessProbe"} <= container.keys(),
        }
        broken += [f"{pod.name}, {container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return broken


def fixed(image: str) -> bool:
    return bool(re.fullmatch(r"[a-z0-9./-]+:\d[\w.-]*", image))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_pod_keeps_to_the_rules(folder: str) -> None:
    pods = list(pods_of(build(folder)))
    assert pods
    assert [line for pod in pods for line in broken_rules(pod)] == []


def test_a_worker_pod_keeps_to_the_rules() -> None:
    (pod,) = pods_of([worker_pod()])
    assert broken_rules(pod) == []


BREAKS: dict[str, Callable[[Manifest, Manifest], object]] = {
    "is not root": lambda pod, container: pod["securityContext"].pop("runAsNonRoot"),
    "has seccomp's default profile": lambda pod, container: pod["securityContext"].pop("seccompProfile"),
    "gets no service links": lambda pod, container: pod.pop("enableServiceLinks"),
    "says whether it gets a token": lambda pod, container: pod.pop("automountServiceAccountToken"),
    "names its service account": lambda pod, container: pod.pop("serviceAccountName"),
    "shares nothing with its node": lambda pod, container: pod.update(hostNetwork=True),
    "has no folder of its node": lambda pod, container: pod["volumes"].append({"hostPath": {"path": "/"}}),
    "has a read-only root file system": lambda pod, container: container["securityContext"].clear(),
    "cannot gain privileges": lambda pod, container: container["securityContext"].clear(),
    "has no capability": lambda pod, container: container["securityContext"]["capabilities"].update(add=["CHOWN"]),
    "requests processor and memory": lambda pod, container: container["resources"]["requests"].pop("memory"),
    "has limits on both": lambda pod, container: container["resources"].pop("limits"),
    "does not pull an image that is there": lambda pod, container: container.pop("imagePullPolicy"),
    "names its image's version": lambda pod, container: container.update(image="course/movielens-api:latest"),
    "has probes, as it serves": lambda pod, container: container.pop("readinessProbe"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_pod_that_breaks_a_rule_is_named_with_it(rule: str) -> None:
    manifest = copy.deepcopy(find("Deployment", "movielens-api"))
    spec = manifest["spec"]["template"]["spec"]
    BREAKS[rule](spec, spec["containers"][0])
    (pod,) = pods_of([manifest])
    assert any(line.startswith("movielens-api") and line.endswith(f": {rule}") for line in broken_rules(pod))


def test_images_of_the_course_have_its_version() -> None:
    images = {container["image"] for pod in all_pods() for container in pod.containers if "image" in container}
    ours = {image for image in images if image.startswith("course/")}
    assert ours == {f"course/{name}:{checkout_version()}" for name in ("movielens-api", "airflow-kubernetes")}
    assert images - ours == {official_image(setting) for setting in manifests.SERVICES.values()}
    settings = find("ConfigMap", "airflow-settings")["data"]
    repository = settings["AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY"]
    tag = settings["AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG"]
    assert f"{repository}:{tag}" in ours
    assert settings["COURSE_VERSION"] == tag


def official_image(setting: str) -> str:
    """Return the image of a service as the stack has it, where no setting names another one."""
    (found,) = re.findall(rf"\$\{{{setting}:-(.+?)\}}", COMPOSE_FILE.read_text())
    return found


def test_every_image_of_the_course_gets_its_version_in_one_place() -> None:
    (kustomization,) = yaml.safe_load_all((K8S / "images" / "kustomization.yaml").read_text())
    assert {one["newTag"] for one in kustomization["images"]} == {checkout_version()}
    named = {
        image
        for file in K8S.rglob("*.yaml")
        for image in re.findall(r"^ +image: (course/\S+)$", file.read_text(), re.M)
    }
    assert named == {one["name"] for one in kustomization["images"]}


def applied(**settings: str) -> list[Manifest]:
    """What `make k8s-up` applies under some settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("COURSE_VERSION", "REGISTRY", *manifests.SERVICES.values()):
            patch.setenv(name, settings.get(name, ""))
        return list(yaml.safe_load_all(manifests.with_local_images(yaml.safe_dump_all(everything()))))


def images_of(found: list[Manifest]) -> set[tuple[str, str]]:
    return {(one["image"], one["imagePullPolicy"]) for pod in pods_of(found) for one in pod.containers}


@pytest.mark.parametrize(
    ("registry", "prefix", "policy"), [("", "", "IfNotPresent"), ("127.0.0.1:5001/me", "127.0.0.1:5001/me/", "Always")]
)
def test_k8s_up_takes_the_chosen_version_and_registry_everywhere(registry: str, prefix: str, policy: str) -> None:
    found = applied(COURSE_VERSION="0.2.0-test", REGISTRY=registry, MYSQL_IMAGE="course/mysql:11.8")
    assert images_of(found) == {
        (f"{prefix}course/movielens-api:0.2.0-test", policy),
        (f"{prefix}course/airflow-kubernetes:0.2.0-test", policy),
        ("course/mysql:11.8", "IfNotPresent"),
        ("postgres:17", "IfNotPresent"),
    }
    settings = find("ConfigMap", "airflow-settings", found)["data"]
    worker = "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER"
    assert settings[f"{worker}_REPOSITORY"] == f"{prefix}course/airflow-kubernetes"
    assert settings[f"{worker}_TAG"] == settings["COURSE_VERSION"] == "0.2.0-test"
    assert settings["COURSE_REGISTRY"] == prefix
    (template,) = (one["data"]["worker-pod.yaml"] for one in found if "worker-pod.yaml" in one.get("data", {}))
    assert {one["imagePullPolicy"] for one in yaml.safe_load(template)["spec"]["containers"]} == {policy}


# --- rights


READ_AND_MAKE_PODS = {
    ("pods", "create"),
    ("pods", "delete"),
    ("pods", "get"),
    ("pods", "list"),
    ("pods", "patch"),
    ("pods/log", "get"),
    ("events", "list"),
}
RIGHTS = {
    "airflow-scheduler": {("pods", verb) for verb in ("create", "delete", "list", "patch", "watch")},
    "airflow-worker": READ_AND_MAKE_PODS | {("pods", "watch")},
    "airflow-triggerer": READ_AND_MAKE_PODS,
}


def test_every_role_has_the_listed_rights_and_no_other() -> None:
    rights = {}
    for manifest in everything():
        assert manifest["kind"] not in ("ClusterRole", "ClusterRoleBinding")
        if manifest["kind"] == "Role":
            assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in manifest["rules"])
            assert all(rule["apiGroups"] == [""] for rule in manifest["rules"])
            rights[manifest["metadata"]["name"]] = {
                (resource, verb)
                for rule in manifest["rules"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    assert rights == RIGHTS


def test_every_role_is_bound_to_the_account_of_its_name() -> None:
    bindings = [one for one in everything() if one["kind"] == "RoleBinding"]
    assert {one["metadata"]["name"] for one in bindings} == set(RIGHTS)
    for one in bindings:
        name = one["metadata"]["name"]
        assert (one["roleRef"]["kind"], one["roleRef"]["name"]) == ("Role", name)
        assert one["subjects"] == [{"kind": "ServiceAccount", "name": name, "namespace": "airflow"}]


def test_only_who_has_rights_gets_a_token() -> None:
    assert {pod.name for pod in all_pods() if pod.spec["automountServiceAccountToken"]} == set(RIGHTS)
    accounts = [one for one in everything() if one["kind"] == "ServiceAccount"]
    assert all(one["automountServiceAccountToken"] is False for one in accounts)
    assert {pod.spec["serviceAccountName"] for pod in all_pods()} | {"task"} == {
        one["metadata"]["name"] for one in accounts
    }


# --- secrets


def test_no_secret_is_in_a_manifest() -> None:
    for file in K8S.rglob("*.yaml"):
        for manifest in yaml.safe_load_all(file.read_text()):
            assert manifest.get("kind") != "Secret", file
            assert "secretGenerator" not in manifest, file
    for pod in all_pods():
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search("PASSWORD|SECRET|KEY|CONN", variable["name"]) and "value" in variable:
                    assert variable["name"] == "MYSQL_RANDOM_ROOT_PASSWORD", f"{pod.name}: {variable['name']}"


def test_pods_take_their_secrets_from_what_k8s_up_makes() -> None:
    asked: dict[str, set[str]] = {}
    for pod in all_pods():
        assert "secret" not in [key for volume in pod.spec.get("volumes", []) for key in volume]
        for container in pod.containers:
            assert all("secretRef" not in source for source in container.get("envFrom", []))
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    asked.setdefault(reference["name"], set()).add(reference["key"])
    of_tasks = {"database-login": {"url"}}  # mounted by DAG 03
    assert asked | of_tasks == SECRETS


def test_a_worker_pod_has_no_secret() -> None:
    assert "secret" not in json.dumps(worker_pod()).lower()
    settings = find("ConfigMap", "airflow-settings")["data"]
    assert not [name for name in settings if re.search("FERNET|SECRET|SQL_ALCHEMY|PASSWORD", name)]


# --- Airflow's settings


def test_airflow_knows_every_setting() -> None:
    """A misspelt one would be ignored in silence."""
    from airflow.configuration import retrieve_configuration_description

    known = retrieve_configuration_description(include_providers=True)
    for name in find("ConfigMap", "airflow-settings")["data"]:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.lower().split("__")
            assert option in known[section]["options"], name


def test_the_connection_leads_to_the_cluster_that_airflow_is_on() -> None:
    connection = json.loads(find("ConfigMap", "airflow-settings")["data"]["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    assert connection == {"conn_type": "kubernetes", "extra": {"in_cluster": True, "namespace": "airflow"}}


def test_the_scheduler_gets_the_pod_template() -> None:
    path = find("ConfigMap", "airflow-settings")["data"]["AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE"]
    (pod,) = pods_of([find("Deployment", "airflow-scheduler")])
    (mount,) = (one for one in pod.spec["containers"][0]["volumeMounts"] if one["name"] == "worker-pod")
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == "worker-pod")
    content = find("ConfigMap", volume["configMap"]["name"])["data"][Path(path).name]
    assert mount["mountPath"] == str(Path(path).parent)
    assert yaml.safe_load(content) == worker_pod()
    assert worker_pod()["spec"]["containers"][0]["name"] == "base"


@pytest.mark.parametrize("server", ["api-server", "scheduler", "dag-processor", "triggerer"])
def test_every_server_waits_for_the_migration_with_the_one_script(server: str) -> None:
    (pod,) = pods_of([find("Deployment", f"airflow-{server}")])
    (wait,) = pod.spec["initContainers"]
    shell, script, *options = wait["command"]
    (mount,) = (one for one in wait["volumeMounts"] if one["mountPath"] == str(Path(script).parent))
    (volume,) = (one for one in pod.spec["volumes"] if one["name"] == mount["name"])
    content = find("ConfigMap", volume["configMap"]["name"])["data"][Path(script).name]
    assert content == (K8S / "airflow" / Path(script).name).read_text()
    assert content.startswith(f"#!/usr/bin/env {shell}\n")
    # those that write the permissions of the login, as the Job does
    assert options == (["--login"] if server in ("api-server", "dag-processor") else [])


# --- what is named exists


def test_services_lead_to_ports_of_pods() -> None:
    for service in [one for one in everything() if one["kind"] == "Service"]:
        (pod,) = (one for one in all_pods() if selects(service["spec"]["selector"], one))
        names = {port["name"] for container in pod.containers for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    api = find("Service", "movielens-api")["spec"]["ports"]
    assert [(port["port"], port["targetPort"]) for port in api] == [(80, "http")]


def selects(labels: dict[str, str], pod: Pod) -> bool:
    return labels.items() <= pod.metadata["labels"].items()


def test_claims_that_pods_mount_exist() -> None:
    claims = {one["metadata"]["name"] for one in everything() if one["kind"] == "PersistentVolumeClaim"}
    assert claims == {"data-volume", "airflow-logs"}
    for pod in all_pods():
        for volume in pod.spec.get("volumes", []):
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in claims, pod.name


def test_the_logs_outlive_the_workers_and_are_seen_by_the_api_server() -> None:
    mounts = {}
    for pod in all_pods():
        for volume in pod.spec.get("volumes", []):
            if volume.get("persistentVolumeClaim") == {"claimName": "airflow-logs"}:
                (mount,) = (
                    one
                    for container in pod.spec["containers"]
                    for one in container["volumeMounts"]
                    if one["name"] == volume["name"]
                )
                mounts[pod.name] = (mount["mountPath"], mount.get("readOnly", False))
    assert mounts == {
        "airflow-worker": ("/opt/airflow/logs", False),
        "airflow-triggerer": ("/opt/airflow/logs", False),
        "airflow-api-server": ("/opt/airflow/logs", True),
    }


# --- who may talk to whom


class Policies:
    """NetworkPolicies as a network enforces them."""

    def __init__(self) -> None:
        self.all = [one["spec"] for one in everything() if one["kind"] == "NetworkPolicy"]

    def allow(self, source: str, target: str, port: str) -> bool:
        """Return whether the pod named so may open a connection to a port of another one."""
        return self._out(source, target, port) and self._in(source, target, port)

    def allow_outside(self, source: str, port: int) -> bool:
        return any(
            "to" not in rule and port in [one["port"] for one in rule["ports"]]
            for policy in self._of(source, "Egress")
            for rule in policy.get("egress", [])
        )

    def _of(self, pod: str, direction: str) -> list[Manifest]:
        return [one for one in self.all if direction in one["policyTypes"] and _matches(one["podSelector"], pod)]

    def _out(self, source: str, target: str, port: str) -> bool:
        policies = self._of(source, "Egress")
        assert policies, f"nothing limits {source}"
        return any(
            any(_matches(peer["podSelector"], target) for peer in rule.get("to", []))
            and port in [one["port"] for one in rule["ports"]]
            for policy in policies
            for rule in policy.get("egress", [])
        )

    def _in(self, source: str, target: str, port: str) -> bool:
        policies = self._of(target, "Ingress")
        assert policies, f"nothing limits {target}"
        return any(
            any(_matches(peer["podSelector"], source) for peer in rule.get("from", []))
            and port in [one["port"] for one in rule["ports"]]
            for policy in policies
            for rule in policy.get("ingress", [])
        )


def _matches(selector: Manifest, name: str) -> bool:
    labels = {"app.kubernetes.io/name": name}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"]
        for one in selector.get("matchExpressions", [])
    )


SERVERS = {"airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"}
MAY_CONNECT = {
    *(("task", target, port) for target, port in (("movielens-api", "http"), ("mysql", "mysql"))),
    *((server, "postgres", "postgres") for server in SERVERS | {"airflow-migrate"}),
    *(
        (client, "airflow-api-server", "http")
        for client in ("airflow-worker", "airflow-dag-processor", "airflow-triggerer")
    ),
}


def test_a_pod_reaches_the_listed_ones_and_no_other() -> None:
    policies = Policies()
    names = {pod.name for pod in all_pods()} | {"task"}
    ports = [
        (pod.name, port["name"])
        for pod in all_pods()
        for container in pod.containers
        for port in container.get("ports", [])
    ]
    found = {
        (source, target, port) for source in names for target, port in ports if policies.allow(source, target, port)
    }
    assert found == MAY_CONNECT


def test_only_who_makes_or_follows_pods_reaches_the_kubernetes_api() -> None:
    policies = Policies()
    names = {pod.name for pod in all_pods()} | {"task"}
    for port in (443, 6443, 8443):
        assert {name for name in names if policies.allow_outside(name, port)} == set(RIGHTS)
    assert all(policies.allow_outside(name, 53) for name in names)


# --- how much


def amount(quantity: str) -> float:
    """Turn a quantity into cores, or into GiB."""
    number, unit = re.fullmatch(r"(\d+)(m|Mi|Gi|)", quantity).groups()
    return int(number) * SMALL_UNITS[unit]


def needs(pod: Pod) -> dict[str, float]:
    """Add up what a quota counts. An init container runs before the others, so the larger one counts."""
    total = {"pods": 1.0}
    for kind, resource in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        running = sum(amount(one["resources"][kind][resource]) for one in pod.spec["containers"])
        first = [amount(one["resources"][kind][resource]) for one in pod.spec.get("initContainers", [])]
        total[f"{kind}.{resource}"] = max([running, *first])
    return total


def task_pod() -> dict[str, float]:
    from support.dag_runs import load_dag

    sizes = []
    for task in load_dag("03_kubernetes").tasks:
        asked = task.container_resources
        sizes.append(
            {
                "pods": 1.0,
                "requests.cpu": amount(asked.requests["cpu"]),
                "requests.memory": amount(asked.requests["memory"]),
                "limits.memory": amount(asked.limits["memory"]),
            }
        )
    return {name: max(size[name] for size in sizes) for name in sizes[0]}


def test_the_quota_has_room_for_four_tasks_beside_a_migration_and_not_for_many_more(airflow_database: None) -> None:
    """The migration comes with every `make k8s-up`, also while tasks run."""
    hard = {name: amount(value) for name, value in find("ResourceQuota", "course")["spec"]["hard"].items()}
    there = [needs(pod) for pod in all_pods() if pod.name != "airflow-worker"]
    (worker,) = (needs(pod) for pod in all_pods() if pod.name == "airflow-worker")
    task = task_pod()
    for tasks, fits in ((4, True), (5, False)):
        wanted = {name: sum(one[name] for one in there) + tasks * (worker[name] + task[name]) for name in task}
        assert all(wanted[name] <= hard[name] for name in wanted) is fits, wanted
    parallelism = find("ConfigMap", "airflow-settings")["data"]["AIRFLOW__CORE__PARALLELISM"]
    assert parallelism == "4"


def test_no_container_is_over_the_limit_range() -> None:
    (limit,) = find("LimitRange", "course")["spec"]["limits"]
    for pod in all_pods():
        for container in pod.containers:
            for resource, most in limit["max"].items():
                assert amount(container["resources"]["limits"][resource]) <= amount(most), pod.name


# --- the variants


def test_the_host_path_variant_only_changes_the_volume() -> None:
    changed = {
        (one["kind"], one["metadata"]["name"]) for one in build("overlays/host-path") if one not in build("pipeline")
    }
    assert changed == {("PersistentVolume", "data-volume"), ("PersistentVolumeClaim", "data-volume")}
    volume = find("PersistentVolume", "data-volume", build("overlays/host-path"))
    claim = find("PersistentVolumeClaim", "data-volume", build("overlays/host-path"))
    assert volume["spec"]["claimRef"] == {"namespace": "airflow", "name": "data-volume"}
    for field in ("storageClassName", "accessModes"):
        assert volume["spec"][field] == claim["spec"][field]
    assert volume["spec"]["capacity"] == claim["spec"]["resources"]["requests"]


def test_the_read_write_many_variant_only_changes_the_claims_that_pods_share() -> None:
    changed = [one for one in build("overlays/read-write-many") if one not in everything()]
    assert {one["metadata"]["name"] for one in changed} == {"data-volume", "airflow-logs"}
    assert all(one["spec"]["accessModes"] == ["ReadWriteMany"] for one in changed)


# --- the official chart


ANY: Manifest = {}  # whatever is below
SERVICE = {"labels": ANY, "serviceAccount": {"automountServiceAccountToken": ANY}, "resources": ANY}
GROOMED = SERVICE | {"logGroomerSidecar": {"enabled": ANY}}
# What the chart (1.22) knows, of what helm-values.yaml uses. Read in chart/values.schema.json of apache/airflow, which
# is not part of the course. `workers.kubernetes` is newer than that schema: from the release notes of 1.20 and 1.21.
CHART: Manifest = {
    "executor": ANY,
    "airflowVersion": ANY,
    "images": {"airflow": {"repository": ANY, "tag": ANY, "pullPolicy": ANY}, "migrationsWaitTimeout": ANY},
    "data": {"metadataSecretName": ANY},
    "fernetKeySecretName": ANY,
    "apiSecretKeySecretName": ANY,
    "jwtSecretName": ANY,
    "config": ANY,
    "env": ANY,
    "securityContexts": {"pod": ANY, "containers": ANY},
    "volumes": ANY,
    "volumeMounts": ANY,
    "labels": ANY,
    "logs": {"persistence": {"enabled": ANY, "existingClaim": ANY}},
    "rbac": {"create": ANY},
    "allowPodLaunching": ANY,
    "apiServer": SERVICE,
    "scheduler": GROOMED,
    "dagProcessor": GROOMED | {"enabled": ANY},
    "triggerer": GROOMED | {"persistence": {"enabled": ANY}},
    "workers": {
        "labels": ANY,
        "kubernetes": {
            "serviceAccount": {"automountServiceAccountToken": ANY},
            "terminationGracePeriodSeconds": ANY,
            "resources": ANY,
        },
    },
    "migrateDatabaseJob": SERVICE,
    "createUserJob": SERVICE | {"env": ANY, "args": ANY},
    "postgresql": {"enabled": ANY},
    "redis": {"enabled": ANY},
    "statsd": {"enabled": ANY},
}
# What airflow/ has to say itself, and with the chart nobody.
SET_BY_THE_CHART = {
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE",
    "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE",
    "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY",
    "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",  # its probes are commands
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY",  # it mounts the logs in the DAG processor too
}
CHART_SERVICES = {
    "apiServer": "airflow-api-server",
    "scheduler": "airflow-scheduler",
    "dagProcessor": "airflow-dag-processor",
    "triggerer": "airflow-triggerer",
    "migrateDatabaseJob": "airflow-migrate",
    "createUserJob": "airflow-migrate",
}


def helm_values() -> Manifest:
    return yaml.safe_load((K8S / "helm-values.yaml").read_text())


def unknown(values: Manifest, known: Manifest, above: str = "") -> Iterator[str]:
    """List the keys that the chart does not know."""
    for key, value in values.items():
        if key not in known:
            yield above + key
        elif known[key]:
            yield from unknown(value, known[key], f"{above}{key}.")


def test_the_chart_knows_every_key_of_the_helm_values() -> None:
    assert list(unknown(helm_values(), CHART)) == []
    assert list(unknown({"scheduler": {"memory": "1Gi"}, "webserver": {}}, CHART)) == ["scheduler.memory", "webserver"]


def test_the_helm_values_say_what_the_manifests_say() -> None:
    values, settings = helm_values(), find("ConfigMap", "airflow-settings")["data"]
    assert values["executor"] == settings["AIRFLOW__CORE__EXECUTOR"]
    assert values["images"]["airflow"]["repository"] == "course/airflow-kubernetes"
    for section, options in values["config"].items():
        for option, value in options.items():
            assert settings[f"AIRFLOW__{section}__{option}".upper()] == value
    ours = {
        f"AIRFLOW__{section}__{option}".upper() for section, options in values["config"].items() for option in options
    }
    assert {name for name in settings if name.startswith("AIRFLOW__")} - ours == SET_BY_THE_CHART
    # the version is not in the file: the command in its first lines sets both
    assert values["images"]["airflow"]["tag"] == values["env"][0]["value"] == ""
    assert values["env"][0]["name"] == "COURSE_VERSION"
    others = {name: value for name, value in settings.items() if not name.startswith("AIRFLOW__")}
    assert {one["name"]: one["value"] for one in values["env"]} == others | {"COURSE_VERSION": ""}
    assert values["logs"]["persistence"]["existingClaim"] == "airflow-logs"
    for key, name in CHART_SERVICES.items():
        (pod,) = (one for one in all_pods() if one.name == name)
        assert values[key]["labels"] == {"app.kubernetes.io/name": name}  # what the network policies select
        assert values[key]["resources"] == pod.spec["containers"][0]["resources"], key
        account = values[key]["serviceAccount"]["automountServiceAccountToken"]
        assert account == pod.spec["automountServiceAccountToken"], key
        ours = {field: value for field, value in pod.spec["securityContext"].items() if not field.startswith("fsGroup")}
        assert ours.items() <= values["securityContexts"]["pod"].items()
        assert values["securityContexts"]["containers"] == pod.spec["containers"][0]["securityContext"]
    worker, kubernetes = worker_pod()["spec"], values["workers"]["kubernetes"]
    assert values["workers"]["labels"] == {"app.kubernetes.io/name": "airflow-worker"}
    assert kubernetes["resources"] == worker["containers"][0]["resources"]
    assert kubernetes["terminationGracePeriodSeconds"] == worker["terminationGracePeriodSeconds"]


def test_the_helm_values_name_secrets_and_hold_none() -> None:
    values = helm_values()
    names = [value for key, value in values.items() if key.endswith(("SecretName", "SecretKeySecretName"))]
    assert {*names, values["data"]["metadataSecretName"]} == {"airflow"}
    assert not re.search("(?i)password: |pass: |fernetKey: |jwtSecret: ", (K8S / "helm-values.yaml").read_text())


def test_the_helm_values_have_the_airflow_of_the_course() -> None:
    pins = (K8S.parent / "pyproject.toml").read_text()
    assert f'"apache-airflow=={helm_values()["airflowVersion"]}"' in pins


# --- the host-path variant on a real cluster


class NodeFolder:
    """The volume and the claim of overlays/host-path, with names and a folder of their own, and pods that use them."""

    def __init__(self) -> None:
        from support.kubernetes_cluster import TASK_UID, Cluster

        self.cluster = Cluster(f"course-test-{uuid.uuid4().hex[:8]}")
        self.name, self.task_user = self.cluster.namespace, TASK_UID
        built = copy.deepcopy(build("overlays/host-path"))
        self.volume = find("PersistentVolume", "data-volume", built)
        self.claim = find("PersistentVolumeClaim", "data-volume", built)
        self.volume["metadata"]["name"] = self.claim["metadata"]["namespace"] = self.name
        self.volume["spec"]["claimRef"]["namespace"] = self.name
        self.volume["spec"]["hostPath"]["path"] += f"-{self.name}"
        self.path = Path(self.volume["spec"]["hostPath"]["path"])

    def in_a_task_pod(self, script: str) -> str:
        """Run a shell script as the tasks' user, with the claim mounted at /data; return what it printed."""
        claim = {"persistentVolumeClaim": {"claimName": self.claim["metadata"]["name"]}}
        return self._run(script, self.task_user, claim, "/data")

    def on_the_node(self, script: str) -> str:
        """Run one as root, in the folder above the volume's."""
        return self._run(f"cd /node; {script}", 0, {"hostPath": {"path": str(self.path.parent)}}, "/node")

    def phase(self, kind: str, name: str) -> str:
        return self.cluster.kubectl("get", kind, name, "--output=jsonpath={.status.phase}")

    def _run(self, script: str, user: int, volume: Manifest, path: str) -> str:
        from support.docker_engine import image
        from support.kubernetes_cluster import wait_until

        name = f"pod-{uuid.uuid4().hex[:8]}"
        container = {"name": "base", "image": image("movielens-store"), "command": ["sh", "-euc", script]}
        container["volumeMounts"] = [{"name": "files", "mountPath": path}]
        spec = {"restartPolicy": "Never", "securityContext": {"runAsUser": user}}
        spec |= {"containers": [container], "volumes": [{"name": "files"} | volume]}
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        wait_until(lambda: self.phase("pod", name) in ("Succeeded", "Failed"), f"the end of {name}")
        said = self.cluster.kubectl("logs", name)
        assert self.phase("pod", name) == "Succeeded", said
        return said


@pytest.fixture
def node_folder() -> Iterator[NodeFolder]:
    one = NodeFolder()
    one.cluster.kubectl("create", "namespace", one.name)
    try:
        one.on_the_node(f"install -d -o {one.task_user} -g {one.task_user} {one.path.name}")  # as volume.yaml says
        one.cluster.apply(one.volume, one.claim)
        yield one
    finally:
        one.on_the_node(f"rm -rf {one.path.name}")
        one.cluster.kubectl("delete", "namespace", one.name)
        one.cluster.kubectl("delete", "persistentvolume", one.name, "--ignore-not-found")


@pytest.mark.kubernetes
def test_on_the_host_path_volume_pods_hand_on_files_which_stay_when_the_claim_goes(node_folder: NodeFolder) -> None:
    from support.kubernetes_cluster import wait_until

    node_folder.in_a_task_pod("echo ratings > /data/2019-01.csv")
    assert node_folder.in_a_task_pod("cat /data/2019-01.csv") == "ratings\n"
    kubectl, volume = node_folder.cluster.kubectl, node_folder.name
    assert kubectl("get", "pvc", "data-volume", "--output=jsonpath={.spec.volumeName}") == volume
    kubectl("delete", "pods", "--all", "--now")
    kubectl("delete", "pvc", "data-volume")
    wait_until(lambda: node_folder.phase("pv", volume) == "Released", "a volume that its claim has left")
    assert node_folder.on_the_node(f"cat {node_folder.path.name}/2019-01.csv") == "ratings\n"
