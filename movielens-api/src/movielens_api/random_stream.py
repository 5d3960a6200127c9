"""Random numbers of a few shapes that are the same on any machine.

They come only from the raw bits of PCG64, a stream that NumPy promises to keep, and from arithmetic that IEEE 754
rounds exactly (+ - * / and the square root; no exp, log or power, whose last digit differs between processors).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint64]


class RandomStream:
    """A stream of random numbers: the same seed and the same calls return the same numbers."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.PCG64(seed)

    def raw(self, size: int) -> Unsigned:
        """Return `size` integers of 64 random bits."""
        bits: Unsigned = self._generator.random_raw(size)
        return bits

    def uniform(self, size: int) -> Floats:
        """Return numbers uniformly distributed over [0, 1)."""
        return (self.raw(size) >> np.uint64(11)) * 2.0**-53

    def normal(self, size: int) -> Floats:
        """Return numbers of nearly the standard normal distribution: scaled sums of four uniform ones (Irwin-Hall)."""
        sums = self.raw(size).view(np.uint16).reshape(size, 4).sum(axis=1, dtype=np.int64)
        normal: Floats = (sums - 2.0 * 65535) * (math.sqrt(3.0) / 65536)
        return normal

    def permutation(self, size: int) -> Integers:
        """Return the numbers 0 to size - 1 in random order."""
        return argsort_high_bits(self.raw(size))


def argsort_high_bits(keys: Unsigned) -> Integers:
    """Return the indices that sort `keys`, of which only the bits count that an index does not need.

    Each index replaces the low bits of its key, and then the integers are sorted: faster than argsort, and exact.
    """
    index_mask = np.uint64((1 << len(keys).bit_length()) - 1)
    keys = (keys & ~index_mask) | np.arange(len(keys), dtype=np.uint64)
    keys.sort()
    return (keys & index_mask).astype(np.int64)
