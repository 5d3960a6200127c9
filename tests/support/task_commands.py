"""The task commands, each run in the environment of its own project."""

import os
import subprocess
from pathlib import Path
from typing import Any

from course import embedded
from course.paths import REPO


def fetch(api: embedded.Api, start: str, end: str, output: Path, *more: str) -> None:
    """Fetch an interval with the task command."""
    login = {"MOVIELENS_USER": api.user, "MOVIELENS_PASSWORD": api.password}
    host = f"http://{api.host}:{api.port}"
    arguments = ["--start_date", start, "--end_date", end, "--output_path", output, "--host", host, *more]
    _command("movielens-fetch", "fetch-ratings", arguments, login)


def rank(ratings: Path, rankings: Path, *more: str) -> None:
    """Rank a file with the task command."""
    _command("movielens-rank", "rank-movies", ["--input_path", ratings, "--output_path", rankings, *more], {})


def store(rankings: Path, start: str, pipeline: str, url: str) -> None:
    """Store a ranking with the task command."""
    arguments = ["--input_path", rankings, "--interval_start", start, "--pipeline", pipeline]
    _command("movielens-store", "store-rankings", arguments, {"DATABASE_URL": url})


def _command(project: str, command: str, arguments: list[Any], env: dict[str, str]) -> None:
    path = REPO / "images" / project / ".venv" / "bin" / command
    done = subprocess.run([path, *arguments], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
