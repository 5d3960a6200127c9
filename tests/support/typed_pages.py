"""The pages of the course as a learner meets them: their commands, typed, and what they show, compared."""

import os
import re
import socket
import subprocess
import uuid
from pathlib import Path
from typing import NamedTuple

from course.paths import HOME, REPO
from course.settings import published_ports

# A command, after which what it has exported is written to a file for the next one.
KEEP_EXPORTS = 'eval "$1"; status=$?; env --null > "$0"; exit $status'


# Each chapter, and the engine on which a test types it.
TYPED_ON = {"02-docker.md": "docker", "03-kubernetes.md": "kubernetes", "04-registry.md": "docker"}


class Step(NamedTuple):
    """A command of a page and the output under it; a line or a part of one that is "..." stands for anything."""

    command: str
    output: str


def steps_of(page: Path) -> list[Step]:
    """Read the console blocks of a page, one command each, on a line of its own or more with a backslash between."""
    blocks = re.findall(r"^```console\n\$ (.+?)(?<!\\)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [Step(command, output) for command, output in blocks]


def shows(page: str, printed: str) -> bool:
    """Return whether what was printed is what the page shows. Ports may differ: a test takes free ones."""
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


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def shell() -> dict[str, str]:
    """Return the environment of a learner's shell, with a home, and with names and ports for a stack, of its own."""
    # not under make, and without the settings of the tests; a page says itself what the learner exports
    ours = ("AIRFLOW_HOME", "AIRFLOW__", "COURSE_VERSION", "MAKE", "MFLAGS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    home = HOME / "learner"
    if not home.exists():
        home.mkdir()
        (home / "clusters").symlink_to(HOME / "clusters")  # which images a cluster has got from the tests
    env |= {"COURSE_HOME": str(home), "COURSE_STACK": f"course-chapter-{uuid.uuid4().hex[:6]}"}
    return env | {port: free_port() for port in published_ports()}


def type_all(chapter: str, env: dict[str, str]) -> None:
    """Type the commands of a chapter in one shell, and compare what they print with what it shows."""
    for step in steps_of(REPO / "chapters" / chapter):
        command = step.command.replace("127.0.0.1:5001", f"127.0.0.1:{env['REGISTRY_PORT']}")
        command = command.replace("$PWD/.course/", "$COURSE_HOME/")
        done = subprocess.run(
            ["bash", "-c", KEEP_EXPORTS, HOME / "exported", command],  # noqa: S607 (a learner's shell)
            cwd=REPO,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        shown = f"$ {command}\n{done.stdout}{done.stderr}"
        assert done.returncode == 0, shown
        exported = (HOME / "exported").read_text().split("\0")
        env = dict(variable.split("=", 1) for variable in exported if variable)
        assert shows(step.output, done.stdout), f"{shown}\n--- but the page says:\n{step.output}"
