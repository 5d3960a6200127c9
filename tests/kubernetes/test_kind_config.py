"""How `make k8s-up` makes a cluster: the real kind, and a stand-in for the engine that writes down what kind asks it.

kind checks its own arguments and its configuration before it asks the engine for anything.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
import yaml
from rich.console import Console
from support.required import cannot_run

from course import cluster
from course.paths import REPO

PINNED = yaml.safe_load((REPO / ".github/workflows/kubernetes.yml").read_text())["jobs"]["kind"]["env"]

# Writes down what it is asked, and has everything but containers.
ENGINE = """\
#!/bin/sh
printf '%s\\n' "$*" >> "{asked}"
case "$1" in
  version) echo 29.0.0 ;;
  -v) echo 'Docker version 29.0.0, build 0000000' ;;
  info) echo '{info}' ;;
  ps | network | image | inspect | pull) ;;
  *) echo "no $1 here" >&2; exit 1 ;;
esac
"""
INFO = {"CgroupVersion": "2", "CgroupDriver": "systemd", "MemoryLimit": True, "PidsLimit": True, "CPUShares": True}


@pytest.fixture
def kind() -> Path:
    """Where kind is."""
    found = shutil.which("kind")
    if not found:
        cannot_run("kind", "no kind command")
    return Path(found).resolve()


@pytest.fixture
def asked(kind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that has what the engine was asked, line by line. kind and this engine are all that is on PATH."""
    path, folder = tmp_path / "asked", tmp_path / "bin"
    folder.mkdir()
    (folder / "kind").symlink_to(kind)
    (folder / "docker").write_text(ENGINE.format(asked=path, info=json.dumps(INFO)))
    (folder / "docker").chmod(0o755)
    for name in [name for name in os.environ if name.startswith(("DOCKER_", "KIND_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return path


def test_the_cluster_is_one_node_of_a_kubernetes_that_enforces_what_the_manifests_ask(asked: Path) -> None:
    with pytest.raises(click.ClickException, match="kind create cluster failed"):  # the stand-in runs no node
        cluster.make_kind_cluster(Console(quiet=True))
    nodes = [line for line in asked.read_text().splitlines() if line.startswith("run ")]
    assert len(nodes) == 1
    assert f"--label io.x-k8s.kind.cluster={cluster.KIND} " in nodes[0]
    image = re.search(r"kindest/node:v1\.(\d+)\.\d+@sha256:[0-9a-f]{64}$", nodes[0])
    assert image, nodes[0]
    assert int(image[1]) >= 31, "kind enforces NetworkPolicies from 0.24 on, which brought Kubernetes 1.31"


def test_the_kind_of_the_workflow_brings_the_kubernetes_that_it_names(kind: Path, asked: Path) -> None:
    version = subprocess.run([kind, "version"], capture_output=True, text=True, check=True).stdout.split()[1]
    if version != PINNED["KIND_VERSION"]:
        cannot_run("kind", f"kind {version} is here, and the workflow takes {PINNED['KIND_VERSION']}")
    with pytest.raises(click.ClickException):
        cluster.make_kind_cluster(Console(quiet=True))
    assert f"kindest/node:{PINNED['KUBERNETES_VERSION']}@sha256:" in asked.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["load", "docker-image", "--name", cluster.KIND, "course/movielens-api:1.2.3"],
        ["export", "kubeconfig", "--name", cluster.KIND],
        ["export", "logs", "diagnostics", "--name", cluster.KIND],
        ["delete", "cluster", "--name", cluster.KIND],
    ],
    ids=" ".join,
)
def test_kind_knows_the_other_commands_of_the_course(kind: Path, asked: Path, arguments: list[str]) -> None:
    """There is no cluster, so most fail. None fails for a command or an option that kind does not have."""
    done = subprocess.run([kind, *arguments], capture_output=True, text=True, check=False, cwd=asked.parent)
    assert not re.search(r"unknown (command|flag|shorthand)", done.stderr), done.stderr
    assert asked.exists(), f"kind did not get as far as the engine: {done.stderr}"
