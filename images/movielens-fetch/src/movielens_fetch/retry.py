"""How long to go on with an API that fails, and how long to wait before the next try."""

import logging
import random
import time

log = logging.getLogger(__name__)

INITIAL_BACKOFF = 0.1  # seconds; short, because most failures are over at once
MAX_BACKOFF = 10.0
MIN_REQUEST_TIMEOUT = 0.05


class DeadlineExceeded(Exception):
    """The time is up. The message says why the last try failed."""


class ProgressDeadline:
    """A limit on the time without a new row, whatever the time is spent on.

    It covers slow answers, waits, and rows that are fetched again after a restart: none of them is a new row.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.max_rows = 0
        self.cause = ""
        self._restart()

    def record_progress(self, rows: int) -> None:
        """Restart the full time if `rows`, those fetched so far, are more than ever before."""
        if rows > self.max_rows:
            self.max_rows = rows
            self._restart()

    @property
    def remaining(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def request_timeout(self) -> float:
        """Seconds for one request: half of what remains, so that one that hangs leaves time for another."""
        return max(self.remaining / 2, MIN_REQUEST_TIMEOUT)

    def back_off(self, cause: str, at_least: float = 0.0, *, cut_short: bool = False) -> None:
        """Wait before the next try: 0.1 to 0.2 s, each time twice as long, up to 20 s, and never less than `at_least`.

        Raises DeadlineExceeded where the deadline does not leave time for that. The last tries before it have little
        time: where such a try was `cut_short`, the cause is that of the try before.
        """
        if not cut_short or not self.cause:
            self.cause = cause
        backoff = min(INITIAL_BACKOFF * 2**self.failures, MAX_BACKOFF) * random.uniform(1, 2)  # noqa: S311 - jitter
        seconds = max(at_least, min(backoff, self.remaining / 2))
        if self.remaining - seconds < MIN_REQUEST_TIMEOUT:
            raise DeadlineExceeded(self.cause)
        self.failures += 1
        log.warning("%s; trying again in %.1f s", cause, seconds)
        time.sleep(seconds)

    def _restart(self) -> None:
        self.deadline = time.monotonic() + self.seconds
        self.failures = 0
        self.cause = ""
