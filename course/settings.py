"""The settings of the stack: .env, with passwords made for this one machine."""

import base64
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

import click

from course.paths import REPO

ENV_FILE = REPO / ".env"
DOCKER_SOCKET = Path("/var/run/docker.sock")


def _airflow_uid() -> str:
    """Airflow does not run as root, also when the learner does; 50000 is the uid of its images."""
    return str(os.getuid() or 50000)


def _docker_gid() -> str:
    """Give the group that may use the engine's socket. Docker Desktop's socket belongs to group 0."""
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
# What may be left out: where the stack is found.
DEFAULTS = {"COURSE_STACK": "course", "AIRFLOW_PORT": "8080", "MOVIELENS_PORT": "5050", "REGISTRY_PORT": "5001"}


def setting(name: str) -> str:
    """Read a setting as Compose does: the environment, else .env; when that gives nothing, its default, else ""."""
    return os.environ.get(name, read_env().get(name, "")) or DEFAULTS.get(name, "")


def missing_settings() -> list[str]:
    """List the settings that the stack needs and nobody has made."""
    return [name for name in MAKERS if not setting(name)]


def check_passwords() -> None:
    """Raise ClickException for a password of the learner's own that would break a URL or JSON that it stands in."""
    for name in MAKERS:
        if name.endswith("_PASSWORD") and re.search(r"[^A-Za-z0-9._~-]", setting(name)):
            raise click.ClickException(f"{name} in .env may have letters, digits and . _ ~ - and nothing else")


def read_env() -> dict[str, str]:
    """Read .env: NAME=VALUE lines, with or without quotes; empty when there is none."""
    if not ENV_FILE.exists():
        return {}
    lines = (line.strip() for line in ENV_FILE.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, value in pairs}


def write_env(**chosen: str) -> list[str]:
    """Add to .env what has no value in it yet, and nothing else; return the names of what was added.

    `chosen` are settings beyond the needed ones, such as image names. The file is readable by its owner only.
    """
    there = read_env()
    added = {name: make() for name, make in MAKERS.items() if not there.get(name)}
    added |= {name: value for name, value in chosen.items() if not there.get(name)}
    if added:
        text = (
            ENV_FILE.read_text() if ENV_FILE.exists() else "# Made by `make env` for this machine. It is not in git.\n"
        )
        if not text.endswith("\n"):
            text += "\n"
        text += "".join(f"{name}={value}\n" for name, value in added.items())
        beside = ENV_FILE.with_name(".env.new")
        beside.touch(mode=0o600)
        beside.write_text(text)
        beside.replace(ENV_FILE)
    return list(added)
