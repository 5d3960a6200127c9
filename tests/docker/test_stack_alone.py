"""What needs the whole machine: how long the stack takes to start, and an engine that restarts under it."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.compose_stack import (
    DAGS,
    airflow_of_stack,
    answer_late,
    api_of_stack,
    clear,
    expected,
    inspect,
    is_fetching,
    own_stack,
    started,
    stored,
    task_containers,
)
from support.deployed_airflow import assert_success, start, state_of, wait_until

from course.paths import REPO
from course.rest import ENDED

pytestmark = [pytest.mark.docker, pytest.mark.alone("machine")]

ENGINE = REPO / "ci" / "docker-engine.sh"
ENGINE_PID = Path("/run/course-dockerd.pid")


@pytest.fixture(scope="module")
def said(request: pytest.FixtureRequest) -> Iterator[str]:
    """What `course compose-up` said when it had started the stack."""
    with own_stack(), started(request) as said:
        yield said


def test_the_stack_is_up_within_a_minute(said: str) -> None:
    found = re.search(r"the stack is up, \d+ services, in (\d+) s\n", said)
    assert found, said
    assert int(found[1]) <= 60


@pytest.mark.skipif(
    os.environ.get("COURSE_TEST_ENGINE_RESTART") != "1" or not ENGINE_PID.exists(),
    reason="COURSE_TEST_ENGINE_RESTART is not 1, or the engine is not one of ci/docker-engine.sh",
)
def test_an_engine_restarted_in_the_middle_of_a_run_costs_neither_a_row_nor_a_container(said: str) -> None:
    answer_late()
    airflow = airflow_of_stack()
    runs = [start(airflow, dag, "2019-07") for dag in DAGS]
    wait_until(is_fetching)
    for what in ("down", "up"):
        subprocess.run([ENGINE, what], stdout=subprocess.DEVNULL, check=True)
    wait_until(lambda: all(state_of(airflow, run) in ENDED for run in runs))
    for run in runs:
        if state_of(airflow, run) == "failed":
            clear(airflow, run)
    assert_success(airflow, runs)
    assert stored("2019-07") == expected(api_of_stack(), "2019-07")
    try:
        wait_until(lambda: task_containers() == [], 30)
    finally:
        print(json.dumps(inspect(task_containers())))  # pytest shows it
