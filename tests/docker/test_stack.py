"""The whole stack, started as a learner starts it: its limits, its runs over REST, its secrets, and what it survives.

It has a name and ports of its own, so a learner's stack may be up beside it. The tests run in this order.
"""

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator

import pytest
import requests
import yaml
from support.compose_stack import (
    DAGS,
    airflow_of_stack,
    answer_late,
    api_of_stack,
    clear,
    compose,
    docker,
    expected,
    inspect,
    is_fetching,
    own_stack,
    started,
    stored,
    task_containers,
)
from support.deployed_airflow import (
    COURSE,
    SLOW_API,
    TASKS,
    Run,
    assert_one_line,
    assert_success,
    course,
    found_secrets,
    start,
    state_of,
    tasks_of,
    wait_until,
)
from support.docker_engine import image
from support.typed_pages import free_port

from course import stack
from course.embedded import Api
from course.paths import REPO
from course.rest import ENDED, Airflow
from course.settings import COMPOSE_FILE, MAKERS, published_ports, setting, version

pytestmark = pytest.mark.docker

TASK_IMAGES = {"fetch_ratings": "movielens-fetch", "rank_movies": "movielens-rank", "store_rankings": "movielens-store"}
MONTHS = ("2019-01", "2019-02", "2019-03")
# what `make compose-up` starts: those that do one job and end, and those that stay
SERVICES = {
    name: it for name, it in yaml.safe_load(COMPOSE_FILE.read_text())["services"].items() if "profiles" not in it
}
STAYING = [name for name, service in SERVICES.items() if "healthcheck" in service]


@pytest.fixture(scope="module")
def name() -> Iterator[str]:
    with own_stack() as name:
        yield name


@pytest.fixture(scope="module")
def said(name: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """What `course compose-up` said when it had started the stack."""
    with started(request) as said:
        yield said


@pytest.fixture(scope="module")
def airflow(said: str) -> Airflow:
    return airflow_of_stack()


@pytest.fixture(scope="module")
def api(said: str) -> Api:
    return api_of_stack()


# --- before anything is started


@pytest.mark.parametrize("command", ["compose-up", "compose-down", "images", "push"])
def test_without_an_engine_a_command_says_so_in_one_line(command: str) -> None:
    done = course(command, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert_one_line(done, "Docker engine", "/nowhere/docker.sock")


@pytest.mark.parametrize("port", published_ports())
def test_a_taken_port_is_named_before_anything_is_started(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = str(server.getsockname()[1])
        done = course("compose-up", **{"COURSE_STACK": "course-test-port", port: taken})
    assert_one_line(done, f"port {taken}", port)
    for kind in ("container", "volume", "network"):
        assert not docker(kind, "ls", "--quiet", "--filter=label=com.docker.compose.project=course-test-port")


@pytest.mark.parametrize("missing", [*MAKERS, "COURSE_VERSION"])
def test_a_setting_without_a_value_is_named(missing: str) -> None:
    env = os.environ | dict.fromkeys(MAKERS, "0") | {missing: ""}
    done = subprocess.run([*stack.COMPOSE, "config"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(rf"\b{missing}\b.*make env", done.stderr)


def test_compose_up_names_a_setting_without_a_value_before_anything_is_started(name: str) -> None:
    assert_one_line(course("compose-up", JWT_SECRET=""), "JWT_SECRET", "make env")
    assert stack.services() == []


# --- up


def test_compose_up_says_what_is_up_and_how_to_go_on(said: str) -> None:
    assert re.search(rf"the stack is up, {len(SERVICES)} services, in \d+ s\n", said)
    assert f"http://localhost:{setting('AIRFLOW_PORT')}  login airflow" in said
    assert "make dag-run" in said
    assert not found_secrets(said)


def test_every_service_is_healthy_confined_limited_and_seen_from_this_machine_only(said: str) -> None:
    total = 0
    for service in json.loads(docker("inspect", *compose("ps", "--all", "--quiet").split())):
        what, limits, state = service["Name"], service["HostConfig"], service["State"]
        assert state["ExitCode"] == 0 if state["Status"] == "exited" else state["Health"]["Status"] == "healthy", what
        assert "no-new-privileges:true" in limits["SecurityOpt"], what
        assert limits["CapDrop"] == ["ALL"], what
        assert limits["Memory"], what
        total += limits["Memory"] if state["Running"] else 0
        bindings = [binding for port in (limits["PortBindings"] or {}).values() for binding in port]
        assert all(binding["HostIp"] == "127.0.0.1" for binding in bindings), what
    assert total + 2 * 512 * 2**20 <= 6 * 2**30, "with two task containers, more than 6 GB"


@pytest.fixture(scope="module")
def inspected(airflow: Airflow, api: Api) -> list[dict]:
    """Three months through both DAGs, one month twice at once; yields what the engine knew of each task container."""
    seen: dict[str, dict] = {}
    runs = [start(airflow, dag, month) for month in (*MONTHS, MONTHS[0]) for dag in DAGS]

    def have_ended() -> bool:
        seen.update(inspect(set(task_containers()) - seen.keys()))
        return all(state_of(airflow, run) in ENDED for run in runs)

    wait_until(have_ended, 240)
    assert_success(airflow, runs)
    return list(seen.values())


@pytest.mark.parametrize("month", MONTHS)
def test_both_dags_store_each_month_whole_and_once(inspected: list[dict], api: Api, month: str) -> None:
    assert stored(month) == expected(api, month)


def test_a_finished_run_leaves_no_container(inspected: list[dict]) -> None:
    assert task_containers() == []


def test_no_task_container_shows_a_password_to_docker_inspect(inspected: list[dict]) -> None:
    assert {container["Config"]["Labels"]["course.task_id"] for container in inspected} == set(TASKS)
    assert found_secrets(json.dumps(inspected)) == []


def test_the_stack_is_idle_in_two_gigabytes(inspected: list[dict]) -> None:
    units = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    containers = compose("ps", "--quiet").split()
    used = {}
    for line in docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *containers).splitlines():
        what, number, unit = re.match(r"(\S+) ([\d.]+)(\w+)", line).groups()
        used[what] = float(number) * units[unit]
    assert len(used) == len(STAYING)
    assert sum(used.values()) <= 2e9, used


# --- the registry


@pytest.fixture(scope="module")
def registry(said: str) -> str:
    return f"127.0.0.1:{setting('REGISTRY_PORT')}"


def test_compose_up_leaves_every_task_image_in_the_registry_and_names_it(said: str, registry: str) -> None:
    for task in TASK_IMAGES.values():
        assert re.search(
            rf"^  {registry}/course/{task}@sha256:[0-9a-f]{{64}}  \(.*{re.escape(version())}\)$", said, re.MULTILINE
        )


def test_the_registry_refuses_those_without_its_login(registry: str) -> None:
    assert requests.get(f"http://{registry}/v2/_catalog", timeout=10).status_code == 401


def test_push_prints_the_digests_that_the_next_run_records_and_runs(registry: str, airflow: Airflow) -> None:
    pushed = course("push")
    assert pushed.returncode == 0, pushed.stderr
    named = {image: name for name, image in re.findall(r"^  (\S+/course/(\S+)@\S+)  ", pushed.stdout, re.MULTILINE)}
    assert named.keys() == set(TASK_IMAGES.values())

    run, other = start(airflow, "04_registry", "2019-08"), start(airflow, "02_docker", "2019-08")
    seen: dict[str, dict] = {}

    def have_ended() -> bool:
        seen.update(inspect(set(task_containers()) - seen.keys()))
        return all(state_of(airflow, one) in ENDED for one in (run, other))

    wait_until(have_ended)
    more = {"resolve_images": "success", "record_images": "success"}
    assert tasks_of(airflow, run) == dict.fromkeys(TASKS, "success") | more
    recorded = airflow.call("GET", f"{run.path}/taskInstances/resolve_images/xcomEntries/return_value")["value"]
    if isinstance(recorded, str):
        recorded = json.loads(recorded)
    assert recorded == named
    ran = [one for one in seen.values() if one["Config"]["Labels"]["course.dag_id"] == "04_registry"]
    assert ran  # a short task may have come and gone between two looks
    for one in ran:
        reference = named[TASK_IMAGES[one["Config"]["Labels"]["course.task_id"]]]
        assert one["Config"]["Image"] == reference
        assert reference in json.loads(docker("image", "inspect", one["Image"]))[0]["RepoDigests"]

    rows = stored("2019-08")
    assert [row[1:] for row in rows if row[0] == "04_registry"] == [row[1:] for row in rows if row[0] == "02_docker"]
    assert [row for row in rows if row[0] == "04_registry"]


def test_push_with_a_wrong_password_says_in_one_line_what_fixes_it(registry: str) -> None:
    done = course("push", REGISTRY_PASSWORD="not-the-password")
    assert_one_line(done, registry, "REGISTRY_PASSWORD", "make compose-up")
    assert "not-the-password" not in done.stderr


def test_push_without_a_registry_says_in_one_line_what_fixes_it(said: str) -> None:
    port = free_port()
    assert_one_line(course("push", REGISTRY_PORT=port), f"127.0.0.1:{port}", "make compose-up")
    assert docker("image", "ls", "--quiet", f"127.0.0.1:{port}/*/*") == ""


def test_the_registry_has_a_connection_form_with_a_test_button_that_works(airflow: Airflow, registry: str) -> None:
    types = {one["connection_type"]: one for one in airflow.call("GET", "/../../ui/connections/hook_meta")}
    assert types["docker_registry"]["hook_name"] == "Docker Registry"
    form = {
        "connection_id": "typed_in",
        "conn_type": "docker_registry",
        "host": registry,
        "login": "course",
        "password": setting("REGISTRY_PASSWORD"),
        "extra": json.dumps({"api_url": "http://registry:5000"}),
    }
    right = airflow.call("POST", "/connections/test", json=form)
    assert right["status"], right
    wrong = airflow.call("POST", "/connections/test", json=form | {"password": "not-the-password"})
    assert not wrong["status"]
    assert "refuses the login course" in wrong["message"], wrong


# --- runs that fail


def test_dag_run_shows_why_a_run_failed_and_one_clear_fixes_it_after_a_restart_of_the_stack(
    name: str, airflow: Airflow, api: Api, inspected: list[dict]
) -> None:
    volume = f"--volume={name}-movielens-login:/login"
    spoil = ["--user=10001", "--entrypoint=sh", image("movielens-store"), "-c", "echo wrong > /login/password"]
    docker("run", "--rm", volume, *spoil)
    failed = course("dag-run", "--dag", "02_docker", "--month", "2019-04")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    assert re.search(r"fetch_ratings +failed", failed.stdout)
    assert "refused the login (401)" in failed.stdout
    assert failed.stdout.endswith("02_docker for 2019-04: failed\n")

    down = course("compose-down")
    assert down.returncode == 0, down.stderr
    assert stack.services() == []
    up = course("compose-up", **SLOW_API)  # it writes the passwords for the tasks again
    assert up.returncode == 0, up.stderr
    assert stored("2019-01") == expected(api, "2019-01")

    run_id = re.match(r"02_docker for 2019-04: (\S+)", failed.stdout)[1]
    run = Run("02_docker", "2019-04", f"/dags/02_docker/dagRuns/{run_id}")
    assert state_of(airflow, run) == "failed"
    clear(airflow, run)
    assert_success(airflow, [run])
    again = course("dag-run", "--dag", "01_mixed_operators", "--month", "2019-04")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.endswith("01_mixed_operators for 2019-04: success\n")
    assert stored("2019-04") == expected(api, "2019-04")


@pytest.mark.parametrize("dag", ["no_such_dag", "02_docker.py"])
def test_dag_run_of_an_unknown_dag_names_those_that_there_are(airflow: Airflow, dag: str) -> None:
    assert_one_line(course("dag-run", "--dag", dag, "--month", "2019-01"), dag, *DAGS)


def test_compose_clean_asks_first(airflow: Airflow) -> None:
    before = stack.services()
    done = subprocess.run([COURSE, "compose-clean"], input="n\n", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "[y/N]" in done.stdout
    assert [one["ID"] for one in stack.services()] == [one["ID"] for one in before] != []


def test_airflows_own_command_line_runs_in_the_stack(airflow: Airflow) -> None:
    done = course("airflow", "dags", "list", "--output", "plain")
    assert done.returncode == 0, done.stderr
    assert set(DAGS) <= set(re.findall(r"^\w+", done.stdout, re.MULTILINE))


# --- runs in which something is killed


@pytest.fixture(scope="module")
def slow_api(airflow: Airflow) -> None:
    answer_late()


def test_a_worker_killed_in_the_middle_of_a_run_costs_neither_a_row_nor_a_container(
    slow_api: None, airflow: Airflow, api: Api
) -> None:
    runs = [start(airflow, dag, "2019-05") for dag in DAGS]
    wait_until(is_fetching)
    compose("kill", "--signal", "SIGKILL", "airflow-worker")
    compose("start", "airflow-worker")
    assert_success(airflow, runs)
    assert stored("2019-05") == expected(api, "2019-05")
    assert task_containers() == []


def test_redis_the_api_and_mysql_restarted_in_the_middle_of_a_run_cost_neither_a_row_nor_a_container(
    slow_api: None, airflow: Airflow, api: Api
) -> None:
    runs = [start(airflow, dag, "2019-06") for dag in DAGS]
    wait_until(is_fetching)
    compose("restart", "redis", "movielens-api")
    compose("stop", "mysql")
    wait_until(lambda: any(tasks_of(airflow, run)["store_rankings"] in ("running", "up_for_retry") for run in runs))
    compose("start", "mysql")
    assert_success(airflow, runs)
    assert stored("2019-06") == expected(api, "2019-06")
    assert task_containers() == []


# --- what all of that left behind


def test_no_secret_is_in_a_log_or_in_airflows_database(airflow: Airflow, inspected: list[dict]) -> None:
    logs = [path.read_text(errors="replace") for path in (REPO / "logs").rglob("*.log")]
    assert found_secrets("\n".join(logs)) == []
    assert found_secrets(compose("logs", "--no-color")) == []
    # XCom, rendered fields, connections, variables, audit log: all of them are in it
    dump = compose("exec", "-T", "postgres", "pg_dump", "--username", "airflow", "--data-only", "airflow")
    assert "rendered_task_instance_fields" in dump
    assert "xcom" in dump
    assert found_secrets(dump) == []


def test_no_secret_is_in_the_arguments_of_a_process(airflow: Airflow) -> None:
    processes = [docker("top", container, "-eo", "pid,args") for container in compose("ps", "--quiet").split()]
    assert found_secrets("\n".join(processes)) == []
