"""images/docker-proxy before the real engine: all that DockerOperator asks for passes, and nothing else does."""

import http.client
import json
import secrets
from collections.abc import Iterator

import docker
import pytest
from docker.types import Mount
from support.dag_runs import load_dag
from support.docker_engine import CONFINED, Engine, engine, image, published, wait_until

from course.settings import DOCKER_SOCKET

pytestmark = pytest.mark.docker

SOCKET = str(DOCKER_SOCKET)
ID = "0123456789abcdef" * 4  # of no container
V = "/v1.41"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one


@pytest.fixture(scope="module")
def port(docker_engine: Engine) -> int:
    """The proxy as the stack runs it, but on a loopback port."""
    container = docker_engine.start(
        image("docker-proxy"),
        volumes={SOCKET: {"bind": SOCKET}},
        group_add=[str(DOCKER_SOCKET.stat().st_gid)],
        ports={"2375/tcp": ("127.0.0.1", None)},
        tmpfs={"/tmp": ""},  # noqa: S108 (as in docker-compose.yaml)
        mem_limit="64m",
        **CONFINED,
    )
    port = published(container, 2375)

    def serves() -> bool:
        try:
            return ask(port, "GET", "/_ping") == (200, "OK")
        except OSError:
            return False

    wait_until(serves, "a proxy that serves", container)
    return port


def ask(port: int, method: str, path: str, body: str | None = None, headers: dict | None = None) -> tuple[int, str]:
    """Make one call, the path exactly as given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_the_dag_runs_through_it(
    docker_engine: Engine, port: int, airflow_database: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version, ping, lists, network, volume, create, attach, start, wait, inspect, remove."""
    monkeypatch.setenv("COURSE_STACK", docker_engine.name)
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{port}")
    docker_engine.network()
    mount = Mount("/data", docker_engine.volume("proxy"))
    dag = load_dag("02_docker")
    for task in dag.tasks:
        assert task.docker_url == f"tcp://127.0.0.1:{port}"
        task.retries, task.command, task.mounts = 0, ["--help"], [mount]
    dag_run = dag.test(logical_date=None, run_conf={"month": "2019-01"})
    assert dag_run.state == "success"
    last_line = dag_run.get_task_instance("store_rankings").xcom_pull("store_rankings")
    assert "Show this message and exit." in last_line
    assert docker_engine.task_containers() == []


def test_a_container_can_be_stopped_through_it(docker_engine: Engine, port: int) -> None:
    client = docker.APIClient(f"tcp://127.0.0.1:{port}")
    command = ["python3", "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    made = client.create_container(image("movielens-fetch"), entrypoint=command, labels=docker_engine.labels)
    output = client.attach(made["Id"], stream=True)
    client.start(made["Id"])
    assert next(output).startswith(b"ready")
    client.stop(made["Id"], timeout=0)
    assert client.wait(made["Id"])["StatusCode"] == 137
    client.remove_container(made["Id"], force=True)
    client.close()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/images/create?tag=1&fromImage=course%2Fnot-built", None),
        ("/auth", {"username": "course", "password": secrets.token_urlsafe(), "serveraddress": "127.0.0.1:1"}),
    ],
    ids=["pull", "login"],
)
def test_what_needs_a_registry_reaches_the_engine(port: int, path: str, body: dict | None) -> None:
    headers = {"Content-Type": "application/json"} if body else {}
    status, answer = ask(port, "POST", V + path, json.dumps(body) if body else None, headers)
    assert status in (404, 500)  # the engine's answers: it is not there
    assert "the proxy" not in answer


REFUSED = [
    # into other containers
    ("POST", f"{V}/containers/{ID}/exec"),
    ("POST", f"{V}/exec/{ID}/start"),
    ("GET", f"{V}/containers/{ID}/logs?stdout=1"),
    ("POST", f"{V}/containers/{ID}/attach?logs=1&stdout=1"),
    ("POST", f"{V}/containers/{ID}/attach?logs=0&logs=1&stdout=1"),
    ("POST", f"{V}/containers/{ID}/attach?logs=0logs=0&stdout=1"),
    ("POST", f"{V}/containers/{ID}/attach?lo%67s=1&stdout=1"),
    ("POST", f"{V}/containers/{ID}/attach?logs=0;logs=1"),
    ("POST", f"{V}/containers/{ID}/attach?stdin=1&stdout=1&stream=1"),
    ("POST", f"{V}/containers/{ID}/attach"),
    ("GET", f"{V}/containers/{ID}/attach/ws?logs=1"),
    ("GET", f"{V}/containers/{ID}/archive?path=/"),
    ("PUT", f"{V}/containers/{ID}/archive?path=/"),
    ("HEAD", f"{V}/containers/{ID}/archive?path=/"),
    ("GET", f"{V}/containers/{ID}/export"),
    ("GET", f"{V}/containers/{ID}/top"),
    ("GET", f"{V}/containers/{ID}/stats"),
    ("GET", f"{V}/containers/{ID}/changes"),
    *[
        ("POST", f"{V}/containers/{ID}/{verb}")
        for verb in ("kill", "restart", "pause", "unpause", "rename?name=x", "update", "resize", "copy")
    ],
    ("POST", f"{V}/containers/prune"),
    ("POST", f"{V}/commit?container={ID}"),
    # by name, which DockerOperator never does
    ("GET", f"{V}/containers/course-postgres-1/json"),
    ("POST", f"{V}/containers/course-postgres-1/stop"),
    ("DELETE", f"{V}/containers/course-postgres-1?force=1"),
    # images, volumes, networks
    ("POST", f"{V}/build"),
    ("POST", f"{V}/build/prune"),
    ("POST", f"{V}/session"),
    ("POST", f"{V}/grpc"),
    ("POST", f"{V}/images/create?fromSrc=http%3A%2F%2Fexample.org%2Fimage.tar&repo=course"),
    ("POST", f"{V}/images/create?fromImage=course&fromSrc=-"),
    ("POST", f"{V}/images/create?fromImage=course&from%53rc=-"),
    ("POST", f"{V}/images/create?fromImage=course&tag=1&changes=ENV+a%3Db"),
    ("POST", f"{V}/images/load"),
    ("POST", f"{V}/images/course/push"),
    ("POST", f"{V}/images/course/tag?repo=another"),
    ("POST", f"{V}/images/prune"),
    ("DELETE", f"{V}/images/course"),
    ("GET", f"{V}/images/course/json"),
    ("GET", f"{V}/images/course/history"),
    ("GET", f"{V}/images/get?names=course"),
    ("GET", f"{V}/volumes"),
    ("POST", f"{V}/volumes/create"),
    ("POST", f"{V}/volumes/prune"),
    ("DELETE", f"{V}/volumes/course-data"),
    ("GET", f"{V}/networks"),
    ("POST", f"{V}/networks/create"),
    ("POST", f"{V}/networks/course/connect"),
    ("DELETE", f"{V}/networks/course"),
    # the engine itself
    ("GET", f"{V}/info"),
    ("GET", "/info"),
    ("GET", f"{V}/events"),
    ("GET", f"{V}/system/df"),
    ("GET", f"{V}/swarm"),
    ("POST", f"{V}/swarm/init"),
    ("GET", f"{V}/services"),
    ("GET", f"{V}/nodes"),
    ("GET", f"{V}/secrets"),
    ("GET", f"{V}/configs"),
    ("GET", f"{V}/plugins"),
    ("POST", f"{V}/plugins/pull?remote=x"),
    ("GET", f"{V}/distribution/course/json"),
    # tricks of the path
    ("GET", "/"),
    ("GET", "/containers/json"),
    ("POST", f"{V}/containers/x/../../containers/{ID}/exec"),
    ("POST", f"{V}/containers/../images/prune/start"),
    ("POST", f"{V}/containers/%2e%2e/start"),
    ("POST", f"{V}/containers/{ID}%2fexec"),
    ("POST", f"{V}/containers/{ID}/start/../exec"),
    ("POST", f"{V}/containers/{ID}/start%2f..%2fexec"),
    ("GET", f"{V}/containers/{ID}/json/../logs?stdout=1"),
    ("GET", f"{V}/networks/.."),
    ("GET", f"{V}/volumes/%2e%2e/info"),
    ("GET", f"{V}/volumes/x/../../info"),
    ("GET", f"/{V}/containers/json"),
    ("GET", f"{V}//containers/json"),
    ("GET", f"{V}/containers//json"),
    ("GET", f"{V}/containers/json/"),
    ("GET", f"{V}/CONTAINERS/json"),
    ("GET", f"{V}/_ping/../info"),
    ("GET", f"/x{V}/containers/json"),
    ("GET", f"/info?{V}/containers/json"),
    ("GET", f"http://localhost{V}/info"),
    # tricks of the method
    ("HEAD", f"{V}/containers/json"),
    ("OPTIONS", f"{V}/containers/json"),
    ("POST", f"{V}/containers/json"),
    ("PUT", f"{V}/containers/create"),
    ("get", f"{V}/containers/json"),
    ("GET", f"{V}/containers/create"),
    ("GET", f"{V}/containers/{ID}/start"),
    ("DELETE", f"{V}/containers/{ID}/json"),
    ("PATCH", f"{V}/containers/{ID}"),
    ("POST", f"{V}/containers/{ID}"),
]


@pytest.mark.parametrize(("method", "path"), REFUSED, ids=[f"{method} {path}" for method, path in REFUSED])
def test_no_other_call_passes(port: int, method: str, path: str) -> None:
    status, answer = ask(port, method, path)
    assert status == 403
    if method != "HEAD":
        shown = path.removeprefix("http://localhost")
        assert json.loads(answer) == {"message": f"the proxy before the engine does not allow {method} {shown}"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{V}/containers/{ID}/attach?logs=0&stdout=1", "logs=1"),
        (f"{V}/images/create?fromImage=course", "fromSrc=-"),
        (f"{V}/containers/{ID}/stop", "t=0"),
    ],
)
def test_a_form_cannot_change_what_the_address_asks(port: int, path: str, body: str) -> None:
    for kind in ("application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded; a=b", "multipart/form-data"):
        assert ask(port, "POST", path, body, {"Content-Type": kind})[0] == 403


def test_a_header_cannot_change_the_method(port: int) -> None:
    headers = {"X-HTTP-Method-Override": "DELETE", "X-Original-URL": f"{V}/info", "X-Rewrite-URL": f"{V}/info"}
    status, answer = ask(port, "GET", f"{V}/containers/{ID}/json", headers=headers)
    assert (status, json.loads(answer)["message"]) == (404, f"No such container: {ID}")
