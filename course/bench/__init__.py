"""`make bench`: how fast the course's parts are, beside a naive pipeline and beside DuckDB.

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
from course.bench.table import print_page_growth, print_profile
from course.places import API_COMMAND, REPO

ALL_PROFILES = ["100k", "1m", "25m"]


def run_bench(
    profiles: list[str] | None = None,
    output: Path | None = None,
    seconds_limit: float = 60,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure the profiles (100k, 1m and 25m if None is given), show a table of each, and return all figures.

    The figures, with the names of course/bench/figures.py, also go to the JSON file `output`. The naive fetch stops
    after `seconds_limit` and is estimated from the pages it had by then. Raises ClickException when something is not
    installed, a command fails, or the rankings of rank-movies and DuckDB differ.
    """
    console = console or Console()
    check_installed()
    measured = []
    for profile in profiles or ALL_PROFILES:
        measured.append(measure_profile(profile, seconds_limit, console))
        print_profile(console, measured[-1])
    print_page_growth(console, measured)
    figures = {"machine": describe_machine(), "profiles": [asdict(profile) for profile in measured]}
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(figures, indent=2) + "\n")
        console.print(f"All figures: {output}", soft_wrap=True)
    return figures


def check_installed() -> None:
    """Raise ClickException, with the make target that mends it, if something that the bench runs is not there."""
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
    """Give what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpus": os.cpu_count(), "memory_bytes": memory, "python": platform.python_version()}
