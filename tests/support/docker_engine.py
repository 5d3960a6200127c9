"""A real Docker engine for tests. What a test makes on it has names of its own, and is removed at the end."""

import io
import json
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import NotFound
from docker.models.containers import Container
from docker.types import Mount
from support.dag_runs import Place, run_dag

from course import images
from course.embedded import Api
from course.settings import read_env

TASK_UID = 10001
CONFINED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


def image(name: str) -> str:
    return images.tag(name)


def service_image(setting: str, official: str) -> str:
    """Name the image of a service as the stack does: the one of .env, else the official one."""
    return read_env().get(setting, official)


def wait_until(condition: Callable[[], bool], what: str, container: Container, seconds: float = 60) -> None:
    """Wait for a condition; fail with the container's log when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        container.reload()
        if time.monotonic() > deadline or container.status not in ("created", "running"):
            pytest.fail(f"{what}: that did not come. The log:\n{container.logs().decode(errors='replace')}")
        time.sleep(0.05)


class Engine:
    """The engine, and everything that one test module makes on it. The name of each thing begins with `name`."""

    def __init__(self) -> None:
        self.client = docker.from_env()
        self.name = f"course-test-{uuid.uuid4().hex[:8]}"
        self.labels = {"course.test": self.name}
        self.registries: list[str] = []

    def create(self, image: str, *command: str, **options: object) -> Container:
        return self.client.containers.create(image, list(command), labels=self.labels, **options)

    def start(self, image: str, *command: str, **options: object) -> Container:
        container = self.create(image, *command, **options)
        container.start()
        return container

    def run(self, image: str, *command: str, **options: object) -> tuple[int, str]:
        """Run a container to its end; return its exit code and what it printed."""
        container = self.start(image, *command, **options)
        try:
            code = container.wait(timeout=120)["StatusCode"]
            return code, container.logs().decode(errors="replace")
        finally:
            container.remove(force=True)

    def network(self) -> str:
        self.client.networks.create(self.name, labels=self.labels)
        return self.name

    def volume(self, name: str) -> str:
        volume = f"{self.name}-{name}"
        self.client.volumes.create(volume, labels=self.labels)
        return volume

    def api(self, password: str, **options: object) -> tuple[Container, Api]:
        """Start the MovieLens API with the default profile on a free loopback port, and wait until it serves."""
        container = self.start(
            image("movielens-api"),
            *("serve", "--host", "0.0.0.0"),  # noqa: S104 (of its container)
            environment={"API_USER": "course", "API_PASSWORD": password, "MOVIELENS_PROFILE": "100k"},
            ports={"5000/tcp": ("127.0.0.1", None)},
            tmpfs={"/tmp": ""},  # noqa: S108 (its data)
            **CONFINED,
            **options,
        )
        address = f"127.0.0.1:{published(container, 5000)}"
        wait_until(lambda: answers(f"http://{address}/healthz"), "an API that serves", container)
        return container, Api("127.0.0.1", published(container, 5000), "course", password)

    def registry(self) -> tuple[Container, Api]:
        """Start a registry with a login on a free loopback port, and wait until it serves."""
        server = self.create(
            service_image("REGISTRY_IMAGE", "registry:2.8"),
            environment={
                "REGISTRY_AUTH": "htpasswd",
                "REGISTRY_AUTH_HTPASSWD_REALM": "course",
                "REGISTRY_AUTH_HTPASSWD_PATH": "/htpasswd",
            },
            ports={"5000/tcp": ("127.0.0.1", None)},
        )
        # of course:opensesame, made with htpasswd -B
        write_file(server, "/htpasswd", "course:$2y$05$nnFB3eHwtdio21B7gm9KneGAnLeuwX7zzUsSTjIwrsALyg5awApvO\n")
        server.start()
        wait_until(lambda: b"listening on" in server.logs(), "a registry", server)
        self.registries.append(f"127.0.0.1:{published(server, 5000)}")
        return server, Api("127.0.0.1", published(server, 5000), "course", "opensesame")

    def task_containers(self) -> list[Container]:
        """List the containers of the DAGs' tasks in the stack of this name, running or not."""
        return self.client.containers.list(all=True, filters={"label": f"course.stack={self.name}"})

    def clean(self) -> None:
        """Remove everything, also what the DAGs left."""
        mine = {"label": f"course.test={self.name}"}
        for container in {*self.task_containers(), *self.client.containers.list(all=True, filters=mine)}:
            with suppress(NotFound):  # it is on its way out
                container.remove(force=True, v=True)
        for registry in self.registries:
            remove_images_of(registry)
        for network in self.client.networks.list(filters=mine):
            network.remove()
        for volume in self.client.volumes.list(filters=mine):
            volume.remove()
        self.client.close()


def remove_images_of(registry: str) -> None:
    """Remove the images of a registry that a test has run, whether they have a tag or only a digest."""
    command = ["docker", "image", "ls", "--digests", "--format={{.Repository}} {{.Tag}} {{.Digest}}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {
        f"{repository}@{digest}" if tag == "<none>" else f"{repository}:{tag}"
        for repository, tag, digest in map(str.split, listed.splitlines())
        if repository.startswith(f"{registry}/")
    }
    if names:
        subprocess.run(["docker", "image", "rm", "--force", *names], stdout=subprocess.DEVNULL, check=True)  # noqa: S607


@contextmanager
def engine() -> Iterator[Engine]:
    one = Engine()
    try:
        yield one
    finally:
        one.clean()


def published(container: Container, port: int) -> int:
    """Return the port of this machine that leads to a container's."""
    container.reload()
    return int(container.ports[f"{port}/tcp"][0]["HostPort"])


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def read_file(container: Container, path: str) -> bytes:
    """Read a file of a container, which need not run."""
    stream, _ = container.get_archive(path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        content = archive.extractfile(archive.next())
        assert content is not None
        return content.read()


def write_file(container: Container, path: str, content: str) -> None:
    """Write a file that belongs to the tasks, and that nobody else may read, into a container, which need not run."""
    entry = tarfile.TarInfo(Path(path).name)
    entry.size, entry.mode, entry.uid, entry.gid = len(content.encode()), 0o600, TASK_UID, TASK_UID
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(content.encode()))
    assert container.put_archive(str(Path(path).parent), buffer.getvalue())


class Watch:
    """While it is entered, inspects every task container of a stack as soon as it runs."""

    def __init__(self, stack: str) -> None:
        self.client = docker.from_env()
        self.events = self.client.events(decode=True, filters={"label": f"course.stack={stack}", "event": "start"})
        self.seen: list[dict] = []
        self.thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        for event in self.events:
            try:
                self.seen.append(self.client.api.inspect_container(event["id"]))
            except NotFound:
                continue

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.events.close()
        self.thread.join()
        self.client.close()

    def dump(self) -> str:
        return json.dumps(self.seen)


class DockerPipeline:
    """What DAG 02 needs around it, without the stack: network, volumes, API, and files instead of passwords."""

    SQLITE = "sqlite:////data/movies.db"

    def __init__(self, engine: Engine, password: str) -> None:
        self.engine = engine
        self.network = engine.network()
        folders = {"data": "/data", "movielens-login": "/movielens-login", "database-login": "/database-login"}
        mounts = [Mount(folder, engine.volume(name)) for name, folder in folders.items()]
        # Never started: its volumes can be read and written all the same.
        self.keeper = engine.create(image("movielens-store"), mounts=mounts)
        self.use_password(password)
        self.use_database(self.SQLITE)
        endpoint = engine.client.api.create_endpoint_config(aliases=["movielens-api"])
        self.served, self.api = engine.api(password, network=self.network, networking_config={self.network: endpoint})

    def use_password(self, password: str) -> None:
        write_file(self.keeper, "/movielens-login/password", password)

    def use_database(self, url: str) -> None:
        write_file(self.keeper, "/database-login/url", url)

    def file(self, path: str) -> bytes:
        return read_file(self.keeper, f"/data/{path}")

    def run(self, folder: Path, months: Iterable[str]) -> Place:
        """Run DAG 02 for some months; return where copies of its files and of its SQLite database are."""
        place = Place(folder)
        for month in months:
            assert run_dag(month, dag_id="02_docker").state == "success"
            for kind in ("ratings", "rankings"):
                (place.results / kind).mkdir(parents=True, exist_ok=True)
                (place.results / kind / f"{month}-01.csv").write_bytes(self.file(f"{kind}/{month}-01.csv"))
        place.database.write_bytes(self.file("movies.db"))
        return place
