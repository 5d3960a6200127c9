"""The command `serve`: how it starts, what it refuses, how it stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from movielens_api.cli import cli


@pytest.fixture
def run(command, environment, generated):
    """Run `serve` with a start that is meant to fail, and return what it said."""

    def start(*options, data=True, **variables):
        arguments = ["--data", str(generated("small"))] if data else []
        done = subprocess.run(
            [command, "serve", "--port", "0", *arguments, *map(str, options)],
            env=environment(**{"API_USER": "u", "API_PASSWORD": "p", **variables}),
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.returncode, done.stderr

    return start


def children_of(process):
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


# --- what it refuses


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"API_USER": None}, "API_USER is missing"),
        ({"API_USER": ""}, "API_USER is missing"),
        ({"API_USER": "a:b"}, "API_USER has a colon"),
        ({"API_PASSWORD": None}, "API_PASSWORD is missing"),
        ({"API_PASSWORD": ""}, "API_PASSWORD is missing"),
        ({"API_PASSWORD": None, "API_PASSWORD_FILE": "/nowhere/password"}, "API_PASSWORD_FILE=/nowhere/password"),
        ({"API_PASSWORD": None, "API_PASSWORD_FILE": "/dev/null"}, "API_PASSWORD_FILE=/dev/null is empty"),
        ({"API_PASSWORD_FILE": "/dev/null"}, "both set"),
    ],
)
def test_without_credentials_it_does_not_start_and_names_the_variable(run, variables, named):
    code, message = run(**variables)
    assert code == 2
    assert named in message


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--port", "70000"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--fault-rate", "1.5"], "--fault-rate"),
        (["--fault-kinds", "429,teapot"], "'teapot'"),
        (["--profile", "2m"], "'2m'"),
        (["--data", "/nowhere"], "/nowhere"),
        (["--password", "p"], "--password"),
    ],
)
def test_a_bad_option_is_one_line_and_exit_code_2(run, options, named):
    code, message = run(*options)
    assert code == 2
    assert named in message


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_PORT", "http"),
        ("API_WORKERS", "many"),
        ("API_FAULT_RATE", "often"),
        ("API_FAULT_SEED", "x"),
        ("API_FAULT_KINDS", "teapot"),
        ("API_FAULT_DELAY", "-1"),
        ("MOVIELENS_PROFILE", "2m"),
        ("MOVIELENS_SEED", "x"),
    ],
)
def test_every_option_is_read_from_its_variable_too(variable, value):
    done = CliRunner(env={"API_USER": "u", "API_PASSWORD": "p", variable: value}).invoke(cli, ["serve"])
    assert done.exit_code == 2
    assert "--" + variable.split("_", 1)[1].lower().replace("_", "-") in done.output


def test_a_taken_port_is_one_line_and_exit_code_1(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = run("--port", port)
    assert code == 1
    assert f"127.0.0.1 port {port}: Address already in use" in message


def test_an_address_that_is_not_of_this_machine_is_one_line_and_exit_code_1(run):
    code, message = run("--host", "192.0.2.1")
    assert code == 1
    assert "192.0.2.1" in message


def test_a_port_file_that_cannot_be_written_is_one_line_and_exit_code_1(run, tmp_path):
    code, message = run("--port-file", tmp_path / "missing" / "port")
    assert code == 1
    assert str(tmp_path / "missing") in message


def test_a_folder_without_data_is_one_line_and_exit_code_2(run, tmp_path):
    code, message = run("--data", tmp_path)
    assert code == 2
    assert str(tmp_path) in message


# --- how it starts


def test_the_log_line_names_the_address_and_the_port_file_the_port(small):
    assert f"listening on {small.url}\n" in small.log.read_text()
    assert requests.get(f"{small.url}/healthz", timeout=10).json() == {"status": "ok"}


def test_neither_the_log_nor_the_command_line_has_the_password(small):
    small.get("/ratings")
    requests.get(f"{small.url}/ratings", auth=("x", "y"), timeout=10)
    assert small.password.encode() not in Path(f"/proc/{small.process.pid}/cmdline").read_bytes()
    assert small.password not in small.log.read_text()


def test_the_password_may_come_from_a_file(serve, generated, tmp_path):
    (tmp_path / "password").write_text("from a file\n")
    service = serve("--data", generated("small"), API_PASSWORD=None, API_PASSWORD_FILE=str(tmp_path / "password"))
    service.password = "from a file"
    assert service.get("/").status_code == 200


def test_without_data_it_generates_the_profile_once_into_the_cache(serve, tmp_path):
    variables = {"XDG_CACHE_HOME": str(tmp_path), "MOVIELENS_PROFILE": "small", "MOVIELENS_SEED": "3"}
    first = serve("--workers", 1, **variables)
    assert first.get("/").json()["data"]["seed"] == 3
    assert "generating small with seed 3" in first.log.read_text()
    second = serve("--workers", 1, **variables)
    assert second.log.read_text() == f"listening on {second.url}\n"
    assert [folder.name for folder in (tmp_path / "movielens-api").iterdir()] == ["small-3"]


def test_without_any_option_it_serves_the_100k_profile(serve, tmp_path):
    service = serve(XDG_CACHE_HOME=str(tmp_path))
    assert service.get("/ratings?limit=1").json()["total"] == 100_000


def test_without_a_writable_home_the_data_goes_to_the_temporary_folder(serve, tmp_path):
    (tmp_path / "file").write_text("")
    service = serve("--profile", "small", "--workers", 1, XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert service.get("/ratings?limit=1").json()["total"] == 1_000
    assert (tmp_path / f"movielens-api-{os.getuid()}" / "small-1" / "dataset.json").exists()


def test_the_workers_share_one_mapped_copy_of_the_columns(small, generated):
    small.get("/ratings?limit=10000")
    children = children_of(small.process)
    assert len(children) == 2
    column = str(generated("small") / "timestamp.npy")
    for child in children:
        maps = Path(f"/proc/{child}/maps").read_text().splitlines()
        (mapping,) = [line.split() for line in maps if line.endswith(column)]
        assert mapping[1].startswith("r-")


def test_an_ipv6_address_is_written_in_brackets(serve, generated):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    service = serve("--data", generated("small"), "--host", "::1", "--workers", 1)
    url = f"http://[::1]:{service.port}"
    assert f"listening on {url}\n" in service.log.read_text()
    assert requests.get(f"{url}/healthz", timeout=10).ok


# --- how it stops


def test_sigterm_stops_it_in_a_second_or_two_even_with_an_open_connection(serve, generated):
    service = serve("--data", generated("small"))
    port_file = service.log.with_name("port")
    assert port_file.read_text() == f"{service.port}\n"
    session = service.session()
    assert session.get(f"{service.url}/ratings").ok
    assert service.stop() < 3  # 1.1 on a machine with nothing else to do
    assert service.process.returncode == 0
    assert service.log.read_text() == f"listening on {service.url}\n"
    assert [path.name for path in service.log.parent.iterdir()] == ["log"]


def test_a_port_file_of_an_earlier_server_is_removed_at_once(run, tmp_path):
    (tmp_path / "port").write_text("1234\n")
    run("--port-file", tmp_path / "port", "--data", "/nowhere")
    assert list(tmp_path.iterdir()) == []


def test_sigterm_during_the_generation_stops_it_and_leaves_nothing_half_written(
    command, environment, wait_until, tmp_path
):
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "serve", "--port", "0", "--profile", "25m"],
            env=environment(API_USER="u", API_PASSWORD="p", XDG_CACHE_HOME=str(tmp_path / "cache")),
            stderr=output,
        )
    wait_until(lambda: any(tmp_path.glob("cache/*/.25m-1.*/movies.csv")), "the generation to write its first file")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 128 + signal.SIGTERM
    assert list(tmp_path.glob("cache/*/*")) == []
    assert "Traceback" not in log.read_text()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a process namespace needs root and unshare"
)
def test_as_process_1_it_stops_on_sigterm_too(command, environment, generated, wait_until, tmp_path):
    port_file = tmp_path / "port"
    serve = [command, "serve", "--port", "0", "--port-file", str(port_file), "--data", str(generated("small"))]
    process = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *serve],  # noqa: S607
        env=environment(API_USER="u", API_PASSWORD="p"),
    )
    try:
        wait_until(port_file.exists, "the port file")
        (first,) = children_of(process)
        os.kill(first, signal.SIGTERM)
        assert process.wait(timeout=3) == 0
    finally:
        process.kill()
        process.wait()
