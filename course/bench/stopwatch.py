"""Run one command, and print as the last line on stdout what it took, as JSON.

This is a process of its own, and imports little, because of how Linux counts: the peak memory of a process includes
what the process that started it had at that moment.
"""

import json
import os
import sys
import time


def main(command: list[str]) -> None:
    """Print {"seconds", "peak_bytes", "exit_code"}; the command's own stdout goes before."""
    started = time.monotonic()
    pid = os.posix_spawn(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    exit_code = os.waitstatus_to_exitcode(status)
    print(json.dumps({"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024, "exit_code": exit_code}))


if __name__ == "__main__":
    main(sys.argv[1:])
