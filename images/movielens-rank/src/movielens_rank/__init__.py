"""Rank the movies of one interval of ratings.

The public names are loaded on first use: importing this package must not import pandas, because Airflow parses DAG
files again and again, and a DAG file may import it at its top.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from movielens_rank.ranking import rank_movies
    from movielens_rank.rankings_csv import rank_file, write_rankings
    from movielens_rank.ratings_csv import BadRatings, read_ratings

__all__ = ["BadRatings", "rank_file", "rank_movies", "read_ratings", "write_rankings"]
__version__ = "0.1.0"

_MODULE_OF = {
    "BadRatings": "ratings_csv",
    "rank_file": "rankings_csv",
    "rank_movies": "ranking",
    "read_ratings": "ratings_csv",
    "write_rankings": "rankings_csv",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
