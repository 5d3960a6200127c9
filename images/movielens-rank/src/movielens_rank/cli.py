"""The commands rank-movies, sum-ratings and rank-sums; entry_points.py runs them.

pandas is imported only when there is something to do: --help stays quick.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from movielens_rank.csv_rows import BadRatings
from movielens_rank.names import (
    DEFAULT_METHOD,
    DEFAULT_MIN_RATINGS,
    METHODS,
    NEEDED_RATING_COLUMNS,
    RANKING_COLUMNS,
    RATING_COLUMNS,
    SUM_COLUMNS,
)

RATINGS_HELP = f"CSV with the columns {','.join(RATING_COLUMNS)}; {' and '.join(NEEDED_RATING_COLUMNS)} are enough."
RANKINGS_HELP = f"CSV to write: {','.join(RANKING_COLUMNS)}, best first."
SUMS_HELP = f"CSV to write: {','.join(SUM_COLUMNS)}, by {SUM_COLUMNS[0]}."
WIDE_HELP = {"max_content_width": 110}

Command = TypeVar("Command", bound=Callable[..., None])


class BadInput(click.ClickException):
    """An argument or an input file is wrong: the caller has to change it."""

    exit_code = 2


class Failed(click.ClickException):
    """The arguments are valid, but a file could not be read or written: a later try may work."""

    exit_code = 1


def input_option(help: str, multiple: bool = False) -> Callable[[Command], Command]:
    file = click.Path(exists=True, dir_okay=False, path_type=Path)
    return click.option("--input_path", type=file, required=True, multiple=multiple, help=help)


def output_option(help: str) -> Callable[[Command], Command]:
    return click.option("--output_path", type=click.Path(dir_okay=False, path_type=Path), required=True, help=help)


version_option = click.version_option(package_name="movielens-rank")
min_ratings_option = click.option(
    "--min_ratings",
    type=click.IntRange(min=1),
    default=DEFAULT_MIN_RATINGS,
    show_default=True,
    help="Leave out movies with fewer ratings.",
)
method_option = click.option(
    "--method",
    type=click.Choice(METHODS),
    default=DEFAULT_METHOD,
    show_default=True,
    help="What avg_rating holds: the mean rating; IMDb's weighted rating, which draws movies with few "
    "ratings to the mean of all; or the lower Wilson bound (95 %) of the share of ratings from 4 up.",
)
limit_option = click.option("--limit", type=click.IntRange(min=1), help="Write only the best N movies.")


@contextmanager
def summary(inputs: Sequence[Path], output_path: Path, **settings: str) -> Iterator[dict[str, Any]]:
    """Check the paths, yield a dict for the counts of rows and ratings, and print it as the last line of stdout.

    What goes wrong in the block becomes BadInput or Failed.
    """
    started = time.monotonic()
    counts: dict[str, Any] = {}
    try:
        _check_paths(inputs, output_path)
        yield counts
    except BadRatings as error:
        raise BadInput(str(error)) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise BadInput(f"--output_path {output_path}: {error.filename} is not a folder") from error
    except OSError as error:
        raise Failed(f"{error.filename or output_path}: {error.strerror}; nothing was written") from error
    seconds = round(time.monotonic() - started, 3)
    # No log line after this: Airflow reads stderr beside stdout, and the last line it sees has to be this one.
    click.echo(json.dumps({**counts, "path": str(output_path), "seconds": seconds, **settings}))


@click.command("rank-movies", context_settings=WIDE_HELP)
@input_option(RATINGS_HELP)
@output_option(RANKINGS_HELP)
@version_option
@min_ratings_option
@method_option
@limit_option
def rank_movies(input_path: Path, output_path: Path, min_ratings: int, method: str, limit: int | None) -> None:
    """Rank the movies of one interval by their ratings.

    OUTPUT_PATH appears complete or not at all. The last line of standard output is JSON: rows written, ratings read,
    path, seconds, method. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    with summary([input_path], output_path, method=method) as counts:
        from movielens_rank.rankings_csv import rank_file

        click.echo(f"ranking {input_path} by {method}, at least {min_ratings} ratings per movie", err=True)
        counts["rows"], counts["ratings"] = rank_file(input_path, output_path, min_ratings, method, limit)


@click.command("sum-ratings", context_settings=WIDE_HELP)
@input_option(RATINGS_HELP)
@output_option(SUMS_HELP)
@version_option
def sum_ratings(input_path: Path, output_path: Path) -> None:
    """Add up the ratings of one interval per movie, for rank-sums.

    The sums are whole numbers: millionths of stars, ratings, and ratings of 4 stars or more. So they are exact, and
    those of many intervals add up to the sums of all their ratings.

    OUTPUT_PATH appears complete or not at all. The last line of standard output is JSON: rows written, ratings read,
    path, seconds. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    with summary([input_path], output_path) as counts:
        from movielens_rank.sums_csv import sum_file

        click.echo(f"adding up {input_path}", err=True)
        counts["rows"], counts["ratings"] = sum_file(input_path, output_path)


@click.command("rank-sums", context_settings=WIDE_HELP)
@input_option("CSV that sum-ratings wrote; once for each file.", multiple=True)
@output_option(RANKINGS_HELP)
@version_option
@min_ratings_option
@method_option
@limit_option
def rank_sums(
    input_path: tuple[Path, ...], output_path: Path, min_ratings: int, method: str, limit: int | None
) -> None:
    """Rank the movies of many intervals by the sums of their ratings.

    The ranking is the one that rank-movies makes of all the ratings at once, byte for byte. Each file is named: a
    folder might hold other files too.

    OUTPUT_PATH appears complete or not at all. The last line of standard output is JSON: rows written, ratings summed,
    path, seconds, method. Exit code 0: done; 2: bad arguments or input; 1: anything else.
    """
    with summary(input_path, output_path, method=method) as counts:
        from movielens_rank.rankings_csv import rank_sums as rank_files

        click.echo(f"ranking {len(input_path)} files by {method}, at least {min_ratings} ratings per movie", err=True)
        counts["rows"], counts["ratings"] = rank_files(input_path, output_path, min_ratings, method, limit)


def _check_paths(inputs: Sequence[Path], output_path: Path) -> None:
    if output_path.exists() and any(output_path.samefile(path) for path in inputs):
        raise BadInput(f"--output_path {output_path} is the input file: it would be replaced")
    path, times = Counter(path.resolve() for path in inputs).most_common(1)[0]
    if times > 1:
        raise BadInput(f"--input_path {path} is there {times} times: its ratings would count as often")
