"""The console scripts: each runs its command of cli.py and turns an error into one line and an exit code."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from movielens_rank import cli


def rank_movies() -> NoReturn:
    run(cli.rank_movies)


def sum_ratings() -> NoReturn:
    run(cli.sum_ratings)


def rank_sums() -> NoReturn:
    run(cli.rank_sums)


def run(command: click.Command) -> NoReturn:
    """Run the command on the arguments of this process, and exit."""
    # Process 1 of a container has no default action for signals: without handlers it would run on.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _exit_on_signal)
    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:  # click's own output would print the usage around it
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)


def _exit_on_signal(signum: int, frame: FrameType | None) -> NoReturn:
    # Not through stderr's buffer, which the interrupted code may be writing to, and without an exception, which the
    # compiled code of pandas would turn into another one. The unfinished file has no name, so it goes with the process.
    os.write(2, f"Stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)
