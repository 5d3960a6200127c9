"""Rank files: CSV of ratings, or of their sums, in; CSV of rankings out."""

import os
from collections.abc import Iterable

import pandas as pd

from movielens_rank.atomic_write import atomic_write
from movielens_rank.names import DEFAULT_METHOD, DEFAULT_MIN_RATINGS, RANKING_COLUMNS
from movielens_rank.ranking import add_totals, rank
from movielens_rank.ratings_csv import sum_ratings
from movielens_rank.sums_csv import read_sums


def write_rankings(rankings: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    r"""Write RANKING_COLUMNS to `path`, complete or not at all.

    Lines end with "\n"; floats stand in their shortest form that reads back as the same float. Missing parent
    folders are created. Raises OSError if that cannot be done.
    """
    with atomic_write(path) as file:
        rankings.to_csv(file, columns=list(RANKING_COLUMNS), index=False, lineterminator="\n")


def rank_file(
    input_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    min_ratings: int = DEFAULT_MIN_RATINGS,
    method: str = DEFAULT_METHOD,
    limit: int | None = None,
) -> tuple[int, int]:
    """Rank the ratings CSV at `input_path` into `output_path`; return the numbers of movies ranked and of ratings read.

    The arguments and the result are those of `rank_movies`; a file without ratings leads to a file without rankings.
    Raises BadRatings if the input is not a ratings CSV, ValueError if an argument is out of range, OSError if a file
    cannot be read or written. After an error `output_path` is as it was.
    """
    return _rank_into(output_path, sum_ratings(input_path), min_ratings, method, limit)


def rank_sums(
    input_paths: Iterable[str | os.PathLike[str]],
    output_path: str | os.PathLike[str],
    min_ratings: int = DEFAULT_MIN_RATINGS,
    method: str = DEFAULT_METHOD,
    limit: int | None = None,
) -> tuple[int, int]:
    """Rank what `sum_file` wrote, one file or more, as `rank_file` ranks the ratings of all of them in one file.

    No two files may hold sums of the same ratings, which would count twice. Raises as `rank_file` does.
    """
    return _rank_into(output_path, add_totals(map(read_sums, input_paths)), min_ratings, method, limit)


def _rank_into(
    output_path: str | os.PathLike[str], totals: pd.DataFrame, min_ratings: int, method: str, limit: int | None
) -> tuple[int, int]:
    rankings = rank(totals, min_ratings, method, limit)
    write_rankings(rankings, output_path)
    return len(rankings), int(totals["ratings"].sum())
