"""The table of rankings, and the one transaction that replaces an interval in it."""

from collections.abc import Sequence
from datetime import date

from sqlalchemy import Column, Date, Double, Integer, MetaData, String, Table, delete, insert
from sqlalchemy.dialects import mysql

from movielens_store.database import begin_exclusively, connect, parse_database_url
from movielens_store.rankings import Ranking
from movielens_store.settings import DEFAULT_TABLE


def store_rankings(
    rankings: Sequence[Ranking],
    database_url: str,
    *,
    interval_start: date,
    pipeline: str,
    table: str = DEFAULT_TABLE,
) -> int:
    """Replace the rows of this pipeline and interval in the table by `rankings`, in one transaction.

    Positions count from 1 in the order of `rankings`; an empty sequence leaves the interval without rows. The table
    is created where it is missing. Return the number of rows that were replaced.

    Raises BadInput for a database URL that cannot be used, StoreFailed where the database is not reachable or
    refuses a statement; the rows are then as they were.
    """
    target = _rankings_table(table)
    with connect(parse_database_url(database_url)) as connection:
        begin_exclusively(connection, table)
        target.create(connection, checkfirst=True)
        delete_interval = delete(target).filter_by(pipeline=pipeline, interval_start=interval_start)
        replaced = connection.execute(delete_interval).rowcount
        if rankings:  # an INSERT of no rows would be one row of defaults
            rows = [
                dict(zip(target.columns.keys(), (pipeline, interval_start, position, *ranking), strict=True))
                for position, ranking in enumerate(rankings, start=1)
            ]
            connection.execute(insert(target), rows)
        connection.commit()
    return replaced


def _rankings_table(name: str) -> Table:
    # MySQL compares text without regard to case by default: "Docker" would replace the rows of "docker".
    exact_text = String(64).with_variant(mysql.VARCHAR(64, charset="ascii", collation="ascii_bin"), "mysql")
    return Table(
        name,
        MetaData(),
        Column("pipeline", exact_text, primary_key=True),
        Column("interval_start", Date, primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False),
        Column("movie_id", Integer, nullable=False),
        Column("avg_rating", Double, nullable=False),
        Column("num_ratings", Integer, nullable=False),
        mysql_engine="InnoDB",  # the engine with transactions, whatever the server's default
    )
