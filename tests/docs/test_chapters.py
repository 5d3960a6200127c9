"""The pages keep their word: each command of a chapter is typed as printed, and its output is what the page shows.

Those on Kubernetes are typed where their cluster is: in test_airflow_on_kubernetes.py.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker_engine import remove_images_of
from support.typed_pages import TYPED_ON, shell, shows, steps_of, type_all

from course.paths import REPO

CHAPTERS = sorted((REPO / "chapters").glob("*.md"))
PAGES = [REPO / "README.md", *CHAPTERS]


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
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: Path) -> None:
    links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_chapter_is_typed_by_a_test() -> None:
    assert {chapter.name for chapter in CHAPTERS} == TYPED_ON.keys(), "TYPED_ON says on which engine a chapter is typed"


@pytest.mark.parametrize("page", CHAPTERS, ids=lambda page: page.name)
def test_every_console_block_of_a_chapter_is_one_command(page: Path) -> None:
    assert len(steps_of(page)) == page.read_text().count("```console\n")
    assert [step for step in steps_of(page) if re.search(r"^\$ ", step.output, re.MULTILINE)] == []


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
    remove_images_of(f"127.0.0.1:{env['REGISTRY_PORT']}")


@pytest.mark.docker
@pytest.mark.parametrize("chapter", [chapter for chapter, engine in TYPED_ON.items() if engine == "docker"])
def test_a_chapter_typed_from_top_to_bottom_gives_what_it_shows(learner: dict[str, str], chapter: str) -> None:
    type_all(chapter, learner)
