"""Report the progress on stderr: a bar on a terminal, a line every few seconds anywhere else."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
CLEAR_LINE = "\r\033[K"


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function to call with the rows so far and the total; meanwhile the log goes to stderr."""
    terminal = sys.stderr.isatty()
    # a line of the log takes the place of the bar, which is drawn again below it
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=(CLEAR_LINE if terminal else "") + "%(message)s")
    if not terminal:
        yield _log_lines()
        return
    with click.progressbar(length=1, label="ratings", show_pos=True, file=sys.stderr) as bar:

        def update(rows: int, total: int) -> None:
            bar.length = total
            bar.update(rows - bar.pos)  # backwards after a restart

        yield update


def _log_lines() -> Callable[[int, int], None]:
    last = time.monotonic()

    def update(rows: int, total: int) -> None:
        nonlocal last
        # None at the end: an engine reads stderr beside stdout, and the last line it sees has to be the result's.
        if rows < total and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            log.info("%d of %d ratings", rows, total)

    return update
