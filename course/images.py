"""Build the images of the course and tell their sizes."""

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from course.paths import DAGS, REPO
from course.settings import read_env

VERSION = "0.1.0"
LABEL = "course.image"  # what every image of the course has, also one that has lost its name to a newer build
MB = 1_000_000


class Image(NamedTuple):
    """One image: its name, its build context, and where the two are not the same, its Dockerfile and target."""

    name: str
    context: Path
    dockerfile: Path | None = None
    target: str | None = None
    base: str = "BASE_IMAGE"

    @property
    def tag(self) -> str:
        return f"course/{self.name}:{VERSION}"


IMAGES_FOLDER = REPO / "images"
AIRFLOW_DOCKERFILE = IMAGES_FOLDER / "airflow" / "Dockerfile"
IMAGES = [
    Image("movielens-fetch", IMAGES_FOLDER / "movielens-fetch"),
    Image("movielens-rank", IMAGES_FOLDER / "movielens-rank"),
    Image("movielens-store", IMAGES_FOLDER / "movielens-store"),
    Image("movielens-api", REPO / "movielens-api"),
    Image("docker-proxy", IMAGES_FOLDER / "docker-proxy", base="HAPROXY_IMAGE"),
    Image("airflow-lean", IMAGES_FOLDER, AIRFLOW_DOCKERFILE, "lean"),
    Image("airflow-mixed", IMAGES_FOLDER, AIRFLOW_DOCKERFILE, "mixed"),
    Image("airflow-kubernetes", DAGS, AIRFLOW_DOCKERFILE.with_name("kubernetes.Dockerfile"), base="AIRFLOW_IMAGE"),
]
BASES = {
    "BASE_IMAGE": "python:3.13-slim-trixie",
    "HAPROXY_IMAGE": "haproxy:3.0",
    "AIRFLOW_IMAGE": f"course/airflow-lean:{VERSION}",  # built just before
}
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def build_settings() -> dict[str, str]:
    """Give the base images: from the environment, else from .env, else the official ones."""
    return BASES | {name: value for name, value in (read_env() | dict(os.environ)).items() if name in BASES}


def build(console: Console) -> None:
    """Build every image whose inputs changed; raises ClickException with the end of the log when one fails.

    BUILD_CA names a file with a certificate authority of the network, BUILD_PIP_CONF one with settings for pip. Both go
    in as build secrets, so they are in no layer. HTTP_PROXY and its like pass through.
    """
    bases = build_settings()
    for image in IMAGES:
        command = ["docker", "buildx", "build", "--progress", "plain", "--tag", image.tag]
        command += ["--label", f"{LABEL}={image.name}"]
        command += ["--build-arg", f"{image.base}={bases[image.base]}"]
        command += [part for name in PROXIES if name in os.environ for part in ("--build-arg", name)]
        for secret, variable in (("ca", "BUILD_CA"), ("pip.conf", "BUILD_PIP_CONF")):
            if path := os.environ.get(variable):
                command += ["--secret", f"id={secret},src={path}"]
        command += ["--file", str(image.dockerfile)] if image.dockerfile else []
        command += ["--target", image.target] if image.target else []
        with console.status(f"building {image.tag}"):
            done = subprocess.run([*command, str(image.context)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            end = "\n".join(done.stderr.strip().splitlines()[-20:])
            raise click.ClickException(f"{image.tag} could not be built:\n{end}")
        console.print(f"  {image.tag}", highlight=False)
    subprocess.run(["docker", "image", "prune", "--force", f"--filter=label={LABEL}"], capture_output=True, check=False)  # noqa: S607


def inspect(tag: str) -> dict[str, object] | None:
    """Look at an image; None when it is not here."""
    done = subprocess.run(["docker", "image", "inspect", tag], capture_output=True, text=True, check=False)  # noqa: S607
    return json.loads(done.stdout)[0] if done.returncode == 0 else None


def remove() -> None:
    """Remove every image of the course, older builds too."""
    found = subprocess.run(
        ["docker", "image", "ls", "--quiet", f"--filter=label={LABEL}"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    )
    if ids := set(found.stdout.split()):
        subprocess.run(["docker", "image", "rm", "--force", *ids], stdout=subprocess.DEVNULL, check=True)  # noqa: S607


def missing() -> list[str]:
    """List the images of the course that are not built."""
    return [image.tag for image in IMAGES if inspect(image.tag) is None]


def print_sizes(console: Console) -> None:
    """Print a table: image, size, size over its base, in MB (10^6 bytes)."""
    bases = build_settings()
    table = Table("image")
    table.add_column("size", justify="right")
    table.add_column("over base", justify="right")
    for image in IMAGES:
        size, base = _size(image.tag), _size(bases[image.base])
        over = f"{(size - base) / MB:.0f} MB" if base else "base not here"
        table.add_row(image.tag, f"{size / MB:.0f} MB", over)
    console.print(table)


def _size(tag: str) -> int:
    found = inspect(tag)
    return int(str(found["Size"])) if found else 0
