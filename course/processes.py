"""Child processes that never outlive the course: each ends with the block that started it, and with this process."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

Command: TypeAlias = list[str | Path]
PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def _die_with_parent() -> None:
    """Ask Linux to kill this child when its parent dies by SIGKILL, for then no `finally` runs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def child(
    command: Command, env: Mapping[str, str], log: IO[str], pipe_stdout: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process group of its own while the block runs; then end the group.

    A group of its own keeps Ctrl-C for this process, which then ends its children in order.
    stderr goes to the log, stdout too unless it is piped.
    """
    process = subprocess.Popen(
        command,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipe_stdout else log,
        stderr=log,
        text=True,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # safe here: this process has one thread
    )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a process and all it started: ask first, insist after three seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout:
        process.stdout.close()
