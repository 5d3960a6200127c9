"""Put the task images into the registry of the stack."""

from collections.abc import Iterable
from typing import Any

import click
import docker  # type: ignore[import-untyped] # ships no types
from docker.errors import DockerException  # type: ignore[import-untyped]
from requests.exceptions import RequestException
from rich.console import Console

from course import images
from course.doctor import ask
from course.paths import REPO
from course.settings import setting

USER = "course"
TASKS = ("movielens-fetch", "movielens-rank", "movielens-store")


def push(console: Console) -> None:
    """Push every task image under its tags, and print its name with the digest, as a DAG may run it.

    Raises ClickException, one line, when an image is not built or the registry does not take it.
    """
    registry = f"127.0.0.1:{setting('REGISTRY_PORT')}"
    login = {"username": USER, "password": setting("REGISTRY_PASSWORD")}
    if not login["password"]:
        raise click.ClickException("REGISTRY_PASSWORD missing in .env: `make env` adds what is missing")
    names = tags()
    try:
        engine = docker.DockerClient(base_url=_engine_address(), timeout=600)
        for task in TASKS:
            name = f"{registry}/course/{task}"
            local = f"course/{task}:{images.VERSION}"
            if not engine.images.list(name=local):
                raise click.ClickException(f"image {local} is not here: `make images` builds it")
            for tag in names:
                with console.status(f"pushing {name}:{tag}"):
                    engine.api.tag(local, name, tag)
                    digest = _digest(engine.api.push(name, tag, stream=True, decode=True, auth_config=login), name, tag)
            console.print(f"  {name}@{digest}  ({', '.join(names)})", highlight=False)
    except (DockerException, RequestException) as error:
        raise click.ClickException(f"the Docker engine does not do it: {' '.join(str(error).split())}") from None


def tags() -> list[str]:
    """List the tags of an image that is pushed now: the git revision, where there is one, and the version."""
    found, revision = ask("git", "-C", str(REPO), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    return [*([revision] if found else []), images.VERSION]


def _engine_address() -> str | None:
    """Tell where the docker command finds the engine, which it may know from a context; None: the usual place."""
    found, address = ask("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return address if found and address else None


def _digest(events: Iterable[dict[str, Any]], name: str, tag: str) -> str:
    """Follow a push to its end and return the digest. Raises ClickException with what the registry said against it."""
    digest = ""
    for event in events:
        if said := event.get("error"):
            raise click.ClickException(f"{name}:{tag} cannot be pushed: {said}; {_mend(said)}")
        digest = event.get("aux", {}).get("Digest", digest)
    return digest


def _mend(said: str) -> str:
    if "unauthorized" in said or "denied" in said or "no basic auth" in said:
        return "is REGISTRY_PASSWORD in .env the one that the registry was started with? `make compose-up` renews it"
    return "is the stack up? `make compose-up` starts it"
