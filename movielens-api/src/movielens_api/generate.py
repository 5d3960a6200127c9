"""Generate ratings that look like MovieLens's from a seed.

The same profile and seed give the same bytes on any machine: random_stream.py says how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from movielens_api.columns import (
    COLUMNS,
    FORMAT,
    MOVIE_ID,
    RATING,
    TIMESTAMP,
    USER_ID,
    column_file,
    movies_file,
    read_about,
    staged_folder,
    write_about,
    write_movies,
)
from movielens_api.packed_rows import (
    Packed,
    add_seconds,
    add_to_users,
    as_indices,
    movies_of,
    pack,
    replace_movies,
    seconds_of,
    users_of,
)
from movielens_api.random_stream import Floats, Integers, RandomStream, Unsigned, argsort_high_bits
from movielens_api.titles import invent_movies

PERIOD_START = int(datetime(2019, 1, 1, tzinfo=UTC).timestamp())
PERIOD_END = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
PERIOD_SECONDS = PERIOD_END - PERIOD_START
MIN_RATINGS_PER_USER = 20
BLOCK_ROWS = 1_000_000  # drawn at a time: bounds the memory and moves the progress bar


@dataclass(frozen=True)
class Profile:
    """How much to generate."""

    ratings: int
    users: int
    movies: int
    user_shift: int  # flattens the head of the long tail, see long_tail
    movie_shift: int
    season_bits: int = 0  # a movie is rated in 1 / 2**season_bits of the period


PROFILES = {
    # With seasons, else hardly a movie would be rated three times in a month.
    "small": Profile(1_000, users=40, movies=60, user_shift=8, movie_shift=8, season_bits=5),
    "100k": Profile(100_000, users=700, movies=9_000, user_shift=14, movie_shift=45),
    "1m": Profile(1_000_000, users=6_500, movies=15_000, user_shift=130, movie_shift=75),
    "25m": Profile(25_000_000, users=162_000, movies=62_000, user_shift=3_240, movie_shift=150),
}
DEFAULT_PROFILE = "100k"


def is_generated(profile: str, seed: int, folder: Path) -> bool:
    """Return whether the data folder of this profile and seed is there."""
    return read_about(folder) == describe(profile, seed)


def describe(profile: str, seed: int) -> dict[str, Any]:
    """Return what dataset.json says about generated data."""
    size = PROFILES[profile]
    return {
        "format": FORMAT,
        "profile": profile,
        "seed": seed,
        "ratings": size.ratings,
        "users": size.users,
        "movies": size.movies,
    }


def generate(
    profile_name: str, seed: int, folder: Path, advance: Callable[[int], object] = lambda ratings: None
) -> None:
    """Write the data folder of a profile and a seed, complete or not at all.

    `advance` is called with the number of ratings finished since the last call. An older data folder at `folder`
    is replaced. Raises DataError if something else is there, and OSError.
    """
    profile = PROFILES[profile_name]
    with staged_folder(folder) as staging:
        random = RandomStream(seed)
        write_movies(movies_file(staging), invent_movies(random, profile.movies))
        rows = draw_rows(random, profile, advance)
        _save(staging, TIMESTAMP, seconds_of(rows) + np.uint64(PERIOD_START))
        users = users_of(rows)
        _save(staging, USER_ID, users + np.uint64(1))
        movies = movies_of(rows)
        del rows  # 200 MB in the largest profile
        _save(staging, MOVIE_ID, movies + np.uint64(1))
        _save(staging, RATING, draw_half_stars(random, profile, users, movies))
        write_about(staging, describe(profile_name, seed))


def _save(folder: Path, column: str, values: npt.NDArray[Any]) -> None:
    np.save(column_file(folder, column), values.astype(COLUMNS[column], copy=False))


def long_tail(size: int, shift: int, last_weight_removed: float) -> Floats:
    """Return weights of the ranks 0 to size - 1, which sum to 1, by the Zipf-Mandelbrot law 1 / (rank + shift).

    `last_weight_removed` is the share of the last weight that is subtracted from all, so that with 1 the last is 0.
    """
    weights: Floats = 1.0 / (np.arange(size) + shift)
    weights -= last_weight_removed * weights[-1]
    weights /= np.cumsum(weights)[-1]
    return weights


def ratings_per_user(profile: Profile) -> Integers:
    """Return the ratings of each rank of user: the minimum, and a long-tailed share of the rest, exact in sum."""
    rest = profile.ratings - MIN_RATINGS_PER_USER * profile.users
    weights = long_tail(profile.users, profile.user_shift, last_weight_removed=1.0)
    extra = np.floor(weights * rest).astype(np.int64)
    extra[: rest - int(extra.sum())] += 1
    return extra + MIN_RATINGS_PER_USER


def draw_rows(random: RandomStream, profile: Profile, advance: Callable[[int], object]) -> Packed:
    """Return every rating's second, user and movie, packed and sorted; no user rates a movie twice."""
    rows = _draw_users_and_movies(random, profile, advance)
    rows = rows[_draw_order_in_time(random, profile, rows)]
    add_seconds(rows, _draw_seconds(random, profile.ratings))
    rows.sort()  # only rows of the same second still move
    return rows


def _draw_users_and_movies(random: RandomStream, profile: Profile, advance: Callable[[int], object]) -> Packed:
    """Return who rated which movie, packed, user by user."""
    counts = ratings_per_user(profile)[random.permutation(profile.users)]
    shares = np.cumsum(long_tail(profile.movies, profile.movie_shift, last_weight_removed=0.9))
    shares[-1] = 1.0
    movie_of_rank = random.permutation(profile.movies).astype(np.uint64)
    last_rows = np.cumsum(counts)
    rows = np.empty(profile.ratings, np.uint64)
    user = filled = 0
    while user < profile.users:
        next_user = int(np.searchsorted(last_rows, filled + BLOCK_ROWS, side="right"))
        pairs = _draw_user_rank_pairs(random, counts[user:next_user], shares, user)
        ranks = as_indices(movies_of(pairs))
        rows[filled : filled + len(pairs)] = replace_movies(pairs, movie_of_rank[ranks])
        user, filled = next_user, filled + len(pairs)
        advance(len(pairs))
    return rows


def _draw_user_rank_pairs(random: RandomStream, counts: Integers, shares: Floats, first_user: int) -> Packed:
    """Return counts[i] different popularity ranks for user first_user + i, packed, a rank in the place of a movie.

    A rank is drawn by its share. Drawing only the duplicates again is the same as drawing one by one without
    replacement. Users who have all of theirs drop out, so the rounds soon become small.
    """
    missing = counts.copy()
    pairs = np.empty(0, np.uint64)
    complete = []
    while missing.any():
        users = np.repeat(np.arange(len(counts), dtype=np.uint64), missing)
        ranks = np.searchsorted(shares, random.uniform(len(users)), side="right").astype(np.uint64)
        pairs = _sorted_unique(np.concatenate([pairs, pack(users, ranks)]))
        user_of_pair = as_indices(users_of(pairs))
        drawn = np.bincount(user_of_pair, minlength=len(counts))
        missing = np.where(drawn > 0, counts - drawn, 0)
        is_complete = missing[user_of_pair] == 0
        complete.append(pairs[is_complete])
        pairs = pairs[~is_complete]
    return add_to_users(np.concatenate(complete), first_user)


def _sorted_unique(rows: Packed) -> Packed:
    """Sort in place, and return the rows without duplicates: five times as fast as np.unique of NumPy 2.4."""
    rows.sort()
    unique: Packed = rows[np.append(True, rows[1:] != rows[:-1])]
    return unique


def _draw_order_in_time(random: RandomStream, profile: Profile, rows: Packed) -> Integers:
    """Return the indices that put the rows in the order of time, each somewhere in its movie's season.

    A place in time is a share of 2**64. The seasons' starts are evenly spaced, and the sum overflows on purpose: a
    season that begins at the end of the period goes on at its start.
    """
    season_start = random.permutation(profile.movies).astype(np.uint64) * np.uint64(2**64 // profile.movies)
    place = random.raw(profile.ratings) >> np.uint64(profile.season_bits)
    place += season_start[as_indices(movies_of(rows))]
    return argsort_high_bits(place)


def _draw_seconds(random: RandomStream, size: int) -> Unsigned:
    """Return ascending seconds of the period, one in each of its `size` slices, so that no month stays empty.

    The density grows linearly until it has doubled: its distribution function is (2x + x^2) / 3 for x in [0, 1), of
    which this is the inverse.
    """
    share = (np.arange(size) + random.uniform(size)) / size
    seconds = (np.sqrt(1.0 + 3.0 * share) - 1.0) * PERIOD_SECONDS
    return np.minimum(seconds, PERIOD_SECONDS - 1).astype(np.uint64)  # the last share may round to 1


def draw_half_stars(random: RandomStream, profile: Profile, users: Unsigned, movies: Unsigned) -> npt.NDArray[np.uint8]:
    """Return half stars, 1 to 10: the movie's quality, the user's bias and noise, rounded."""
    quality = 3.45 + 0.45 * random.normal(profile.movies)
    bias = 0.35 * random.normal(profile.users)
    half_stars = np.empty(len(users), np.uint8)
    for start in range(0, len(users), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        stars = quality[movies[block]] + bias[users[block]] + 0.8 * random.normal(len(users[block]))
        half_stars[block] = np.clip(np.rint(stars * 2.0), 1, 10)
    return half_stars
