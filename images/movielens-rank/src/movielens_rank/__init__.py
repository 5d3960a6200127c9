"""Rank movies by their ratings, of one interval or of many.

The public names are loaded on first use: importing this package must not import pandas, because Airflow parses DAG
files again and again, and a DAG file may import it at its top. So they stand twice: below for type checkers, and in
_MODULE_OF for Python; a test compares them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from movielens_rank.csv_rows import BadRatings as BadRatings
    from movielens_rank.ranking import rank_movies as rank_movies
    from movielens_rank.rankings_csv import rank_file as rank_file
    from movielens_rank.rankings_csv import rank_sums as rank_sums
    from movielens_rank.rankings_csv import write_rankings as write_rankings
    from movielens_rank.ratings_csv import read_ratings as read_ratings
    from movielens_rank.sums_csv import sum_file as sum_file

_MODULE_OF = {
    "BadRatings": "csv_rows",
    "rank_file": "rankings_csv",
    "rank_movies": "ranking",
    "rank_sums": "rankings_csv",
    "read_ratings": "ratings_csv",
    "sum_file": "sums_csv",
    "write_rankings": "rankings_csv",
}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
