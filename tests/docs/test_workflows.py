"""What nobody can run here, the workflows and the dev container, names only what is in this repo.

Their form is the affair of `make lint`: schemas and zizmor. The shell in the workflows is checked here.
"""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from course.paths import REPO

WORKFLOWS = sorted((REPO / ".github" / "workflows").glob("*.yml"))
DEVCONTAINER = REPO / ".devcontainer" / "devcontainer.json"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
NEEDS = {"databases", "docker", "kubernetes"}  # what a suite may need: REQUIRE takes these

each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def workflow(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def scripts(path: Path) -> list[str]:
    return [step["run"] for step in steps(path) if "run" in step]


def dev_container() -> dict[str, Any]:
    """The dev container's settings: JSON, with comments on lines of their own."""
    lines = DEVCONTAINER.read_text().splitlines()
    return dict(json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//"))))


@cache
def documented() -> dict[str, set[str]]:
    """The targets of the Makefile, each with the variables that `make help` names for it."""
    done = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True, check=True)  # noqa: S607
    lines = [re.fullmatch(r"make (\S+)(.*)", line) for line in done.stdout.splitlines()]
    return {line[1]: set(re.findall(r"\b([A-Z]+)=", line[2])) for line in lines if line}


def make_calls(script: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in script.splitlines() if line.startswith("make ")]


def check_make(call: list[str]) -> None:
    """Fail unless a learner could type this, and it names a DAG that is here."""
    target, *variables = call
    assert target in documented(), f"no target {target} in `make help`"
    for variable in variables:
        name, _, value = variable.partition("=")
        assert name in documented()[target], f"`make help` names no {name} for {target}"
        if name == "DAG":
            assert (REPO / "dags" / f"{value}.py").exists(), f"no DAG {value}"


def tracked_files() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()


# --- workflows


def test_there_are_workflows() -> None:
    assert {path.stem for path in WORKFLOWS} == {"kubernetes", "stack", "test"}
    assert all(make_calls("\n".join(scripts(path))) for path in WORKFLOWS)


@each_workflow
def test_every_make_command_is_one_of_the_makefile(path: Path) -> None:
    for script in scripts(path):
        for call in make_calls(script):
            check_make(call)


@each_workflow
def test_what_is_required_is_a_need_of_some_suite(path: Path) -> None:
    for job in workflow(path)["jobs"].values():
        if required := job.get("env", {}).get("REQUIRE"):
            assert set(required.split(",")) <= NEEDS


@each_workflow
def test_suites_that_are_left_out_are_there(path: Path) -> None:
    for job in workflow(path)["jobs"].values():
        for option in job.get("env", {}).get("PYTEST_ADDOPTS", "").split():
            name, _, value = option.partition("=")
            assert name == "--ignore"
            assert (REPO / value).exists(), f"no {value} to leave out"


@each_workflow
def test_every_action_is_pinned_by_its_commit_and_says_its_version(path: Path) -> None:
    lines = [line.strip() for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.fullmatch(r"(- )?uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_version_in_all_workflows() -> None:
    used = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    assert len(used) == len({one.partition("@")[0] for one in used}), used


@each_workflow
def test_every_job_ends_and_its_token_only_reads_and_is_not_kept(path: Path) -> None:
    assert workflow(path)["permissions"] == {"contents": "read"}
    checkouts = [step["with"] for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(options["persist-credentials"] is False for options in checkouts)
    for name, job in workflow(path)["jobs"].items():
        assert job.get("timeout-minutes", 360) <= 90, f"{name} may hang for hours"
        assert "permissions" not in job


@each_workflow
def test_nothing_is_pasted_into_a_script(path: Path) -> None:
    """What GitHub pastes between ${{ and }} would be run as shell."""
    assert not [script for script in scripts(path) if "${{" in script]


@each_workflow
def test_scripts_pass_shellcheck(path: Path) -> None:
    for script in scripts(path):
        command, given = [SHELLCHECK, "--shell=bash", "-"], f"set -e\n{script}"  # as GitHub runs it
        done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@each_workflow
def test_every_path_that_starts_it_matches_a_file(path: Path) -> None:
    """A filter that matches nothing never starts anything, and nobody would see it."""
    on = workflow(path)[True]  # what YAML 1.1 makes of the key `on`
    files = tracked_files()
    for pattern in (on["pull_request"] or {}).get("paths", []):
        form = re.compile(re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*"))
        assert any(form.fullmatch(file) for file in files), f"nothing matches {pattern}"


# --- the dev container


def test_the_dev_container_forwards_the_ports_of_the_stack() -> None:
    services = yaml.safe_load((REPO / "docker-compose.yaml").read_text())["services"]
    ports = {
        int(re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-(\d+)\}:\d+", port)[1])
        for service in services.values()
        for port in service.get("ports", [])
    }
    found = dev_container()
    assert sorted(found["forwardPorts"]) == sorted(ports)
    assert {int(port) for port in found["portsAttributes"]} == ports
    assert all(attributes["label"] for attributes in found["portsAttributes"].values())


def test_the_dev_container_has_only_settings_that_exist() -> None:
    """Editors ignore a setting that they do not know, so a typing error would go unseen."""
    assert set(dev_container()) <= {
        "name", "image", "features", "hostRequirements", "postCreateCommand", "forwardPorts", "portsAttributes",
        "customizations",
    }  # fmt: skip


def test_the_dev_container_runs_a_make_command() -> None:
    (call,) = make_calls(dev_container()["postCreateCommand"])
    check_make(call)


def test_image_and_features_of_the_dev_container_are_pinned() -> None:
    found = dev_container()
    assert re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:\d+-3\.\d+-\w+", found["image"])
    for feature, options in found["features"].items():
        assert re.fullmatch(r"ghcr\.io/[a-z/-]+:\d+(\.\d+\.\d+)?", feature), feature
        assert "latest" not in options.values()


def test_python_is_the_one_of_the_images() -> None:
    minor = re.search(
        r"^ARG BASE_IMAGE=python:(3\.\d+)-", (REPO / "images/movielens-rank/Dockerfile").read_text(), re.M
    )
    assert minor
    assert f"-{minor[1]}-" in dev_container()["image"]
    for path in WORKFLOWS:
        assert {step["with"]["python-version"] for step in steps(path) if "setup-python" in step.get("uses", "")} == {
            minor[1]
        }


def test_the_dev_container_has_the_cluster_of_the_workflow() -> None:
    features = {name.split("/")[-1].split(":")[0]: options for name, options in dev_container()["features"].items()}
    env = workflow(REPO / ".github/workflows/kubernetes.yml")["jobs"]["kind"]["env"]
    assert features["kind"]["version"] == env["KIND_VERSION"]
    assert f"v{features['kubectl-helm-minikube']['version']}" == env["KUBERNETES_VERSION"]
