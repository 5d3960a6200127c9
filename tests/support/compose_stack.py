"""The stack of docker-compose.yaml for tests: under a name and on ports of its own, and what tests ask of it."""

import json
import secrets
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest
from rich.console import Console
from support.deployed_airflow import SLOW_API, Run, course, expected_rows, stored_rows
from support.docker_engine import remove_images_of
from support.typed_pages import free_port

from course import stack
from course.embedded import Api
from course.rest import Airflow
from course.settings import published_ports, setting

DAGS = ("01_mixed_operators", "02_docker")


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    assert done.returncode == 0, done.stderr
    return done.stdout


def compose(*arguments: str) -> str:
    return docker(*stack.COMPOSE[1:], *arguments)


@contextmanager
def own_stack() -> Iterator[str]:
    """Set the name and the ports of a stack that is not there yet; whatever is made under that name is removed."""
    with pytest.MonkeyPatch.context() as patch:
        name = f"course-test-{secrets.token_hex(3)}"
        patch.setenv("COURSE_STACK", name)
        for port in published_ports():
            patch.setenv(port, free_port())
        for faults in SLOW_API:
            patch.delenv(faults, raising=False)
        yield name
        stack.down(Console(quiet=True), "--volumes")
        remove_images_of(f"127.0.0.1:{setting('REGISTRY_PORT')}")


@contextmanager
def started(request: pytest.FixtureRequest) -> Iterator[str]:
    """Start the stack and return what `course compose-up` said; show logs at the end when a test has failed."""
    failed_before = request.session.testsfailed
    done = course("compose-up")
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    yield done.stdout
    if request.session.testsfailed > failed_before:
        for service in stack.services():
            if service["Service"].startswith("airflow") or not stack.is_healthy(service):
                log = compose("logs", "--no-log-prefix", "--tail", "20", service["Service"])
                print(f"== {service['Service']}: {service['Status']}\n{log}")


def airflow_of_stack() -> Airflow:
    """Return the REST API of the stack's Airflow."""
    return Airflow(lambda: f"http://127.0.0.1:{setting('AIRFLOW_PORT')}", "airflow", setting("AIRFLOW_PASSWORD"))


def api_of_stack() -> Api:
    """Return the MovieLens API of the stack."""
    return Api("127.0.0.1", int(setting("MOVIELENS_PORT")), "course", setting("MOVIELENS_PASSWORD"))


def answer_late() -> None:
    """Let the MovieLens API answer late, so that a fault meets the middle of a run."""
    done = course("compose-up", **SLOW_API)
    assert done.returncode == 0, done.stdout + done.stderr


def task_containers() -> list[str]:
    """List the ids of the task containers of this stack, running or not."""
    data = f"{setting('COURSE_STACK')}-data"
    return docker("ps", "--all", "--quiet", "--filter=label=course.dag_id", f"--filter=volume={data}").split()


def inspect(containers: Iterable[str]) -> dict[str, dict]:
    """Return what the engine knows of containers, by id; of those that are still there."""
    known = {}
    for container in containers:
        done = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=False)  # noqa: S607
        if done.returncode == 0:
            known[container] = json.loads(done.stdout)[0]
    return known


def is_fetching() -> bool:
    """Return whether a task container fetches ratings just now."""
    filters = ("--filter=label=course.task_id=fetch_ratings", "--filter=status=running")
    data = f"{setting('COURSE_STACK')}-data"
    return bool(docker("ps", "--quiet", *filters, f"--filter=volume={data}"))


def stored(month: str) -> list[tuple]:
    """Read a month's rows of every pipeline from the database, in the order of their key."""
    return stored_rows(lambda command: compose("exec", "-T", "mysql", "sh", "-c", command), month)


def expected(api: Api, month: str) -> list[tuple]:
    """Work out the rows that both DAGs have to store for a month."""
    return expected_rows(api, month, *DAGS)


def clear(airflow: Airflow, run: Run) -> None:
    """Clear the failed tasks of a run, as the button of the web page does."""
    what = {"dry_run": False, "dag_run_id": run.path.rsplit("/", 1)[1], "only_failed": True}
    airflow.call("POST", f"/dags/{run.dag}/clearTaskInstances", json=what)
