"""Real servers for the tests: the installed command, on a free port, with data of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, settings

# How long an example takes depends on what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

COMMAND = str(Path(sys.executable).with_name("movielens-api"))
USER, PASSWORD = "learner", "a pass:word, ümlaut"


def clean_environment(**changes: str | None) -> dict[str, str]:
    """This process's environment without the service's variables, and with the changes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("API_", "MOVIELENS_"))}
    return kept | {name: value for name, value in changes.items() if value is not None}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.01)


@pytest.fixture(scope="session")
def environment() -> Callable[..., dict[str, str]]:
    return clean_environment


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    return wait_for


@dataclass
class Service:
    """A server in a process of its own. `get` logs in."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    user: str = USER
    password: str = PASSWORD

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> tuple[bytes, bytes]:
        # requests encodes text as Latin-1, the service reads UTF-8
        return self.user.encode(), self.password.encode()

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, **{"auth": self.auth, "timeout": 10, **options})  # noqa: S113

    def session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self.auth
        return session

    def terminate(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> float:
        """SIGTERM, and how many seconds it took until the process was gone."""
        start = time.monotonic()
        self.terminate()
        self.process.wait(timeout=20)
        return time.monotonic() - start


@pytest.fixture(scope="session")
def command() -> str:
    return COMMAND


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The data folder of a profile and seed, made once by the command."""
    parent = tmp_path_factory.mktemp("data")

    @cache
    def make(profile: str, seed: int = 1) -> Path:
        folder = parent / f"{profile}-{seed}"
        arguments = ["generate", "--profile", profile, "--seed", str(seed), "--output", str(folder)]
        subprocess.run([COMMAND, *arguments], check=True, env=clean_environment(), capture_output=True)
        return folder

    return make


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Start a server: serve("--data", folder, MOVIELENS_SEED="2"). All are stopped at the end."""
    started: list[Service] = []

    def start(*options: object, **variables: str | None) -> Service:
        folder = tmp_path_factory.mktemp("server")
        log, port_file = folder / "log", folder / "port"
        env = clean_environment(**{"API_USER": USER, "API_PASSWORD": PASSWORD, **variables})
        with log.open("wb") as output:
            process = subprocess.Popen(
                [COMMAND, "serve", "--port", "0", "--port-file", str(port_file), *map(str, options)],
                env=env,
                stdout=output,
                stderr=output,
            )
        service = Service(process, 0, log)
        started.append(service)
        wait_for(lambda: port_file.exists() or process.poll() is not None, "the port file")
        assert process.poll() is None, log.read_text()
        service.port = int(port_file.read_text())
        return service

    yield start
    for service in started:
        service.terminate()
    for service in started:
        service.stop()


@pytest.fixture(scope="session")
def small(serve: Callable[..., Service], generated: Callable[..., Path]) -> Service:
    """A server of the small profile."""
    return serve("--data", generated("small"))
