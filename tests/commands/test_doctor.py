"""What stops the stack before it starts. The engine is a script here: it has the faults that this machine has not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COURSE = Path(sys.executable).with_name("course")
ENGINE = """#!/bin/sh
case "$*" in
  "version "*) {version} ;;
  "compose version "*) {compose} ;;
  "buildx version") {buildx} ;;
  "buildx bake "*) echo '{{"group": {{"default": {{"targets": []}}}}, "target": {{}}}}' ;;
  "image inspect "*) echo '[{{}}]' ;;
  *MemTotal*) echo {memory} ;;
  *DockerRootDir*) echo {folder} ;;
esac
"""
GOOD = {
    "version": "echo 28.0",
    "compose": "echo 2.40",
    "buildx": "echo github.com/docker/buildx v0.29",
    "memory": 8 * 2**30,
    "folder": "/",
}
FAULTS = {
    "the engine is not running": ({"version": "echo Cannot connect >&2; exit 1"}, "systemctl start docker"),
    "the user is not in its group": ({"version": "echo Permission denied >&2; exit 1"}, 'usermod -aG docker "$USER"'),
    "compose is missing": ({"compose": "echo no such command >&2; exit 1"}, "install the compose plugin"),
    "buildx is missing": ({"buildx": "echo no such command >&2; exit 1"}, "install the buildx plugin"),
    "memory is short": ({"memory": 4 * 2**30}, "4.0 GiB; give it 6 GiB"),
    "the disk is full": ({"folder": "/proc"}, "0 GiB free; free 1 GiB"),  # /proc has no room at all
}


@pytest.mark.parametrize(("fault", "fix"), FAULTS.values(), ids=FAULTS)
def test_what_stops_the_stack_is_one_line_with_its_fix(fault: dict[str, object], fix: str, tmp_path: Path) -> None:
    done = course("compose-up", tmp_path, fault)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert fix in done.stderr


@pytest.mark.parametrize("fault", [fault for fault, _ in FAULTS.values()], ids=FAULTS)
def test_doctor_finds_it_too_and_nothing_else_at_fault_with_the_engine(
    fault: dict[str, object], tmp_path: Path
) -> None:
    assert at_fault(course("doctor", tmp_path, {})) == []
    assert len(at_fault(course("doctor", tmp_path, fault))) == 1


def course(command: str, folder: Path, fault: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """Run a command of the course on a machine whose docker is the script, with a fault."""
    docker = folder / "docker"
    docker.write_text(ENGINE.format(**GOOD | fault))
    docker.chmod(0o755)
    # ports that nobody listens on; a wide page, so that no cell is folded
    env = os.environ | {"PATH": f"{folder}:/bin:/usr/bin", "AIRFLOW_PORT": "1", "MOVIELENS_PORT": "2", "COLUMNS": "300"}
    env.pop("DOCKER_HOST", None)
    return subprocess.run([COURSE, command], env=env, capture_output=True, text=True, check=False)


def at_fault(done: subprocess.CompletedProcess[str]) -> list[str]:
    """List the checks for Docker that doctor has a fix for."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    return [check for check, needed_for, _, fix in rows if needed_for == "Docker" and fix]
