"""The command rank-movies. pandas is imported only once there is something to rank: --help stays quick."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

import click

METHODS = ("mean", "bayes", "wilson")


class BadInput(click.ClickException):
    """What the caller gave cannot be used."""

    exit_code = 2


class Failed(click.ClickException):
    """The arguments are good, but the work could not be done."""

    exit_code = 1


@click.command("rank-movies", context_settings={"max_content_width": 110})
@click.option(
    "--input_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="CSV with the columns userId,movieId,rating,timestamp; movieId and rating are enough.",
)
@click.option(
    "--output_path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="CSV to write: movieId,avg_rating,num_ratings, best first.",
)
@click.option(
    "--min_ratings",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Leave out movies with fewer ratings.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="mean",
    show_default=True,
    help="What avg_rating holds: the mean rating; IMDb's weighted rating, which draws movies with few "
    "ratings to the mean of all; or the lower Wilson bound (95 %) of the share of ratings from 4 up.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Write only the best N movies.")
@click.version_option(package_name="movielens-rank")
def command(input_path: Path, output_path: Path, min_ratings: int, method: str, limit: int | None) -> None:
    """Rank the movies of one interval by their ratings.

    OUTPUT_PATH appears whole or not at all. The last line of standard output is JSON: rows written, ratings read,
    path, seconds, method. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    # As PID 1 of a container a process has no default action for these: without a handler it would run on.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _stop)

    started = time.monotonic()
    from movielens_rank.rankings_csv import rank_file
    from movielens_rank.ratings_csv import BadRatings

    click.echo(f"ranking {input_path} by {method}, at least {min_ratings} ratings a movie", err=True)
    try:
        if output_path.exists() and output_path.samefile(input_path):
            raise BadInput(f"--output_path {output_path} is the input file: it would be replaced")
        rows, ratings = rank_file(input_path, output_path, min_ratings, method, limit)
    except BadRatings as error:
        raise BadInput(str(error)) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput(f"--output_path {output_path}: {error.filename} is not a folder") from error
    except OSError as error:
        raise Failed(f"{error.filename or output_path}: {error.strerror}; nothing was written") from error

    seconds = round(time.monotonic() - started, 3)
    # No log line here: an engine reads stderr beside stdout, and the last line it sees has to be this one.
    summary = {"rows": rows, "ratings": ratings, "path": str(output_path), "seconds": seconds, "method": method}
    click.echo(json.dumps(summary))


def main() -> None:
    """Run the command; an error is one line on stderr and its exit code."""
    try:
        sys.exit(command.main(standalone_mode=False))
    except click.ClickException as error:  # click's own way would print the usage around it
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)


def _stop(signum: int, frame: FrameType | None) -> None:
    # Not through stderr's buffer, which the interrupted code may be writing to, and without an exception, which the
    # compiled code of pandas would turn into another one. The unfinished file has no name, so it goes with the process.
    os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)
