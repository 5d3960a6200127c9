"""Turn a MovieLens download (ratings.csv, movies.csv) into a data folder, once."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from movielens_api.columns import (
    COLUMNS,
    FORMAT,
    RATING_FIELDS,
    UINT32_MAX,
    DataError,
    column_file,
    movies_file,
    read_about,
    read_movies,
    staged_folder,
    write_about,
    write_movies,
)

HEADER = ",".join(RATING_FIELDS).encode()
CHUNK_BYTES = 16 * 2**20  # parsed at a time, some 600,000 rows
COMMA, NEWLINE = b",\n"
MAX_DIGITS = len(str(UINT32_MAX))
ROW = re.compile(rb"([0-9]{1,10}),([0-9]{1,10}),(?:0\.5|[1-4](?:\.[05])?|5(?:\.0)?),([0-9]{1,10})")

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class _BadRow(Exception):
    """Some row of a chunk is malformed; bad_line finds out which one."""


def ratings_file(download: Path) -> Path:
    """Return where a MovieLens download has its ratings."""
    return download / "ratings.csv"


def is_converted(download: Path, folder: Path) -> bool:
    """Return whether `folder` was made from these very files, by their sizes and times of change. Raises DataError."""
    about = read_about(folder) or {}
    return about.get("format") == FORMAT and about.get("source") == _identities(download)


def convert(download: Path, folder: Path, advance: Callable[[int], object] = lambda bytes_read: None) -> None:
    """Write the data folder of a download, complete or not at all.

    `advance` is called with the number of bytes of ratings.csv read since the last call. Raises DataError, with
    file and line of a bad row, and OSError.
    """
    source = _identities(download)  # before reading: a file that changes meanwhile is converted again next time
    movies = read_movies(movies_file(download))
    with staged_folder(folder) as staging:
        columns = dict(zip(COLUMNS, read_ratings(ratings_file(download), advance), strict=True))
        about = {
            "format": FORMAT,
            "source": source,
            "ratings": len(columns["timestamp"]),
            "users": len(np.unique(columns["userId"])),
            "movies": len(movies),
        }
        order = np.lexsort((columns["movieId"], columns["userId"], columns["timestamp"]))
        for name in COLUMNS:
            np.save(column_file(staging, name), columns.pop(name)[order])
        write_movies(movies_file(staging), movies)
        write_about(staging, about)


def _identities(download: Path) -> dict[str, list[int]]:
    identities = {}
    for file in (ratings_file(download), movies_file(download)):
        try:
            status = file.stat()
        except FileNotFoundError:
            raise DataError(f"{download} has no {file.name}; a MovieLens download has both") from None
        identities[file.name] = [status.st_size, status.st_mtime_ns]
    return identities


def read_ratings(file: Path, advance: Callable[[int], object]) -> list[npt.NDArray[Any]]:
    """Return the columns of a ratings.csv in the form of COLUMNS, the rows in the order of the file."""
    chunks: list[list[npt.NDArray[Any]]] = [[np.empty(0, dtype) for dtype in COLUMNS.values()]]
    line = 2
    with file.open("rb") as lines:
        if lines.readline().rstrip(b"\r\n") != HEADER:
            raise DataError(f"{file}, line 1: the header must be {HEADER.decode()}")
        while chunk := lines.read(CHUNK_BYTES):
            chunk += lines.readline()
            advance(len(chunk))
            text = chunk.replace(b"\r\n", b"\n")
            if not text.endswith(b"\n"):
                text += b"\n"
            try:
                chunks.append(parse_rows(text))
            except _BadRow:
                raise DataError(f"{file}, {bad_line(text, line)}") from None
            line += len(chunks[-1][0])
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def parse_rows(text: bytes) -> list[npt.NDArray[Any]]:
    """Return the columns of complete lines of CSV. Strict: each line is a ROW, or _BadRow is raised.

    Works on all rows at once, digit by digit, because a loop over 25 million lines takes minutes.
    """
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero((data == COMMA) | (data == NEWLINE))
    if len(ends) % 4 or (data[ends].reshape(-1, 4) != [COMMA, COMMA, COMMA, NEWLINE]).any():
        raise _BadRow
    starts = np.concatenate([[0], ends[:-1] + 1])
    user, movie, timestamp = (_whole_numbers(data, starts[at::4], ends[at::4]) for at in (0, 1, 3))
    rating = _half_stars(data, starts[2::4], ends[2::4])
    columns = (timestamp, user, movie, rating)
    return [column.astype(dtype) for column, dtype in zip(columns, COLUMNS.values(), strict=True)]


def _whole_numbers(data: Bytes, starts: Integers, ends: Integers) -> Integers:
    lengths = ends - starts
    if lengths.min() < 1 or lengths.max() > MAX_DIGITS:
        raise _BadRow
    values = np.zeros(len(starts), np.int64)
    for place in range(int(lengths.max())):
        inside = place < lengths
        digits = data[np.where(inside, starts + place, starts)] - ord("0")  # wraps: anything else is over 9
        if (digits > 9).any():
            raise _BadRow
        values = np.where(inside, values * 10 + digits, values)
    if values.max() > UINT32_MAX:
        raise _BadRow
    return values


def _half_stars(data: Bytes, starts: Integers, ends: Integers) -> Integers:
    """Return `4`, `4.0` and `4.5` as 8, 8 and 9."""
    lengths = ends - starts
    has_half = lengths == 3
    last = data[ends - 1]
    if not (
        (has_half | (lengths == 1)).all()
        and (data[starts + 1][has_half] == ord(".")).all()
        and np.isin(last[has_half], (ord("0"), ord("5"))).all()
    ):
        raise _BadRow
    values: Integers = 2 * (data[starts].astype(np.int64) - ord("0")) + (has_half & (last == ord("5")))
    if values.min() < 1 or values.max() > 10:
        raise _BadRow
    return values


def bad_line(text: bytes, first_line: int) -> str:
    """Describe the first bad row of a chunk: its line, and what a row must look like."""
    for number, row in zip(count(first_line), text.splitlines(), strict=False):
        match = ROW.fullmatch(row)
        if match is None or any(int(value) > UINT32_MAX for value in match.groups()):
            return f"line {number}: {row[:60]!r} is not {HEADER.decode()} with a rating of 0.5 to 5.0 in half stars"
    raise AssertionError("parse_rows refused rows that are all good")
