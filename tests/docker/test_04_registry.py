"""DAG 04 with a real engine and a real registry: each run has the images of its start, and says which they were."""

import json
import os
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from docker.errors import NotFound
from docker.models.containers import Container
from rich.console import Console
from support.dag_runs import Place, load_dag
from support.docker_engine import DockerPipeline, Engine, Watch, engine, image
from support.plain_python import ratings_of, rows_of

from course.embedded import Api
from course.paths import AIRFLOW_HOME
from course.registry import push
from course.settings import version

pytestmark = pytest.mark.docker

IMAGES = {"fetch_ratings": "movielens-fetch", "rank_movies": "movielens-rank", "store_rankings": "movielens-store"}
RANK = "movielens-rank"
Digests = dict[str, str]  # by image


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one
        for made in one.client.images.list(filters={"label": f"course.test={one.name}"}):
            one.client.images.remove(made.id, force=True)


@pytest.fixture(scope="module")
def server(docker_engine: Engine) -> tuple[Container, Api]:
    return docker_engine.registry()


@pytest.fixture(scope="module")
def registry(server: tuple[Container, Api]) -> Api:
    return server[1]


@pytest.fixture(scope="module")
def pipeline(docker_engine: Engine, registry: Api, airflow_database: None) -> Iterator[DockerPipeline]:
    """All that DAG 04 needs, in a stack of its own, with the images in the registry."""
    fields = {"host": registry.host, "port": registry.port, "login": registry.user, "password": registry.password}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STACK", docker_engine.name)
        patch.setenv("AIRFLOW_CONN_COURSE_REGISTRY", json.dumps({"conn_type": "docker"} | fields))
        patch.setenv("REGISTRY_PORT", str(registry.port))
        patch.setenv("REGISTRY_PASSWORD", registry.password)
        push(Console(quiet=True))
        yield DockerPipeline(docker_engine, secrets.token_urlsafe(24))
    for one in docker_engine.client.images.list(filters={"reference": f"{registry.host}:{registry.port}/*/*"}):
        for name in one.tags + one.attrs["RepoDigests"]:
            if name.startswith(f"{registry.host}:{registry.port}/"):
                with suppress(NotFound):  # a digest goes with the last tag
                    docker_engine.client.images.remove(name)


@dataclass
class Run:
    """One run of the DAG: how it ended, what it recorded, and what the engine knew of its containers."""

    state: str
    run_id: str
    recorded: Digests
    containers: dict[str, dict]  # by task
    tries: int  # that the resolving took

    @property
    def ran(self) -> Digests:
        """Name the image that each container was asked for."""
        return {IMAGES[task]: container["Config"]["Image"] for task, container in self.containers.items()}


def run(stack: str, before: Callable[[], None] | None = None, retries: int | None = None, **conf: object) -> Run:
    """Run DAG 04 once for a month; `before` is called when it is under way, just before the ranking."""
    dag = load_dag("04_registry")
    if retries is not None:
        for task in dag.tasks:
            task.retries, task.retry_delay = retries, timedelta(0)
    if before:
        dag.get_task("rank_movies").pre_execute = lambda context: before()
    with Watch(stack) as watch:
        dag_run = dag.test(logical_date=None, run_conf={"month": "2019-01"} | conf)
    query = "SELECT value FROM xcom WHERE run_id = ? AND task_id = 'resolve_images' AND key = 'return_value'"
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
        value = metadata.execute(query, [dag_run.run_id]).fetchone()
    recorded = value[0] if value else "{}"
    while isinstance(recorded, str):
        recorded = json.loads(recorded)
    containers = {one["Config"]["Labels"]["course.task_id"]: one for one in watch.seen}
    tries = dag_run.get_task_instance("resolve_images").try_number
    return Run(str(dag_run.state), dag_run.run_id, recorded, containers, tries)


@pytest.fixture(scope="module")
def first(pipeline: DockerPipeline, docker_engine: Engine) -> Run:
    run_ = run(docker_engine.name)
    assert run_.state == "success"
    return run_


def digests_of(run: Run) -> Digests:
    return {name: reference.partition("@")[2] for name, reference in run.recorded.items()}


def another_rank(docker_engine: Engine, registry: Api, words: str) -> str:
    """Push another image under the tag of movielens-rank, as if from another machine; return its digest.

    It ranks as the first one does. This engine's own tag stays at what it was.
    """
    client, name = docker_engine.client, f"{registry.host}:{registry.port}/course/{RANK}"
    before = client.images.get(f"{name}:{version()}")
    container = docker_engine.create(before.id)
    changed = container.commit(changes=f'LABEL course.test={docker_engine.name} words="{words}"')
    container.remove()
    assert changed.tag(name, version())
    try:
        login = {"username": registry.user, "password": registry.password}
        events = list(client.images.push(name, version(), auth_config=login, stream=True, decode=True))
        [digest] = [event["aux"]["Digest"] for event in events if "aux" in event]
    finally:
        before.tag(name, version())
    # nor does it have the other image: it has to come from the registry
    client.images.remove(f"{name}@{digest}")
    return digest


def test_a_run_records_the_digests_of_exactly_the_images_that_it_ran(
    first: Run, docker_engine: Engine, registry: Api
) -> None:
    assert first.recorded.keys() == set(IMAGES.values())
    assert first.ran == first.recorded
    for task, container in first.containers.items():
        name = f"{registry.host}:{registry.port}/course/{IMAGES[task]}"
        assert re.fullmatch(rf"{re.escape(name)}@sha256:[0-9a-f]{{64}}", first.recorded[IMAGES[task]])
        # the id of an image is the digest of its configuration, the engine knows which digest of the registry that is
        assert first.recorded[IMAGES[task]] in docker_engine.client.images.get(container["Image"]).attrs["RepoDigests"]
        assert container["Image"] == docker_engine.client.images.get(image(IMAGES[task])).id


def test_the_event_of_the_asset_says_which_images_made_the_rows(first: Run) -> None:
    query = "SELECT extra FROM asset_event WHERE source_run_id = ?"
    with closing(sqlite3.connect(AIRFLOW_HOME / "airflow.db")) as metadata:
        [(extra,)] = metadata.execute(query, [first.run_id])
    assert json.loads(extra) == first.recorded


def test_the_rows_are_those_of_every_version(first: Run, pipeline: DockerPipeline, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.database.write_bytes(pipeline.file("movies.db"))
    stored = [row for row in place.rows() if row[0] == "04_registry"]
    assert stored == rows_of(ratings_of(pipeline.api, "2019-01-01", "2019-02-01"), "2019-01-01", "04_registry")


def test_a_tag_that_moves_changes_the_next_run_and_not_the_one_under_way_and_the_old_digest_runs_again(
    first: Run, docker_engine: Engine, registry: Api
) -> None:
    moved: list[str] = []
    under_way = run(docker_engine.name, lambda: moved.append(another_rank(docker_engine, registry, "moved")))
    assert under_way.state == "success"
    assert under_way.ran == under_way.recorded == first.recorded

    after = run(docker_engine.name)
    assert after.state == "success"
    assert after.ran == after.recorded
    assert digests_of(after) == digests_of(first) | {RANK: moved[0]}
    assert after.containers["rank_movies"]["Config"]["Labels"]["words"] == "moved"

    again = run(docker_engine.name, digests=digests_of(first))
    assert again.state == "success"
    assert again.ran == again.recorded == first.recorded
    assert again.containers["rank_movies"]["Image"] == first.containers["rank_movies"]["Image"]


def test_without_pins_force_pull_brings_what_was_pushed_a_moment_ago(
    first: Run, docker_engine: Engine, registry: Api
) -> None:
    late = run(docker_engine.name, lambda: another_rank(docker_engine, registry, "late") and None, pin=False)
    assert late.state == "success"
    assert late.ran == late.recorded
    assert late.recorded[RANK].endswith(f"/course/{RANK}:{version()}")
    assert late.containers["rank_movies"]["Config"]["Labels"]["words"] == "late"


def test_without_force_pull_the_engine_runs_what_it_has(
    first: Run, docker_engine: Engine, registry: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_rank(docker_engine, registry, "unseen")
    dag = load_dag("04_registry")
    for name in IMAGES:
        dag.get_task(name).force_pull = False
    with Watch(docker_engine.name) as watch:
        assert dag.test(logical_date=None, run_conf={"month": "2019-01", "pin": False}).state == "success"
    assert "unseen" not in watch.dump()


@pytest.mark.parametrize("tag", ["9.9.9", "not a tag"])
def test_a_tag_that_is_not_there_fails_the_run_at_once_before_any_container_and_is_named(
    first: Run, docker_engine: Engine, registry: Api, tag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = run(docker_engine.name, tag=tag)
    assert (failed.state, failed.tries) == ("failed", 1)
    assert failed.containers == {}
    said = "".join(capsys.readouterr())
    for word in (f"{registry.host}:{registry.port}", "course/movielens-fetch", tag):
        assert word in said
    assert registry.password not in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wrong"}, "refuses the login"),
        ({"password": ""}, "password is missing"),
        (None, "isn't defined"),
    ],
)
def test_a_connection_that_somebody_has_to_mend_fails_the_run_at_once(
    first: Run,
    docker_engine: Engine,
    changes: dict[str, str] | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "AIRFLOW_CONN_COURSE_REGISTRY"
    if changes is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, json.dumps(json.loads(os.environ[name]) | changes))
    failed = run(docker_engine.name)
    assert (failed.state, failed.tries) == ("failed", 1)
    assert words in "".join(capsys.readouterr())


def test_with_the_registry_down_images_that_are_here_run_by_their_digests_and_a_tag_is_an_error(
    first: Run, server: tuple[Container, Api], docker_engine: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    container, registry = server
    container.stop()
    by_digest = run(docker_engine.name, retries=0, digests=digests_of(first))
    assert by_digest.state == "success"
    assert by_digest.ran == first.recorded
    capsys.readouterr()

    by_tag = run(docker_engine.name, retries=1)
    assert (by_tag.state, by_tag.tries) == ("failed", 2)  # at the next try it could be up
    assert by_tag.containers == {}
    said = "".join(capsys.readouterr())
    assert f"{registry.host}:{registry.port}" in said
    assert "RegistryUnavailable" in said
