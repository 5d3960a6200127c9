"""The commands rank-movies, sum-ratings and rank-sums.

pandas is imported only once there is something to do: --help stays quick.
"""

import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import click

from movielens_rank.csv_rows import BadRatings

Work = Callable[..., tuple[int, int]]
"""What a command does: it takes the parameters, and returns the numbers of rows written and of ratings in them."""

METHODS = ("mean", "bayes", "wilson")


class BadInput(click.ClickException):
    """What the caller gave cannot be used."""

    exit_code = 2


class Failed(click.ClickException):
    """The arguments are good, but the work could not be done."""

    exit_code = 1


class FileCommand(click.Command):
    """A command that makes OUTPUT_PATH of INPUT_PATH."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; an error is one line on stderr and its exit code."""
        try:
            sys.exit(super().main(*args, **kwargs | {"standalone_mode": False}))
        except click.ClickException as error:  # click's own way would print the usage around it
            click.echo(f"Error: {error.format_message()}", err=True)
            sys.exit(error.exit_code)

    def invoke(self, context: click.Context) -> None:
        """Do the work, and say on the last line of stdout what was done."""
        # As PID 1 of a container a process has no default action for these: without a handler it would run on.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, _stop)

        started = time.monotonic()
        output_path: Path = context.params["output_path"]
        inputs = context.params["input_path"]
        try:
            _check_paths(inputs if isinstance(inputs, tuple) else (inputs,), output_path)
            rows, ratings = super().invoke(context)
        except BadRatings as error:
            raise BadInput(str(error)) from error
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"--output_path {output_path}: {error.filename} is not a folder") from error
        except OSError as error:
            raise Failed(f"{error.filename or output_path}: {error.strerror}; nothing was written") from error

        seconds = round(time.monotonic() - started, 3)
        done = {"rows": rows, "ratings": ratings, "path": str(output_path), "seconds": seconds}
        if method := context.params.get("method"):
            done["method"] = method
        # No log line here: an engine reads stderr beside stdout, and the last line it sees has to be this one.
        click.echo(json.dumps(done))


def command(name: str) -> Callable[[Work], FileCommand]:
    """Make work the command of that name."""
    return click.command(name, cls=FileCommand, context_settings={"max_content_width": 110})


def paths(input_help: str, output_help: str, many: bool = False) -> Callable[[Work], Work]:
    """Give a command the options for its paths."""
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    source = click.option("--input_path", type=file, required=True, multiple=many, help=input_help)
    output = click.Path(dir_okay=False, path_type=Path)
    target = click.option("--output_path", type=output, required=True, help=output_help)
    version = click.version_option(package_name="movielens-rank")
    return lambda work: source(target(version(work)))


def how_to_rank(work: Work) -> Work:
    """Give a command the options of a ranking."""
    min_ratings = click.option(
        "--min_ratings",
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        help="Leave out movies with fewer ratings.",
    )
    method = click.option(
        "--method",
        type=click.Choice(METHODS),
        default="mean",
        show_default=True,
        help="What avg_rating holds: the mean rating; IMDb's weighted rating, which draws movies with few "
        "ratings to the mean of all; or the lower Wilson bound (95 %) of the share of ratings from 4 up.",
    )
    limit = click.option("--limit", type=click.IntRange(min=1), help="Write only the best N movies.")
    return min_ratings(method(limit(work)))


@command("rank-movies")
@paths(
    "CSV with the columns userId,movieId,rating,timestamp; movieId and rating are enough.",
    "CSV to write: movieId,avg_rating,num_ratings, best first.",
)
@how_to_rank
def rank_movies(
    input_path: Path, output_path: Path, min_ratings: int, method: str, limit: int | None
) -> tuple[int, int]:
    """Rank the movies of one interval by their ratings.

    OUTPUT_PATH appears whole or not at all. The last line of standard output is JSON: rows written, ratings read,
    path, seconds, method. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    from movielens_rank.rankings_csv import rank_file

    click.echo(f"ranking {input_path} by {method}, at least {min_ratings} ratings a movie", err=True)
    return rank_file(input_path, output_path, min_ratings, method, limit)


@command("sum-ratings")
@paths(
    "CSV with the columns userId,movieId,rating,timestamp; movieId and rating are enough.",
    "CSV to write: movieId,microstars,ratings,liked, by movieId.",
)
def sum_ratings(input_path: Path, output_path: Path) -> tuple[int, int]:
    """Add up the ratings of one interval per movie, for rank-sums.

    The sums are whole numbers: millionths of stars, ratings, and ratings of 4 stars or more. So they are exact, and
    those of many intervals add up to what one sum of all their ratings would be.

    OUTPUT_PATH appears whole or not at all. The last line of standard output is JSON: rows written, ratings read,
    path, seconds. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    from movielens_rank.sums_csv import sum_file

    click.echo(f"adding up {input_path}", err=True)
    return sum_file(input_path, output_path)


@command("rank-sums")
@paths(
    "CSV that sum-ratings wrote; once for each file.",
    "CSV to write: movieId,avg_rating,num_ratings, best first.",
    many=True,
)
@how_to_rank
def rank_sums(
    input_path: tuple[Path, ...], output_path: Path, min_ratings: int, method: str, limit: int | None
) -> tuple[int, int]:
    """Rank the movies of many intervals by the sums of their ratings.

    The ranking is the one that rank-movies makes of all the ratings at once, byte for byte. Each file is named: of a
    folder nobody knows what else is in it.

    OUTPUT_PATH appears whole or not at all. The last line of standard output is JSON: rows written, ratings summed,
    path, seconds, method. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    from movielens_rank.rankings_csv import rank_sums as rank_files

    click.echo(f"ranking {len(input_path)} files by {method}, at least {min_ratings} ratings a movie", err=True)
    return rank_files(input_path, output_path, min_ratings, method, limit)


def _check_paths(inputs: tuple[Path, ...], output_path: Path) -> None:
    if output_path.exists() and any(output_path.samefile(path) for path in inputs):
        raise BadInput(f"--output_path {output_path} is the input file: it would be replaced")
    path, times = Counter(path.resolve() for path in inputs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"--input_path {path} is there {times} times: its ratings would count as often")


def _stop(signum: int, frame: FrameType | None) -> None:
    # Not through stderr's buffer, which the interrupted code may be writing to, and without an exception, which the
    # compiled code of pandas would turn into another one. The unfinished file has no name, so it goes with the process.
    os.write(2, f"stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)
