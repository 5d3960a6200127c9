"""The command line of `store-rankings`: flags in, one JSON line out."""

import json
import re
import time
from datetime import date
from pathlib import Path

import click

from movielens_store.rankings import COLUMNS, read_rankings
from movielens_store.settings import DEFAULT_TABLE, database_url


def _day(context: click.Context, parameter: click.Parameter, value: str) -> date:
    try:
        # fromisoformat alone would take 20190101 and 2019-W01-1 too
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise click.BadParameter(f"{value!r} is not a day as YYYY-MM-DD")


def _pipeline_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise click.BadParameter(f"{value!r} is not 1 to 64 letters, digits, underscores and dashes")
    return value


def _table_name(context: click.Context, parameter: click.Parameter, value: str) -> str:
    # 63 is PostgreSQL's limit; a longer name would be truncated silently
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", value):
        raise click.BadParameter(f"{value!r} is not up to 63 letters, digits and underscores, a digit not first")
    return value


@click.command(name="store-rankings")
@click.option(
    "--input_path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help=f"CSV with the columns {', '.join(COLUMNS)}, best first.",
)
@click.option("--interval_start", required=True, callback=_day, metavar="YYYY-MM-DD", help="First day of the interval.")
@click.option(
    "--pipeline", required=True, callback=_pipeline_name, metavar="NAME", help="The pipeline that the rows belong to."
)
@click.option(
    "--table",
    default=DEFAULT_TABLE,
    show_default=True,
    callback=_table_name,
    metavar="NAME",
    help="Created where it is missing.",
)
@click.version_option(package_name="movielens-store")
def command(input_path: Path, interval_start: date, pipeline: str, table: str) -> None:
    """Store the rankings of one interval.

    Replaces the rows of this pipeline and interval and nothing else, in one transaction. The database's address is
    read from DATABASE_URL, or from the file that DATABASE_URL_FILE names: sqlite:////PATH,
    mysql://USER:PASSWORD@HOST/DATABASE, mariadb://… or postgresql://….
    """
    started = time.monotonic()
    url = database_url()
    rankings = read_rankings(input_path)

    # Imported late: it takes longer than everything else, and `--help` and bad input do not need it.
    from movielens_store.store import store_rankings

    replaced = store_rankings(rankings, url, interval_start=interval_start, pipeline=pipeline, table=table)
    summary = {
        "rows": len(rankings),
        "replaced": replaced,
        "table": table,
        "pipeline": pipeline,
        "interval_start": interval_start.isoformat(),
        "seconds": round(time.monotonic() - started, 3),
    }
    click.echo(json.dumps(summary))
