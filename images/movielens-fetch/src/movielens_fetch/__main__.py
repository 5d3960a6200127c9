"""The entry point of `fetch-ratings`: first the signal handlers, then the imports that take time."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn


def exit_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    """End the process with 128 + the signal's number: 143 for SIGTERM, 130 for SIGINT.

    In a container this is process 1, which has no default action for signals. An exception and not os._exit, so
    that the unfinished file is removed.
    """
    os.write(2, f"Stopped by {signal.Signals(number).name}\n".encode())
    sys.exit(128 + number)


def main() -> None:
    """Run the command; an error is one line on stderr and its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, exit_on_signal)

    import click

    from movielens_fetch.command import command

    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:  # click's own way would print the usage around it
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # stdout is closed or its disk is full
        click.echo(f"Error: cannot write to stdout: {error.strerror}", err=True)
        os._exit(1)  # sys.exit would try to write it again


if __name__ == "__main__":
    main()
