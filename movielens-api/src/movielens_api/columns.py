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
COLUMNS: dict[str, np.dtype[Any]] = {
    "timestamp": np.dtype(np.uint32),
    "userId": np.dtype(np.uint32),
    "movieId": np.dtype(np.uint32),
    "rating": np.dtype(np.uint8),
}
MOVIES_HEADER = ["movieId", "title", "genres"]
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
        """Rows `offset` to `offset + limit` of those with start <= timestamp < end, and how many there are in all.

        `start` and `end` are epoch seconds; None means unbounded. Costs O(log n + limit).
        """
        low = 0 if start is None else self._first_at_or_after(start)
        high = len(self) if end is None else self._first_at_or_after(end)
        total = max(high - low, 0)
        first = low + min(offset, total)
        rows = slice(first, min(first + limit, low + total))
        result = [
            {"userId": user, "movieId": movie, "rating": half_stars / 2, "timestamp": timestamp}
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
            text += orjson.dumps(dict(zip(MOVIES_HEADER, movie, strict=True))) + b","
            starts.append(len(text))
        self._text = bytes(text)
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    def page(self, offset: int, limit: int) -> tuple[orjson.Fragment, int]:
        """A JSON array of movies `offset` to `offset + limit`, and how many there are in all."""
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


def open_dataset(folder: Path) -> Dataset:
    """Map the columns of a data folder. Raises DataError if it is not one, or not one of this format."""
    about = read_about(folder)
    if about is None:
        raise DataError(f"{folder} is not a data folder: it has no dataset.json that can be read")
    if about.get("format") != FORMAT:
        raise DataError(f"{folder} has format {about.get('format')}, this version reads format {FORMAT}: make it again")
    columns = []
    for name, dtype in COLUMNS.items():
        file = folder / f"{name}.npy"
        try:
            # A plain ndarray view: slices of np.memmap itself cost several microseconds more.
            column = np.load(file, mmap_mode="r").view(np.ndarray)
        except (FileNotFoundError, ValueError, EOFError) as error:
            raise DataError(f"{file} cannot be read ({error}): delete {folder} and make it again") from error
        if column.dtype != dtype or column.shape != (about["ratings"],):
            raise DataError(f"{file} does not fit dataset.json: delete {folder} and make it again")
        columns.append(column)
    return Dataset(about, Ratings(*columns), Movies(read_movies(folder / "movies.csv")))


def read_about(folder: Path) -> dict[str, Any] | None:
    """The content of dataset.json, or None if there is none."""
    try:
        about = json.loads((folder / "dataset.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("ratings"), int) else None


def read_movies(file: Path) -> list[Movie]:
    """The rows of a movies.csv in MovieLens's form, by movieId. Raises DataError with the line of a bad row."""
    movies = []
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = csv.reader(lines, strict=True)
            if next(rows, None) != MOVIES_HEADER:
                raise DataError(f"{file}, line 1: the header must be {','.join(MOVIES_HEADER)}")
            for row in rows:
                if len(row) != 3 or not (row[0].isascii() and row[0].isdigit()) or int(row[0]) > UINT32_MAX:
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
        rows.writerow(MOVIES_HEADER)
        rows.writerows(movies)


def write_about(folder: Path, about: dict[str, Any]) -> None:
    (folder / "dataset.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, which becomes `target` when the block ends well and vanishes otherwise.

    An older data folder at `target` is replaced. Raises DataError, before anything is written, if what is there
    is something else, which is never deleted.
    """
    if target.exists() and read_about(target) is None and not _is_empty_folder(target):
        raise DataError(f"{target} is there already and is not a data folder: choose another")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    beside.mkdir()
    try:
        yield beside
        for file in [*beside.iterdir(), beside]:
            _flush_to_disk(file)
        _put_in_place(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put_in_place(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # A folder with files in it cannot be renamed over. Whoever has the old columns mapped keeps them.
        old = beside.with_name(beside.name + ".old")
        target.rename(old)
        beside.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
