"""The pages keep their word: each command of a chapter is typed as printed, and its output is what the page shows."""

import os
import re
import socket
import subprocess
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from course.doctor import PORTS
from course.places import REPO

CHAPTERS = sorted((REPO / "chapters").glob("*.md"))
PAGES = [REPO / "README.md", *CHAPTERS]


class Step(NamedTuple):
    """A command of a page and the output under it; a line or a part of one that is "..." stands for anything."""

    command: str
    output: str


def steps_of(page: Path) -> list[Step]:
    """Read the console blocks of a page, one command each."""
    blocks = re.findall(r"^```console\n\$ (.+?)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Step(command, output) for command, output in blocks]


def pattern_of(output: str) -> re.Pattern[str]:
    """Turn shown output into a pattern. Ports may differ: a test takes free ones."""
    lines = []
    for line in output.splitlines():
        if line == "...":
            lines.append(r"(?:.*\n)*?")
        else:
            parts = [re.sub(r"localhost:\d+", r"localhost:\\d+", re.escape(part)) for part in line.split("...")]
            lines.append(r"[ │]*" + ".*".join(parts) + r".*\n")
    return re.compile("".join(lines) + r"\s*\Z")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (REPO / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z-]*)", page.read_text()))
    assert named
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.mark.docker
def test_the_docker_chapter_typed_from_top_to_bottom_gives_what_it_shows() -> None:
    stack = f"course-chapter-{uuid.uuid4().hex[:6]}"
    env = os.environ | {"COURSE_STACK": stack} | {port: free_port() for port in PORTS}
    # a learner's shell: not under make, and without the homes of the tests
    ours = ("AIRFLOW_HOME", "AIRFLOW__", "COURSE_HOME", "MAKE", "MFLAGS")
    env = {name: value for name, value in env.items() if not name.startswith(ours)}
    try:
        for step in steps_of(REPO / "chapters" / "02-docker.md"):
            done = subprocess.run(
                ["bash", "-c", step.command],  # noqa: S607 (a learner's shell)
                cwd=REPO,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            shown = f"$ {step.command}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, shown
            assert pattern_of(step.output).match(done.stdout), f"{shown}\n--- but the page says:\n{step.output}"
    finally:
        clean = [
            "docker",
            "compose",
            "--profile",
            "cli",
            "--profile",
            "flower",
            "down",
            "--volumes",
            "--remove-orphans",
        ]
        subprocess.run(clean, cwd=REPO, env=env, check=True)
