"""Check this machine: what `make run` needs, and what the Docker and Kubernetes versions need."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from course import images
from course.paths import REPO
from course.settings import published_ports, setting

GIB = 2**30
DISK_FOR_RUN = 2  # GiB: two environments, the data, the results
DISK_FOR_IMAGES, DISK_FOR_STACK = 5, 1  # GiB: before and after the images are built
MEMORY_FOR_STACK = 6  # GiB: the limits in docker-compose.yaml, and two task containers


class Finding(NamedTuple):
    """One check: what was looked at, what was found, and how to fix it (None: nothing to fix)."""

    check: str
    needed_for: str
    found: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.found}; {self.fix}" if self.fix else f"{self.check}: {self.found}"

    @property
    def is_missing(self) -> bool:
        """Return whether `make run` needs the fix."""
        return self.fix is not None and self.needed_for == "make run"


def examine() -> list[Finding]:
    """Run every check. Takes a few seconds at most: each command that is run has a time limit."""
    return [check_python(), check_disk(), check_loopback(), *check_for_stack(), *check_for_cluster()]


def check_for_stack() -> list[Finding]:
    """Check what `make compose-up` needs. Without an engine, its memory and disk are unknown."""
    engine = [check_engine(), check_compose(), check_buildx()]
    if not any(finding.fix for finding in engine):
        engine += [check_memory(), check_engine_disk()]
    return [*engine, *(check_port(name) for name in published_ports())]


def check_for_cluster() -> list[Finding]:
    """Check what `make k8s-up` needs, up to the first thing that is missing: the rest depends on it."""
    findings = []
    for check in (check_kubectl, check_context, check_cluster):
        findings.append(check())
        if findings[-1].fix:
            break
    return findings


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 14)
    return Finding("Python", "make run", version, None if fits else "install Python 3.11 to 3.14 and remove .venv")


def check_disk() -> Finding:
    free = shutil.disk_usage(REPO).free / GIB
    fix = f"free {DISK_FOR_RUN} GiB on the disk of this folder" if free < DISK_FOR_RUN else None
    return Finding("disk", "make run", f"{free:.0f} GiB free", fix)


def check_loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding("loopback", "make run", "a free port")
    except OSError as error:
        return Finding("loopback", "make run", str(error), "allow programs to listen on 127.0.0.1")


def check_engine() -> Finding:
    if not shutil.which("docker"):
        return Finding("Docker engine", "Docker", "no docker command", "install Docker Engine or Docker Desktop")
    found, answer = ask("docker", "version", "--format", "{{.Server.Version}}")
    if found:
        return Finding("Docker engine", "Docker", answer)
    if "permission denied" in answer.lower():
        fix = 'join the group of the socket: sudo usermod -aG docker "$USER", then log in again'
        return Finding("Docker engine", "Docker", "no permission to use its socket", fix)
    answer = answer.split(". Is the docker daemon running")[0]
    if address := os.environ.get("DOCKER_HOST"):
        return Finding("Docker engine", "Docker", answer, f"start the engine at {address}, or unset DOCKER_HOST")
    return Finding("Docker engine", "Docker", answer, "start it: sudo systemctl start docker, or Docker Desktop")


def check_compose() -> Finding:
    found, answer = ask("docker", "compose", "version", "--short")
    return Finding("Compose", "Docker", answer, None if found else "install the compose plugin (version 2 or newer)")


def check_buildx() -> Finding:
    found, answer = ask("docker", "buildx", "version")
    version = next((word for word in answer.split() if word[0].isdigit() or word[0] == "v"), answer)
    return Finding("Buildx", "Docker", version if found else answer, None if found else "install the buildx plugin")


def check_memory() -> Finding:
    found, answer = ask("docker", "info", "--format", "{{.MemTotal}}")
    memory = int(answer) / GIB if found else 0
    # an engine of 6 GiB has a little less for itself
    fix = f"give it {MEMORY_FOR_STACK} GiB" if memory < MEMORY_FOR_STACK * 0.95 else None
    return Finding("engine's memory", "Docker", f"{memory:.1f} GiB" if found else answer, fix)


def check_engine_disk() -> Finding:
    _, answer = ask("docker", "info", "--format", "{{.DockerRootDir}}")
    folder = Path(answer) if Path(answer).is_dir() else REPO  # the engine may live in a virtual machine
    free = shutil.disk_usage(folder).free / GIB
    needed = DISK_FOR_IMAGES if images.missing() else DISK_FOR_STACK
    fix = f"free {needed} GiB, for example with `docker system prune`" if free < needed else None
    return Finding("engine's disk", "Docker", f"{free:.0f} GiB free", fix)


def check_port(name: str) -> Finding:
    """Check a port that the stack listens on. A stack that is up may hold it itself."""
    port = setting(name)
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        return Finding(name, "Docker", f"{port} is not a port", f"set {name} to a number from 1 to 65535")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", int(port))) != 0:
            return Finding(f"port {port}", "Docker", "free")
    labels = (
        f"label=com.docker.compose.{key}"
        for key in (f"project={setting('COURSE_STACK')}", f"service={published_ports()[name][0]}")
    )
    found, container = ask(
        "docker", "ps", "--quiet", *(f"--filter={label}" for label in labels), f"--filter=publish={port}"
    )
    if found and container:
        return Finding(f"port {port}", "Docker", "the stack is up")
    return Finding(f"port {port}", "Docker", "taken", f"stop what listens there, or set {name} to another port in .env")


def check_kubectl() -> Finding:
    found, answer = ask("kubectl", "version", "--client")
    return Finding("kubectl", "Kubernetes", answer, None if found else "install kubectl")


def check_context() -> Finding:
    found, answer = ask("kubectl", "config", "current-context")
    fix = None if found else "choose a cluster: kubectl config use-context NAME"
    return Finding("context", "Kubernetes", answer, fix)


def check_cluster(context: str = "") -> Finding:
    """Check that the cluster of a context answers; without one, that of the current context."""
    found, answer = ask("kubectl", "--context", context, "get", "--raw", "/readyz", "--request-timeout=5s")
    fix = None if found else "start the cluster, or choose another: kubectl config use-context NAME"
    return Finding("cluster", "Kubernetes", answer, fix)


def ask(*command: str) -> tuple[bool, str]:
    """Run a command; return whether it succeeded, and the first line of its output."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return False, f"no {command[0]} command"
    except subprocess.TimeoutExpired:
        return False, "no answer in 10 s"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip()
    return done.returncode == 0, said.partition("\n")[0]


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print the findings as a table, with a fix where one is needed."""
    table = Table()
    for heading in ("check", "needed for", "found", "fix"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = "green" if finding.fix is None else "red" if finding.is_missing else "yellow"
        table.add_row(finding.check, finding.needed_for, f"[{colour}]{finding.found}[/]", finding.fix or "")
    console.print(table)
    missing = sum(finding.is_missing for finding in findings)
    console.print(f"{missing} thing(s) to fix before `make run`" if missing else "ready for `make run`")
