"""The fault mode: answers that go wrong at a given rate, for those who write clients and test their retries."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

KINDS = ("429", "500", "slow", "cut")
RETRY_AFTER = 1  # seconds, which a 429 asks for


@dataclass
class Faults:
    """Which requests go wrong, and how.

    The n-th request of a worker process has the same fate for the same seed. Which worker gets a request is up to
    the operating system: with one worker a whole run repeats.
    """

    rate: float
    seed: int
    kinds: Sequence[str] = KINDS
    delay: float = 1.5
    _dice: random.Random = field(init=False, repr=False)
    _turn: threading.Lock = field(init=False, repr=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)  # noqa: S311 (chance, not a secret)

    def draw(self) -> str | None:
        """The fault of the next request, None for none."""
        with self._turn:
            strikes = self._dice.random() < self.rate
            kind = self._dice.choice(self.kinds)
        return kind if strikes else None

    def wait(self) -> None:
        time.sleep(self.delay)
