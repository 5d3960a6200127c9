"""The stack of docker-compose.yaml: up with progress, down, and clean."""

import json
import os
import shutil
import socket
import subprocess
import time
from typing import Any

import click
from rich.console import Console

from course import images
from course.doctor import ask, check_compose, check_engine
from course.places import LOGS, REPO, shown
from course.settings import ENV_FILE, MAKERS, read_env, write_env

UP_SECONDS = 300
MEMORY_NEEDED, DISK_NEEDED = 6, 5  # GiB
GIB = 2**30
PORTS = {"AIRFLOW_PORT": 8080, "MOVIELENS_PORT": 5050}
UP_LOG = LOGS / "compose-up.log"
COMPOSE = ["docker", "compose", "--project-directory", str(REPO)]
EVERY_PROFILE = ["--profile", "flower", "--profile", "cli"]


def check_machine() -> None:
    """Raise ClickException, one line with the fix, for whatever would stop the stack halfway."""
    for finding in (check_engine(), check_compose()):
        if finding.fix:
            raise click.ClickException(f"{finding.check}: {finding.found}. {finding.fix}")
    found, memory = ask("docker", "info", "--format", "{{.MemTotal}}")
    if found and int(memory) < MEMORY_NEEDED * GIB * 0.95:
        raise click.ClickException(f"the engine has {int(memory) / GIB:.1f} GiB of memory: give it {MEMORY_NEEDED} GiB")
    if (free := shutil.disk_usage(REPO).free / GIB) < DISK_NEEDED:
        raise click.ClickException(
            f"{free:.1f} GiB are free on the disk: free {DISK_NEEDED} GiB, or `docker system prune`"
        )
    ours = {port for service in services() for port in published(service)}
    for name, default in PORTS.items():
        port = int(setting(name, str(default)))
        with socket.socket() as probe:
            if port not in ours and probe.connect_ex(("127.0.0.1", port)) == 0:
                raise click.ClickException(f"port {port} is taken: stop what listens there, or set {name} in .env")


def setting(name: str, default: str = "") -> str:
    """Read a setting as Compose does: the environment first, then .env."""
    return os.environ.get(name) or read_env().get(name) or default


def services() -> list[dict[str, Any]]:
    """List the containers of the stack, running or not; none when there is no stack."""
    command = [*COMPOSE, "ps", "--all", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []


def published(service: dict[str, Any]) -> set[int]:
    """Tell the ports of this machine that a service listens on."""
    return {publisher["PublishedPort"] for publisher in service.get("Publishers") or []}


def up(console: Console) -> None:
    """Start the stack and wait until every service is well. Raises ClickException with the log of one that is not."""
    added = write_env()
    if added:
        console.print(f"made .env: {len(added)} settings")
    check_machine()
    if images.missing():
        console.print("building the images (once)")
        images.build(console)
    # made here, or the engine would make it, and as root
    logs = REPO / "logs"
    logs.mkdir(exist_ok=True)
    if os.getuid() == 0:
        logs.chmod(0o775)  # Airflow then runs as 50000, in group 0

    began = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    command = [*COMPOSE, "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS), "--quiet-pull"]
    with (
        UP_LOG.open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        console.status("starting") as status,
    ):
        while process.poll() is None:
            states = services()
            well = [one["Service"] for one in states if is_well(one)]
            waiting = sorted({one["Service"] for one in states} - set(well))
            status.update(
                f"{len(well)} of {len(states)} services are well; waiting for {', '.join(waiting) or 'the rest'}"
            )
            if (failed := [one for one in states if has_failed(one)]) and failed[0]["Service"] == "airflow-init":
                process.terminate()
            time.sleep(1)
    if process.returncode != 0:
        raise click.ClickException(why_not())
    console.print(f"the stack is up, {len(services())} services, in {time.monotonic() - began:.0f} s")


def is_well(service: dict[str, Any]) -> bool:
    """Tell whether a service is healthy, or has done its one job."""
    return bool(service["Health"] == "healthy") or (service["State"] == "exited" and service["ExitCode"] == 0)


def has_failed(service: dict[str, Any]) -> bool:
    """Tell whether a service has ended with an error, or keeps doing so."""
    return bool(service["State"] == "restarting") or (service["State"] == "exited" and service["ExitCode"] != 0)


def why_not() -> str:
    """Say which service is not well, with the end of its log; else what Compose said."""
    states = services()
    ill = [one for one in states if has_failed(one)] or [one for one in states if one["Health"] == "unhealthy"]
    if ill:
        name = ill[0]["Service"]
        command = [*COMPOSE, "logs", "--no-log-prefix", "--tail", "15", name]
        log = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return f"{name} is not well ({ill[0]['Status']}); the end of its log:\n{log}"
    said = UP_LOG.read_text().strip().splitlines()
    return f"docker compose failed: {said[-1] if said else 'no message'} (all of it: {shown(UP_LOG)})"


def print_addresses(console: Console) -> None:
    """Print where the stack is and how to get in. The password only where a person reads it."""
    password = setting("AIRFLOW_PASSWORD") if console.is_terminal else "AIRFLOW_PASSWORD in .env"
    console.print(
        f"Airflow        http://localhost:{setting('AIRFLOW_PORT', '8080')}  login airflow, password {password}"
    )
    console.print(
        f"MovieLens API  http://localhost:{setting('MOVIELENS_PORT', '5050')}  login course, MOVIELENS_PASSWORD in .env"
    )
    console.print("next: make dag-run DAG=02_docker MONTH=2019-01")


def down() -> None:
    """Stop the stack and remove its containers and networks; the data stay."""
    remove_task_containers()
    compose("down", "--remove-orphans")


def clean() -> None:
    """Remove all that the stack left: containers, networks, volumes, the images of the course, .env, logs."""
    remove_task_containers()
    compose("down", "--remove-orphans", "--volumes")
    tags = [image.tag for image in images.IMAGES if images.inspect(image.tag)]
    if tags:
        subprocess.run(["docker", "image", "rm", "--force", *tags], stdout=subprocess.DEVNULL, check=True)  # noqa: S607
    ENV_FILE.unlink(missing_ok=True)
    shutil.rmtree(REPO / "logs", ignore_errors=True)


def remove_task_containers() -> None:
    """Remove task containers that a killed worker left: they would keep the network and the volumes in use."""
    network = setting("COURSE_STACK", "course")
    found, ids = ask(
        "docker", "ps", "--all", "--quiet", "--filter", "label=course.dag_id", "--filter", f"network={network}"
    )
    if found and ids != "no answer":
        subprocess.run(["docker", "rm", "--force", *ids.split()], stdout=subprocess.DEVNULL, check=True)  # noqa: S607


def compose(*arguments: str) -> None:
    """Run docker compose on the stack, every profile of it. Raises ClickException when that fails."""
    # without .env Compose refuses to read the file: a stand-in will do, for nothing is started
    blank = dict.fromkeys([*MAKERS], "0") if not ENV_FILE.exists() else {}
    done = subprocess.run([*COMPOSE, *EVERY_PROFILE, *arguments], env=os.environ | blank, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"docker compose {arguments[0]} failed")
