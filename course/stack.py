"""The stack of docker-compose.yaml: up with progress, down, and clean."""

import json
import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console

from course import images
from course.doctor import ask, check_compose, check_engine, check_for_stack
from course.paths import LOGS, REPO, shown
from course.processes import Command, child
from course.settings import (
    ENV_FILE,
    MAKERS,
    check_passwords,
    missing_settings,
    refresh_version,
    setting,
    write_env,
)

UP_SECONDS = 300
CRASHES = 3  # looks at which a service was seen ended by an error: then it will not become healthy
UP_LOG = LOGS / "compose-up.log"
COMPOSE = ["docker", "compose", "--project-directory", str(REPO)]
EVERY_PROFILE = ["--profile", "flower", "--profile", "cli"]


def up(console: Console) -> None:
    """Start the stack and wait until every service is healthy.

    Raises ClickException: before anything is started when this machine lacks something, else with the log of a service
    that does not become healthy.
    """
    for finding in check_for_stack():
        if finding.fix:
            raise click.ClickException(str(finding))
    complete_settings(console)
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
    command: Command = [*COMPOSE, "up", "--detach", "--wait", "--wait-timeout", str(UP_SECONDS)]
    shown_healthy: set[str] = set()
    crashes: Counter[str] = Counter()
    with (
        UP_LOG.open("w") as log,
        console.status("starting") as status,
        child([*command, "--quiet-pull"], os.environ, log) as process,
    ):
        while process.poll() is None and not any(count >= CRASHES for count in crashes.values()):
            time.sleep(1)
            states = services()
            healthy = {one["Service"] for one in states if is_healthy(one)}
            for name in sorted(healthy - shown_healthy):
                console.print(f"  {time.monotonic() - began:5.0f} s  {name}", highlight=False)
            shown_healthy |= healthy
            waiting = ", ".join(sorted({one["Service"] for one in states} - healthy))
            status.update(f"{len(healthy)} of {len(states)} services are healthy; waiting for {waiting or 'the rest'}")
            crashes.update(one["Service"] for one in states if has_failed(one))
    if process.returncode != 0:
        raise click.ClickException(why_not(crashes))
    console.print(f"the stack is up, {len(services())} services, in {time.monotonic() - began:.0f} s")


def complete_settings(console: Console) -> None:
    """Make .env when there is none. Raises ClickException for settings that cannot be generated any more."""
    if not ENV_FILE.exists() and len(missing_settings()) == len(MAKERS):
        database = f"{setting('COURSE_STACK')}_postgres"
        if ask("docker", "volume", "inspect", database)[0]:
            raise click.ClickException(
                ".env is gone, but the data that its passwords open are there: put it back, "
                "or remove the data with `make compose-clean`"
            )
        write_env()
        console.print("made .env, with passwords for this machine")
    if missing := missing_settings():
        raise click.ClickException(f"{', '.join(missing)} missing in .env: `make env` adds what is missing")
    check_passwords()
    refresh_version()


def services() -> list[dict[str, Any]]:
    """Return the containers of the stack, running or not; none when there is no stack."""
    command = [*COMPOSE, "ps", "--all", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()] if done.returncode == 0 else []


def is_healthy(service: dict[str, Any]) -> bool:
    """Return whether a service is healthy, or has done its one job."""
    return bool(service["Health"] == "healthy") or (service["State"] == "exited" and service["ExitCode"] == 0)


def has_failed(service: dict[str, Any]) -> bool:
    """Return whether a service has ended with an error, or keeps doing so."""
    return bool(service["State"] == "restarting") or (service["State"] == "exited" and service["ExitCode"] != 0)


def why_not(crashes: Counter[str]) -> str:
    """Return which service is not healthy, with the end of its log; else what Compose said."""
    states = services()
    unhealthy = [*crashes, *(one["Service"] for one in states if has_failed(one) or one["Health"] == "unhealthy")]
    if unhealthy:
        command = [*COMPOSE, "logs", "--no-log-prefix", "--tail", "15", unhealthy[0]]
        log = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return f"{unhealthy[0]} does not become healthy; the end of its log:\n{log}`make compose-down` stops the rest"
    said = UP_LOG.read_text().strip().splitlines()
    return f"docker compose failed: {said[-1] if said else 'no message'} (all of it: {shown(UP_LOG)})"


def print_addresses(console: Console) -> None:
    """Print where the stack is and how to get in. The password only where a person reads it."""
    password = setting("AIRFLOW_PASSWORD") if console.is_terminal else "AIRFLOW_PASSWORD in .env"
    airflow, movielens = (f"http://localhost:{setting(name)}" for name in ("AIRFLOW_PORT", "MOVIELENS_PORT"))
    console.print(f"Airflow        {airflow}  login airflow, password {password}")
    console.print(
        f"registry       127.0.0.1:{setting('REGISTRY_PORT')}  login course, password REGISTRY_PASSWORD in .env"
    )
    console.print(f"MovieLens API  {movielens}  login course, password MOVIELENS_PASSWORD in .env")
    console.print("next: make dag-run DAG=02_docker MONTH=2019-01")


def down(console: Console, *options: str) -> None:
    """Stop the stack and remove its containers and networks; the data stay."""
    for finding in (check_engine(), check_compose()):
        if finding.fix:
            raise click.ClickException(str(finding))
    with console.status("stopping"):
        compose("stop")
        remove_task_containers()
        compose("down", "--remove-orphans", *options)


def clean(console: Console) -> None:
    """Remove all that the stack left: containers, networks, volumes, the images of the course, .env, logs."""
    down(console, "--volumes")
    tour = f"{setting('COURSE_STACK')}-tour"  # made by a container of DAG 05, so Compose does not know it
    subprocess.run(["docker", "volume", "rm", "--force", tour], capture_output=True, check=False)  # noqa: S607
    images.remove()
    ENV_FILE.unlink(missing_ok=True)
    shutil.rmtree(REPO / "logs", ignore_errors=True)


def run_airflow(arguments: Sequence[str]) -> int:
    """Run Airflow's CLI in a container of its own beside the stack; return its exit code. Raises ClickException."""
    return _run_beside(["airflow-cli", *arguments])


def run_registry_check(connection: str) -> int:
    """Try a connection to a registry in a container of its own beside the stack; return the exit code."""
    return _run_beside(["--entrypoint", "python", "airflow-cli", "-m", "docker_registry.check", connection])


def _run_beside(what: list[str]) -> int:
    if not any(one["Service"] == "postgres" and one["Health"] == "healthy" for one in services()):
        raise click.ClickException("the stack is not up: start it with `make compose-up`")
    command = [*COMPOSE, "--progress", "quiet", "run", "--rm", "--no-deps", *what]
    return subprocess.run(command, check=False).returncode


def remove_task_containers() -> None:
    """Remove task containers that a killed worker left: they may keep the network and the volumes in use."""
    ours = [f"--filter=label=course.stack={setting('COURSE_STACK')}", "--filter=label=course.dag_id"]
    find = ["docker", "ps", "--all", "--quiet", *ours]
    ids = subprocess.run(find, capture_output=True, text=True, check=False).stdout.split()
    if ids:
        subprocess.run(["docker", "rm", "--force", *ids], stdout=subprocess.DEVNULL, check=False)  # noqa: S607


def compose(*arguments: str) -> None:
    """Run docker compose on the stack, every profile of it. Raises ClickException when that fails."""
    # without .env Compose refuses to read the file: a stand-in will do, for nothing is started
    blank = dict.fromkeys(missing_settings(), "0")
    command = [*COMPOSE, *EVERY_PROFILE, *arguments]
    done = subprocess.run(command, env=os.environ | blank, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise click.ClickException(f"docker compose {arguments[0]} failed: {said[-1] if said else 'no message'}")
