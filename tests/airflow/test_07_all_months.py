"""DAG 07 with a real scheduler: many months at once, on either engine, and the ranking is that of the whole year."""

import json
import os
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from docker.errors import APIError
from support import task_commands
from support.airflow_servers import airflow, airflow_servers
from support.dag_runs import Place, load_dag
from support.docker_engine import DockerPipeline, engine
from support.plain_python import ratings_of, rows_of

from course.embedded import Api, airflow_environment
from course.paths import AIRFLOW_HOME, DAGS, PLUGINS

DAG = "07_all_months"
YEAR, END = "2019-01-01", "2020-01-01"
MONTHS = [f"2019-{month:02}-01" for month in range(1, 13)]
AT_ONCE = 3
KILLED = ("month.fetch_ratings", 4)  # May
FETCHED, SUMMED = "month.fetch_ratings", "month.sum_ratings"

Step = tuple[str, int]  # a task's id and its map index


@dataclass
class Seen:
    """What an engine told of a run: which containers or pods came, and how many there were at once."""

    commands: list[tuple[Step, list[str]]] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most: int = 0
    killed: bool = False

    def came(self, name: str, step: Step, command: list[str]) -> None:
        self.commands.append((step, command))
        self.running.add(name)
        self.most = max(self.most, len(self.running))

    def kills(self, step: Step) -> bool:
        """Tell, once, that this is the one to kill."""
        self.killed, kill = self.killed or step == KILLED, step == KILLED and not self.killed
        return kill


class DockerSide:
    """The containers of DAG 07, and what they need."""

    def __init__(self, stack: ExitStack) -> None:
        self.engine = stack.enter_context(engine())
        self.pipeline = DockerPipeline(self.engine, secrets.token_urlsafe(24))
        self.api: Api = self.pipeline.api
        self.env = {"COURSE_ENGINE": "docker", "COURSE_STACK": self.engine.name}

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        """Follow the containers, and kill the first one of one month."""
        seen = Seen()
        client = docker.from_env()
        events = client.events(
            decode=True, filters={"label": f"course.stack={self.engine.name}", "event": ["start", "die"]}
        )

        def look() -> None:
            for event in events:
                labels = event["Actor"]["Attributes"]
                if event["Action"] == "die":
                    seen.running.discard(event["id"])
                    continue
                step = (labels["course.task_id"], int(labels["course.map_index"]))
                if seen.kills(step):
                    client.api.kill(event["id"])
                with suppress(APIError):  # it is through and removed already
                    seen.came(event["id"], step, client.api.inspect_container(event["id"])["Config"]["Cmd"])

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            events.close()
            thread.join()
            client.close()

    def file(self, path: str) -> bytes:
        return self.pipeline.file(path)

    def rows(self, folder: Path) -> list[tuple]:
        place = Place(folder)
        place.database.write_bytes(self.pipeline.file("movies.db"))
        return place.rows(f"pipeline = '{DAG}'")

    def left(self) -> list[object]:
        return [*self.engine.task_containers()]


class KubernetesSide:
    """The pods of DAG 07, and what they need."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        from support.kubernetes_cluster import KubernetesPipeline

        self.pipeline = stack.enter_context(KubernetesPipeline(folder).up())
        self.cluster = self.pipeline.cluster
        self.api: Api = self.pipeline.api
        self.env = {"COURSE_ENGINE": "kubernetes", "AIRFLOW_CONN_KUBERNETES_DEFAULT": self.cluster.connection()}

    @contextmanager
    def watched(self) -> Iterator[Seen]:
        """Follow the pods, from when they are made until they are gone, and delete the first one of one month."""
        from kubernetes import watch
        from support.kubernetes_cluster import TASK_PODS

        seen, over = Seen(), threading.Event()
        list_pods, namespace = self.cluster.core.list_namespaced_pod, self.cluster.namespace
        stream = watch.Watch()
        stream.resource_version = list_pods(namespace).metadata.resource_version

        def look() -> None:
            while not over.is_set():
                settings = {"label_selector": TASK_PODS, "timeout_seconds": 1}
                settings["resource_version"] = stream.resource_version  # to go on where it was
                for event in stream.stream(list_pods, namespace, **settings):
                    pod = event["object"]
                    name, labels = pod.metadata.name, pod.metadata.labels
                    if event["type"] == "DELETED":
                        seen.running.discard(name)
                    elif event["type"] == "ADDED":
                        step = (labels["task_id"], int(labels.get("map_index", -1)))
                        seen.came(name, step, pod.spec.containers[0].args)
                        if seen.kills(step):
                            self.cluster.core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield seen
        finally:
            over.set()
            thread.join()

    def file(self, path: str) -> bytes:
        [content] = self.pipeline.files(path)
        return content

    def rows(self, folder: Path) -> list[tuple]:
        return self.pipeline.rows(f"pipeline = '{DAG}'")

    def left(self) -> list[object]:
        return [*self.cluster.task_pods()]


@dataclass
class Year:
    """One run of the year, on one engine."""

    side: DockerSide | KubernetesSide
    seen: Seen
    state: str
    tries: dict[Step, int]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ],
)
def year(
    request: pytest.FixtureRequest, airflow_database: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Year]:
    """Run the year through a scheduler that could run eight tasks at once, and kill one month while it runs."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        side = DockerSide(stack) if request.param == "docker" else KubernetesSide(stack, folder)
        settings = airflow_environment(side.api, folder / "movies.db", folder / "data") | side.env
        settings |= {
            "COURSE_MAX_ACTIVE": str(AT_ONCE),
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",  # only the run that is asked for
        }
        with airflow_servers(settings, folder) as env, side.watched() as seen:
            state, tries = run_the_year(env)
        yield Year(side, seen, state, tries)


def run_the_year(env: dict[str, str]) -> tuple[str, dict[Step, int]]:
    """Run DAG 07 for 2019; return how the run ended, and how many tries each task took."""
    give_up, run_id = time.monotonic() + 300, f"year-{secrets.token_hex(4)}"
    trigger = ("dags", "trigger", DAG, "--run-id", run_id, "--conf", json.dumps({"year": 2019}))
    # first the DAG as this environment makes it: the database may have another
    for command in (("dags", "reserialize"), trigger, ("dags", "unpause", "--yes", DAG)):
        done = airflow(env, *command)
        assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db", timeout=30)) as database:
        state = ""
        while state not in ("success", "failed"):
            assert time.monotonic() < give_up, database.execute(
                "SELECT task_id, map_index, state FROM task_instance WHERE run_id = ?", [run_id]
            ).fetchall()
            time.sleep(0.5)
            [(state,)] = database.execute("SELECT state FROM dag_run WHERE run_id = ?", [run_id])
        tasks = database.execute("SELECT task_id, map_index, try_number FROM task_instance WHERE run_id = ?", [run_id])
        return state, {(task, index): tries for task, index, tries in tasks}


def test_the_ranking_of_the_year_is_that_of_all_its_ratings_at_once_byte_for_byte(year: Year, tmp_path: Path) -> None:
    assert year.state == "success"
    task_commands.fetch(year.side.api, YEAR, END, tmp_path / "ratings.csv")
    task_commands.rank(tmp_path / "ratings.csv", tmp_path / "rankings.csv")
    expected = (tmp_path / "rankings.csv").read_bytes()
    assert expected.count(b"\n") > 500
    assert year.side.file("rankings/2019.csv") == expected


def test_the_rows_are_those_that_plain_python_gives(year: Year, tmp_path: Path) -> None:
    expected = rows_of(ratings_of(year.side.api, YEAR, END, page=1000), YEAR, DAG)
    assert year.side.rows(tmp_path) == expected


def test_each_month_is_fetched_and_added_up_by_containers_of_its_own(year: Year) -> None:
    commands = dict(year.seen.commands)
    for index, (start, end) in enumerate(zip(MONTHS, [*MONTHS[1:], END], strict=True)):
        ratings = f"/data/ratings/{start}.csv"
        fetch = ["--start_date", start, "--end_date", end, "--output_path", ratings]
        assert commands.pop((FETCHED, index)) == fetch
        assert commands.pop((SUMMED, index)) == ["--input_path", ratings, "--output_path", f"/data/sums/{start}.csv"]
    assert list(commands) == [("rank_sums", -1), ("store_rankings", -1)]


def test_the_ranking_takes_in_the_twelve_files_of_the_year_by_name_and_no_other(year: Year) -> None:
    [command] = [command for step, command in year.seen.commands if step == ("rank_sums", -1)]
    inputs = [value for name, value in pairwise(command) if name == "--input_path"]
    assert inputs == [f"/data/sums/{start}.csv" for start in MONTHS]


def test_as_many_run_at_once_as_the_setting_says_and_never_more(year: Year) -> None:
    assert year.seen.most == AT_ONCE


def test_a_month_that_is_killed_is_run_again_and_no_other_task_is(year: Year) -> None:
    assert year.seen.killed
    assert year.tries.pop(KILLED) == 2
    assert set(year.tries.values()) == {1}
    assert len(year.tries) == 2 * 12 + 2 - 1
    assert [step for step, _ in year.seen.commands].count(KILLED) == 2
    assert len(year.seen.commands) == 2 * 12 + 2 + 1


def test_nothing_is_left_on_the_engine(year: Year) -> None:
    deadline = time.monotonic() + 20
    while year.side.left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert year.side.left() == []


# --- without an engine


@pytest.mark.parametrize(
    ("engine", "kind", "without"),
    [
        (None, "ResilientDockerOperator", ["airflow.providers.cncf.kubernetes.operators", "resilient_kubernetes"]),
        ("docker", "ResilientDockerOperator", ["airflow.providers.cncf.kubernetes.operators", "resilient_kubernetes"]),
        (
            "kubernetes",
            "ResilientKubernetesPodOperator",
            ["docker", "airflow.providers.docker.operators", "resilient_docker"],
        ),
    ],
)
def test_the_engine_is_a_choice_and_the_other_one_is_not_even_imported(
    engine: str | None, kind: str, without: list[str]
) -> None:
    code = f"""
import importlib, json, sys
loaded = importlib.import_module("{DAG}")
dag = loaded.rank_sums.dag
print(json.dumps({{
    "kinds": sorted({{type(task).__name__ for task in dag.tasks}}),
    "limits": [dag.max_active_tasks, *(dag.get_task(name).max_active_tis_per_dagrun for name in {[FETCHED, SUMMED]})],
    "modules": sorted(sys.modules),
}}))
"""
    env = {name: value for name, value in os.environ.items() if name not in ("COURSE_ENGINE", "COURSE_MAX_ACTIVE")}
    env |= {"PYTHONPATH": f"{DAGS}:{PLUGINS}"} | ({"COURSE_ENGINE": engine} if engine else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert parsed["kinds"] == [kind]
    assert parsed["limits"] == [4, 4, 4]
    assert not set(without) & set(parsed["modules"])


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("COURSE_ENGINE", "podman", "COURSE_ENGINE must be docker or kubernetes, not 'podman'"),
        ("COURSE_MAX_ACTIVE", "0", "COURSE_MAX_ACTIVE must be a number from 1 on, not '0'"),
        ("COURSE_MAX_ACTIVE", "abc", "COURSE_MAX_ACTIVE must be a number from 1 on, not 'abc'"),
        ("COURSE_MAX_ACTIVE", "", "COURSE_MAX_ACTIVE must be a number from 1 on, not ''"),
    ],
)
def test_a_setting_that_cannot_be_is_an_import_error_that_says_what_can(setting: str, value: str, message: str) -> None:
    env = os.environ | {"PYTHONPATH": f"{DAGS}:{PLUGINS}", setting: value}
    done = subprocess.run(
        [sys.executable, "-c", f"import importlib; importlib.import_module('{DAG}')"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert message in done.stderr


@pytest.mark.parametrize("conf", [{}, *({"year": year} for year in (None, 2018, 2024, 2019.5, "2019"))])
def test_without_a_year_of_the_ratings_there_is_no_run_at_all(airflow_database: None, conf: dict) -> None:
    with pytest.raises(ValueError, match="Invalid input for param year"):
        load_dag(DAG).test(logical_date=None, run_conf=conf)


@pytest.mark.parametrize("year", [2019, 2019.0])  # both are integers to JSON
def test_a_task_has_the_interval_of_its_month_or_else_of_the_year(airflow_database: None, year: float) -> None:
    dag = load_dag(DAG)
    dag.params["year"] = year  # is valid
    interval = dag.user_defined_macros["interval"]
    months = [interval({"params": dag.params, "ti": SimpleNamespace(map_index=index)}) for index in range(12)]
    assert months == list(zip(MONTHS, [*MONTHS[1:], END], strict=True))
    assert interval({"params": dag.params, "ti": SimpleNamespace(map_index=-1)}) == (YEAR, END)
