"""make k8s-up and k8s-down before they touch a cluster: what they refuse, and what they say. No cluster is needed."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(sys.executable).with_name("course")
CLUSTERS = {
    "far": "https://cluster.example.org:6443",
    "near": "https://127.0.0.1:1",  # nothing listens there
    "in-a-network": "https://192.168.7.7:6443",
}


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
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
def only_kubectl(tmp_path: Path) -> str:
    """A PATH with kubectl and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    found = subprocess.run(["bash", "-c", "command -v kubectl"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    if not found:
        pytest.skip("no kubectl")
    (folder / "kubectl").symlink_to(Path(found.strip()).resolve())
    return str(folder)


def refused(*arguments: str, **env: str) -> str:
    """Run a command that has to refuse with one line; give the line."""
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


def test_without_a_context_and_without_kind_it_names_what_makes_a_cluster(kubeconfig: Path, only_kubectl: str) -> None:
    said = refused("k8s-up", KUBECONFIG=str(kubeconfig), PATH=only_kubectl)
    assert "no cluster: choose one of" in said
    for word in (*CLUSTERS, "CONTEXT=", "kind", "minikube", "k3d", "Docker Desktop"):
        assert word in said


def test_without_a_context_a_kind_cluster_is_made(kubeconfig: Path, only_kubectl: str) -> None:
    """The kind of this test is a fake: it writes down how it was called, and fails."""
    fake = Path(only_kubectl) / "kind"
    fake.write_text('#!/bin/sh\necho "kind $*" >&2\nexit 1\n')
    fake.chmod(0o755)
    docker = Path(only_kubectl) / "docker"
    docker.write_text("#!/bin/sh\necho 28.0\n")
    docker.chmod(0o755)
    said = refused("k8s-up", KUBECONFIG=str(kubeconfig), PATH=only_kubectl)
    assert "kind create cluster --name course" in said
    assert "no cluster" in refused("k8s-down", KUBECONFIG=str(kubeconfig), PATH=only_kubectl)


def test_dag_run_on_a_cluster_without_the_course_names_the_command(kubeconfig: Path) -> None:
    use(kubeconfig, "near")
    said = refused(
        "dag-run", "--dag", "03_kubernetes", "--month", "2019-01", "--on", "cluster", KUBECONFIG=str(kubeconfig)
    )
    assert "no Airflow on the cluster: `make k8s-up` puts it there" in said


@pytest.mark.parametrize("conf", ["{", "[]", "month"])
def test_params_that_are_no_json_object_are_refused(conf: str) -> None:
    command = [COURSE, "dag-run", "--dag", "03_kubernetes", "--month", "2019-01", "--conf", conf]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert repr(conf) in done.stderr
