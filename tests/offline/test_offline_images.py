"""The images of ci/offline-images, used as a compose file uses the official ones, and ci/docker-engine.sh."""

import base64
import json
import shutil
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.required import cannot_run

from course.paths import REPO

pytestmark = pytest.mark.docker

CI = REPO / "ci"
DOCKER = shutil.which("docker") or "docker"
LABEL = f"course.test={uuid.uuid4().hex}"
PASSWORD = """it's "so" \\ $HOME `id` ;#100% ü"""

BASE, POSTGRES, MYSQL, REDIS, REGISTRY, HAPROXY = IMAGES = [
    "course/base:trixie",
    "course/postgres:17",
    "course/mysql:11.8",
    "course/redis:8.0",
    "course/registry:2.8",
    "course/haproxy:3.0",
]


def docker(*arguments: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [DOCKER, *arguments], capture_output=True, text=True, check=False, input=text
    )
    assert not check or done.returncode == 0, f"docker {arguments[0]}: {done.stdout}{done.stderr}"
    return done


def wait_until(condition: Callable[[], bool], what: str, container: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline or not running(container):
            log = docker("logs", container)
            pytest.fail(f"{what}: that did not come. The log of the container:\n{log.stdout}{log.stderr}")
        time.sleep(0.1)


def new_name() -> str:
    return f"course-test-{uuid.uuid4().hex[:8]}"


def new_volume() -> str:
    return docker("volume", "create", "--label", LABEL, new_name()).stdout.strip()


def in_volume(volume: str, *command: str) -> str:
    """What a command prints that runs in the folder of the volume."""
    where = ["--volume", f"{volume}:/volume", "--workdir", "/volume"]
    return docker("run", "--rm", "--label", LABEL, *where, BASE, *command).stdout


def running(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Running}}", container).stdout == "true\n"


def stop(container: str) -> tuple[int, float]:
    """The exit code, and the seconds that the image's stop signal took."""
    before = time.monotonic()
    docker("stop", "--time", "20", container)
    seconds = time.monotonic() - before
    return int(docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout), seconds


def user_of_first_process(container: str) -> str:
    return docker("exec", container, "stat", "-c", "%u", "/proc/1").stdout.strip()


@dataclass
class Service:
    """A service of a compose file, and how its clients talk to it."""

    image: str
    data: str
    probe: list[str]  # a health check, run in the container
    client: Callable[[str, str, str], list[str]]  # (host, password, statement) -> docker run's arguments
    write: str
    read: str
    run: list[str]  # docker run's options
    command: list[str] = field(default_factory=list)
    name: str = ""  # of the container, and of its volume
    network: str = ""

    def start(self, *options: str) -> None:
        docker("run", "--detach", "--label", LABEL, "--name", self.name, "--network", self.network,
               "--volume", f"{self.name}:{self.data}", *options, *self.run, self.image, *self.command)  # fmt: skip

    def ready(self) -> bool:
        return docker("exec", self.name, *self.probe, check=False).returncode == 0

    def wait(self) -> None:
        wait_until(self.ready, f"{self.image} is ready", self.name)

    def ask(self, statement: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
        arguments = self.client(self.name, password, statement)
        return docker("run", "--rm", "--label", LABEL, "--network", self.network, *arguments, check=False)

    def remove(self) -> None:
        docker("rm", "--force", self.name)


def postgres(host: str, password: str, statement: str) -> list[str]:
    psql = ["psql", "-h", host, "-U", "airflow", "-d", "air flow", "-qAtc", statement]
    return ["--env", f"PGPASSWORD={password}", POSTGRES, *psql]


def mysql(host: str, password: str, statement: str) -> list[str]:
    client = ["mysql", "-h", host, "-u", "course", "-D", "movie_rankings", "-Ne", statement]
    return ["--env", f"MYSQL_PWD={password}", MYSQL, *client]


def redis(host: str, password: str, statement: str) -> list[str]:
    # -e: an error reply is an exit code too
    return ["--env", f"REDISCLI_AUTH={password}", REDIS, "redis-cli", "-e", "-h", host, *statement.split()]


SERVICES: dict[str, Callable[[str], Service]] = {
    "postgres": lambda secret: Service(
        image=POSTGRES,
        data="/var/lib/postgresql/data",
        probe=["pg_isready", "-h", "127.0.0.1", "-U", "airflow"],
        client=postgres,
        write="CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)",
        read="SELECT x FROM kept",
        run=["--volume", f"{secret}:/run/secrets/password:ro", "--env", "POSTGRES_USER=airflow",
             "--env", "POSTGRES_PASSWORD_FILE=/run/secrets/password", "--env", "POSTGRES_DB=air flow"],
    ),
    "mysql": lambda secret: Service(
        image=MYSQL,
        data="/var/lib/mysql",
        probe=["mysqladmin", "ping", "-h", "127.0.0.1"],
        client=mysql,
        write="CREATE TABLE kept (x int); INSERT INTO kept VALUES (7)",
        read="SELECT x FROM kept",
        run=["--volume", f"{secret}:/run/secrets/password:ro", "--env", "MYSQL_RANDOM_ROOT_PASSWORD=yes",
             "--env", "MYSQL_USER=course", "--env", "MYSQL_PASSWORD_FILE=/run/secrets/password",
             "--env", "MYSQL_DATABASE=movie_rankings"],
    ),
    "redis": lambda secret: Service(
        image=REDIS,
        data="/data",
        probe=["redis-cli", "ping"],  # NOAUTH is an answer too
        client=redis,
        write="SET kept 7",
        read="GET kept",
        run=[],
        command=["redis-server", "--requirepass", PASSWORD],
    ),
}  # fmt: skip
DATABASES = ["postgres", "mysql"]


@pytest.fixture(scope="module", autouse=True)
def _images() -> Iterator[None]:
    """Every test here needs the images, and leaves nothing behind."""
    for image in IMAGES:
        if docker("image", "inspect", image, check=False).returncode:
            cannot_run("docker", f"there is no image {image}: `make offline-images` builds it")
    yield
    mine = f"label={LABEL}"
    for kind, all_of_them, remove in (
        ("container", ["--all"], ["rm", "--force"]),
        ("network", [], ["rm"]),
        ("volume", [], ["rm"]),
    ):
        for made in docker(kind, "ls", *all_of_them, "--quiet", "--filter", mine).stdout.split():
            docker(kind, *remove, made)


@pytest.fixture(scope="module")
def network() -> str:
    return docker("network", "create", "--label", LABEL, new_name()).stdout.strip()


@pytest.fixture(scope="module")
def make(network: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Service]:
    """A service with a name and a volume of its own, not yet started."""
    secret = tmp_path_factory.mktemp("secrets") / "password"
    secret.write_text(PASSWORD + "\n")
    secret.chmod(0o600)

    def new(kind: str) -> Service:
        service = SERVICES[kind](str(secret))
        service.name, service.network = new_volume(), network
        return service

    return new


@pytest.fixture(scope="module", params=SERVICES)
def service(request: pytest.FixtureRequest, make: Callable[[str], Service]) -> Iterator[Service]:
    """A running service."""
    made = make(request.param)
    made.start()
    made.wait()
    yield made
    made.remove()


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, make: Callable[[str], Service]) -> Iterator[Service]:
    """A database that has never started."""
    made = make(request.param)
    yield made
    made.remove()


def test_other_containers_log_in_with_the_password_and_with_no_other(service: Service) -> None:
    assert service.ask("PING" if service.image == REDIS else "SELECT 1").returncode == 0
    for wrong in ("wrong", PASSWORD[:-1], PASSWORD.replace("\\", "")):
        refused = service.ask("PING" if service.image == REDIS else "SELECT 1", wrong)
        assert refused.returncode != 0, refused.stdout


def test_the_password_is_not_in_the_process_list_the_log_or_the_container(service: Service) -> None:
    log = docker("logs", service.name)
    seen = [docker("top", service.name, "-eo", "pid,args").stdout, log.stdout + log.stderr]
    if PASSWORD not in service.command:
        seen.append(docker("inspect", service.name).stdout)
    for text in seen:
        assert text
        for form in (PASSWORD, json.dumps(PASSWORD)[1:-1], json.dumps(PASSWORD, ensure_ascii=False)[1:-1]):
            assert form not in text


def test_the_server_is_the_first_process_and_not_root(service: Service) -> None:
    assert user_of_first_process(service.name) == "999"
    first = docker("exec", service.name, "cat", "/proc/1/comm").stdout.strip()
    assert first in ("postgres", "mysqld", "mariadbd", "redis-server")


def test_data_outlive_the_container_and_stopping_takes_less_than_five_seconds(service: Service) -> None:
    assert service.ask(service.write).returncode == 0
    code, seconds = stop(service.name)
    assert code == 0
    assert seconds < 5
    service.remove()
    service.start()
    service.wait()
    assert service.ask(service.read).stdout == "7\n"


def test_postgres_stops_although_a_client_is_in_the_middle_of_a_statement(make: Callable[[str], Service]) -> None:
    service = make("postgres")
    service.start()
    service.wait()
    # attached: a detached exec on a busy engine was seen to do nothing, silently
    statement = [DOCKER, "exec", service.name, "psql", "-U", "airflow", "-d", "air flow", "-c", "SELECT pg_sleep(600)"]
    with subprocess.Popen(statement, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        wait_until(lambda: "SELECT" in docker("top", service.name).stdout, "the statement runs", service.name)
        code, seconds = stop(service.name)
        assert client.wait(30) != 0
    assert code == 0
    assert seconds < 5
    service.remove()


@pytest.mark.parametrize(
    ("kind", "variable", "client"),
    [
        ("postgres", "POSTGRES_PASSWORD", ["psql", "-h", "127.0.0.1", "-U", "postgres", "-Atc", "SELECT 1"]),
        ("mysql", "MYSQL_ROOT_PASSWORD", ["mysql", "-h", "127.0.0.1", "-u", "root", "-Ne", "SELECT 1"]),
    ],
)
def test_a_password_alone_in_the_environment_makes_an_administrator(
    kind: str, variable: str, client: list[str], make: Callable[[str], Service]
) -> None:
    service = make(kind)
    service.run = ["--env", f"{variable}={PASSWORD}"]
    service.start()
    service.wait()
    for password, code in ((PASSWORD, 0), ("wrong", 1), ("", 1)):
        environment = ["--env", f"PGPASSWORD={password}", "--env", f"MYSQL_PWD={password}"]
        answer = docker("exec", *environment, service.name, *client, check=False)
        assert min(answer.returncode, 1) == code
    service.remove()


def test_a_first_start_that_is_killed_is_mended_by_the_next(database: Service) -> None:
    database.start("--cpus", "0.3")

    def under_way() -> bool:
        made = docker("exec", database.name, "ls", f"{database.data}/.unfinished", check=False)
        return made.stdout != ""

    wait_until(under_way, "the first start is under way", database.name)
    assert not database.ready()
    docker("kill", database.name)
    database.remove()
    assert in_volume(database.name, "ls", "-A") == ".unfinished\n"
    database.start()
    database.wait()
    assert database.ask(database.write).returncode == 0
    assert ".unfinished" not in in_volume(database.name, "ls", "-A")


def test_a_start_that_is_killed_while_files_move_into_place_goes_on(database: Service) -> None:
    database.start()
    database.wait()
    assert database.ask(database.write).returncode == 0
    stop(database.name)
    database.remove()
    not_yet_moved = ["global", "PG_VERSION"] if database.image == POSTGRES else ["ibdata1", "mysql"]
    in_volume(database.name, "mkdir", ".finished")
    in_volume(database.name, "mv", *not_yet_moved, ".finished")
    database.start()
    database.wait()
    assert database.ask(database.read).stdout == "7\n"


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        ("postgres", "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE"),
        ("mysql", "MYSQL_ROOT_PASSWORD, MYSQL_ROOT_PASSWORD_FILE or MYSQL_RANDOM_ROOT_PASSWORD"),
    ],
)
def test_a_first_start_without_a_password_names_the_variables(
    kind: str, variables: str, make: Callable[[str], Service]
) -> None:
    service = make(kind)
    service.run = []
    service.start()
    assert docker("wait", service.name).stdout == "1\n"
    assert variables in docker("logs", service.name).stderr
    service.remove()


def test_a_folder_that_holds_other_files_is_left_as_it_is(database: Service) -> None:
    in_volume(database.name, "touch", "precious")
    database.start()
    assert docker("wait", database.name).stdout == "1\n"
    assert "holds files, but not the data of a database" in docker("logs", database.name).stderr
    assert in_volume(database.name, "ls", "-A") == "precious\n"


def status(address: str, path: str, password: str | None = None, method: str = "GET") -> int:
    """The status code of an HTTP answer; 0 where there is none."""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    if password is not None:
        credentials = base64.b64encode(f"course:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {credentials}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@dataclass
class Registry:
    """A registry that asks for a password, on a port of the loopback interface."""

    name: str
    options: list[str]
    address: str = ""

    def start(self) -> None:
        port = ["--publish", "127.0.0.1::5000"]
        docker("run", "--detach", "--label", LABEL, "--name", self.name, *port, *self.options, REGISTRY)
        self.address = docker("port", self.name, "5000/tcp").stdout.strip()
        wait_until(lambda: status(self.address, "/v2/") == 401, "the registry answers", self.name)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    htpasswd = ["--interactive", "--entrypoint", "htpasswd", REGISTRY, "-niB", "course"]
    file = tmp_path_factory.mktemp("registry") / "htpasswd"
    file.write_text(docker("run", "--rm", "--label", LABEL, *htpasswd, text=PASSWORD).stdout)
    file.chmod(0o600)
    name = new_volume()
    settings = [
        "REGISTRY_AUTH=htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM=course",
        "REGISTRY_AUTH_HTPASSWD_PATH=/auth/htpasswd",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/var/lib/registry",
        "REGISTRY_STORAGE_DELETE_ENABLED=true",
    ]
    mounts = ["--volume", f"{name}:/var/lib/registry", "--volume", f"{file}:/auth/htpasswd:ro"]
    made = Registry(name, [*mounts, *(option for setting in settings for option in ("--env", setting))])
    made.start()
    return made


def test_the_registry_takes_its_password_and_no_other(registry: Registry) -> None:
    assert status(registry.address, "/v2/", PASSWORD) == 200
    assert status(registry.address, "/v2/", "wrong") == 401
    assert status(registry.address, "/v2/") == 401


def test_a_pushed_image_outlives_the_registrys_container_and_can_be_deleted(registry: Registry, tmp_path: Path) -> None:
    config = ["--config", str(tmp_path)]
    docker(*config, "login", "--username", "course", "--password-stdin", registry.address, text=PASSWORD)
    image = f"{registry.address}/tiny:1"
    with tarfile.open(tmp_path / "tiny.tar", "w") as layer:
        layer.add(__file__, "file")
    docker("import", str(tmp_path / "tiny.tar"), image)
    try:
        docker(*config, "push", image)
        pushed = docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image).stdout.strip()
    finally:
        docker("image", "rm", image)
    code, seconds = stop(registry.name)
    assert code == 0
    assert seconds < 5
    docker("rm", registry.name)
    registry.start()
    manifest = f"/v2/tiny/manifests/{pushed.split('@')[1]}"
    assert status(registry.address, manifest, PASSWORD, "DELETE") == 202
    assert status(registry.address, manifest, PASSWORD) == 404


def test_haproxy_filters_as_it_is_told_without_being_root(tmp_path: Path) -> None:
    told = tmp_path / "haproxy.cfg"
    told.write_text(
        "defaults\n  mode http\n  timeout client 5s\n  timeout connect 5s\n  timeout server 5s\n"
        "frontend all\n  bind :2375\n"
        "  http-request return status 200 if { method GET } { path /version }\n  http-request deny\n"
    )
    told.chmod(0o644)
    name = new_name()
    mount = ["--volume", f"{told}:/usr/local/etc/haproxy/haproxy.cfg:ro"]
    hardened = ["--read-only", "--cap-drop", "ALL", "--publish", "127.0.0.1::2375"]
    docker("run", "--detach", "--label", LABEL, "--name", name, *mount, *hardened, HAPROXY)
    address = docker("port", name, "2375/tcp").stdout.strip()
    wait_until(lambda: status(address, "/version") == 200, "the proxy answers", name)
    assert status(address, "/containers/json") == 403
    assert status(address, "/version", method="POST") == 403
    assert user_of_first_process(name) == "99"
    code, seconds = stop(name)
    assert code in (0, 143)
    assert seconds < 5


def test_the_base_image_has_python_and_trusts_what_the_machine_trusted() -> None:
    ask = "import ssl, sys; print(sys.version_info[:2], len(ssl.create_default_context().get_ca_certs()) > 100)"
    assert docker("run", "--rm", "--label", LABEL, BASE, "python", "-c", ask).stdout == "(3, 13) True\n"


def test_images_that_are_up_to_date_are_not_built_again() -> None:
    def build() -> str:
        return subprocess.run([CI / "offline-images" / "build.sh"], capture_output=True, text=True, check=True).stdout

    build()
    again = build()
    assert "building" not in again
    assert all(image in again for image in IMAGES)


def test_an_engine_that_runs_is_left_alone() -> None:
    container = docker("run", "--detach", "--label", LABEL, "--init", BASE, "sleep", "600").stdout.strip()
    up = subprocess.run([CI / "docker-engine.sh", "up"], capture_output=True, text=True, check=True)
    assert up.stdout.startswith("Docker engine ")
    assert running(container)
    assert stop(container)[0] == 143


def test_a_wrong_word_for_the_engine_is_answered_with_the_usage() -> None:
    wrong = subprocess.run([CI / "docker-engine.sh", "sideways"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("usage: ci/docker-engine.sh up|down")
