"""The check of a registry connection: real registries, the real engine, and servers that answer as the clouds do."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
from airflow.providers.docker.hooks.docker import DockerHook
from airflow.sdk import Connection
from docker.errors import APIError
from docker_registry import check as registry_check
from docker_registry.logins import ZEROS, kind_of, mistakes, runs_out
from support.docker_engine import Engine, engine, image
from support.registry_servers import (
    JSON_KEY,
    PASSWORD,
    Reply,
    Request,
    RunningRegistry,
    make_certificate,
    registry_with_passwords,
    registry_with_tokens,
    reply,
    serve,
)

from course.paths import PLUGINS

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER, EARLIER = int(NOW.timestamp()) + 10**9, int(NOW.timestamp()) - 10**7
ENGINE = os.environ.get("DOCKER_HOST", "unix://var/run/docker.sock")
needs_engine = pytest.mark.docker

Check = Callable[..., tuple[bool, dict[str, list[str]]]]


def in_base64(content: object) -> str:
    return base64.b64encode((content if isinstance(content, str) else json.dumps(content)).encode()).decode()


def jwt_until(seconds: int) -> str:
    return f"eyJhbGciOiJSUzI1NiJ9.{in_base64({'exp': seconds}).rstrip('=')}.c2lnbmF0dXJl"


def ecr_password(seconds: int) -> str:
    return in_base64({"payload": "c2VjcmV0cGF5bG9hZA", "version": "2", "type": "DATA_KEY", "expiration": seconds})


def without_secrets(output: str, password: str) -> str:
    """Return what was printed, after looking for the password in it: whole, line by line, and encoded."""
    lines = [line.strip() for line in password.splitlines() if len(line.strip()) > 7]
    for secret in [password, *lines, in_base64(password), in_base64(f"_json_key:{password}")]:
        assert not secret or secret not in output
    assert "Traceback" not in output
    return output


def told(output: str) -> dict[str, list[str]]:
    """Sort the lines `what: words` of the check."""
    found: dict[str, list[str]] = {}
    for line in output.splitlines():
        what, _, words = line.partition(": ")
        found.setdefault(what, []).append(words)
    return found


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Check a connection with these fields in this process: whether it works, and the lines that were printed."""

    def run(form: str = "json", **fields: object) -> tuple[bool, dict[str, list[str]]]:
        fields = {"conn_type": "docker_registry"} | fields | {"extra": json.dumps(fields.get("extra", {}))}
        connection = Connection(conn_id="tried", **fields)
        monkeypatch.setenv("AIRFLOW_CONN_TRIED", connection.as_json() if form == "json" else connection.get_uri())
        works = registry_check.check(Connection.get("tried"))
        output = capsys.readouterr()
        assert output.err == ""
        lines = told(without_secrets(output.out, str(fields.get("password", ""))))
        assert lines["connection"] == ["tried, from AIRFLOW_CONN_TRIED"]
        return works, lines

    return run


def find_here(conn_id: str, monkeypatch: pytest.MonkeyPatch) -> Connection:
    """Find a connection in this process, and leave its environment as it was."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    return registry_check.find(conn_id)


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the check as a command of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "docker_registry.check", *arguments],
        env=os.environ | {"PYTHONPATH": str(PLUGINS)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


# --- what the login and the password tell by themselves

GOOGLE, ECR = "europe-west3-docker.pkg.dev", "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
KEY = json.loads(JSON_KEY)


@pytest.mark.parametrize(
    ("host", "login", "password", "fix"),
    [
        (GOOGLE, "_json_key", JSON_KEY[:100], "is cut off: as JSON it does not end"),
        (GOOGLE, "_json_key", JSON_KEY.replace("\\n", "\n"), "a real line break within a string (line 4"),
        (GOOGLE, "_json_key", JSON_KEY.replace('"', "'"), "has single quotes"),
        (GOOGLE, "_json_key", JSON_KEY.replace('"', '\\"').replace("\n", "\\n"), "backslashes before its quotes"),
        (GOOGLE, "_json_key", JSON_KEY.replace(",", ""), "does not parse as JSON (line 3"),
        (GOOGLE, "_json_key", json.dumps(JSON_KEY), "JSON within a JSON string"),
        (GOOGLE, "_json_key", f"'{JSON_KEY}'", "has quotes around it"),
        (GOOGLE, "_json_key", "%7B%22type%22%3A", "is percent-encoded"),
        (GOOGLE, "_json_key", in_base64(JSON_KEY), "then the login is _json_key_base64"),
        (GOOGLE, "_json_key", KEY["private_key"], "is the private key alone"),
        (GOOGLE, "_json_key", "ya29.a0AfH6SMBx", "then the login is oauth2accesstoken"),
        (GOOGLE, "_json_key", "/home/me/key.json", "is the name of a file"),
        (GOOGLE, "_json_key", "secret", "is not JSON"),
        (GOOGLE, "_json_key", "[]", "not the key of a service account"),
        (GOOGLE, "_json_key", '{"type": "authorized_user"}', "not the key of a service account"),
        (GOOGLE, "_json_key", json.dumps(KEY | {"private_key": "-----BEGIN\\nMII"}), "escaped twice"),
        (GOOGLE, "_json_key", json.dumps(KEY | {"private_key": "MIIEv"}), "does not begin with -----BEGIN"),
        ("gcr.io", "_json_key_base64", JSON_KEY, "then the login is _json_key"),
        ("eu.gcr.io", "_json_key_base64", "secret", "is not base64 of a JSON key"),
        ("gcr.io", "airflow@course.example.org", JSON_KEY, "then the login is _json_key"),
        ("gcr.io", "oauth2accesstoken", "ya29.a0AfH6SMBx", "lasts an hour"),
        ("gcr.io", "me", "secret", "the logins here are _json_key"),
        (ECR, "aws", ecr_password(LATER), "the login is AWS here"),
        (ECR, "AWS", ecr_password(EARLIER), "ran out on 2026-07-28 at 18:13 UTC"),
        (ECR, "AWS", in_base64(f"AWS:{ecr_password(LATER)}"), "login and password together, still in base64"),
        (ECR, "AWS", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "secret of an access key"),
        (ECR, "AWS", "c2VjcmV0", "`aws ecr get-login-password --region eu-west-1`"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "AWS", "c2VjcmV0", "--region eu-west-1`"),
        ("public.ecr.aws", "AWS", "c2VjcmV0", "`aws ecr-public get-login-password --region us-east-1`"),
        ("course.azurecr.io", ZEROS, "secret", "goes with a refresh token"),
        ("course.azurecr.io", ZEROS, jwt_until(EARLIER), "ran out on 2026-07-28"),
        ("course.azurecr.io", "token", jwt_until(LATER), f"then the login is {ZEROS}"),
        ("course.azurecr.io", "me@example.org", "secret", "a person's name and password are not taken"),
        ("course.azurecr.io", ZEROS.replace("0", "a"), ZEROS.replace("0", "b"), "the id of a service principal's"),
        ("ghcr.io", "me", "github_pat_11ABCDEFG", "takes classic ones, with read:packages"),
        ("ghcr.io", "me", "ghs_0123456789", "ends with its job"),
        ("ghcr.io", "me", "my own password", "a classic personal access token"),
        ("ghcr.io", "me@example.org", "ghp_0123456789", "a GitHub user name"),
        ("index.docker.io", "me@example.org", "secret", "a Docker ID"),
        ("registry.example.org", "me", "secret\n", "ends in a line break"),
        ("registry.example.org", "me", " secret", "white space"),
        ("registry.example.org", "me ", "secret", "the login begins or ends with white space"),
        ("registry.example.org", "me", '"secret"', "quotes around it"),
        ("registry.example.org", "me", "se%2Fcret", "percent codes"),
        ("registry.example.org", "me", "docker login -u AWS -p secret", "a whole `docker login` command"),
        ("registry.example.org", "me", "${PASSWORD}", "placeholder"),
        ("registry.example.org", "me", "***", "placeholder"),
        ("registry.example.org", "me", jwt_until(EARLIER), "ran out"),
        ("registry.example.org", "_json_key", JSON_KEY[:-5], "is cut off"),
    ],
)
def test_a_usual_mistake_is_named_and_the_password_is_not(host: str, login: str, password: str, fix: str) -> None:
    found = mistakes(host, login, password, NOW)
    assert any(fix in one for one in found)
    assert len(found) <= 2
    if len(password) > 9:  # shorter ones here are words of the language
        without_secrets("\n".join(found), password)


@pytest.mark.parametrize(
    ("kind", "host", "login", "password"),
    [
        ("Google", GOOGLE, "_json_key", JSON_KEY),
        ("Google", "gcr.io", "_json_key", json.dumps(KEY)),
        ("Google", "us.gcr.io", "_json_key_base64", in_base64(JSON_KEY)),
        ("Google", "registry.example.org", "_json_key", JSON_KEY),
        ("Amazon ECR", ECR, "AWS", ecr_password(LATER)),
        ("Amazon ECR", "1.dkr.ecr-fips.us-gov-east-1.amazonaws.com", "AWS", ecr_password(LATER)),
        ("Amazon ECR", "1.dkr.ecr.cn-north-1.amazonaws.com.cn", "AWS", ecr_password(LATER)),
        ("Azure Container Registry", "course.azurecr.io", "a-token", "p/a+s=s"),
        ("Azure Container Registry", "course.azurecr.io", ZEROS, jwt_until(LATER)),
        ("Azure Container Registry", "course.azurecr.us", ZEROS.replace("0", "a"), "p~a.s-s"),
        ("GitHub", "ghcr.io", "me", "ghp_0123456789"),
        ("Docker Hub", "docker.io", "me", "dckr_pat_0123456789"),
        (None, "gcr.io.example.org", "me", PASSWORD),
        (None, "127.0.0.1", "course", "two words: 100% right"),
    ],
)
def test_a_login_of_the_right_form_is_not_blamed(kind: str | None, host: str, login: str, password: str) -> None:
    found = kind_of(host, login)
    assert (found.name if found else None) == kind
    assert mistakes(host, login, password, NOW) == []


@pytest.mark.parametrize(
    "password", ["", "a.b.c", "..", jwt_until(-1), jwt_until(10**15), in_base64({"expiration": "soon"}), "1" * 9]
)
def test_a_password_without_a_time_in_it_runs_out_at_no_known_time(password: str) -> None:
    assert runs_out(password) is None


# --- servers that answer as the clouds do. None is one: they take what a test says, and refuse in the cloud's words.


def cloud(kind: str, login: str, password: str) -> Callable[[Request], Reply]:
    """Make a stand-in for a registry of a cloud, which takes one login."""
    challenges = {
        "Google": 'Bearer realm="{0}/v2/token",service="gcr.io"',
        "ECR": 'Basic realm="{0}/",service="ecr.amazonaws.com"',
        "ACR": 'Bearer realm="{0}/oauth2/token",service="course.azurecr.io"',
        "GHCR": 'Bearer realm="{0}/token",service="ghcr.io",scope="repository:user/image:pull"',
    }
    refusals = {
        "Google": reply({"errors": [{"code": "UNAUTHORIZED", "message": "authentication failed"}]}, 401),
        "ECR": reply(
            {"errors": [{"code": "DENIED", "message": "Your authorization token has expired. Reauthenticate."}]}, 403
        ),
        "ACR": reply({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}, 401),
        "GHCR": reply({"errors": [{"code": "DENIED", "message": "denied"}]}, 403),
    }

    def answer(request: Request) -> Reply:
        base = f"http://{request.headers['host']}"
        if request.path != "/v2/":
            return reply({"token": "given"}) if request.login == (login, password) else refusals[kind]
        if request.headers.get("authorization") == "Bearer given":
            return reply({})
        if kind == "ECR" and "authorization" in request.headers:
            return reply({}) if request.login == (login, password) else refusals[kind]
        return reply({}, 401, WWW_Authenticate=challenges[kind].format(base))

    return answer


CLOUDS = [
    ("Google", GOOGLE, "Google", "_json_key", JSON_KEY, JSON_KEY[:-3], "is cut off"),
    ("ECR", ECR, "Amazon ECR", "AWS", ecr_password(LATER), ecr_password(EARLIER), "ran out on 2026-07-28"),
    ("ACR", "course.azurecr.io", "Azure Container Registry", "a-token", "p/a+s=s", "p/a+s=s\n", "ends in a line break"),
    ("GHCR", "ghcr.io", "GitHub", "me", "ghp_0123456789", "github_pat_0123456789", "takes classic ones"),
]


@pytest.mark.parametrize("form", ["json", "uri"])
@pytest.mark.parametrize(("kind", "host", "name", "login", "right", "wrong", "fix"), CLOUDS, ids=lambda value: "")
def test_a_login_of_a_cloud_is_tried_and_its_refusal_explained(
    kind: str, host: str, name: str, login: str, right: str, wrong: str, fix: str, form: str, check: Check
) -> None:
    with serve(cloud(kind, login, right)) as server:
        url = f"http://{server.address}"
        fields = {"host": host, "login": login, "extra": {"api_url": url}}
        works, lines = check(form, password=right, **fields)
        assert works
        assert lines["address"] == [f"{url} ({name})"]
        assert lines["result"] == [f"logged in as {login}"]
        assert lines["asks for"][0].startswith(
            "login and password (Basic)" if kind == "ECR" else f"a token (Bearer) from {url}/"
        )
        assert ("runs out on" in " ".join(lines["note"])) == (kind == "ECR")
        assert lines["note"][-1] == f"the engine's own way to the registry, {host}, was not tried"
        works, lines = check(form, password=wrong, **fields)
        assert not works
        assert f"registry {server.address}: " in lines["answer"][0]
        assert fix in lines["fix"][0]
        assert lines["result"] == ["the connection does not work"]


def test_a_refused_login_of_the_right_form_gets_the_usual_reasons(check: Check) -> None:
    with serve(cloud("GHCR", "me", "ghp_right")) as server:
        extra = {"api_url": f"http://{server.address}"}
        _, lines = check(host="ghcr.io", login="me", password="ghp_wrong", extra=extra)
        assert "lack read:packages" in lines["fix"][0]
        _, lines = check(host=server.address, login="me", password="ghp_wrong")
        assert "with `docker login`" in lines["fix"][0]


# --- the real registry, and the real engine


@pytest.fixture(scope="module")
def docker_engine() -> Iterator[Engine]:
    with engine() as one:
        yield one


@pytest.fixture(scope="module")
def passwords(docker_engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> RunningRegistry:
    return registry_with_passwords(docker_engine, tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def tokens(docker_engine: Engine, certificate: Path) -> Iterator[RunningRegistry]:
    with registry_with_tokens(docker_engine, certificate) as one:
        yield one


def in_front_of(registry: RunningRegistry) -> Callable[[Request], Reply]:
    """Pass requests on to a registry. bcrypt compares 72 bytes only; what is before it sees the whole password."""

    def answer(request: Request) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name == "authorization"}
        there = requests.get(f"http://{registry.address}{request.path}", headers=headers, timeout=10)
        kept = {name: there.headers[name] for name in ("Content-Type", "WWW-Authenticate") if name in there.headers}
        return there.status_code, kept, there.content

    return answer


@needs_engine
@pytest.mark.parametrize("form", ["json", "uri"])
def test_every_byte_of_a_json_key_reaches_a_registry_that_asks_for_passwords(
    form: str, passwords: RunningRegistry, check: Check
) -> None:
    with serve(in_front_of(passwords)) as front:
        works, lines = check(form, host=f"http://{front.address}", login="_json_key", password=JSON_KEY)
        assert works
        assert lines["asks for"] == ["login and password (Basic)"]
        assert front.seen[-1].login == ("_json_key", JSON_KEY)
        one_line = JSON_KEY.replace("\n", " ")
        works, _ = check(form, host=f"http://{front.address}", login="_json_key", password=one_line)
        assert not works
        assert front.seen[-1].login == ("_json_key", one_line)


@needs_engine
@pytest.mark.parametrize("form", ["json", "uri"])
def test_every_byte_of_a_json_key_counts_where_tokens_are_given(
    form: str, tokens: RunningRegistry, check: Check
) -> None:
    works, lines = check(form, host=tokens.address, login="_json_key", password=JSON_KEY)
    assert works
    assert lines["asks for"][0].startswith("a token (Bearer) from http://127.0.0.1:")
    works, lines = check(form, host=tokens.address, login="_json_key", password=JSON_KEY.rstrip("\n"))
    assert not works
    assert "its token server" in lines["answer"][0]
    assert "may compare every byte" in lines["fix"][0]


@needs_engine
@pytest.mark.parametrize("form", ["json", "uri"])
def test_the_engine_logs_in_with_every_byte_of_a_json_key_for_docker_operator(
    form: str, passwords: RunningRegistry, tokens: RunningRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(address: str, password: str) -> None:
        connection = Connection(
            conn_id="engine", conn_type="docker", host=address, login="_json_key", password=password
        )
        monkeypatch.setenv("AIRFLOW_CONN_ENGINE", connection.as_json() if form == "json" else connection.get_uri())
        DockerHook(docker_conn_id="engine", base_url=ENGINE).api_client.close()

    with serve(in_front_of(passwords)) as front:
        connect(front.address, JSON_KEY)
        assert front.seen[-1].login == ("_json_key", JSON_KEY)
    connect(tokens.address, JSON_KEY)
    assert tokens.asked[-1].login == ("_json_key", JSON_KEY)
    with pytest.raises(APIError, match="unauthorized"):
        connect(tokens.address, JSON_KEY.rstrip("\n"))


@needs_engine
def test_a_wrong_password_of_the_real_registry_is_explained(passwords: RunningRegistry, check: Check) -> None:
    works, lines = check(host=passwords.address, login="course", password=PASSWORD)
    assert works
    assert lines["result"] == ["logged in as course"]
    for password, fix in ((f"{PASSWORD}\n", "ends in a line break"), (f'"{PASSWORD}"', "quotes around it")):
        works, lines = check(host=passwords.address, login="course", password=password)
        assert not works
        assert lines["answer"] == [f"registry {passwords.address}: refuses the login course"]
        assert fix in lines["fix"][0]
    works, lines = check(host=passwords.address)
    assert not works
    assert lines["fix"] == ["put login and password into the connection"]


@needs_engine
def test_it_runs_in_a_container_of_airflow(docker_engine: Engine, passwords: RunningRegistry) -> None:
    fields = {"conn_type": "docker_registry", "host": passwords.address, "login": "_json_key", "password": JSON_KEY}
    code, output = docker_engine.run(
        image("airflow-lean"),
        *("-m", "docker_registry.check", "course_registry"),
        entrypoint=["python"],
        environment={"PYTHONPATH": "/opt/airflow/plugins", "AIRFLOW_CONN_COURSE_REGISTRY": json.dumps(fields)},
        volumes={str(PLUGINS): {"bind": "/opt/airflow/plugins", "mode": "ro"}},
        network_mode="host",
    )
    assert code == 0, output
    lines = told(without_secrets(output, JSON_KEY))
    assert lines["result"] == ["logged in as _json_key"]
    assert set(lines) == {"connection", "address", "asks for", "login", "result"}


# --- addresses


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # which carries no login
def test_the_wrong_scheme_is_found_out_without_the_login(certificate: Path, check: Check) -> None:
    login = {"login": "me", "password": PASSWORD}
    with serve(lambda _: reply({})) as plain, serve(lambda _: reply({}), certificate) as encrypted:
        for host, right in ((f"https://{plain.address}", "http"), (f"http://{encrypted.address}", "https")):
            works, lines = check(host=host, **login)
            assert not works
            address = host.partition("://")[2]
            assert lines["fix"] == [f"it speaks {right}: write {right}://{address} as host"]
    assert not any("authorization" in request.headers for request in [*plain.seen, *encrypted.seen])


def test_a_registry_that_leads_elsewhere_is_not_followed_with_the_login(check: Check) -> None:
    with (
        serve(cloud("GHCR", "me", PASSWORD)) as other,
        serve(lambda _: reply({}, 301, Location=f"http://{other.address}/v2/")) as server,
    ):
        works, lines = check(host=server.address, login="me", password=PASSWORD)
    assert not works
    assert f"redirects to http://{other.address}/v2/" in lines["answer"][0]
    assert "write the address that it redirects to as host" in lines["fix"][0]
    assert not any("authorization" in request.headers for request in other.seen)


def test_a_certificate_that_does_not_hold_is_told_from_one_of_another_name(certificate: Path, check: Check) -> None:
    ca_cert = {"ca_cert": str(certificate.with_name("ca.pem"))}
    with serve(lambda _: reply({}), certificate) as server:
        works, lines = check(host=f"https://{server.address}")
        assert not works
        assert "name its file (PEM) as ca_cert in extra" in lines["fix"][0]
        works, lines = check(host=f"https://{server.address}".replace("127.0.0.1", "localhost"), extra=ca_cert)
        assert not works
        assert "the certificate is for another name" in lines["fix"][0]
        works, lines = check(host=f"https://{server.address}", extra=ca_cert)
        assert works
        assert lines["result"] == ["answers, and asks for no login"]


def test_where_nothing_or_no_registry_answers_that_is_said(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(registry_check, "TIMEOUT", 0.2)
        assert "timed out" in check(host=address)[1]["answer"][0]
    monkeypatch.undo()
    assert "127.0.0.1 is the container itself" in check(host=address)[1]["fix"][0]
    assert "no host is called nowhere.invalid" in check(host="nowhere.invalid")[1]["fix"][0]
    with serve(lambda _: reply(b"<html>", Content_Type="text/html; charset=utf-8")) as site:
        works, lines = check(host=site.address, login="me", password=PASSWORD)
        assert not works
        assert "is a web page, so this is not a registry" in lines["answer"][0]
    assert not any("authorization" in request.headers for request in site.seen)


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"host": f"{GOOGLE}/project/images"}, f"write {GOOGLE} as host; what follows, project/images"),
        ({"host": "https://index.docker.io/v1/"}, "write index.docker.io as host"),
        ({"host": "gcr.io", "login": JSON_KEY, "password": "_json_key"}, "swap login and password"),
    ],
)
def test_a_connection_that_cannot_work_is_not_tried(fields: dict[str, str], fix: str, check: Check) -> None:
    works, lines = check(**fields)
    assert not works
    assert fix in lines["fix"][0]
    assert "asks for" not in lines
    without_secrets(str(lines), JSON_KEY)


@pytest.mark.parametrize("key", ['{"type": "service_account", "private_key": "MIIEv/secret"}', '{\n"key": "MIIEv?"}'])
def test_a_key_put_into_a_uri_as_it_is_is_noticed(
    key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAW", f"docker://_json_key:{key}@gcr.io")
    try:
        assert not registry_check.check(find_here("raw", monkeypatch))
        words = capsys.readouterr().out
    except registry_check.NoConnection as error:
        words = str(error)
    assert "percent-encode" in words
    assert "MIIEv" not in words


@pytest.mark.parametrize("extra", ["api_url=here", "[1]"])
def test_an_extra_that_is_no_json_object_is_named_and_nobody_is_asked(extra: str) -> None:
    with serve(lambda _: reply({})) as server:
        value = json.dumps({"conn_type": "docker", "host": server.address, "extra": extra})
        done = run_command("odd", AIRFLOW_CONN_ODD=value)
    assert (done.returncode, done.stderr) == (1, "")
    assert told(done.stdout)["answer"] == ["extra is not a JSON object"]
    assert server.seen == []


# --- the command


def test_the_command_tells_by_its_exit_code_and_by_plain_lines() -> None:
    with serve(cloud("ACR", "token", "right")) as server:
        value = json.dumps({"conn_type": "docker", "host": server.address, "login": "token", "password": "right"})
        done = run_command("mine", AIRFLOW_CONN_MINE=value)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "connection: mine, from AIRFLOW_CONN_MINE",
            f"address: http://{server.address}",
            f"asks for: a token (Bearer) from http://{server.address}/oauth2/token",
            "login: token",
            "result: logged in as token",
        ]
        wrong = run_command("mine", AIRFLOW_CONN_MINE=value.replace("right", "wr0ng"))
    assert (wrong.returncode, wrong.stderr) == (1, "")
    assert "wr0ng" not in wrong.stdout


def test_the_command_explains_itself_and_refuses_bad_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        registry_check.main(["--help"])
    assert "Exit code 0" in capsys.readouterr().out
    for arguments in ([], ["one", "two"], ["--all"]):
        with pytest.raises(SystemExit, match="2"):
            registry_check.main(arguments)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AIRFLOW_CONN_course": "docker://a:b@c"}, "AIRFLOW_CONN_course is set, but Airflow looks for"),
        ({"AIRFLOW_CONN_COURSE": '{"password": "se\ncret"}'}, "it does not parse as JSON (line 1, column 17)"),
        ({"AIRFLOW_CONN_COURSE": '{"passwort": "secret"}'}, "something in it is not a field of a connection"),
        ({"AIRFLOW_CONN_COURSE": "docker://a:se/cr:et@://c"}, "it is not a URI of a connection"),
    ],
)
def test_a_connection_that_cannot_be_read_is_told_in_one_line(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(registry_check.NoConnection) as caught:
        find_here("course", monkeypatch)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("secret", "cret", "se/cr:et"))


def test_connections_of_airflows_database_are_found_with_every_byte(airflow_database: None, tmp_path: Path) -> None:
    key = {"AIRFLOW__CORE__FERNET_KEY": in_base64("k" * 32)}

    def airflow(*arguments: str) -> None:
        command = [sys.executable, "-m", "airflow", *arguments]
        subprocess.run(command, env=os.environ | key, capture_output=True, text=True, check=True)

    with serve(cloud("Google", "_json_key", JSON_KEY)) as server:
        fields = {"conn_type": "docker", "host": server.address, "login": "_json_key", "password": JSON_KEY}
        file = tmp_path / "connections.json"
        file.write_text(json.dumps({"from_file": Connection(conn_id="from_file", **fields).get_uri()}))
        airflow("connections", "import", str(file))
        airflow("connections", "add", "from_json", "--conn-json", json.dumps(fields))
        for conn_id in ("from_file", "from_json"):
            done = run_command(conn_id, **key)
            assert (done.returncode, done.stderr) == (0, "")
            lines = told(without_secrets(done.stdout, JSON_KEY))
            assert lines["connection"] == [f"{conn_id}, from Airflow's database or a secrets backend"]
            assert lines["result"] == ["logged in as _json_key"]
    for conn_id, words in (
        ("from_nowhere", "has none of this name"),
        ("from_file", "was saved with another AIRFLOW__CORE__FERNET_KEY"),
    ):
        done = run_command(conn_id, AIRFLOW__CORE__FERNET_KEY=in_base64("l" * 32))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"connection {conn_id}: there is no AIRFLOW_CONN_{conn_id.upper()}, and ")
        assert words in done.stderr


def test_the_command_leaves_nothing_in_a_home_that_has_no_airflow(tmp_path: Path) -> None:
    value = json.dumps({"conn_type": "docker", "host": "127.0.0.1:1"})
    command = [sys.executable, "-m", "docker_registry.check", "tried"]
    for connection in ({"AIRFLOW_CONN_TRIED": value}, {}):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(PLUGINS)} | connection
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == (1 if connection else 2), done.stderr
        assert list(tmp_path.iterdir()) == []


def test_a_database_that_cannot_be_read_is_told_from_one_without_the_connection(tmp_path: Path) -> None:
    (tmp_path / "airflow.db").touch()
    done = run_command("course", AIRFLOW_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "Airflow's database cannot be read (OperationalError)" in done.stderr
    (tmp_path / "airflow.db").unlink()
    done = run_command("course", AIRFLOW_HOME=str(tmp_path))
    assert "there is no database of Airflow here" in done.stderr
    assert not (tmp_path / "airflow.db").exists()
