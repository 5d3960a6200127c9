"""The images of the course: confined, small, without what they do not need, and stopped by SIGTERM."""

import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import docker
import pytest
from docker.types import Mount
from rich.console import Console
from support.docker_engine import CONFINED, TASK_UID, DockerPipeline, Engine, engine, image, wait_until

from course import images
from course.paths import DAGS, REPO
from course.settings import read_env

pytestmark = pytest.mark.docker

MB = 1_000_000
DOCKER = shutil.which("docker") or "docker"
PASSWORD = "the-password-of-a-test"
# more than its base at most, in MB
LIMITS = {
    "movielens-fetch": 25,
    "movielens-store": 45,
    "movielens-rank": 160,
    "movielens-api": 70,
}
# the command of each
START = {"movielens-fetch": "fetch-ratings", "movielens-store": "store-rankings", "movielens-rank": "rank-movies"}
START |= {"movielens-api": "movielens-api"}


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one


@pytest.fixture(scope="module")
def pipeline(docker_engine: Engine) -> DockerPipeline:
    return DockerPipeline(docker_engine, PASSWORD)


# --- confined


@pytest.mark.parametrize("name", LIMITS)
def test_an_image_is_a_command_for_a_confined_user_that_is_not_root(docker_engine: Engine, name: str) -> None:
    config = docker_engine.client.images.get(image(name)).attrs["Config"]
    assert config["User"] == f"{TASK_UID}:{TASK_UID}"
    assert config["Entrypoint"] == [START[name]]
    code, printed = docker_engine.run(image(name), "--help", network_mode="none", **CONFINED)
    assert code == 0
    assert "Usage: " + START[name] in printed


def test_the_three_tasks_do_their_work_confined(docker_engine: Engine, pipeline: DockerPipeline) -> None:
    """The API too: the fixture starts it confined, with a folder in memory for its data."""
    volumes = {"data": "/data", "movielens-login": "/run/secrets/movielens", "database-login": "/run/secrets/database"}
    mounts = [Mount(path, f"{docker_engine.name}-{name}", read_only=name != "data") for name, path in volumes.items()]
    interval = ["--start_date", "2019-01-01", "--end_date", "2019-02-01"]
    settings = {
        "MOVIELENS_HOST": "http://movielens-api:5000",
        "MOVIELENS_USER": "course",
        "MOVIELENS_PASSWORD_FILE": "/run/secrets/movielens/password",
        "DATABASE_URL_FILE": "/run/secrets/database/url",
    }
    rows = []
    for name, command in (
        ("movielens-fetch", [*interval, "--output_path", "/data/ratings.csv"]),
        ("movielens-rank", ["--input_path", "/data/ratings.csv", "--output_path", "/data/rankings.csv"]),
        (
            "movielens-store",
            ["--input_path", "/data/rankings.csv", "--interval_start", "2019-01-01", "--pipeline", "confined"],
        ),
    ):
        code, printed = docker_engine.run(
            image(name), *command, mounts=mounts, network=pipeline.network, environment=settings, **CONFINED
        )
        assert code == 0, printed
        rows.append(json.loads(printed.splitlines()[-1])["rows"])
    assert rows[0] > rows[1] == rows[2] > 10
    assert pipeline.file("ratings.csv").count(b"\n") == rows[0] + 1


# --- stopped


def test_a_stop_ends_a_task_in_a_moment_with_143_and_the_api_with_0(
    docker_engine: Engine, pipeline: DockerPipeline
) -> None:
    """Each is process 1 of its container, for which SIGTERM does nothing unless it is handled."""
    # A pipe that opens only when the task reads it, and then says nothing: the task waits for its input.
    wait_in = "mkfifo /data/{0}; (exec 3> /data/{0}; echo ready; sleep 60) & exec {1} --input_path /data/{0} {2}"
    rank = wait_in.format("rank", "rank-movies", "--output_path /data/never.csv")
    store = wait_in.format("store", "store-rankings", "--interval_start 2019-01-01 --pipeline never")
    nowhere = {"MOVIELENS_HOST": "http://nowhere:5000", "MOVIELENS_USER": "course", "MOVIELENS_PASSWORD": PASSWORD}
    interval = ["--start_date", "2019-01-01", "--end_date", "2019-02-01"]
    volumes = {f"{docker_engine.name}-data": {"bind": "/data"}}
    tasks = {
        "fetch": docker_engine.start(
            image("movielens-fetch"), *interval, "--output_path", "/data/never.csv", environment=nowhere
        ),
        "rank": docker_engine.start(image("movielens-rank"), "-c", rank, entrypoint="sh", volumes=volumes),
        "store": docker_engine.start(
            image("movielens-store"),
            *("-c", store),
            entrypoint="sh",
            volumes=volumes,
            environment={"DATABASE_URL": "sqlite:////data/never.db"},
        ),
    }
    said = {"fetch": b"trying again", "rank": b"ready", "store": b"ready"}
    for name, task in tasks.items():
        wait_until(lambda task=task, name=name: said[name] in task.logs(), f"{name} at work", task)
    ended = {}
    for name, task in (tasks | {"api": pipeline.served}).items():
        began = time.monotonic()
        task.stop(timeout=10)
        ended[name] = task.wait()["StatusCode"]
        assert time.monotonic() - began < 5, f"{name} took its time"
    assert ended == {"fetch": 143, "rank": 143, "store": 143, "api": 0}
    assert not [path for path in ("never.csv", "never.db") if has_file(pipeline, path)]


def has_file(pipeline: DockerPipeline, path: str) -> bool:
    try:
        pipeline.file(path)
    except docker.errors.NotFound:
        return False
    return True


# --- small, and without what is not needed


def listed() -> list[images.Image]:
    """Return all images of the course; none without docker, where no test of theirs can run."""
    return images.listed() if shutil.which("docker") else []


every_image = pytest.mark.parametrize("one", listed(), ids=lambda one: one.name)


def test_every_image_but_airflows_and_the_proxy_has_a_limit_of_its_size() -> None:
    needs_one = {one.name for one in listed() if not one.name.startswith(("airflow-", "docker-"))}
    assert needs_one == set(LIMITS), "LIMITS and START, above, name what `make images` builds"


@every_image
def test_an_image_says_what_it_is_and_holds_no_secret(docker_engine: Engine, one: images.Image) -> None:
    found = docker_engine.client.images.get(one.tag)
    labels = found.attrs["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"].removeprefix("course/").replace(" ", "-") == one.name
    assert len(labels["org.opencontainers.image.description"]) > 20
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"

    base = docker_engine.client.images.get(one.base)
    variables = {
        variable.split("=")[0] for variable in {*found.attrs["Config"]["Env"]} - {*base.attrs["Config"]["Env"]}
    }
    assert variables <= {"PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "AIRFLOW_HOME", "HOME", "USER"}

    told = json.dumps([found.attrs, found.history()])
    assert not re.findall(r"://[^/\s]+:[^/\s]+@", told)  # a login in an address
    for name, value in read_env().items():
        if name.endswith(("_PASSWORD", "_KEY", "_SECRET")):
            assert value not in told, f"{name} is in the image"


@pytest.mark.parametrize("one", [one for one in listed() if one.name in LIMITS], ids=lambda one: one.name)
def test_an_image_adds_little_to_its_base(docker_engine: Engine, one: images.Image) -> None:
    size, base = (docker_engine.client.images.get(tag).attrs["Size"] for tag in (one.tag, one.base))
    over = (size - base) / MB
    print(f"{one.tag}: {over:.1f} MB over its base")
    assert 0 < over < LIMITS[one.name]


# Prints what should not be there, a line each.
SEARCH = r"""
command -v gcc cc make uv
python3 -c 'import pip' 2> /dev/null && echo "pip"
ls -d /opt/pip /opt/uv /opt/venv/bin/pip* /build /root/.cache /home/*/.cache /tmp/* /var/tmp/* 2> /dev/null
find /var/lib/apt/lists /var/cache/apt -type f ! -name lock
true
"""


@every_image
def test_nothing_is_left_of_the_build(docker_engine: Engine, one: images.Image) -> None:
    if one.name == "docker-proxy":
        return  # nothing is built there
    code, printed = docker_engine.run(one.tag, "-c", SEARCH, entrypoint="sh", user="0", network_mode="none")
    assert (code, printed) == (0, "")


def test_only_the_mixed_airflow_carries_pandas_and_a_mysql_driver(docker_engine: Engine) -> None:
    script = """
import importlib
for name in ("pandas", "MySQLdb", "pymysql", "mysql.connector", "movielens_rank", "airflow.providers.docker"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    print(name)
"""
    carries, sizes = {}, {}
    for kind in ("lean", "mixed"):
        tag = image(f"airflow-{kind}")
        code, printed = docker_engine.run(tag, "-c", script, entrypoint="python3", network_mode="none")
        assert code == 0, printed
        carries[kind] = set(printed.split())
        sizes[kind] = docker_engine.client.images.get(tag).attrs["Size"] / MB
    print(", ".join(f"{kind}: {size:.0f} MB" for kind, size in sizes.items()))
    assert carries["lean"] == {"airflow.providers.docker"}
    assert carries["mixed"] > {"pandas", "MySQLdb", "movielens_rank", "airflow.providers.docker"}
    assert sizes["mixed"] - sizes["lean"] > 100


# Prints the DAGs that the cluster's Airflow knows, and what it could not read.
DAG_FILES = """
from airflow.dag_processing.dagbag import BundleDagBag
bag = BundleDagBag("/opt/airflow/dags", bundle_path="/opt/airflow/dags", bundle_name="dags-folder")
print(sorted(bag.dags), bag.import_errors)
"""


def test_the_airflow_of_the_cluster_reads_its_dags_with_its_plugins(docker_engine: Engine) -> None:
    settings = {"COURSE_ENGINE": "kubernetes", "AIRFLOW__CORE__LOAD_EXAMPLES": "false"}
    code, printed = docker_engine.run(
        image("airflow-kubernetes"), "python", "-c", DAG_FILES, environment=settings, network_mode="none"
    )
    assert code == 0, printed
    left_out = re.findall(r"^dags/(.+)$", (REPO / "images/airflow/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    pods = [file.stem for file in sorted(DAGS.glob("[0-9]*.py")) if not any(map(file.match, left_out))]
    assert "03_kubernetes" in pods
    assert printed.splitlines()[-1] == f"{pods} {{}}"


# --- built


def remove(tags: Iterable[str]) -> None:
    """Remove images by their tags; those that were not built are not missed."""
    subprocess.run([DOCKER, "image", "rm", "--force", *tags], capture_output=True, check=False)


def test_a_build_that_fails_names_the_image_and_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bake file of this test is a copy of the real one with one word changed."""
    wrong = tmp_path / "docker-bake.hcl"
    text = images.BAKE_FILE.read_text()
    wrong.write_text(text.replace('context  = "movielens-api"', f'context  = "{tmp_path}"', 1))
    (tmp_path / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo what went wrong && false\n")
    monkeypatch.setattr(images, "BAKE", [*images.BAKE[:-1], str(wrong)])
    monkeypatch.setenv("COURSE_VERSION", "test-fails")  # so that no image of the learner's is replaced
    try:
        with pytest.raises(click.ClickException) as failed:
            images.build(Console(quiet=True))
    finally:
        remove(one.tag for one in images.listed())
    first, *log = failed.value.message.splitlines()
    assert first == "course/movielens-api:test-fails could not be built:"
    assert any(line.endswith("what went wrong") for line in log)
    assert len(log) <= 20


@pytest.mark.parametrize("chosen", ["0.2.0-test"])
def test_a_chosen_version_is_built_and_told(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_VERSION", chosen)
    try:
        images.build(Console(quiet=True))
        assert images.missing() == []
        assert {one.tag.partition(":")[2] for one in images.listed()} == {chosen}
        assert images.tag("movielens-rank") in {one.tag for one in images.listed("tasks")}
    finally:
        remove(one.tag for one in images.listed())


def build(*arguments: str) -> str:
    command = [DOCKER, "buildx", "build", "--progress", "plain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@every_image
def test_a_build_context_is_small_and_holds_no_environment(one: images.Image, tmp_path: Path) -> None:
    """What would go to the engine if the Dockerfile copied all of it."""
    everything = tmp_path / "Dockerfile"
    everything.write_text("FROM scratch\nCOPY . /\n")
    ignored = one.dockerfile.with_name(f"{one.dockerfile.name}.dockerignore")
    if ignored.exists():
        shutil.copy(ignored, f"{everything}.dockerignore")
    build("--file", str(everything), "--output", f"type=tar,dest={tmp_path / 'context.tar'}", str(one.context))
    with tarfile.open(tmp_path / "context.tar") as archive:
        files = {Path(entry.name): entry.size for entry in archive if entry.isfile()}
    assert files
    assert sum(files.values()) < MB
    unwanted = {".venv", "tests", "__pycache__", ".env", ".git", ".hypothesis"}
    assert not [path for path in files if unwanted & set(path.parts)]


def contains(tag: str, word: bytes) -> list[str]:
    """List the parts of an image, its layers, its settings and its history, that hold a word."""
    found = []
    with (
        subprocess.Popen([DOCKER, "save", tag], stdout=subprocess.PIPE) as saving,
        tarfile.open(fileobj=saving.stdout, mode="r|") as archive,
    ):
        for entry in archive:
            content = archive.extractfile(entry)
            if content is None:
                continue
            data = content.read()
            if data.startswith(b"\x1f\x8b"):
                data = gzip.decompress(data)
            if word in data:
                found.append(entry.name)
    return found


def test_a_certificate_authority_and_the_settings_of_pip_leave_no_trace_in_an_image(
    docker_engine: Engine, tmp_path: Path
) -> None:
    marker = f"course-test-{uuid.uuid4().hex}"
    (fetch,) = (one for one in listed() if one.name == "movielens-fetch")
    _, bundle = docker_engine.run(fetch.base, "cat", "/etc/ssl/certs/ca-certificates.crt", entrypoint="")
    secrets = {"ca": bundle, "pip.conf": "[global]\n"}
    for name, variable in (("ca", "BUILD_CA"), ("pip.conf", "BUILD_PIP_CONF")):
        if path := os.environ.get(variable):  # what builds need here
            secrets[name] = Path(path).read_text()
        (tmp_path / name).write_text(f"# {marker}\n{secrets[name]}")
    tag, base = f"{docker_engine.name}:secrets", f"{docker_engine.name}:base"
    # A base of its own: a step that is cached ran with other secrets, and --no-cache would renew the learner's cache.
    (tmp_path / "base").write_text(f"FROM {fetch.base}\nRUN echo {uuid.uuid4()} > /etc/course-test\n")
    try:
        build("--tag", base, "--file", str(tmp_path / "base"), str(tmp_path))
        build(
            *("--tag", tag, "--build-arg", f"BASE_IMAGE={base}"),
            *(
                part
                for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
                if name in os.environ
                for part in ("--build-arg", name)
            ),
            *(part for name in secrets for part in ("--secret", f"id={name},src={tmp_path / name}")),
            str(fetch.context),
        )
        assert contains(tag, b"fetch-ratings")  # the search finds what is there
        assert contains(tag, marker.encode()) == []
    finally:
        remove([tag, base])
