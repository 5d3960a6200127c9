"""Rows packed into 64-bit integers, so that one fast sort of integers gives the API's order of rows.

    bits 63 to 35   second, counted from the start of the period
    bits 34 to 17   user, from 0
    bits 16 to 0    movie, from 0

The fields stand in the order of the sort: by second, then user, then movie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MOVIE_BITS = 17  # up to 131,072 movies
USER_BITS = 18  # up to 262,144 users

USER_SHIFT = np.uint64(MOVIE_BITS)
SECOND_SHIFT = np.uint64(MOVIE_BITS + USER_BITS)
MOVIE_MASK = np.uint64((1 << MOVIE_BITS) - 1)
USER_MASK = np.uint64((1 << USER_BITS) - 1)

Packed = npt.NDArray[np.uint64]
Unsigned = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def pack(users: Unsigned, movies: Unsigned) -> Packed:
    """Return the rows of these users and movies, all at second 0."""
    return (users << USER_SHIFT) | movies


def add_seconds(rows: Packed, seconds: Unsigned) -> None:
    """Set the second of each row, in place. It has to be 0 so far."""
    rows |= seconds << SECOND_SHIFT


def add_to_users(rows: Packed, first_user: int) -> Packed:
    """Return the rows with `first_user` added to each user."""
    return rows + (np.uint64(first_user) << USER_SHIFT)


def replace_movies(rows: Packed, movies: Unsigned) -> Packed:
    """Return the rows with other movies."""
    return (rows & ~MOVIE_MASK) | movies


def seconds_of(rows: Packed) -> Unsigned:
    seconds: Unsigned = rows >> SECOND_SHIFT
    return seconds


def users_of(rows: Packed) -> Unsigned:
    users: Unsigned = (rows >> USER_SHIFT) & USER_MASK
    return users


def movies_of(rows: Packed) -> Unsigned:
    movies: Unsigned = rows & MOVIE_MASK
    return movies


def as_indices(numbers: npt.NDArray[Any]) -> Indices:
    """Return unsigned numbers in the type that NumPy indexes with."""
    indices: Indices = numbers.astype(np.int64)
    return indices
