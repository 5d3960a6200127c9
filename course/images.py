"""Build the images of the course and print their sizes. images/docker-bake.hcl lists them."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from course.paths import REPO, shown
from course.settings import read_env, refresh_version, version

BAKE_FILE = REPO / "images" / "docker-bake.hcl"
BAKE = ["docker", "buildx", "bake", "--file", str(BAKE_FILE)]
SETTINGS = ("BASE_IMAGE", "HAPROXY_IMAGE", "BUILD_CA", "BUILD_PIP_CONF")  # variables of the bake file
LABEL = "course.image"  # on every image of the course, even one that has lost its name to a newer build
MB = 1_000_000


class Image(NamedTuple):
    """One image: its name and its tag, what it is built from, and the image that it starts from."""

    name: str
    tag: str
    context: Path
    dockerfile: Path
    base: str


def tag(name: str) -> str:
    """Return the name of an image with its tag."""
    return f"course/{name}:{version()}"


def listed(group: str = "default") -> list[Image]:
    """Return the images of a group of the bake file, in its order. Raises ClickException."""
    bake = _printed(group, version())
    return [_image(name, bake["target"][name]) for name in _names(group, bake)]


@cache
def _printed(group: str, version: str) -> dict[str, Any]:
    """Return what bake makes of its file."""
    command = [*BAKE, "--print", group]
    try:
        done = subprocess.run(command, cwd=REPO, env=_environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise click.ClickException("no docker command") from None
    if done.returncode != 0:
        raise click.ClickException(f"{shown(BAKE_FILE)} cannot be read: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout))


def _names(name: str, bake: dict[str, Any]) -> list[str]:
    """Return the images that a name of the bake file stands for: its own, or those of a group."""
    if name not in bake["group"]:
        return [name]
    return [each for part in bake["group"][name]["targets"] for each in _names(part, bake)]


def _image(name: str, target: dict[str, Any]) -> Image:
    context = REPO / target["context"]
    base = next(value for argument, value in target["args"].items() if argument in SETTINGS)
    # bake writes the Dockerfile's path relative to the context
    return Image(name, target["tags"][0], context, context / target["dockerfile"], base)


def _environment() -> dict[str, str]:
    """Return the environment for bake: settings come from the environment, else from .env, else from the bake file."""
    settings = {name: value for name, value in (read_env() | dict(os.environ)).items() if name in SETTINGS}
    return dict(os.environ) | settings | {"COURSE_VERSION": version()}


def build(console: Console) -> None:
    """Build every image whose inputs changed. Raises ClickException with the end of the log when one fails.

    BUILD_CA names a file with a certificate authority of the network, BUILD_PIP_CONF one with settings for pip. Both go
    in as build secrets, so they are in no layer. HTTP_PROXY and its like pass through.
    """
    refresh_version()
    images = listed()
    command = [*BAKE, "--load", "--progress", "plain"]
    log: list[str] = []
    with (
        console.status(f"building {len(images)} images") as status,
        subprocess.Popen(command, cwd=REPO, env=_environment(), stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None  # noqa: S101 (for the type checker: it is a pipe)
        for line in process.stderr:
            log.append(line.rstrip())
            if step := re.match(r"#\d+ \[([a-z-]+) .*?(\d+/\d+)\]", line):
                status.update(f"building {step[1]}, step {step[2]}")
    if process.returncode != 0:
        raise click.ClickException(_failure("\n".join(log)))
    for image in images:
        console.print(f"  {image.tag}", highlight=False)
    subprocess.run(["docker", "image", "prune", "--force", f"--filter=label={LABEL}"], capture_output=True, check=False)  # noqa: S607


def _failure(log: str) -> str:
    """Return the name of the image that failed, and the end of its log, which stands after all others."""
    _, found, end = log.rpartition("\n------\n > [")
    if not found:  # not a step: a file or an image is missing
        return "the images could not be built:\n" + "\n".join(log.splitlines()[-20:])
    return f"{tag(end.partition(' ')[0])} could not be built:\n" + "\n".join(f"[{end}".splitlines()[-20:])


def inspect(tag: str) -> dict[str, object] | None:
    """Return what the engine knows of an image; None when it is not here."""
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
    """Return the tags of the images of the course that are not built."""
    return [image.tag for image in listed() if inspect(image.tag) is None]


def print_sizes(console: Console) -> None:
    """Print a table: image, size, size over its base, in MB (10^6 bytes)."""
    table = Table("image")
    table.add_column("size", justify="right")
    table.add_column("over base", justify="right")
    for image in listed():
        size, base = _size(image.tag), _size(image.base)
        over = f"{(size - base) / MB:.0f} MB" if base else "base not here"
        table.add_row(image.tag, f"{size / MB:.0f} MB", over)
    console.print(table)


def _size(tag: str) -> int:
    found = inspect(tag)
    return int(str(found["Size"])) if found else 0
