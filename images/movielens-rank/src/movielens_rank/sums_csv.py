"""Write and read sums of ratings: what a ranking needs to know of them, in a form that can be added up.

A CSV with SUM_COLUMNS, by movieId: for each movie the sum of its ratings in
millionths of a star, their number, and how many of them are 4 stars or more. All are whole numbers, so adding up is
exact.
"""

import os
from typing import TypeVar

import pandas as pd

from movielens_rank.atomic_write import atomic_write
from movielens_rank.csv_rows import BadRatings, first_bad_row, is_whole_number, quoted, read_header
from movielens_rank.names import SUM_COLUMNS
from movielens_rank.ranking import LIKED, MAX_STARS, MICROSTARS, MIN_STARS
from movielens_rank.ratings_csv import sum_ratings

MAX_RATINGS = int(2**53 / (MAX_STARS * MICROSTARS))
"""Of one movie: 1.8 billion. A float64 holds their sum exactly, but not every greater one."""

Number = TypeVar("Number", int, pd.Series)


def sum_file(input_path: str | os.PathLike[str], output_path: str | os.PathLike[str]) -> tuple[int, int]:
    """Add up the ratings CSV at `input_path` into `output_path`; return the numbers of movies and of ratings.

    Raises BadRatings if the input is not a ratings CSV, OSError if a file cannot be read or written. After an
    error `output_path` is as it was.
    """
    sums = sum_ratings(input_path)
    with atomic_write(output_path) as file:
        sums.reset_index().to_csv(file, columns=list(SUM_COLUMNS), index=False, lineterminator="\n")
    return len(sums), int(sums["ratings"].sum())


def read_sums(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return what `sum_file` wrote: index movieId, columns `microstars`, `ratings`, `liked`.

    Raises BadRatings, even for numbers that no ratings add up to, or OSError if the file cannot be opened.
    """
    read_header(path, SUM_COLUMNS)
    try:
        # no dtype: pandas would take 3.0 for a whole number
        sums = pd.read_csv(path, na_filter=False, low_memory=False, encoding="utf-8-sig", compression=None)
        if not isinstance(sums.index, pd.RangeIndex):
            raise ValueError("more fields in a row than columns in the header")
        if len(sums) and not (sums.dtypes == "int64").all():
            raise ValueError("every column must hold whole numbers")
        sums = sums.astype("int64")  # the types of an empty frame's columns mean nothing
        if not _are_sums(sums["microstars"], sums["ratings"], sums["liked"]).all():
            raise ValueError("no ratings add up to these numbers")
    except (ValueError, OverflowError) as error:  # pandas' own parser errors are ValueErrors
        reason = first_bad_row(path, _why_bad) or str(error).splitlines()[0]
        raise BadRatings(f"{path}: {reason}") from error
    return sums.set_index(SUM_COLUMNS[0])[list(SUM_COLUMNS[1:])]


def _are_sums(microstars: Number, ratings: Number, liked: Number) -> Number:
    least, middle, most = (int(stars * MICROSTARS) for stars in (MIN_STARS, LIKED, MAX_STARS))
    others = ratings - liked
    return (
        (ratings >= 1)
        & (ratings <= MAX_RATINGS)
        & (liked >= 0)
        & (others >= 0)
        & (microstars >= middle * liked + least * others)
        & (microstars <= most * liked + middle * others)
    )


def _why_bad(row: dict[str, str]) -> str | None:
    for column in row:
        if not is_whole_number(row[column]):
            return f"{column} {quoted(row[column])} is not a whole number"
    microstars, ratings, liked = (int(row[column]) for column in SUM_COLUMNS[1:])
    if not _are_sums(microstars, ratings, liked):
        return f"no {ratings} ratings, {liked} of them liked, add up to {microstars} microstars"
    return None
