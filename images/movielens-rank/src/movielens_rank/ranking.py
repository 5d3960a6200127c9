"""The ranking itself: from ratings to totals per movie, from totals to scores.

The two steps are separate, because totals can be added up: those of the chunks of a file are the totals of the file,
those of months the totals of a year. `total_per_movie` totals ratings, `add_totals` adds totals, `rank` scores them.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from movielens_rank.names import (
    BAYES,
    DEFAULT_METHOD,
    DEFAULT_MIN_RATINGS,
    MEAN,
    METHODS,
    RANKING_COLUMNS,
    WILSON,
)

MIN_STARS, MAX_STARS = 0.5, 5.0
LIKED = 4.0
MICROSTARS = 1_000_000
"""Stars are added up as whole millionths: sums of integers are the same in any order, sums of floats are not."""

Z = 1.959963984540054
"""The 0.975 quantile of the standard normal distribution: a two-sided interval of 95 %."""


def rank_movies(
    ratings: pd.DataFrame,
    min_ratings: int = DEFAULT_MIN_RATINGS,
    method: str = DEFAULT_METHOD,
    limit: int | None = None,
) -> pd.DataFrame:
    """Rank the movies that have at least `min_ratings` ratings, and return the first `limit` of them (all if None).

    `ratings` has one row per rating, in any order, with the columns `movieId` (whole numbers) and `rating` (0.5 to 5.0
    stars; counted in millionths of a star, which is exact for half stars). Other columns are ignored.

    The result has the columns `movieId`, `avg_rating` and `num_ratings`, ordered by avg_rating descending, then
    num_ratings descending, then movieId ascending. `avg_rating` holds the score of the method:

    - `mean`: the mean rating R, in stars.
    - `bayes`: WR = v/(v+m) * R + m/(v+m) * C, in stars; v is the number of ratings of the movie, m is `min_ratings`,
      C the mean over all ratings given, those of unranked movies too. With few ratings a movie stays near C.
      Source: the weighted rating that IMDb printed under its Top 250, where m is likewise the number of votes that
      a movie needs to be listed.
    - `wilson`: the least share of people, 0 to 1, who like the movie (4 stars or more), with 95 % confidence: the
      lower bound of the Wilson score interval. Source: E. B. Wilson, "Probable inference, the law of succession,
      and statistical inference", JASA 22 (1927); for rankings, E. Miller, "How Not To Sort By Average Rating" (2009).

    Raises ValueError: a needed column is missing or of another type, a rating is not from 0.5 to 5.0, or an argument
    is out of range.
    """
    check_ratings(ratings)
    return rank(total_per_movie(ratings), min_ratings, method, limit)


def check_ratings(ratings: pd.DataFrame) -> None:
    """Raise ValueError unless `ratings` has whole numbers as movieId and 0.5 to 5.0 as rating."""
    for column, kinds, wanted in (("movieId", "iu", "whole numbers"), ("rating", "iuf", "numbers")):
        if column not in ratings.columns:
            raise ValueError(f"ratings need a column {column!r}")
        # the type of a column of an empty frame means nothing
        if len(ratings) and ratings[column].dtype.kind not in kinds:
            raise ValueError(f"column {column!r} must hold {wanted}, not {ratings[column].dtype}")
    # a missing rating is out of range, as NaN and as pandas.NA
    in_range = ratings["rating"].between(MIN_STARS, MAX_STARS).to_numpy(dtype=bool, na_value=False)
    if not in_range.all():
        raise ValueError(f"rating {ratings['rating'].to_numpy()[~in_range][0]} is not from {MIN_STARS} to {MAX_STARS}")


def total_per_movie(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return totals of checked ratings: index movieId, columns `microstars`, `ratings`, `liked` (4 stars or more)."""
    movie, movie_ids = pd.factorize(ratings["movieId"].to_numpy(np.int64))
    stars = ratings["rating"].to_numpy(np.float64)
    # bincount adds up weights as float64, which holds whole numbers exactly up to 2**53
    microstars = np.bincount(movie, weights=np.rint(stars * MICROSTARS), minlength=len(movie_ids))
    return pd.DataFrame(
        {
            "microstars": microstars.astype(np.int64),
            "ratings": np.bincount(movie, minlength=len(movie_ids)),
            "liked": np.bincount(movie[stars >= LIKED], minlength=len(movie_ids)),
        },
        index=pd.Index(movie_ids, name="movieId"),
    )


def add_totals(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Add up totals of `total_per_movie`, at least one. Being integers, they add up to the same in any split."""
    return pd.concat(parts).groupby(level="movieId").sum()


def rank(
    totals: pd.DataFrame, min_ratings: int = DEFAULT_MIN_RATINGS, method: str = DEFAULT_METHOD, limit: int | None = None
) -> pd.DataFrame:
    """Rank movies by their totals, as `rank_movies` does. Raises ValueError on an argument out of range."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if min_ratings < 1:
        raise ValueError(f"min_ratings must be at least 1, not {min_ratings}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")

    rankings = totals.assign(
        avg_rating=_SCORES[method](totals, min_ratings), num_ratings=totals["ratings"]
    ).reset_index()
    rankings = rankings.loc[rankings["num_ratings"] >= min_ratings, list(RANKING_COLUMNS)]
    rankings = rankings.sort_values(
        ["avg_rating", "num_ratings", "movieId"], ascending=[False, False, True], ignore_index=True
    )
    return rankings if limit is None else rankings.head(limit)


def _mean(totals: pd.DataFrame, min_ratings: int) -> pd.Series:
    return totals["microstars"] / (totals["ratings"] * MICROSTARS)


def _bayes(totals: pd.DataFrame, min_ratings: int) -> pd.Series:
    votes = totals["ratings"]
    # at least one vote, so that no ratings at all are not a division by zero
    mean_of_all = totals["microstars"].sum() / (max(votes.sum(), 1) * MICROSTARS)
    everyone = votes + min_ratings
    return votes / everyone * _mean(totals, min_ratings) + min_ratings / everyone * mean_of_all


def _wilson(totals: pd.DataFrame, min_ratings: int) -> pd.Series:
    n = totals["ratings"]
    share = totals["liked"] / n
    spread = Z * np.sqrt((share * (1 - share) + Z * Z / (4 * n)) / n)
    bound = (share + Z * Z / (2 * n) - spread) / (1 + Z * Z / n)
    # 0 for a movie that nobody likes, where rounding would leave tiny differences, and order by them
    return bound.where(totals["liked"] > 0, 0.0)


_SCORES: dict[str, Callable[[pd.DataFrame, int], pd.Series]] = {MEAN: _mean, BAYES: _bayes, WILSON: _wilson}
