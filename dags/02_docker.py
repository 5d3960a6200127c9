"""Version 2: one operator for every task. Each step is an image; a Docker engine runs it.

fetch-ratings -> rank-movies -> store-rankings. The containers share the network `course` and the volume `course-data`.

An image's entrypoint is its command, so `command` holds the command's flags. Airflow needs no library of any task, and
no password either: each container finds its own in a file.
"""

from datetime import timedelta

from airflow.sdk import DAG
from docker.types import Mount
from movie_ratings import (
    END,
    FIRST_MONTH,
    MONTHLY,
    PARAMS,
    RANKINGS,
    RANKINGS_CSV,
    RATINGS_CSV,
    STACK,
    START,
    image,
    interval,
)
from resilient_docker import ResilientDockerOperator

DATA = Mount(target="/data", source=f"{STACK}-data", type="volume")

with DAG(
    "02_docker",
    start_date=FIRST_MONTH,
    schedule=MONTHLY,
    catchup=False,
    params=PARAMS,
    user_defined_macros={"interval": interval},
    default_args={
        "owner": "course",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "network_mode": STACK,  # where the API and the database have names
        "mount_tmp_dir": False,  # its default mounts a folder of the worker, which the engine cannot see
        "auto_remove": "force",  # even after a failure; the log is in Airflow by then
        "labels": {"course.stack": STACK},  # another stack on this engine may have a run of the same name
        "mem_limit": "512m",  # where the machine has swap, Docker allows as much of that on top
        "cpus": 0.5,  # a share, which counts when others want the processor
    },
    tags=["movie-ratings", "docker"],
):
    fetch_ratings = ResilientDockerOperator(
        task_id="fetch_ratings",
        image=image("movielens-fetch"),
        command=["--start_date", START, "--end_date", END, "--output_path", RATINGS_CSV],
        environment={
            "MOVIELENS_HOST": "http://movielens-api:5000",
            "MOVIELENS_USER": "course",
            "MOVIELENS_PASSWORD_FILE": "/run/secrets/movielens/password",
        },
        mounts=[
            DATA,
            Mount(target="/run/secrets/movielens", source=f"{STACK}-movielens-login", type="volume", read_only=True),
        ],
    )

    rank_movies = ResilientDockerOperator(
        task_id="rank_movies",
        image=image("movielens-rank"),
        command=["--input_path", RATINGS_CSV, "--output_path", RANKINGS_CSV],
        mounts=[DATA],
        network_mode="none",  # a ranking needs no network
    )

    store_rankings = ResilientDockerOperator(
        task_id="store_rankings",
        image=image("movielens-store"),
        command=["--input_path", RANKINGS_CSV, "--interval_start", START, "--pipeline", "{{ dag.dag_id }}"],
        environment={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        mounts=[
            DATA,
            Mount(target="/run/secrets/database", source=f"{STACK}-database-login", type="volume", read_only=True),
        ],
        outlets=[RANKINGS],
    )

    fetch_ratings >> rank_movies >> store_rankings
