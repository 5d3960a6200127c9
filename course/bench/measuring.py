"""How the bench measures: processes by their wall time and peak memory, servers by their memory and their pages."""

import contextlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import requests

from course.processes import Command, child

STOPWATCH = Path(__file__).with_name("stopwatch.py")
RUNS = 3
ENOUGH_SECONDS = 15  # no further run after that


class Took(NamedTuple):
    """What some runs of one command took, and what the last of them printed as its JSON line."""

    seconds: float
    peak_bytes: int
    runs: int
    printed: dict[str, Any]


def measure(command: Command, log: Path, env: Mapping[str, str], runs: int = RUNS) -> Took:
    """Run a command up to `runs` times: the median of its seconds, the largest of its peaks.

    Raises ClickException, with the end of its log, when the command fails.
    """
    times: list[float] = []
    peak = 0
    printed: dict[str, Any] = {}
    while len(times) < runs and sum(times) < ENOUGH_SECONDS:
        stopwatch: Command = [sys.executable, "-I", "-S", STOPWATCH, *command]
        with log.open("w") as stderr, child(stopwatch, env, stderr, pipe_stdout=True) as process:
            assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
            lines = process.stdout.read().splitlines()
            process.wait()
        took = json.loads(lines.pop()) if lines else {"exit_code": process.returncode}
        if took["exit_code"] != 0:
            raise click.ClickException(f"{_name(command)} failed in the bench: {_last_line(log)}")
        times.append(took["seconds"])
        peak = max(peak, took["peak_bytes"])
        printed = json.loads(lines[-1]) if lines else {}
    return Took(statistics.median(times), peak, len(times), printed)


class Server(NamedTuple):
    """A running server on loopback."""

    url: str
    session: int  # the Unix session that all its processes are in


@contextlib.contextmanager
def serving(command: Command, port_file: Path, log: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """Run a server while the block runs. It must write its port to the file once it answers."""
    with log.open("w") as stderr, child(command, env, stderr) as process:
        give_up = time.monotonic() + 120
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > give_up:
                raise click.ClickException(f"{_name(command)} did not start in the bench: {_last_line(log)}")
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{int(port_file.read_text())}", process.pid)


def memory_of(server: Server) -> int:
    """Add up the proportional set sizes of a server's processes: a page that n processes share counts 1/n in each."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # after the name in brackets, which may hold anything: state, parent, group, session
            session = (process / "stat").read_text().rpartition(")")[2].split()[3]
            if int(session) == server.session:
                sizes = (process / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in sizes if line.startswith("Pss:")) * 1024
    return total


def median_page_seconds(server: Server, auth: tuple[str, str], params: Mapping[str, str], offsets: list[int]) -> float:
    """Time one page of ratings at each offset, and return the median."""
    times = []
    with requests.Session() as session:
        session.trust_env = False  # no proxy of the learner's between us and the server
        session.auth = auth
        for offset in offsets:
            started = time.monotonic()
            session.get(
                f"{server.url}/ratings", params={**params, "offset": str(offset)}, timeout=60
            ).raise_for_status()
            times.append(time.monotonic() - started)
    return statistics.median(times)


def _name(command: Command) -> str:
    return next(Path(part).name for part in command if part != sys.executable)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"
