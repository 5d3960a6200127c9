"""The settings of the stack: .env, with passwords made for this one machine."""

import base64
import os
import re
import secrets
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import click
import yaml
from dotenv import dotenv_values

from course.paths import REPO

ENV_FILE = REPO / ".env"
DOCKER_SOCKET = Path("/var/run/docker.sock")


# At the end of the line that the course keeps up to date. A line without it is a choice of the learner's.
MANAGED = "# the version of this checkout; without this remark the line stays as it is"
MANAGED_LINE = re.compile(rf"^COURSE_VERSION=.*{re.escape(MANAGED)}$", re.MULTILINE)


def _airflow_uid() -> str:
    """Return the learner's uid. Airflow does not run as root, even when the learner does: then that of its images."""
    return str(os.getuid() or 50000)


def _docker_gid() -> str:
    """Return the group that may use the engine's socket. Docker Desktop's socket belongs to group 0."""
    on_linux = DOCKER_SOCKET.exists() and not DOCKER_SOCKET.is_symlink()
    return str(DOCKER_SOCKET.stat().st_gid if on_linux else 0)


def _password() -> str:
    return secrets.token_urlsafe(24)


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def _signing_key() -> str:
    return secrets.token_urlsafe(64)


MAKERS: dict[str, Callable[[], str]] = {
    "AIRFLOW_UID": _airflow_uid,
    "DOCKER_GID": _docker_gid,
    "AIRFLOW_PASSWORD": _password,
    "MOVIELENS_PASSWORD": _password,
    "MYSQL_PASSWORD": _password,
    "POSTGRES_PASSWORD": _password,
    "REDIS_PASSWORD": _password,
    "REGISTRY_PASSWORD": _password,
    "FERNET_KEY": _fernet_key,
    "API_SECRET_KEY": _signing_key,
    "JWT_SECRET": _signing_key,
}
COMPOSE_FILE = REPO / "docker-compose.yaml"
PUBLISHED_PORT = re.compile(r"127\.0\.0\.1:\$\{(?P<setting>[A-Z_]+):-(?P<default>\d+)\}:\d+")


def setting(name: str) -> str:
    """Return a setting as Compose reads it: from the environment, else from .env; else its default, else ""."""
    return os.environ.get(name, read_env().get(name, "")) or default(name)


def default(name: str) -> str:
    """Return the default of a setting that says where the stack is found; "" for another one."""
    if name.endswith("_PORT"):
        return published_ports().get(name, ("", ""))[1]
    return "course" if name == "COURSE_STACK" else ""


@cache
def published_ports() -> dict[str, tuple[str, str]]:
    """Return the settings of the ports that `make compose-up` publishes, each with its service and its default."""
    services = yaml.safe_load(COMPOSE_FILE.read_text())["services"]
    return {
        found["setting"]: (name, found["default"])
        for name, service in services.items()
        if "profiles" not in service
        for port in service.get("ports", [])
        if (found := PUBLISHED_PORT.fullmatch(port))
    }


def missing_settings() -> list[str]:
    """Return the names of the settings that the stack needs and that have no value."""
    return [name for name in MAKERS if not setting(name)]


def check_passwords() -> None:
    """Raise ClickException for a password of the learner's own that would break a URL or JSON that it stands in."""
    for name in MAKERS:
        if name.endswith("_PASSWORD") and re.search(r"[^A-Za-z0-9._~-]", setting(name)):
            raise click.ClickException(f"{name} in .env may have letters, digits and . _ ~ - and nothing else")


def version() -> str:
    """Return the tag of the images: COURSE_VERSION if the learner has set it, else the version of this checkout."""
    if chosen := os.environ.get("COURSE_VERSION"):
        return chosen
    is_managed = ENV_FILE.exists() and MANAGED_LINE.search(ENV_FILE.read_text())
    return (not is_managed and read_env().get("COURSE_VERSION")) or checkout_version()


def checkout_version() -> str:
    """Return the version that pyproject.toml has."""
    with (REPO / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def refresh_version() -> None:
    """Bring the line of .env up to date that plain `docker compose` takes the version from; a learner's own stays."""
    if not ENV_FILE.exists():
        return
    text = ENV_FILE.read_text()
    line = f"COURSE_VERSION={checkout_version()} {MANAGED}"
    if MANAGED_LINE.search(text):
        _replace_env(MANAGED_LINE.sub(line, text))
    elif not read_env().get("COURSE_VERSION"):
        _replace_env(_with_lines(text, line))


def read_env() -> dict[str, str]:
    """Return what .env has; empty when there is none."""
    return {name: value or "" for name, value in dotenv_values(ENV_FILE, interpolate=False).items()}


def write_env(**chosen: str) -> list[str]:
    """Add to .env what has no value in it yet; return the names of what was added.

    `chosen` are settings beyond the needed ones, such as image names. The file is readable by its owner only. Nothing
    that is in it changes, but for the version of the checkout.
    """
    there = read_env()
    added = {name: make() for name, make in MAKERS.items() if not there.get(name)}
    added |= {name: value for name, value in chosen.items() if not there.get(name)}
    if added:
        text = (
            ENV_FILE.read_text() if ENV_FILE.exists() else "# Made by `make env` for this machine. It is not in git.\n"
        )
        _replace_env(_with_lines(text, *(f"{name}={value}" for name, value in added.items())))
    refresh_version()
    return list(added)


def _with_lines(text: str, *lines: str) -> str:
    return "\n".join([text.removesuffix("\n"), *lines, ""])


def _replace_env(text: str) -> None:
    """Write .env, readable by its owner only, whole or not at all."""
    if ENV_FILE.exists() and ENV_FILE.read_text() == text:
        return
    beside = ENV_FILE.with_name(".env.new")
    beside.touch(mode=0o600)
    beside.write_text(text)
    beside.replace(ENV_FILE)
