"""The fault mode: answers that fail at a given rate, to test the retries of clients."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

KINDS = ("429", "500", "slow", "cut")
RETRY_AFTER = 1  # seconds, in the header of a 429


@dataclass
class Faults:
    """Which requests fail, and how.

    The n-th request of a worker process has the same fault for the same seed. Which worker gets a request is up to
    the operating system: only with one worker is a whole run reproducible.
    """

    rate: float
    seed: int
    kinds: Sequence[str] = KINDS
    delay: float = 1.5
    _random: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 (chance, not a secret)

    def draw(self) -> str | None:
        """Return the fault of the next request, None for none."""
        with self._lock:
            fails = self._random.random() < self.rate
            kind = self._random.choice(self.kinds)
        return kind if fails else None

    def wait(self) -> None:
        time.sleep(self.delay)
