"""Read stored rankings from the results database and show them."""

import csv
import datetime
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

from course.paths import DATABASE, movielens_data


class Ranked(NamedTuple):
    """One row of the table movie_rankings."""

    position: int
    movie_id: int
    avg_rating: float
    num_ratings: int


def stored_rankings(pipeline: str, interval_start: datetime.date, limit: int = -1) -> list[Ranked]:
    """Return the ranking of one interval in order of position; the first `limit` rows, or all of them."""
    query = (
        "SELECT position, movie_id, avg_rating, num_ratings FROM movie_rankings"
        " WHERE pipeline = ? AND interval_start = ? ORDER BY position LIMIT ?"
    )
    with closing(_open_database()) as database:
        return [Ranked(*row) for row in database.execute(query, (pipeline, str(interval_start), limit))]


def latest_interval(pipeline: str) -> datetime.date | None:
    """Return the start of the latest interval that has rows."""
    query = "SELECT max(interval_start) FROM movie_rankings WHERE pipeline = ?"
    with closing(_open_database()) as database:
        (start,) = database.execute(query, (pipeline,)).fetchone()
    return datetime.date.fromisoformat(start) if start else None


def _open_database() -> sqlite3.Connection:
    """Open the results database for reading. Raises ClickException when no run has made it yet."""
    if not DATABASE.exists():
        raise click.ClickException("nothing is stored yet: run `make run` first")
    database = sqlite3.connect(f"{DATABASE.as_uri()}?mode=ro", uri=True)
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'movie_rankings'").fetchone():
        database.close()
        raise click.ClickException("nothing is stored yet: run `make run` first")
    return database


def read_titles(profile: str) -> dict[int, str]:
    """Return the titles of a profile's movies, by movieId; none when its data is missing."""
    movies: Path = movielens_data(profile) / "movies.csv"
    if not movies.exists():
        return {}
    with movies.open(newline="", encoding="utf-8") as file:
        return {int(row["movieId"]): row["title"] for row in csv.DictReader(file)}


def print_rankings(console: Console, heading: str, rankings: list[Ranked], titles: dict[int, str]) -> None:
    """Print rankings as a table: position, title, mean, number of ratings."""
    table = Table(title=heading, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("title", overflow="fold")
    table.add_column("mean", justify="right")
    table.add_column("ratings", justify="right")
    for row in rankings:
        title = titles.get(row.movie_id, f"movie {row.movie_id}")
        table.add_row(str(row.position), title, f"{row.avg_rating:.2f}", str(row.num_ratings))
    console.print(table)
