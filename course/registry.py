"""Push the task images to the registry of the stack."""

import base64
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
from rich.console import Console

from course import images
from course.doctor import ask
from course.paths import REPO
from course.settings import setting, version

USER = "course"


def push(console: Console) -> None:
    """Push every task image under its tags, and print its name with the digest, as a DAG may run it.

    Raises ClickException, one line, when an image is not built or the registry does not accept it.
    """
    registry = f"127.0.0.1:{setting('REGISTRY_PORT')}"
    password = setting("REGISTRY_PASSWORD")
    if not password:
        raise click.ClickException("REGISTRY_PASSWORD missing in .env: `make env` adds what is missing")
    names = tags()
    with logged_in(registry, password) as env:
        for image in images.listed("tasks"):
            if images.inspect(image.tag) is None:
                raise click.ClickException(f"image {image.tag} is not here: `make images` builds it")
            name = f"{registry}/course/{image.name}"
            for tag in names:
                was_here = images.inspect(f"{name}:{tag}") is not None
                with console.status(f"pushing {name}:{tag}"):
                    _docker("tag", image.tag, f"{name}:{tag}")
                    try:
                        said = _docker("push", f"{name}:{tag}", env=env)
                    except click.ClickException:
                        if not was_here:
                            _docker("rmi", f"{name}:{tag}")
                        raise
            digest = re.findall(r"digest: (sha256:[0-9a-f]{64})", said)[-1]
            console.print(f"  {name}@{digest}  ({', '.join(names)})", highlight=False)


def tags() -> list[str]:
    """Return the tags of an image that is pushed now: the git revision, where there is one, and the version."""
    found, revision = ask("git", "-C", str(REPO), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    return [*([revision] if found else []), version()]


@contextmanager
def logged_in(registry: str, password: str) -> Iterator[dict[str, str]]:
    """Yield an environment in which docker is logged in to a registry; the learner's own logins stay as they are."""
    theirs = Path(os.environ.get("DOCKER_CONFIG", "~/.docker")).expanduser()
    config = {}
    with suppress(FileNotFoundError):
        config = json.loads((theirs / "config.json").read_text())
    for helper in ("credsStore", "credHelpers"):  # a program that keeps logins hides those of the file
        config.pop(helper, None)
    login = base64.b64encode(f"{USER}:{password}".encode()).decode()
    with tempfile.TemporaryDirectory() as folder:
        if (theirs / "contexts").exists():  # where the engine is
            (Path(folder) / "contexts").symlink_to((theirs / "contexts").resolve())
        (Path(folder) / "config.json").write_text(json.dumps(config | {"auths": {registry: {"auth": login}}}))
        yield os.environ | {"DOCKER_CONFIG": folder}


def _docker(command: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Run a docker command and return what it printed. Raises ClickException with its last line and a fix."""
    line = ["docker", command, *arguments]
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise click.ClickException(f"docker {command} {arguments[-1]} failed: {said}; {_fix(said)}")
    return done.stdout


def _fix(said: str) -> str:
    if "unauthorized" in said or "denied" in said or "no basic auth" in said:
        return "is REGISTRY_PASSWORD in .env the one that the registry was started with? `make compose-up` renews it"
    return "is the stack up? `make compose-up` starts it"
