"""Make ratings that look like MovieLens's from a seed.

The same profile and seed give the same bytes on any machine. So chance comes only from the raw bits of PCG64, a
stream that NumPy promises to keep, and the arithmetic only from operations that IEEE 754 rounds exactly
(+ - * / and the square root; no exp, log or power, whose last digit differs between processors).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from movielens_api.columns import COLUMNS, FORMAT, read_about, whole_folder, write_about, write_movies
from movielens_api.titles import invent_movies

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Packed = npt.NDArray[np.uint64]

FIRST = int(datetime(2019, 1, 1, tzinfo=UTC).timestamp())
END = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
MIN_PER_USER = 20
BLOCK = 1_000_000  # ratings drawn at a time: bounds the memory and moves the progress display

# (seconds since FIRST, user, movie) packed into one unsigned integer sort as the API orders its rows.
MOVIE_BITS = 17
USER_BITS = 18
MOVIE_MASK = np.uint64((1 << MOVIE_BITS) - 1)
USER_MASK = np.uint64((1 << USER_BITS) - 1)


@dataclass(frozen=True)
class Profile:
    """How much to make."""

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


class Chance:
    """Random numbers of a few shapes, from the raw bits of one seeded stream."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def raw(self, size: int) -> Packed:
        """64 random bits each."""
        bits: Packed = self._bits.random_raw(size)
        return bits

    def uniform(self, size: int) -> Floats:
        """Evenly spread over [0, 1)."""
        return (self.raw(size) >> np.uint64(11)) * 2.0**-53

    def bell(self, size: int) -> Floats:
        """Nearly normal with mean 0 and deviation 1: the sum of four uniform numbers (Irwin-Hall), scaled."""
        quarters = self.raw(size).view(np.uint16).reshape(size, 4).sum(axis=1, dtype=np.int64)
        bell: Floats = (quarters - 2.0 * 65535) * (math.sqrt(3.0) / 65536)
        return bell

    def permutation(self, size: int) -> Integers:
        """The numbers 0 to size - 1 in random order."""
        return order_of(self.raw(size))


def order_of(keys: Packed) -> Integers:
    """The indices that sort `keys`. Each index rides in the low bits of its key: quicker than argsort, and exact."""
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    keys = (keys & ~low) | np.arange(len(keys), dtype=np.uint64)
    keys.sort()
    return (keys & low).astype(np.int64)


def is_generated(profile: str, seed: int, folder: Path) -> bool:
    """Whether the data folder of this profile and seed is there."""
    return read_about(folder) == describe(profile, seed)


def describe(profile: str, seed: int) -> dict[str, Any]:
    """What dataset.json says about generated data."""
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
    """Write the data folder of a profile and a seed, whole or not at all.

    `advance` is called with the number of ratings finished since the last call. An older data folder at `folder`
    is replaced. Raises DataError if something else is there, and OSError.
    """
    profile = PROFILES[profile_name]
    with whole_folder(folder) as beside:
        chance = Chance(seed)
        write_movies(beside / "movies.csv", invent_movies(chance, profile.movies))
        rows = draw_rows(chance, profile, advance)
        _save(beside, "timestamp", (rows >> np.uint64(MOVIE_BITS + USER_BITS)) + np.uint64(FIRST))
        user = (rows >> np.uint64(MOVIE_BITS)) & USER_MASK
        _save(beside, "userId", user + np.uint64(1))
        movie = rows & MOVIE_MASK
        del rows
        _save(beside, "movieId", movie + np.uint64(1))
        _save(beside, "rating", rate(chance, profile, user, movie))
        write_about(beside, describe(profile_name, seed))


def _save(folder: Path, name: str, values: npt.NDArray[Any]) -> None:
    np.save(folder / f"{name}.npy", values.astype(COLUMNS[name], copy=False))


def long_tail(size: int, shift: int, sink: float) -> Floats:
    """Weights of ranks 0 to size - 1, which sum to 1, by the Zipf-Mandelbrot law 1 / (rank + shift).

    `sink` of the last weight is taken off them all, so that with 1 the last is 0.
    """
    weights: Floats = 1.0 / (np.arange(size) + shift)
    weights -= sink * weights[-1]
    weights /= np.cumsum(weights)[-1]
    return weights


def counts_per_user(profile: Profile) -> Integers:
    """How many ratings each rank of user gives: MIN_PER_USER and a long-tailed share of the rest, exact in sum."""
    rest = profile.ratings - MIN_PER_USER * profile.users
    extra = np.floor(long_tail(profile.users, profile.user_shift, sink=1.0) * rest).astype(np.int64)
    extra[: rest - int(extra.sum())] += 1
    return extra + MIN_PER_USER


def draw_rows(chance: Chance, profile: Profile, advance: Callable[[int], object]) -> Packed:
    """Every rating's (second, user, movie), packed and sorted; no user rates a movie twice."""
    counts = counts_per_user(profile)[chance.permutation(profile.users)]
    shares = np.cumsum(long_tail(profile.movies, profile.movie_shift, sink=0.9))
    shares[-1] = 1.0
    movie_of_rank = chance.permutation(profile.movies).astype(np.uint64)
    ends = np.cumsum(counts)
    rows = np.empty(profile.ratings, np.uint64)
    user = filled = 0
    while user < profile.users:
        next_user = int(np.searchsorted(ends, filled + BLOCK, side="right"))
        pairs = _draw_pairs(chance, counts[user:next_user], shares, user)
        ranks = (pairs & MOVIE_MASK).astype(np.int64)
        rows[filled : filled + len(pairs)] = (pairs & ~MOVIE_MASK) | movie_of_rank[ranks]
        user, filled = next_user, filled + len(pairs)
        advance(len(pairs))
    # A row's place in time, as a share of 2**64: anywhere in its movie's season. Seasons start evenly spaced, and
    # the sum wraps, so that they go round the whole period.
    season = chance.permutation(profile.movies).astype(np.uint64) * np.uint64(2**64 // profile.movies)
    place = season[(rows & MOVIE_MASK).astype(np.int64)] + (
        chance.raw(profile.ratings) >> np.uint64(profile.season_bits)
    )
    rows = rows[order_of(place)]
    rows |= _draw_seconds(chance, profile.ratings) << np.uint64(MOVIE_BITS + USER_BITS)
    rows.sort()  # only rows of the same second still move
    return rows


def _draw_pairs(chance: Chance, counts: Integers, shares: Floats, first_user: int) -> Packed:
    """(user, popularity rank) pairs, packed: counts[i] different ranks for user first_user + i.

    A rank is drawn by its share. Drawing again only what came out double gives what drawing one by one without
    replacement gives. Users who have all of theirs drop out, so the rounds soon become small.
    """
    missing = counts.copy()
    pairs = np.empty(0, np.uint64)
    complete = []
    while missing.any():
        users = np.repeat(np.arange(len(counts), dtype=np.uint64), missing)
        ranks = np.searchsorted(shares, chance.uniform(len(users)), side="right").astype(np.uint64)
        pairs = np.concatenate([pairs, (users << np.uint64(MOVIE_BITS)) | ranks])
        pairs.sort()  # with the next line five times as fast as np.unique of NumPy 2.4
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
        user_of_pair = (pairs >> np.uint64(MOVIE_BITS)).astype(np.int64)
        drawn = np.bincount(user_of_pair, minlength=len(counts))
        missing = np.where(drawn > 0, counts - drawn, 0)
        is_complete = missing[user_of_pair] == 0
        complete.append(pairs[is_complete])
        pairs = pairs[~is_complete]
    return np.concatenate(complete) + (np.uint64(first_user) << np.uint64(MOVIE_BITS))


def _draw_seconds(chance: Chance, size: int) -> Packed:
    """Ascending seconds since FIRST, one in each of `size` slices of the period, so that no month stays empty.

    The density grows in a straight line until it has doubled: its distribution function is (2x + x^2) / 3 for
    x in [0, 1), of which this is the inverse.
    """
    share = (np.arange(size) + chance.uniform(size)) / size
    seconds = (np.sqrt(1.0 + 3.0 * share) - 1.0) * (END - FIRST)
    return np.minimum(seconds, END - FIRST - 1).astype(np.uint64)  # the last share may round to 1


def rate(chance: Chance, profile: Profile, user: Packed, movie: Packed) -> npt.NDArray[np.uint8]:
    """Half stars, 1 to 10: how good the movie is, how kind the user is, and the mood of the day."""
    quality = 3.45 + 0.45 * chance.bell(profile.movies)
    kindness = 0.35 * chance.bell(profile.users)
    half_stars = np.empty(len(user), np.uint8)
    for start in range(0, len(user), BLOCK):
        block = slice(start, start + BLOCK)
        stars = quality[movie[block]] + kindness[user[block]] + 0.8 * chance.bell(len(user[block]))
        half_stars[block] = np.clip(np.rint(stars * 2.0), 1, 10)
    return half_stars
