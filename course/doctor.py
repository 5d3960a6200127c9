"""Check this machine: what `make run` needs, and what the Docker and Kubernetes versions will need."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from course.places import REPO

GIB = 2**30
DISK_NEEDED = 2  # GiB: two environments, the data, the results
AIRFLOW_PORT = 8080


class Finding(NamedTuple):
    """One check: what was looked at, what was found, and how to mend it (None: nothing to mend)."""

    check: str
    needed_for: str
    found: str
    fix: str | None = None

    @property
    def is_missing(self) -> bool:
        """Tell whether `make run` cannot do without the fix."""
        return self.fix is not None and self.needed_for == "make run"


def examine() -> list[Finding]:
    """Make every check. Takes a few seconds at most: each command that is asked has a time limit."""
    engine = check_engine()
    return [
        check_python(),
        check_disk(),
        check_loopback(),
        check_port(AIRFLOW_PORT),
        engine,
        check_compose(),
        check_kubectl(),
        check_context(),
    ]


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 14)
    return Finding("Python", "make run", version, None if fits else "install Python 3.11 to 3.14 and remove .venv")


def check_disk() -> Finding:
    free = shutil.disk_usage(REPO).free / GIB
    fix = f"free {DISK_NEEDED} GiB on the disk of this folder" if free < DISK_NEEDED else None
    return Finding("disk", "make run", f"{free:.0f} GiB free", fix)


def check_loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return Finding("loopback", "make run", "a free port")
    except OSError as error:
        return Finding("loopback", "make run", str(error), "allow programs to listen on 127.0.0.1")


def check_port(port: int) -> Finding:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return Finding(f"port {port}", "Docker", "taken", f"stop what listens on port {port}")
    return Finding(f"port {port}", "Docker", "free")


def check_engine() -> Finding:
    if not shutil.which("docker"):
        return Finding("Docker engine", "Docker", "no docker command", "install Docker Engine or Docker Desktop")
    found, answer = ask("docker", "version", "--format", "{{.Server.Version}}")
    if found:
        return Finding("Docker engine", "Docker", answer)
    path = Path("/var/run/docker.sock")
    if path.exists() and not os.access(path, os.W_OK) and not os.environ.get("DOCKER_HOST"):
        fix = 'join the group of the socket: sudo usermod -aG docker "$USER", then log in again'
        return Finding("Docker engine", "Docker", f"no right to use {path}", fix)
    return Finding("Docker engine", "Docker", answer, "start it: sudo systemctl start docker, or Docker Desktop")


def check_compose() -> Finding:
    found, answer = ask("docker", "compose", "version", "--short")
    return Finding("Compose", "Docker", answer, None if found else "install the compose plugin (version 2 or newer)")


def check_kubectl() -> Finding:
    found, answer = ask("kubectl", "version", "--client")
    return Finding("kubectl", "Kubernetes", answer, None if found else "install kubectl")


def check_context() -> Finding:
    found, answer = ask("kubectl", "config", "current-context")
    fix = None if found else "choose a cluster: kubectl config use-context NAME"
    return Finding("context", "Kubernetes", answer, fix)


def ask(*command: str) -> tuple[bool, str]:
    """Run a command; tell whether it succeeded, and the first line of what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except FileNotFoundError:
        return False, f"no {command[0]} command"
    except subprocess.TimeoutExpired:
        return False, "no answer in 10 s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[0] if lines else "no answer"


def print_findings(console: Console, findings: list[Finding]) -> None:
    """Print the findings as a table, those to mend with their fix."""
    table = Table()
    for heading in ("check", "needed for", "found", "fix"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        colour = "green" if finding.fix is None else "red" if finding.is_missing else "yellow"
        table.add_row(finding.check, finding.needed_for, f"[{colour}]{finding.found}[/]", finding.fix or "")
    console.print(table)
    missing = sum(finding.is_missing for finding in findings)
    console.print(f"{missing} thing(s) to mend before `make run`" if missing else "ready for `make run`")
