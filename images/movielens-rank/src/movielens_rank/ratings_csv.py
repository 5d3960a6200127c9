"""Read and check the ratings of one interval: a CSV with RATING_COLUMNS.

Only movieId and rating are needed; userId and timestamp are checked where present, because a row that was cut
short shows in its last column. A good file is read in chunks by pandas and checked a column at a time. Only when
that fails, a second reading goes row by row to name the first bad one.
"""

import os
import re
import warnings
from collections.abc import Iterator

import pandas as pd
from pandas.io.parsers import TextFileReader

from movielens_rank.csv_rows import BadRatings, first_bad_row, is_whole_number, quoted, read_header
from movielens_rank.names import NEEDED_RATING_COLUMNS, RATING_COLUMNS
from movielens_rank.ranking import MAX_STARS, MIN_STARS, add_totals, check_ratings, total_per_movie

WHOLE_NUMBERS = tuple(column for column in RATING_COLUMNS if column != "rating")
CHUNK_ROWS = 1_000_000


def read_ratings(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return all ratings of the file as a frame with the columns `movieId` (int64) and `rating` (float64, stars).

    It takes 16 bytes per rating; `sum_ratings` reads in chunks instead. A file with only a header has no rows.
    Raises BadRatings, or OSError if the file cannot be opened.
    """
    return pd.concat(rating_chunks(path), ignore_index=True).astype({"movieId": "int64", "rating": "float64"})


def sum_ratings(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Add up the ratings of the file per movie, as `total_per_movie` does, in memory that does not grow with them.

    Raises BadRatings, or OSError if the file cannot be opened.
    """
    return add_totals(total_per_movie(chunk) for chunk in rating_chunks(path))


def rating_chunks(path: str | os.PathLike[str]) -> Iterator[pd.DataFrame]:
    """Yield the checked `movieId` and `rating` of at most CHUNK_ROWS rows at a time; one empty frame if there are none.

    Raises BadRatings, or OSError if the file cannot be opened.
    """
    header = read_header(path, NEEDED_RATING_COLUMNS)
    try:
        # No dtype for the columns of a rating: their types are found, then checked, so that 3.0 is not a whole
        # number and True not a rating. No usecols: pandas would then let rows with too many fields pass.
        with pd.read_csv(
            path,
            chunksize=CHUNK_ROWS,
            dtype={column: str for column in header if column not in RATING_COLUMNS},
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
                yield chunk[[*NEEDED_RATING_COLUMNS]]
    except (ValueError, OverflowError) as error:  # pandas' own parser errors are ValueErrors
        reason = first_bad_row(path, _why_bad) or str(error).splitlines()[0]
        raise BadRatings(f"{path}: {reason}") from error


def _next_chunk(reader: TextFileReader) -> pd.DataFrame | None:
    # pandas warns of a column whose type changes between chunks; that column fails the type check
    with warnings.catch_warnings(action="ignore", category=pd.errors.DtypeWarning):
        return next(reader, None)


def _why_bad(row: dict[str, str]) -> str | None:
    for column, value in row.items():
        if column in WHOLE_NUMBERS and not is_whole_number(value):
            return f"{column} {quoted(value)} is not a whole number"
        if column == "rating" and not _is_rating(value):
            return f"rating {quoted(value)} is not a number from {MIN_STARS} to {MAX_STARS}"
    return None


def _is_rating(value: str) -> bool:
    if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", value.strip(), re.IGNORECASE):
        return False
    return MIN_STARS <= float(value) <= MAX_STARS
