"""What a task does that waits to be killed, and who kills it."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A task that says when it is ready, then waits. It takes a SIGTERM as a good reason to end with 0.
WAITING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
print("ready", flush=True)
time.sleep(120)
"""


@contextmanager
def when(condition: Callable[[], object], act: Callable[[], object]) -> Iterator[None]:
    """Act, beside what is done in here, as soon as a condition holds."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            if condition():
                act()
                return

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


@contextmanager
def sigterm_when(condition: Callable[[], object]) -> Iterator[None]:
    """Send SIGTERM to this process, in which the task runs, as soon as a condition holds."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        with when(condition, lambda: os.kill(os.getpid(), signal.SIGTERM)):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
