"""`make test`: every check and every suite, in lanes side by side, with a table of what took how long.

A lane is a list of stages, one after the other. What a stage prints is shown when it has ended: lanes do not mix.

environment:
  REQUIRE     what must not be skipped, as in REQUIRE=databases,docker,kubernetes
  IMAGES_UP   a shell command, run before the suites that need images; CI builds them so, beside the first suites
  CLUSTER_UP  the same for a cluster, before the suites that need one
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPO = Path(__file__).resolve().parent.parent
AIRFLOW_ON_KUBERNETES = "tests/kubernetes/test_airflow_on_kubernetes.py"
SLOWEST = 20
TAG = "{{.Repository}}:{{.Tag}}"
INTERRUPT_SECONDS = 120  # how long a suite may take to remove its containers, pods and servers


@dataclass
class Stage:
    """One command of a lane. It starts when those before it in its lane have ended, and the stages of `after` too."""

    name: str
    command: list[str]
    after: list["Stage"] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    background: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    code: int | None = None
    seconds: float = 0.0


def lanes(results: Path, projects: list[str]) -> list[list[Stage]]:
    """Return the stages of `make test`. Suites write how long each test took to JUnit files in `results`."""

    def make(target: str) -> Stage:
        return Stage(target, ["make", "--no-print-directory", target])

    def shell(name: str, command: str) -> Stage:
        return Stage(name, ["bash", "-euo", "pipefail", "-c", command])

    def suite(name: str, project: str, *arguments: str) -> Stage:
        color = "--color=yes" if COLOR else "--color=no"
        junit = f"--junitxml={results / file_name(name)}.xml"
        return Stage(name, [str(REPO / project / ".venv/bin/pytest"), color, junit, *arguments])

    others = [make("lint"), make("types")]
    others += [suite(project, project, f"{project}/tests") for project in projects]
    others += [suite("tests", ".", "tests", "-m", "not kubernetes", "--ignore=tests/docker", "--ignore=tests/docs")]
    docker = [suite("tests/docker", ".", "tests/docker", "tests/docs", "-m", "not kubernetes")]
    kubernetes = [
        suite("tests/kubernetes", ".", "tests", "-m", "kubernetes", f"--ignore={AIRFLOW_ON_KUBERNETES}"),
        suite("Airflow on Kubernetes", ".", AIRFLOW_ON_KUBERNETES),
    ]
    for stage in others:  # it fills the gaps that the other lanes leave
        stage.background = True
    for stage in (others[-1], *docker):  # their commands would find the Airflow on the cluster
        stage.environment = {"KUBECONFIG": os.devnull}
    if command := os.environ.get("IMAGES_UP"):
        images = shell("images", command)
        others[-1].after.append(images)
        docker.insert(0, images)
        kubernetes[0].after.append(images)
    if command := os.environ.get("CLUSTER_UP"):
        kubernetes.insert(0, shell("cluster", command))
    return [others, docker, kubernetes]


def file_name(stage: str) -> str:
    return re.sub(r"[ /]", "-", stage)


COLOR = sys.stdout.isatty()


class Run:
    """The lanes under way."""

    def __init__(self, console: Console, results: Path) -> None:
        self.console = console
        self.began = time.monotonic()
        self.results = results
        self.environment = os.environ | {"COURSE_TEST_RUN": str(results)}
        self.printing = threading.Lock()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.interrupted = threading.Event()

    def elapsed(self) -> str:
        return f"{time.monotonic() - self.began:5.0f} s"

    def say(self, line: str) -> None:
        with self.printing:
            self.console.print(f"{self.elapsed()}  {line}", highlight=False, markup=False)

    def lane(self, stages: list[Stage]) -> None:
        for stage in stages:
            for other in stage.after:
                other.ended.wait()
            if not self.interrupted.is_set():
                self.stage(stage)
            stage.ended.set()

    def stage(self, stage: Stage) -> None:
        """Run a stage to its end, then show what it printed."""
        self.say(f"{stage.name} ...")
        began = time.monotonic()
        log = self.results / f"{file_name(stage.name)}.log"
        with log.open("wb") as output:
            # a group of its own: Ctrl-C then comes to this process, which passes it on once
            process = subprocess.Popen(
                stage.command,
                cwd=REPO,
                env=self.environment | stage.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if stage.background:
                with suppress(OSError):  # Linux weighs sessions against each other, whatever their processes' nice is
                    Path(f"/proc/{process.pid}/autogroup").write_text("5")
            self.processes[stage.name] = process
            stage.code = process.wait()
            del self.processes[stage.name]
        stage.seconds = time.monotonic() - began
        with self.printing:
            self.console.rule(f"{stage.name}, {stage.seconds:.0f} s", align="left")
            self.console.file.flush()
            sys.stdout.buffer.write(log.read_bytes())
            sys.stdout.flush()

    def progress(self) -> str:
        """Return which stages run, each with the percentage that pytest printed last."""
        parts = []
        for name in list(self.processes):
            log = self.results / f"{file_name(name)}.log"
            shares = re.findall(rb"\[ *(\d+)%\]", log.read_bytes())
            parts.append(f"{name} {shares[-1].decode()} %" if shares else name)
        return "; ".join(parts)

    def interrupt(self) -> None:
        """End what runs as Ctrl-C would: suites then remove what they made."""
        self.interrupted.set()
        for process in list(self.processes.values()):
            os.killpg(process.pid, signal.SIGINT)
        give_up = time.monotonic() + INTERRUPT_SECONDS
        for process in list(self.processes.values()):
            try:
                process.wait(max(0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def on_the_engine() -> set[str]:
    """Return what the Docker engine has: containers, volumes, networks, and images of registries on this machine."""
    found = set()
    for what, form in {"container": "{{.Names}}", "volume": "{{.Name}}", "network": "{{.Name}}", "image": TAG}.items():
        command = ["docker", what, "ls", *(["--all"] if what == "container" else []), f"--format={form}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return set()
        names = done.stdout.split()
        if what == "image":  # others are pulled and built for good
            names = [name for name in names if name.startswith(("127.0.0.1:", "localhost:"))]
        found |= {f"{what} {name}" for name in names}
    return found


def slowest_tests(results: Path) -> list[tuple[float, str]]:
    """Return the tests that took longest, with their fixtures, in seconds, the slowest first."""
    tests = []
    for junit in results.glob("*.xml"):
        for case in ET.parse(junit).iter("testcase"):  # noqa: S314 (written by our own pytest)
            tests.append((float(case.get("time", 0)), f"{case.get('classname')}::{case.get('name')}"))
    return sorted(tests, reverse=True)[:SLOWEST]


def print_tables(console: Console, stages: list[Stage], results: Path) -> None:
    table = Table("stage", "result", title="stages", title_justify="left")
    table.add_column("seconds", justify="right")
    for stage in stages:
        result = {None: "not run", 0: "passed"}.get(stage.code, "failed")
        table.add_row(stage.name, result, f"{stage.seconds:.0f}")
    console.print(table)
    table = Table(title=f"the {SLOWEST} slowest tests", title_justify="left")
    table.add_column("seconds", justify="right")
    table.add_column("test", overflow="fold")
    for seconds, name in slowest_tests(results):
        table.add_row(f"{seconds:.1f}", name)
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "projects", nargs="*", metavar="PROJECT", help="a folder with a suite and an environment of its own"
    )
    projects = parser.parse_args().projects
    console = Console(width=None if COLOR else 160)
    with tempfile.TemporaryDirectory(prefix="course-test-run-") as folder, ExitStack() as stack:
        results = Path(folder)
        plan = lanes(results, projects)
        before = on_the_engine()
        run = Run(console, results)
        for ending in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # a background job would ignore SIGINT
            signal.signal(ending, signal.default_int_handler)
        threads = [threading.Thread(target=run.lane, args=[lane], daemon=True) for lane in plan]
        for thread in threads:
            thread.start()
        try:
            if COLOR:
                status = stack.enter_context(console.status("starting"))
            for thread in threads:
                while thread.is_alive():
                    thread.join(1)
                    if COLOR:
                        status.update(run.progress())
        except KeyboardInterrupt:
            run.interrupt()
            console.print("interrupted")
            return 130
        stack.close()
        stages = [stage for lane in plan for stage in lane]
        print_tables(console, stages, results)
        failed = [stage.name for stage in stages if stage.code != 0]
        if left := sorted(on_the_engine() - before):
            failed.append("left on the engine: " + ", ".join(left))
        took = (time.monotonic() - run.began) / 60
        console.print(
            f"{took:.1f} min; " + (f"failed: {', '.join(failed)}" if failed else "everything passed"), highlight=False
        )
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
