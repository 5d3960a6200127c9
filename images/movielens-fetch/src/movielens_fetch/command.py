"""The command line of `fetch-ratings`: flags in, one JSON line out."""

import json
import math
import re
import time
from datetime import date
from pathlib import Path

import click

from movielens_fetch.errors import BadInput, FetchFailed
from movielens_fetch.page import FIELDS
from movielens_fetch.settings import DEFAULT_BATCH_SIZE, DEFAULT_HOST, DEFAULT_TIMEOUT, check_host, login


def _day(context: click.Context, parameter: click.Parameter, value: str) -> date:
    try:
        # fromisoformat alone would take 20190101 and 2019-W01-1 too
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is not a day as YYYY-MM-DD")


def _seconds(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise click.BadParameter(f"{value} is not a number of seconds above 0")
    return value


def _regular_file(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if value.exists() and not value.is_file():  # /dev/null would be replaced by a file
        raise click.BadParameter(f"{value} is not a regular file")
    return value


@click.command(name="fetch-ratings")
@click.option("--start_date", required=True, callback=_day, metavar="YYYY-MM-DD", help="First day of the interval.")
@click.option("--end_date", required=True, callback=_day, metavar="YYYY-MM-DD", help="First day after the interval.")
@click.option(
    "--output_path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_regular_file,
    help=f"The CSV file to write: {', '.join(FIELDS)}.",
)
@click.option(
    "--host",
    default=DEFAULT_HOST,
    envvar="MOVIELENS_HOST",
    show_envvar=True,
    show_default=True,
    metavar="URL",
    help="Address of the API.",
)
@click.option(
    "--batch_size",
    default=DEFAULT_BATCH_SIZE,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Ratings in one request.",
)
@click.option(
    "--timeout",
    default=DEFAULT_TIMEOUT,
    show_default=True,
    callback=_seconds,
    metavar="SECONDS",
    help="Give up after this time without a new rating.",
)
@click.version_option(package_name="movielens-fetch")
def command(start_date: date, end_date: date, output_path: Path, host: str, batch_size: int, timeout: float) -> None:
    """Fetch the ratings from the start date up to, but not including, the end date.

    The login is read from MOVIELENS_USER and MOVIELENS_PASSWORD, or MOVIELENS_PASSWORD_FILE. The file appears complete
    or not at all.
    """
    started = time.monotonic()
    if start_date >= end_date:
        raise BadInput(f"--start_date {start_date} is not before --end_date {end_date}")
    host = check_host(host)
    user, password = login()

    # Imported late: it takes longer than everything else, and `--help` and bad arguments do not need it.
    from movielens_fetch.download import fetch_ratings
    from movielens_fetch.progress import progress

    try:
        with progress() as on_progress:
            fetched = fetch_ratings(
                start_date,
                end_date,
                output_path,
                host=host,
                user=user,
                password=password,
                batch_size=batch_size,
                timeout=timeout,
                on_progress=on_progress,
            )
    except OSError as error:
        raise FetchFailed(f"cannot write {output_path}: {error.strerror}") from error
    summary = {
        "rows": fetched.rows,
        "path": str(output_path),
        "pages": fetched.pages,
        "retries": fetched.retries,
        "restarts": fetched.restarts,
        "seconds": round(time.monotonic() - started, 3),
    }
    click.echo(json.dumps(summary))
