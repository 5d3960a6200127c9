"""Version 1: an operator for each kind of work. Everything these steps need is installed in Airflow.

fetch (HttpOperator) -> rank (PythonOperator) -> store (SQLExecuteQueryOperator)

Connections: `movielens` (http) and `movies_db` (SQLite, MySQL or PostgreSQL). The variable `data_dir` (default /data)
names the folder for the files. Three operators, three interfaces, and pandas on every worker: that is the point.
"""

import csv
from datetime import timedelta
from pathlib import Path

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.providers.http.operators.http import HttpOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from movie_ratings import END, FIRST_MONTH, MONTHLY, PARAMS, RANKINGS, START, interval
from requests import HTTPError
from tenacity import retry_if_exception, stop_after_delay, wait_exponential_jitter

RATINGS_CSV = "{{ var.value.get('data_dir', '/data') }}/ratings/" + START + ".csv"
RANKINGS_CSV = "{{ var.value.get('data_dir', '/data') }}/rankings/" + START + ".csv"
CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS movie_rankings (
    pipeline VARCHAR(64) NOT NULL,
    interval_start DATE NOT NULL,
    position INTEGER NOT NULL,
    movie_id INTEGER NOT NULL,
    avg_rating DOUBLE PRECISION NOT NULL,
    num_ratings INTEGER NOT NULL,
    PRIMARY KEY (pipeline, interval_start, position)
)
"""
DELETE_INTERVAL = """
DELETE FROM movie_rankings WHERE pipeline = '{{ dag.dag_id }}' AND interval_start = '{{ interval().start }}'
"""


def next_page(response):
    """Return the parameters of the page after this one, for HttpOperator; None after the last."""
    page = response.json()
    offset = page["offset"] + page["limit"]
    return {"data": {"offset": offset}} if offset < page["total"] else None


def may_pass(error):
    """Return whether to ask again: after a 429, a 5xx or a broken connection, but not after any other 4xx."""
    refusal = error.__context__  # HttpHook raises its own exception while it handles that of requests
    if not isinstance(refusal, HTTPError):
        return True
    return refusal.response.status_code == 429 or refusal.response.status_code >= 500


def save_ratings(responses, task, **context):
    """Write the ratings of all pages to a file. Its path goes through XCom, not the ratings.

    HttpOperator keeps every page in memory until here; movielens-fetch, in the other versions, does not.
    """
    from movielens_rank.atomic_write import atomic_write

    pages = [response.json() for response in responses]
    ratings = [rating for page in pages for rating in page["result"]]
    if any(page["total"] != len(ratings) for page in pages):
        raise ValueError("the ratings changed while they were fetched: fetch them again")
    path = task.render_template(RATINGS_CSV, {**context, "task": task})
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, ["userId", "movieId", "rating", "timestamp"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(ratings)
    return path


def rank_ratings(ratings_csv, rankings_csv):
    """Rank the movies of one file into another."""
    # imported here, so that parsing this file does not load pandas
    from movielens_rank import rank_movies, read_ratings, write_rankings

    write_rankings(rank_movies(read_ratings(ratings_csv)), rankings_csv)
    return rankings_csv


def insert_rankings(path, pipeline, interval_start):
    """Return the INSERT for the rankings in a file. They are numbers only, so there is nothing to quote."""
    with Path(path).open(newline="") as file:
        rows = [(int(movie), float(score), int(count)) for movie, score, count in list(csv.reader(file))[1:]]
    if not rows:
        return "DELETE FROM movie_rankings WHERE 1 = 0"  # an interval without ratings has nothing to insert
    values = (
        f"('{pipeline}', '{interval_start}', {position}, {movie}, {score!r}, {count})"
        for position, (movie, score, count) in enumerate(rows, start=1)
    )
    columns = "pipeline, interval_start, position, movie_id, avg_rating, num_ratings"
    return f"INSERT INTO movie_rankings ({columns}) VALUES " + ",\n".join(values)  # noqa: S608 (numbers, see above)


with DAG(
    "01_mixed_operators",
    start_date=FIRST_MONTH,
    schedule=MONTHLY,
    catchup=False,
    params=PARAMS,
    user_defined_macros={"interval": interval, "insert_rankings": insert_rankings},
    default_args={"owner": "course", "retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["movie-ratings", "mixed-operators"],
):
    fetch_ratings = HttpOperator(
        task_id="fetch_ratings",
        http_conn_id="movielens",
        method="GET",
        endpoint="ratings",
        data={"start_date": START, "end_date": END, "offset": 0, "limit": 1000},
        pagination_function=next_page,
        response_filter=save_ratings,
        extra_options={"timeout": 30},
        retry_args={
            "retry": retry_if_exception(may_pass),
            "wait": wait_exponential_jitter(multiplier=0.2, max=5),
            "stop": stop_after_delay(60),
            "reraise": True,
        },
    )

    rank_movies = PythonOperator(
        task_id="rank_movies",
        python_callable=rank_ratings,
        op_kwargs={"ratings_csv": RATINGS_CSV, "rankings_csv": RANKINGS_CSV},
    )

    store_rankings = SQLExecuteQueryOperator(
        task_id="store_rankings",
        conn_id="movies_db",
        # A list runs in one transaction. MySQL ends one at CREATE TABLE, so that stands first.
        sql=[
            CREATE_TABLE,
            DELETE_INTERVAL,
            "{{ insert_rankings(ti.xcom_pull('rank_movies'), dag.dag_id, interval().start) }}",
        ],
        do_xcom_push=False,
        outlets=[RANKINGS],
    )

    fetch_ratings >> rank_movies >> store_rankings
