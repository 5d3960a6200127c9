"""`make bench`: how fast the course's parts are, beside a naive pipeline and beside DuckDB, and what a task costs.

Every figure comes from a process of its own: the real commands, the real API, and the scripts in this folder.
"""

import importlib.util
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from course.bench.one_profile import FETCH_COMMAND, RANK_COMMAND, measure_profile
from course.bench.table import print_page_growth, print_profile, print_tasks
from course.bench.task_overhead import measure_tasks
from course.paths import API_COMMAND, REPO

TASKS = "tasks"
ALL = ["100k", "1m", "25m", TASKS]


def run_bench(
    parts: list[str] | None = None,
    output: Path | None = None,
    seconds_limit: float = 60,
    console: Console | None = None,
    task_runs: int = 5,
) -> dict[str, Any]:
    """Measure the parts, profiles or "tasks" (ALL if None is given), show a table of each, and return all figures.

    The figures, with the names of course/bench/figures.py, also go to the JSON file `output`. The naive fetch stops
    after `seconds_limit` and is estimated from the pages it had by then. A task is run `task_runs` times. Raises
    ClickException when something is not installed, a command fails, or the rankings of rank-movies and DuckDB differ;
    not when an engine is missing: the figures of that version then say why.
    """
    console = console or Console()
    check_installed()
    measured = []
    tasks = []
    for part in parts or ALL:
        if part == TASKS:
            tasks = measure_tasks(task_runs, console)
            continue
        measured.append(measure_profile(part, seconds_limit, console))
        print_profile(console, measured[-1])
    print_page_growth(console, measured)
    if tasks:
        print_tasks(console, tasks)
    figures = {
        "machine": describe_machine(),
        "profiles": [asdict(profile) for profile in measured],
        "tasks": [asdict(task) for task in tasks],
    }
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=2) + "\n")
        console.print(f"All figures: {output}", soft_wrap=True)
    return figures


def check_installed() -> None:
    """Raise ClickException, with the make target that installs it, if something that the bench runs is missing."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise click.ClickException("the bench reads the memory of processes from /proc: it needs Linux 4.14 or newer")
    for command in (API_COMMAND, FETCH_COMMAND, RANK_COMMAND):
        if not command.exists():
            stamp = command.parent.parent.relative_to(REPO) / ".run"
            raise click.ClickException(f"{command.name} is not installed: `make {stamp}` does it")
    for module in ("duckdb", "flask", "pandas"):
        if importlib.util.find_spec(module) is None:
            raise click.ClickException(f"{module} is not installed: `make .venv/.dev` does it")


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_bytes": memory, "python": platform.python_version()}
