"""How long to go on with an API that fails, and how long to wait before the next try."""

import logging
import random
import time

log = logging.getLogger(__name__)

FIRST_WAIT = 0.1  # seconds; short, because most failures are over at once
LONGEST_WAIT = 10.0
SHORTEST_TRY = 0.05


class OutOfPatience(Exception):
    """The time is up. The text says why the last try failed."""


class Patience:
    """A limit on the time without a new row, whatever the time is spent on.

    It covers slow answers, waits, and rows that are fetched again after a new start: none of them is a new row.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.most_rows = 0
        self._renew()

    def reached(self, rows: int) -> None:
        """Says how far the download has come; more rows than ever before give the full time back."""
        if rows > self.most_rows:
            self.most_rows = rows
            self._renew()

    @property
    def left(self) -> float:
        """Seconds until the limit."""
        return self.deadline - time.monotonic()

    @property
    def for_one_try(self) -> float:
        """Seconds for one request: half of what is left, so that one that hangs leaves time for another."""
        return max(self.left / 2, SHORTEST_TRY)

    def wait(self, cause: str, at_least: float = 0.0) -> None:
        """Waits before the next try: 0.1 to 0.2 s, each time twice as long, up to 20 s, and never less than `at_least`.

        Raises OutOfPatience where the limit would not leave time for that.
        """
        backoff = min(FIRST_WAIT * 2**self.failures, LONGEST_WAIT) * random.uniform(1, 2)  # noqa: S311 - no secret
        seconds = max(at_least, min(backoff, self.left / 2))
        if self.left - seconds < SHORTEST_TRY:
            raise OutOfPatience(cause)
        self.failures += 1
        log.warning("%s; trying again in %.1f s", cause, seconds)
        time.sleep(seconds)

    def _renew(self) -> None:
        self.deadline = time.monotonic() + self.seconds
        self.failures = 0
