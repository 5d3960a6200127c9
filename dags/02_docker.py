"""Version 2: one operator for every task. Each step is an image; a Docker engine runs it.

fetch-ratings -> rank-movies -> store-rankings. The containers share the network `course` and the volume `course-data`.

Airflow needs no library of any task, and no password either: each container finds its own in a file.
"""

from datetime import timedelta

from airflow.sdk import DAG
from docker.types import Mount
from movie_ratings import FETCH, FIRST_MONTH, MONTHLY, PARAMS, RANK, RANKINGS, STACK, STORE, image, interval
from task_container import TaskContainer

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
        "auto_remove": "force",  # also after a failure; the log is in Airflow by then
        "mem_limit": "512m",  # where the machine has swap, Docker allows as much of that on top
        "cpus": 0.5,  # a share, when the processor is wanted by others
    },
    tags=["movie-ratings", "docker"],
):
    fetch_ratings = TaskContainer(
        task_id="fetch_ratings",
        image=image("movielens-fetch"),
        command=FETCH,
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

    rank_movies = TaskContainer(
        task_id="rank_movies",
        image=image("movielens-rank"),
        command=RANK,
        mounts=[DATA],
        network_mode="none",  # a ranking needs nobody
    )

    store_rankings = TaskContainer(
        task_id="store_rankings",
        image=image("movielens-store"),
        command=STORE,
        environment={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        mounts=[
            DATA,
            Mount(target="/run/secrets/database", source=f"{STACK}-database-login", type="volume", read_only=True),
        ],
        outlets=[RANKINGS],
    )

    fetch_ratings >> rank_movies >> store_rankings
