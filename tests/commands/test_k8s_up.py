"""make k8s-up and k8s-down before they touch a cluster: what they refuse, and what they say. No cluster is needed."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.required import cannot_run

from course.settings import MAKERS

COURSE = Path(sys.executable).with_name("course")
CLUSTERS = {
    "far": "https://cluster.example.org:6443",
    "near": "https://127.0.0.1:1",  # nothing listens there
    "in-a-network": "https://192.168.7.7:6443",
}


@pytest.fixture
def kubectl() -> Path:
    """Where kubectl is."""
    found = shutil.which("kubectl")
    if not found:
        cannot_run("kubernetes", "no kubectl command")
    return Path(found).resolve()


@pytest.fixture
def kubeconfig(kubectl: Path, tmp_path: Path) -> Path:
    """A file with clusters here and elsewhere, and no current context."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}} for name, server in CLUSTERS.items()],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "me"}} for name in CLUSTERS],
        "users": [{"name": "me", "user": {"token": "a-token"}}],
    }
    path = tmp_path / "config"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture
def only_kubectl(kubectl: Path, tmp_path: Path) -> Path:
    """A folder for PATH with kubectl and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").symlink_to(kubectl)
    return folder


def write_program(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def refused(*arguments: str, **env: str) -> str:
    """Run a command that has to refuse with one line; return the line."""
    done = subprocess.run([COURSE, *arguments], env=os.environ | env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.fullmatch(r"Error: .*\n", done.stderr), done.stderr
    return done.stderr


def use(kubeconfig: Path, context: str) -> None:
    config = json.loads(kubeconfig.read_text()) | {"current-context": context}
    kubeconfig.write_text(json.dumps(config))


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_without_kubectl_it_says_so(command: str, tmp_path: Path) -> None:
    said = refused(command, PATH=str(tmp_path))
    assert "no kubectl command; install kubectl" in said


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_a_cluster_that_does_not_look_local_is_refused_with_the_way_to_insist(command: str, kubeconfig: Path) -> None:
    for context in ("far", "in-a-network"):
        use(kubeconfig, context)
        said = refused(command, KUBECONFIG=str(kubeconfig))
        assert f"context {context} does not look like a cluster on this machine: CONTEXT={context}" in said


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_an_unknown_context_is_refused_with_those_that_there_are(command: str, kubeconfig: Path) -> None:
    said = refused(command, "--context", "nowhere", KUBECONFIG=str(kubeconfig))
    assert "no context nowhere; kubectl knows" in said
    for context in CLUSTERS:
        assert context in said


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_a_cluster_that_does_not_answer_is_named_with_the_fix(command: str, kubeconfig: Path) -> None:
    use(kubeconfig, "near")
    said = refused(command, KUBECONFIG=str(kubeconfig))
    assert "cluster: " in said
    assert "127.0.0.1:1" in said
    assert "start the cluster" in said


def test_without_a_context_and_without_kind_it_names_what_makes_a_cluster(kubeconfig: Path, only_kubectl: Path) -> None:
    said = refused("k8s-up", KUBECONFIG=str(kubeconfig), PATH=str(only_kubectl))
    assert "no cluster: choose one of" in said
    for word in (*CLUSTERS, "CONTEXT=", "kind", "minikube", "k3d", "Docker Desktop"):
        assert word in said


@pytest.mark.parametrize(
    ("clusters", "calls"), [("", "kind create cluster --name course"), ("course", "kind export kubeconfig --name")]
)
def test_without_a_context_a_kind_cluster_is_made_or_found_again(
    kubeconfig: Path, only_kubectl: Path, clusters: str, calls: str
) -> None:
    """The kind and the docker of this test are fakes: kind says how it was called, and fails."""
    write_program(only_kubectl / "docker", "echo 28.0")
    write_program(
        only_kubectl / "kind", f'[ "$1" != get ] || {{ echo {clusters}; exit; }}', 'echo "kind $*" >&2; exit 1'
    )
    assert calls in refused("k8s-up", KUBECONFIG=str(kubeconfig), PATH=str(only_kubectl))
    assert "no cluster" in refused("k8s-down", KUBECONFIG=str(kubeconfig), PATH=str(only_kubectl))


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_a_current_context_that_is_gone_is_named_with_those_that_there_are(command: str, kubeconfig: Path) -> None:
    use(kubeconfig, "gone")
    assert "no context gone; kubectl knows" in refused(command, KUBECONFIG=str(kubeconfig))


@pytest.mark.parametrize("command", ["k8s-up", "k8s-down"])
def test_a_configuration_that_cannot_be_read_makes_no_cluster(
    command: str, kubeconfig: Path, only_kubectl: Path
) -> None:
    write_program(only_kubectl / "kind", "echo kind was called >&2; exit 1")
    kubeconfig.write_text("clusters: [")
    said = refused(command, KUBECONFIG=str(kubeconfig), PATH=str(only_kubectl))
    assert "kubectl cannot read its configuration" in said


def test_a_context_without_a_cluster_does_not_look_local(kubeconfig: Path) -> None:
    contexts = [{"name": "empty", "context": {"cluster": "", "user": "me"}}]
    config = json.loads(kubeconfig.read_text()) | {"contexts": contexts, "current-context": "empty"}
    kubeconfig.write_text(json.dumps(config))
    assert "does not look like a cluster on this machine" in refused("k8s-up", KUBECONFIG=str(kubeconfig))


RUN = ("dag-run", "--dag", "03_kubernetes", "--month", "2019-01")


@pytest.mark.parametrize("where", [("--on", "cluster"), ("--context", "near")])
def test_dag_run_on_a_cluster_that_does_not_answer_says_so(kubeconfig: Path, where: tuple[str, str]) -> None:
    use(kubeconfig, "near")
    assert "start the cluster" in refused(*RUN, *where, KUBECONFIG=str(kubeconfig))


def test_dag_run_in_an_unknown_context_names_those_that_there_are(kubeconfig: Path) -> None:
    said = refused(*RUN, "--context", "nowhere", KUBECONFIG=str(kubeconfig))
    assert "no context nowhere; kubectl knows far" in said


# --- with a cluster, which is a fake here: a kubectl that has the answers of one


@pytest.fixture
def fake_cluster(tmp_path: Path) -> Path:
    """A folder for PATH with a kubectl that answers for a cluster on this machine, from the files beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    view = {"clusters": [{"cluster": {"server": "https://127.0.0.1:6443"}}]}
    namespace = {"metadata": {"labels": {"app.kubernetes.io/part-of": "airflow-in-containers"}}}
    (folder / "view").write_text(json.dumps(view))
    (folder / "namespace").write_text(json.dumps(namespace | {"status": {"phase": "Active"}}))
    (folder / "secret").write_text(json.dumps({"data": {"password": base64.b64encode(b"of-old").decode()}}))
    write_program(
        folder / "kubectl",
        'case "$*" in',
        "*get-contexts*) echo local ;;",
        "*current-context*) echo local ;;",
        f"*'config view'*) /bin/cat {folder}/view ;;",
        f"*'get namespace airflow'*) [ ! -e {folder}/refuses ] || {{ /bin/cat {folder}/refuses >&2; exit 1; }}",
        f"  /bin/cat {folder}/namespace ;;",
        f"*'get secret'*) /bin/cat {folder}/secret ;;",
        "*apply*|*delete*) echo applied >&2; exit 1 ;;",
        "*) echo yes ;;",
        "esac",
    )
    write_program(folder / "docker", "echo 28.0")
    return folder


def test_without_an_engine_nothing_is_written_or_applied(fake_cluster: Path) -> None:
    (fake_cluster / "docker").unlink()
    assert "Docker engine: no docker command" in refused("k8s-up", PATH=str(fake_cluster))


def test_k8s_down_without_the_right_to_look_does_not_say_that_nothing_is_there(fake_cluster: Path) -> None:
    forbidden = 'Error from server (Forbidden): namespaces "airflow" is forbidden: User "me" cannot get resource'
    (fake_cluster / "refuses").write_text(forbidden)
    assert forbidden in refused("k8s-down", PATH=str(fake_cluster))


def test_passwords_that_are_not_those_of_the_clusters_databases_are_refused_before_anything_is_applied(
    fake_cluster: Path,
) -> None:
    said = refused("k8s-up", PATH=str(fake_cluster), **dict.fromkeys(MAKERS, "of-today"))
    assert "POSTGRES_PASSWORD in .env is not the one on the cluster" in said
    assert "put the old .env back, or remove the data with `make k8s-down`" in said
    assert "of-old" not in said


def test_a_password_that_does_not_fit_into_a_url_is_refused(fake_cluster: Path) -> None:
    said = refused("k8s-up", PATH=str(fake_cluster), **dict.fromkeys(MAKERS, "p@ss"))
    assert "AIRFLOW_PASSWORD in .env may have letters, digits and . _ ~ - and nothing else" in said
    assert "p@ss" not in said


@pytest.mark.parametrize("conf", ["{", "[]", "month"])
def test_params_that_are_no_json_object_are_refused(conf: str) -> None:
    command = [COURSE, "dag-run", "--dag", "03_kubernetes", "--month", "2019-01", "--conf", conf]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert repr(conf) in done.stderr
