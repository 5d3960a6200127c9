"""The measurements of one profile: serve, fetch and rank all its ratings, our way, the naive way and with DuckDB."""

import csv
import itertools
import os
import secrets
import sys
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import click
from rich.console import Console

from course import embedded
from course.bench.figures import Profile, Service, Work
from course.bench.measuring import Server, Took, measure, median_page_seconds, memory_of, serving
from course.paths import API_COMMAND, HOME, REPO, movielens_data
from course.processes import Command

FETCH_COMMAND = REPO / "images" / "movielens-fetch" / ".venv" / "bin" / "fetch-ratings"
RANK_COMMAND = REPO / "images" / "movielens-rank" / ".venv" / "bin" / "rank-movies"
BENCH = Path(__file__).parent

START, END = "2019-01-01", "2024-01-01"  # all ratings there are
WORKERS = 2
FETCHED_PAGE_SIZES = (1000, 10_000)
TIMED_PAGE_SIZE = 100
TIMED_PAGES = 200
BOOK_TIMED_PAGES = 20
BOOK_RANKED_RATINGS = 2_000_000  # read_json takes almost 1 kB a rating: 25 million would not fit everywhere


def measure_profile(profile: str, seconds_limit: float, console: Console) -> Profile:
    """Measure one profile. The naive fetch stops after `seconds_limit` and is estimated from what it had by then."""
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=HOME) as folder, console.status("") as status:
        bench = ProfileBench(profile, Path(folder))
        status.update(f"{profile}: generating the ratings")
        embedded.generate_data(profile)

        fetch = []
        with bench.our_api() as api:
            for page_size in FETCHED_PAGE_SIZES:
                status.update(f"{profile}: fetch-ratings, pages of {page_size:,}")
                fetch.append(bench.fetch(api, page_size))
            status.update(f"{profile}: pages of our API")
            serve = bench.service(api, TIMED_PAGES)

        status.update(f"{profile}: pages of the naive API")
        with bench.book_api() as api:
            book_serve = bench.service(api, BOOK_TIMED_PAGES)
            status.update(f"{profile}: the naive fetch")
            book_fetch = bench.book_fetch(api, seconds_limit)

        status.update(f"{profile}: rank-movies")
        rank = bench.rank()
        status.update(f"{profile}: DuckDB")
        duckdb_rank = bench.duckdb_rank()
        ranked_movies = bench.compare_rankings()
        status.update(f"{profile}: the naive ranking")
        book_rank = bench.book_rank()
    return Profile(
        profile=profile,
        ratings=bench.ratings,
        ranked_movies=ranked_movies,
        serve=serve,
        book_serve=book_serve,
        fetch=fetch,
        book_fetch=book_fetch,
        rank=rank,
        book_rank=book_rank,
        duckdb_rank=duckdb_rank,
        rankings_agree=True,
    )


class ProfileBench:
    """The steps of the bench for one profile, with the files that one step leaves for the next.

    `fetch` comes first: it leaves the ratings CSV that all other steps read, and the number of `ratings`.
    """

    def __init__(self, profile: str, folder: Path) -> None:
        self.profile = profile
        self.folder = folder
        self.ratings = 0
        self.ratings_csv = folder / "ratings.csv"
        self.ours_csv = folder / "ours.csv"
        self.duckdb_csv = folder / "duckdb.csv"
        self.log = folder / "log"
        self.login = ("bench", secrets.token_urlsafe(24))
        # settings of the learner's own, such as a fault rate, would change what is measured
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("API_", "MOVIELENS_"))}

    def our_api(self) -> AbstractContextManager[Server]:
        """Serve the profile from the real API."""
        port_file = self.folder / "our-port"
        user, password = self.login
        return serving(
            [
                *(API_COMMAND, "serve", "--data", movielens_data(self.profile), "--workers", str(WORKERS)),
                *("--port", "0", "--port-file", port_file),
            ],
            port_file,
            self.log.with_name("our-api.log"),
            {**self.env, "API_USER": user, "API_PASSWORD": password},
        )

    def book_api(self) -> AbstractContextManager[Server]:
        """Serve the fetched CSV the naive way."""
        port_file = self.folder / "book-port"
        command = _script("book_server.py", self.ratings_csv, port_file)
        return serving(command, port_file, self.log.with_name("book-api.log"), self.env)

    def service(self, api: Server, pages: int) -> Service:
        """Time pages of an API, then weigh it."""
        size = min(TIMED_PAGE_SIZE, self.ratings)
        offsets = [(self.ratings - size) * number // (pages - 1) for number in range(pages)]
        params = {"start_date": START, "end_date": END, "limit": str(size)}
        seconds = median_page_seconds(api, self.login, params, offsets)
        return Service(memory_bytes=memory_of(api), page_seconds=seconds, page_size=size, pages=pages)

    def fetch(self, api: Server, page_size: int) -> Work:
        """Fetch all ratings into one CSV with fetch-ratings."""
        user, password = self.login
        took = measure(
            [
                *(FETCH_COMMAND, "--start_date", START, "--end_date", END, "--output_path", self.ratings_csv),
                *("--host", api.url, "--batch_size", str(page_size)),
            ],
            self.log,
            {**self.env, "MOVIELENS_USER": user, "MOVIELENS_PASSWORD": password},
        )
        self.ratings = took.printed["rows"]
        return self._work(took, page_size)

    def book_fetch(self, api: Server, seconds_limit: float) -> Work:
        """Fetch all ratings into one JSON array, or as many as come within the limit."""
        array = self.folder / "fetched.json"
        command = _script("book_pipeline.py", "fetch", f"{api.url}/ratings", START, END, array, str(seconds_limit))
        took = measure(command, self.log, self.env, runs=1)
        page_size, ratings = took.printed["page_size"], took.printed["ratings"]
        if ratings == self.ratings:
            return self._work(took, page_size)
        return self._estimated(took, ratings, f"{took.printed['pages']:,} x {page_size} ratings", page_size)

    def rank(self) -> Work:
        """Rank the CSV with rank-movies."""
        command: Command = [RANK_COMMAND, "--input_path", self.ratings_csv, "--output_path", self.ours_csv]
        return self._work(measure(command, self.log, self.env))

    def duckdb_rank(self) -> Work:
        """Rank the CSV with DuckDB."""
        command = _script("duckdb_rank.py", self.ratings_csv, self.duckdb_csv)
        return self._work(measure(command, self.log, self.env))

    def book_rank(self) -> Work:
        """Rank a JSON array of the ratings the naive way, or of as many as are bearable."""
        array = self.folder / "ratings.json"
        ratings = min(self.ratings, BOOK_RANKED_RATINGS)
        with self.ratings_csv.open(newline="") as source, array.open("w") as target:
            rows = itertools.islice(csv.reader(source), 1, ratings + 1)
            objects = (
                f'{{"userId": {user}, "movieId": {movie}, "rating": {stars}, "timestamp": {when}}}'
                for user, movie, stars, when in rows
            )
            target.write("[" + next(objects))
            target.writelines(f", {one}" for one in objects)
            target.write("]")
        command = _script("book_pipeline.py", "rank", array, self.folder / "book.csv")
        took = measure(command, self.log, self.env)
        if ratings == self.ratings:
            return self._work(took)
        return self._estimated(took, ratings, f"{ratings:,} ratings")

    def compare_rankings(self) -> int:
        """Return the number of movies ranked. Raises ClickException unless our rows and DuckDB's are the same."""
        with self.ours_csv.open(newline="") as ours, self.duckdb_csv.open(newline="") as theirs:
            rows = 0
            for rows, (our, their) in enumerate(itertools.zip_longest(csv.reader(ours), csv.reader(theirs))):
                same = our == their if rows == 0 else _ranking(our) == _ranking(their)
                if not same:
                    raise click.ClickException(f"line {rows + 1} of the rankings is {our} with us, {their} with DuckDB")
        return rows

    def _work(self, took: Took, page_size: int | None = None) -> Work:
        return Work(took.seconds, self.ratings / took.seconds, took.peak_bytes, took.runs, page_size)

    def _estimated(self, took: Took, ratings: int, what: str, page_size: int | None = None) -> Work:
        """Carry what some ratings took on to all of them; what the process needs before the first one stays."""
        times = self.ratings / ratings
        before = took.printed["before"]
        seconds = before["seconds"] + (took.seconds - before["seconds"]) * times
        peak_bytes = before["peak_bytes"] + round((took.peak_bytes - before["peak_bytes"]) * times)
        return Work(seconds, self.ratings / seconds, peak_bytes, took.runs, page_size, what)


def _script(name: str, *arguments: str | Path) -> Command:
    return [sys.executable, BENCH / name, *arguments]


def _ranking(row: list[str] | None) -> tuple[int, float, int] | None:
    return (int(row[0]), float(row[1]), int(row[2])) if row else None
