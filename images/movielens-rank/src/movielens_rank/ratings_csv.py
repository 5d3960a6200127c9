"""Read and check the ratings of one interval: a CSV with the columns userId, movieId, rating, timestamp.

Only movieId and rating are needed; userId and timestamp are checked where they are there, because a row that was cut
short shows in its last column. A good file is read in chunks by pandas and checked a column at a time. Only when
that fails, a second reading goes row by row to name the first bad one.
"""

import csv
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pandas.io.parsers import TextFileReader

from movielens_rank.ranking import MAX_STARS, MIN_STARS, check_ratings

NEEDED = ("movieId", "rating")
WHOLE_NUMBERS = ("userId", "movieId", "timestamp")
CHUNK_ROWS = 1_000_000


class BadRatings(ValueError):
    """The file is not a ratings CSV; the message names the file, the line and the value."""


def read_ratings(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return all ratings of the file as a frame with the columns `movieId` (int64) and `rating` (float64, stars).

    It takes 16 bytes a rating; `rank_file` reads in chunks instead. A file with a header only gives no rows.
    Raises BadRatings, or OSError if the file cannot be opened.
    """
    return pd.concat(rating_chunks(path), ignore_index=True).astype({"movieId": "int64", "rating": "float64"})


def rating_chunks(path: str | os.PathLike[str]) -> Iterator[pd.DataFrame]:
    """Yield the checked `movieId` and `rating` of at most CHUNK_ROWS rows at a time; one empty frame if there are none.

    Raises BadRatings, or OSError if the file cannot be opened.
    """
    header = _read_header(path)
    try:
        # No dtype for the columns of a rating: their types are found, then checked, so that 3.0 is no whole number
        # and True no rating. No usecols: pandas would then let rows with too many fields pass.
        with pd.read_csv(
            path,
            chunksize=CHUNK_ROWS,
            dtype={column: str for column in header if column not in (*NEEDED, *WHOLE_NUMBERS)},
            na_filter=False,
            encoding="utf-8-sig",
            compression=None,
        ) as reader:
            while (chunk := _next_chunk(reader)) is not None:
                if not isinstance(chunk.index, pd.RangeIndex):
                    raise ValueError("more fields in a row than columns in the header")
                for column in WHOLE_NUMBERS:
                    if column in header and len(chunk) and chunk[column].dtype != "int64":
                        raise ValueError(f"column {column!r} must hold whole numbers")
                check_ratings(chunk)
                yield chunk[[*NEEDED]]
    except (ValueError, OverflowError) as error:  # pandas' own parser errors are ValueErrors
        reason = _first_bad_row(path) or str(error).splitlines()[0]
        raise BadRatings(f"{path}: {reason}") from error


def _next_chunk(reader: TextFileReader) -> pd.DataFrame | None:
    # pandas warns of a column whose type changes on the way; that column fails the check of types
    with warnings.catch_warnings(action="ignore", category=pd.errors.DtypeWarning):
        return next(reader, None)


def _read_header(path: str | os.PathLike[str]) -> list[str]:
    try:
        line, header = next(_rows(path), (1, []))
    except csv.Error as error:
        raise BadRatings(f"{path}: line 1: {error}") from error
    if not header:
        raise BadRatings(f"{path} is empty; a ratings file has at least the header line {','.join(NEEDED)}")
    for column in NEEDED:
        if header.count(column) != 1:
            found = _shown(",".join(header))
            raise BadRatings(f"{path}: line {line}: the header needs one column {column!r}, but is {found}")
    return header


def _first_bad_row(path: str | os.PathLike[str]) -> str | None:
    """Describe the first row that cannot be ranked, or return None if every row looks well."""
    rows = _rows(path)
    _, header = next(rows)
    last_line = 1
    try:
        for line, row in rows:
            last_line = line
            if len(row) != len(header):
                return f"line {line}: {len(row)} fields, but the header has {len(header)}"
            for column, value in zip(header, row, strict=True):
                if column in WHOLE_NUMBERS and not _is_whole_number(value):
                    return f"line {line}: {column} {_shown(value)} is not a whole number"
                if column == "rating" and not _is_rating(value):
                    return f"line {line}: rating {_shown(value)} is not a number from {MIN_STARS} to {MAX_STARS}"
                if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
                    return f"line {line}: {column} {_shown(value)} is not UTF-8"
    except csv.Error as error:
        return f"after line {last_line}: {error}"
    return None


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, header first, each with the number of its first line.

    Bytes that are not UTF-8 come through as surrogates: a bad row has to be shown, not to stop the reading.
    """
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        line = 1
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield line, row
            line = reader.line_num + 1


def _is_whole_number(value: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,19}", value.strip()) is not None and -(2**63) <= int(value) < 2**63


def _is_rating(value: str) -> bool:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", value.strip(), re.IGNORECASE):
        return False
    return MIN_STARS <= float(value) <= MAX_STARS


def _shown(value: str) -> str:
    """Quote a value for a message: one line, no control characters, not endless."""
    return ascii(value if len(value) <= 60 else value[:60] + "...")
