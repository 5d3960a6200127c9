"""The pages keep their word: each command of a chapter is typed as printed, and its output is what the page shows."""

import os
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from required import cannot_run

from course.cluster import NAMESPACE, choose
from course.doctor import PORTS
from course.places import HOME, REPO

CHAPTERS = sorted((REPO / "chapters").glob("*.md"))
PAGES = [REPO / "README.md", *CHAPTERS]


class Step(NamedTuple):
    """A command of a page and the output under it; a line or a part of one that is "..." stands for anything."""

    command: str
    output: str


def steps_of(page: Path) -> list[Step]:
    """Read the console blocks of a page, one command each, on a line of its own or more with a backslash between."""
    blocks = re.findall(r"^```console\n\$ (.+?)(?<!\\)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Step(command, output) for command, output in blocks]


def shows(page: str, printed: str) -> bool:
    """Tell whether what was printed is what the page shows. Ports may differ: a test takes free ones."""
    lines = [line.strip(" │") for line in printed.splitlines()]
    # one part between two lines of "..." after the other, each at the first place where it fits
    parts = [part.split("\n")[:-1] for part in re.split(r"^\.\.\.\n", page, flags=re.MULTILINE)]
    place = 0
    for number, part in enumerate(parts):
        patterns = [pattern_of(line) for line in part]
        starts = [place] if number == 0 else range(place, len(lines) - len(part) + 1)
        if number == len(parts) - 1 > 0:
            starts = [len(lines) - len(part)]
        for start in starts:
            if start >= place and all(map(re.fullmatch, patterns, lines[start : start + len(part)])):
                break
        else:
            return False
        place = start + len(part)
    return len(parts) > 1 or place == len(lines)


def pattern_of(line: str) -> str:
    parts = re.sub(r"(localhost|127\.0\.0\.1):\d+", r"\1:...", line.strip(" │")).split("...")
    return ".*".join(re.escape(part) for part in parts)


@pytest.mark.parametrize(
    ("page", "printed", "fits"),
    [
        ("a\n", "a\n", True),
        ("a\n", "a\nb\n", False),
        ("a\nb\n", "a\n", False),
        ("", "a\n", False),
        ("...\n", "", True),
        ("...\nb\n...\n", "a\nb\n", True),
        ("...\nb\n", "b\nc\n", False),
        ("a\n...\nc\n", "a\nc\n", True),
        ("a\n...\nb\n", "a\n", False),
        ("a ... c\n", "│ a b c │\n", True),
        ("at localhost:8080\n", "at localhost:32768\n", True),
    ],
)
def test_what_is_shown_is_compared_line_by_line(page: str, printed: str, fits: bool) -> None:
    assert shows(page, printed) is fits


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (REPO / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z0-9-]*)", page.read_text()))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def shell() -> dict[str, str]:
    """Give the environment of a learner's shell, with a home of its own, and names and ports of its own for a stack."""
    # not under make, and without the settings of the tests
    ours = ("AIRFLOW_HOME", "AIRFLOW__", "MAKE", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env |= {"COURSE_HOME": str(HOME / "learner"), "COURSE_STACK": f"course-chapter-{uuid.uuid4().hex[:6]}"}
    return env | {port: free_port() for port in PORTS}


def type_all(chapter: str, env: dict[str, str]) -> None:
    """Type the commands of a chapter, one after the other, and compare what they print with what it shows."""
    for step in steps_of(REPO / "chapters" / chapter):
        command = step.command.replace("127.0.0.1:5001", f"127.0.0.1:{env['REGISTRY_PORT']}")
        command = command.replace("$PWD/.course/", "$COURSE_HOME/")
        done = subprocess.run(
            ["bash", "-c", command],  # noqa: S607 (a learner's shell)
            cwd=REPO,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        shown = f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, shown
        assert shows(step.output, done.stdout), f"{shown}\n--- but the page says:\n{step.output}"


@pytest.fixture(scope="module")
def learner() -> Iterator[dict[str, str]]:
    """A shell with a stack of its own, for all chapters that need one."""
    env = shell()
    yield env
    every = ["--profile", "cli", "--profile", "flower"]
    subprocess.run(
        ["docker", "compose", *every, "down", "--volumes", "--remove-orphans"],  # noqa: S607
        cwd=REPO,
        env=env,
        check=True,
    )
    subprocess.run(["docker", "volume", "rm", "--force", f"{env['COURSE_STACK']}-tour"], check=True)  # noqa: S607
    names = subprocess.run(
        ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", f"127.0.0.1:{env['REGISTRY_PORT']}/course/*"],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    subprocess.run(["docker", "image", "rm", "--force", *names], capture_output=True, check=False)  # noqa: S607


@pytest.mark.docker
@pytest.mark.parametrize("chapter", ["02-docker.md", "04-registry.md"])
def test_a_chapter_typed_from_top_to_bottom_gives_what_it_shows(learner: dict[str, str], chapter: str) -> None:
    type_all(chapter, learner)


@pytest.mark.kubernetes
def test_the_chapter_of_the_cluster_typed_from_top_to_bottom_gives_what_it_shows() -> None:
    if choose(None).is_ours is not None:
        cannot_run("kubernetes", f"namespace {NAMESPACE} is there already: make k8s-down")
    env = shell()
    try:
        type_all("03-kubernetes.md", env)
    finally:
        subprocess.run(["make", "k8s-down"], cwd=REPO, env=env, check=True)  # noqa: S607
