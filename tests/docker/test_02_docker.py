"""DAG 02 run by Airflow: real containers, the real API, SQLite on a volume, a real MySQL server, a real registry."""

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from difflib import unified_diff
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from docker.models.containers import Container
from docker.types import Mount
from support.dag_runs import Place, load_dag, run_dag, run_mixed
from support.docker_engine import DockerPipeline, Engine, Watch, engine, image, service_image, wait_until
from support.signals import WAITING, sigterm_when

from course.embedded import Api
from course.paths import AIRFLOW_HOME, REPO

pytestmark = pytest.mark.docker

MONTHS = ["2019-01", "2019-02", "2023-12"]
PASSWORD = secrets.token_urlsafe(24)


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one


@pytest.fixture(scope="module")
def pipeline(docker_engine: Engine, airflow_database: None) -> Iterator[DockerPipeline]:
    """All that DAG 02 needs, in a stack of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STACK", docker_engine.name)
        yield DockerPipeline(docker_engine, PASSWORD)


@pytest.fixture(autouse=True)
def _no_container_is_left(docker_engine: Engine) -> Iterator[None]:
    """Holds after success, failure, kill and timeout alike."""
    yield
    assert docker_engine.task_containers() == []


def run(month: str = "2019-01", retries: int | None = None, **changes: object):
    """Run DAG 02 once, with other settings for its first task."""
    dag = load_dag("02_docker")
    for name, value in changes.items():
        setattr(dag.get_task("fetch_ratings"), name, value)
    if retries is not None:
        for task in dag.tasks:
            task.retries = retries
    return dag.test(logical_date=None, run_conf={"month": month})


def fails_at_once(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    """Run DAG 02 with its retries; check that the first task used none of them, and return what was printed."""
    dag_run = run(**changes)
    task = dag_run.get_task_instance("fetch_ratings")
    assert (dag_run.state, task.state, task.try_number, task.max_tries) == ("failed", "failed", 1, 2)
    return "".join(capsys.readouterr())


# --- the same results


@pytest.fixture(scope="module")
def both(pipeline: DockerPipeline, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same months through both versions, from the same API."""
    folder = tmp_path_factory.mktemp("both")
    mixed = run_mixed(pipeline.api, folder / "mixed", MONTHS)
    with Watch(pipeline.engine.name) as watch:
        in_docker = pipeline.run(folder / "docker", MONTHS)
    return SimpleNamespace(mixed=mixed, in_docker=in_docker, containers=watch.seen)


def assert_same(mixed: str, in_docker: str, what: str) -> None:
    if mixed != in_docker:
        lines = unified_diff(mixed.splitlines(), in_docker.splitlines(), "01_mixed_operators", "02_docker", lineterm="")
        pytest.fail("\n".join([f"{what} differ:", *list(lines)[:40]]))


@pytest.mark.parametrize("month", MONTHS)
@pytest.mark.parametrize("kind", ["ratings", "rankings"])
def test_both_versions_write_the_same_bytes(both: SimpleNamespace, kind: str, month: str) -> None:
    mixed, in_docker = both.mixed.file(kind, f"{month}-01"), both.in_docker.file(kind, f"{month}-01")
    assert mixed.count(b"\n") > 20
    assert_same(mixed.decode(), in_docker.decode(), f"the {kind} of {month}")
    assert mixed == in_docker


def test_both_versions_store_the_same_rows(both: SimpleNamespace) -> None:
    mixed, in_docker = both.mixed.rows(), both.in_docker.rows()
    assert {row[0] for row in mixed} == {"01_mixed_operators"}
    assert {row[0] for row in in_docker} == {"02_docker"}
    assert {row[1] for row in mixed} == {f"{month}-01" for month in MONTHS}
    assert_same(*("\n".join(str(row[1:]) for row in rows) for rows in (mixed, in_docker)), "the rows")


def test_a_running_container_says_whose_it_is(both: SimpleNamespace, docker_engine: Engine) -> None:
    labels = [container["Config"]["Labels"] for container in both.containers]
    assert [one["course.task_id"] for one in labels] == ["fetch_ratings", "rank_movies", "store_rankings"] * 3
    assert len({one["course.run_id"] for one in labels}) == 3
    for one in labels:
        assert one["course.stack"] == docker_engine.name
        assert one["course.dag_id"] == "02_docker"
        assert one["course.run_id"].startswith("manual__")
        assert one["course.map_index"] == "-1"
        assert one["course.try_number"] == "1"


def test_a_container_has_its_limits_and_only_what_it_needs(both: SimpleNamespace, docker_engine: Engine) -> None:
    mounted = {}
    for container in both.containers:
        assert container["HostConfig"]["Memory"] == 512 * 2**20
        assert container["HostConfig"]["CpuShares"] == 512
        assert not container["HostConfig"]["Privileged"]
        task = container["Config"]["Labels"]["course.task_id"]
        mounts = {mount["Name"].removeprefix(f"{docker_engine.name}-"): mount["RW"] for mount in container["Mounts"]}
        mounted[task] = (container["HostConfig"]["NetworkMode"], mounts)
    assert mounted == {
        "fetch_ratings": (docker_engine.name, {"data": True, "movielens-login": False}),
        "rank_movies": ("none", {"data": True}),
        "store_rankings": (docker_engine.name, {"data": True, "database-login": False}),
    }


@contextmanager
def mysql(pipeline: DockerPipeline, password: str) -> Iterator[Container]:
    """A MySQL server on the stack's network, with the stack's login."""
    login = {"MYSQL_DATABASE": "movies", "MYSQL_USER": "course", "MYSQL_PASSWORD": password}
    endpoint = pipeline.engine.client.api.create_endpoint_config(aliases=["mysql"])
    server = pipeline.engine.start(
        service_image("MYSQL_IMAGE", "mysql:8.4"),
        environment=login | {"MYSQL_RANDOM_ROOT_PASSWORD": "yes"},
        network=pipeline.network,
        networking_config={pipeline.network: endpoint},
        mem_limit="768m",
    )
    try:
        ping = ["mysqladmin", "ping", "--silent", "-h", "127.0.0.1", "-u", "course"]
        wait_until(
            lambda: server.exec_run(ping, environment={"MYSQL_PWD": password}).exit_code == 0, "a MySQL server", server
        )
        yield server
    finally:
        server.remove(force=True, v=True)


def test_a_run_into_mysql_shows_no_secret_anywhere(
    both: SimpleNamespace, pipeline: DockerPipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    database_password = secrets.token_urlsafe(12) + "@:/%" + secrets.token_urlsafe(6)
    with mysql(pipeline, database_password) as server:
        pipeline.use_database(f"mysql://course:{quote(database_password, safe='')}@mysql/movies")
        try:
            with Watch(pipeline.engine.name) as watch:
                dag_run = run_dag("2019-01", dag_id="02_docker")
        finally:
            pipeline.use_database(pipeline.SQLITE)
        query = "SELECT position, movie_id, avg_rating, num_ratings FROM movie_rankings ORDER BY position"
        command = ["mysql", "-N", "-B", "-h", "127.0.0.1", "-u", "course", "movies", "-e", query]
        stored = server.exec_run(command, environment={"MYSQL_PWD": database_password}).output.decode()
    log = "".join(capfd.readouterr())
    assert dag_run.state == "success", log

    rows = [tuple(float(value) for value in line.split("\t")) for line in stored.splitlines()]
    assert rows == [row[2:] for row in both.mixed.rows("interval_start = '2019-01-01'")]

    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
        rendered = metadata.execute(
            "SELECT task_id, rendered_fields FROM rendered_task_instance_fields WHERE run_id = ?", [dag_run.run_id]
        ).fetchall()
        pushed = metadata.execute("SELECT task_id, value FROM xcom WHERE run_id = ?", [dag_run.run_id]).fetchall()
        everything = "\n".join(metadata.iterdump())
    # these hold what they should, so it is worth looking for what they should not
    assert len(watch.seen) == len(rendered) == len(pushed) == 3
    assert "MOVIELENS_PASSWORD_FILE" in dict(rendered)["fetch_ratings"]
    assert json.loads(dict(pushed)["store_rankings"])
    assert "Starting docker container from image" in log
    for secret in (PASSWORD, database_password, quote(database_password, safe="")):
        for place, text in (
            ("docker inspect", watch.dump()),
            ("Airflow's database", everything),
            ("the logs", log),
        ):
            assert secret not in text, f"a secret is in {place}"


def test_two_runs_of_a_month_at_once_leave_one_whole_copy(
    both: SimpleNamespace, pipeline: DockerPipeline, tmp_path: Path
) -> None:
    script = "from support.dag_runs import run_dag; assert run_dag('2019-01', dag_id='02_docker').state == 'success'"
    pipeline.use_database("sqlite:////data/two.db")
    runs = []
    for number in "12":  # each with a metadata database of its own: this is about the containers
        home = tmp_path / number
        home.mkdir()
        # not as a file: closing that would end SQLite's locks, which this process holds for Airflow
        with (
            closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as ours,
            closing(sqlite3.connect(home / "airflow.db")) as copy,
        ):
            ours.backup(copy)
        log = (home / "log").open("w")
        environment = os.environ | {"AIRFLOW_HOME": str(home)}
        command = [sys.executable, "-c", script]
        runs.append(subprocess.Popen(command, cwd=REPO / "tests", env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=120) for process in runs]
    finally:
        for process in runs:
            process.kill()
        pipeline.use_database(pipeline.SQLITE)
    assert codes == [0, 0], "\n".join((tmp_path / number / "log").read_text() for number in "12")
    place = Place(tmp_path)
    place.database.write_bytes(pipeline.file("two.db"))
    assert [row[1:] for row in place.rows()] == [row[1:] for row in both.mixed.rows("interval_start = '2019-01-01'")]
    assert pipeline.file("rankings/2019-01-01.csv") == both.mixed.file("rankings", "2019-01-01")


# --- what is missing or wrong


def test_an_image_that_is_not_built_fails_at_once_with_the_command(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = fails_at_once(capsys, image="course/not-built:1")
    assert "image course/not-built:1 is not here and cannot be pulled" in printed
    assert "`make images` builds" in printed


def test_a_network_that_does_not_exist_fails_at_once_with_the_command(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = fails_at_once(capsys, network_mode="course-test-nowhere")
    assert "network course-test-nowhere does not exist: `make compose-up` makes it" in printed


def test_a_volume_that_does_not_exist_fails_at_once_with_the_command(
    pipeline: DockerPipeline, docker_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = f"{docker_engine.name}-missing"
    printed = fails_at_once(capsys, mounts=[Mount("/data", missing)])
    assert f"volume {missing} does not exist: `make compose-up` makes it" in printed
    assert missing not in [volume.name for volume in docker_engine.client.volumes.list()]


def test_a_wrong_password_of_the_api_fails_at_once_without_showing_it(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline.use_password("not-the-password")
    try:
        printed = fails_at_once(capsys)
    finally:
        pipeline.use_password(PASSWORD)
    assert "AirflowFailException" in printed
    assert "401" in printed
    assert "not-the-password" not in printed


@pytest.fixture(scope="module")
def registry(docker_engine: Engine) -> Iterator[Api]:
    server, registry = docker_engine.registry()
    yield registry
    server.remove(force=True, v=True)


def connection(registry: Api) -> str:
    fields = {"host": registry.host, "port": registry.port, "login": registry.user, "password": registry.password}
    return json.dumps({"conn_type": "docker"} | fields)


def test_a_refused_login_to_a_registry_fails_at_once_and_names_the_connection(
    pipeline: DockerPipeline,
    registry: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLASS_REGISTRY", connection(registry._replace(password="not-the-password")))
    printed = fails_at_once(capsys, docker_conn_id="class_registry")
    assert "no login with the connection class_registry (" in printed
    assert "401 Unauthorized): check its host, port, login and password" in printed
    assert "not-the-password" not in printed


def test_a_registry_that_is_down_is_worth_another_try(
    pipeline: DockerPipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLASS_REGISTRY", connection(Api("127.0.0.1", 1, "course", "a-password")))
    assert run(retries=0, docker_conn_id="class_registry").state == "failed"
    printed = "".join(capsys.readouterr())
    assert "no login with the connection class_registry (" in printed
    assert "check its host and port, and that the registry is up" in printed
    assert "AirflowFailException" not in printed
    assert "a-password" not in printed


def test_with_the_right_login_an_image_that_the_registry_lacks_is_what_fails(
    pipeline: DockerPipeline,
    registry: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CLASS_REGISTRY", connection(registry))
    missing = f"{registry.host}:{registry.port}/course/movielens-fetch:9.9.9"
    printed = fails_at_once(capsys, docker_conn_id="class_registry", image=missing)
    assert f"image {missing} is not here and cannot be pulled (" in printed
    assert registry.password not in printed


def test_a_task_that_outgrows_its_memory_says_so_with_the_limit(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    # more than the limit and as much swap again
    dag_run = run(retries=0, entrypoint=["python3", "-c", "b'x' * (1 << 28)"], mem_limit="48m")
    assert dag_run.state == "failed"
    assert "out of memory: fetch_ratings needed more than its limit of 48m" in "".join(capsys.readouterr())


def test_a_failure_that_may_pass_gives_the_exit_code_and_the_last_line(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    dag_run = run(retries=0, entrypoint=["sh", "-c", "echo first; echo the disk is full; exit 1"])
    assert dag_run.state == "failed"
    printed = "".join(capsys.readouterr())
    assert "the container ended with exit code 1: the disk is full" in printed
    assert "AirflowFailException" not in printed


# --- what is killed


def test_a_try_removes_what_the_last_one_left_and_nothing_else(
    pipeline: DockerPipeline, docker_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    day, now = datetime(2019, 2, 1, tzinfo=UTC), datetime.now(UTC)
    labels = {
        "course.stack": docker_engine.name,
        "course.dag_id": "02_docker",
        "course.run_id": f"manual__{now.isoformat()}",
        "course.task_id": "fetch_ratings",
        "course.map_index": "-1",
        "course.try_number": "1",
    }
    others = [
        {"course.run_id": "manual__another"},
        {"course.task_id": "rank"},
        {"course.map_index": "0"},
        {"course.dag_id": "another"},
        {"course.stack": f"{docker_engine.name}-another"},
    ]

    def waiting(labels: dict[str, str]) -> Container:
        command = ["python3", "-c", WAITING]
        return docker_engine.client.containers.run(
            image("movielens-fetch"), entrypoint=command, labels=labels | docker_engine.labels, detach=True
        )

    orphan, kept = waiting(labels), [waiting(labels | other) for other in others]
    try:
        dag = load_dag("02_docker")
        dag_run = dag.test(logical_date=day, run_after=now, run_conf={"month": "2019-01"})
        assert dag_run.run_id == labels["course.run_id"]
        assert dag_run.state == "success"
        assert f"removing container {orphan.short_id}, which try 1 left behind" in "".join(capsys.readouterr())
        running = {container.id for container in docker_engine.client.containers.list()}
        assert orphan.id not in running
        assert {container.id for container in kept} <= running
    finally:
        for container in kept:
            container.remove(force=True)


def test_a_killed_task_stops_its_container_and_is_no_success_even_when_that_ends_with_0(
    pipeline: DockerPipeline, docker_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    def ready() -> bool:
        return any(b"ready" in container.logs() for container in docker_engine.task_containers())

    began = datetime.now(UTC)
    with sigterm_when(ready):
        dag_run = run(retries=0, entrypoint=["python3", "-c", WAITING])
    assert dag_run.get_task_instance("fetch_ratings").state == "failed"
    assert datetime.now(UTC) - began < timedelta(seconds=20)
    assert "fetch_ratings was killed, and its container stopped" in "".join(capsys.readouterr())


def test_a_task_killed_before_it_has_a_container_never_starts_one(
    pipeline: DockerPipeline, docker_engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dag = load_dag("02_docker")
    fetch = dag.get_task("fetch_ratings")
    fetch.retries = 0
    look = type(fetch)._check_surroundings

    def killed_here(self) -> None:
        look(self)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(type(fetch), "_check_surroundings", killed_here)
    with Watch(docker_engine.name) as watch, sigterm_when(lambda: False):
        dag_run = dag.test(logical_date=None, run_conf={"month": "2019-01"})
    assert dag_run.get_task_instance("fetch_ratings").state == "failed"
    assert "fetch_ratings was killed" in "".join(capsys.readouterr())
    assert watch.seen == []


def test_a_task_that_takes_too_long_fails_with_the_timeout_and_not_with_what_came_after(
    pipeline: DockerPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    timeout = timedelta(seconds=2)
    dag_run = run(retries=0, entrypoint=["python3", "-c", WAITING], execution_timeout=timeout)
    assert dag_run.get_task_instance("fetch_ratings").state == "failed"
    printed = "".join(capsys.readouterr())
    assert "AirflowTaskTimeout" in printed
    assert "No such container" not in printed
