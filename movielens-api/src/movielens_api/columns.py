"""The data folder: four NumPy columns, movies.csv and dataset.json; and how a page is read from it.

    timestamp.npy  uint32   UTC epoch seconds, ascending; ties by userId, then movieId
    userId.npy     uint32
    movieId.npy    uint32
    rating.npy     uint8    half stars, 1 to 10
    movies.csv              movieId,title,genres in MovieLens's form, ascending movieId
    dataset.json            the format's version, where the data came from, how many rows

The columns are memory-mapped: every worker process reads the same pages of the kernel's file cache, and a page
of rows is found by binary search on the timestamps.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

FORMAT = 1

# in the order of the API's JSON and of MovieLens's files
USER_ID, MOVIE_ID, RATING, TIMESTAMP = RATING_FIELDS = ("userId", "movieId", "rating", "timestamp")
TITLE, GENRES = "title", "genres"
MOVIE_FIELDS = (MOVIE_ID, TITLE, GENRES)

# of a rating, in the order by which the rows are sorted
COLUMNS: dict[str, np.dtype[Any]] = {
    TIMESTAMP: np.dtype(np.uint32),
    USER_ID: np.dtype(np.uint32),
    MOVIE_ID: np.dtype(np.uint32),
    RATING: np.dtype(np.uint8),
}
UINT32_MAX = 2**32 - 1

Column = npt.NDArray[np.unsignedinteger[Any]]
Movie = tuple[int, str, str]


class DataError(Exception):
    """The data cannot be used; the message is one line that says what is wrong and where."""


class Ratings:
    """The four columns, each of length n."""

    def __init__(self, timestamp: Column, user_id: Column, movie_id: Column, rating: Column) -> None:
        self._timestamp = timestamp
        self._user_id = user_id
        self._movie_id = movie_id
        self._rating = rating

    def __len__(self) -> int:
        return len(self._timestamp)

    def page(self, start: int | None, end: int | None, offset: int, limit: int) -> tuple[list[dict[str, float]], int]:
        """Return rows `offset` to `offset + limit` of those with start <= timestamp < end, and their total.

        `start` and `end` are epoch seconds; None means unbounded. Costs O(log n + limit).
        """
        low = 0 if start is None else self._first_at_or_after(start)
        high = len(self) if end is None else self._first_at_or_after(end)
        total = max(high - low, 0)
        first = low + min(offset, total)
        rows = slice(first, min(first + limit, low + total))
        result = [
            {USER_ID: user, MOVIE_ID: movie, RATING: half_stars / 2, TIMESTAMP: timestamp}
            for user, movie, half_stars, timestamp in zip(
                self._user_id[rows].tolist(),
                self._movie_id[rows].tolist(),
                self._rating[rows].tolist(),
                self._timestamp[rows].tolist(),
                strict=True,
            )
        ]
        return result, total

    def _first_at_or_after(self, seconds: int) -> int:
        if seconds <= 0:
            return 0
        if seconds > UINT32_MAX:
            return len(self)
        # The needle has the column's type: with any other, NumPy would copy the whole column to convert it.
        return int(np.searchsorted(self._timestamp, np.uint32(seconds)))


class Movies:
    """The movies as one JSON text each, end to end, so that a page of them is a slice."""

    def __init__(self, movies: Iterable[Movie]) -> None:
        text = bytearray()  # grown as we go: a list of all texts takes 4 kB for each
        starts = [0]
        for movie in movies:
            text += orjson.dumps(dict(zip(MOVIE_FIELDS, movie, strict=True))) + b","
            starts.append(len(text))
        self._text = bytes(text)
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def page(self, offset: int, limit: int) -> tuple[orjson.Fragment, int]:
        """Return a JSON array of movies `offset` to `offset + limit`, and their total."""
        first = min(offset, len(self))
        last = min(first + limit, len(self))
        text = self._text[self._starts[first] : self._starts[last] - 1] if first < last else b""
        return orjson.Fragment(b"[" + text + b"]"), len(self)


@dataclass(frozen=True)
class Dataset:
    """What the API serves. `about` is the content of dataset.json."""

    about: dict[str, Any]
    ratings: Ratings
    movies: Movies


def column_file(folder: Path, column: str) -> Path:
    """Return where a data folder has this column."""
    return folder / f"{column}.npy"


def about_file(folder: Path) -> Path:
    """Return where a data folder says what is in it."""
    return folder / "dataset.json"


def movies_file(folder: Path) -> Path:
    """Return where a data folder or a MovieLens download has its movies."""
    return folder / "movies.csv"


def open_dataset(folder: Path) -> Dataset:
    """Map the columns of a data folder. Raises DataError if it is not one, or not one of this format."""
    about = read_about(folder)
    if about is None:
        raise DataError(f"{folder} is not a data folder: it has no dataset.json that can be read")
    if about.get("format") != FORMAT:
        raise DataError(f"{folder} has format {about.get('format')}, this version reads format {FORMAT}: make it again")
    columns = []
    for name, dtype in COLUMNS.items():
        file = column_file(folder, name)
        try:
            # A plain ndarray view: slices of np.memmap itself cost several microseconds more.
            column = np.load(file, mmap_mode="r").view(np.ndarray)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read ({error}): delete {folder} and make it again") from error
        if column.dtype != dtype or column.shape != (about["ratings"],):
            raise DataError(f"{file} does not fit dataset.json: delete {folder} and make it again")
        columns.append(column)
    return Dataset(about, Ratings(*columns), Movies(read_movies(movies_file(folder))))


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return the content of dataset.json, or None if there is none."""
    try:
        about = json.loads(about_file(folder).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("ratings"), int) else None


def read_movies(file: Path) -> list[Movie]:
    """Return the rows of a movies.csv in MovieLens's form, by movieId. Raises DataError with the line of a bad row."""
    movies = []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            if next(rows, None) != list(MOVIE_FIELDS):
                raise DataError(f"{file}, line 1: the header must be {','.join(MOVIE_FIELDS)}")
            for row in rows:
                if (
                    len(row) != len(MOVIE_FIELDS)
                    or not (row[0].isascii() and row[0].isdigit())
                    or int(row[0]) > UINT32_MAX
                ):
                    raise DataError(f"{file}, line {rows.line_num}: not a number, a title and genres")
                movies.append((int(row[0]), row[1], row[2]))
    except FileNotFoundError as error:
        raise DataError(f"{file} is missing") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text") from error
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: {error}") from error
    return sorted(movies)


def write_movies(file: Path, movies: Iterable[Movie]) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        rows = csv.writer(lines, lineterminator="\n")
        rows.writerow(MOVIE_FIELDS)
        rows.writerows(movies)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    about_file(folder).write_text(json.dumps(about, indent=2) + "\n", "utf-8")


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, which becomes `target` when the block succeeds and is removed otherwise.

    An older data folder at `target` is replaced. Raises DataError, before anything is written, if what is there
    is something else, which is never deleted.
    """
    if target.exists() and read_about(target) is None and not _is_empty_folder(target):
        raise DataError(f"{target} is there already and is not a data folder: choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    staging.mkdir()
    try:
        yield staging
        for file in [*staging.iterdir(), staging]:
            _flush_to_disk(file)
        _publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _publish(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # A rename cannot replace a folder with files in it. Processes that have the old columns mapped keep them.
        old = staging.with_name(staging.name + ".old")
        target.rename(old)
        staging.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
