"""Version 2 again, from a registry: each run finds out which images its tags stand for, and runs exactly those.

resolve_images -> fetch_ratings -> rank_movies -> store_rankings -> record_images

A tag can be moved to another image at any time, a digest cannot. So the tags are read once, at the start of a run.
What is pushed while it runs, the next run gets. The digests that made the rows stay with the run: as XCom, and with the
event of the asset.

Trigger it with the digests of an older run as its param, and the images of that run make the rows once more.
"""

from datetime import timedelta

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException, AirflowNotFoundException
from docker.types import Mount
from movie_ratings import (
    DAILY,
    END,
    FIRST_MONTH,
    PARAMS,
    RANKINGS,
    RANKINGS_CSV,
    RATINGS_CSV,
    STACK,
    START,
    TAG,
    month_of_interval,
)
from resilient_docker import ResilientDockerOperator

REGISTRY = "course_registry"  # the connection
IMAGES = ["movielens-fetch", "movielens-rank", "movielens-store"]
DIGEST = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
DATA = Mount(target="/data", source=f"{STACK}-data", type="volume")


@task
def resolve_images(params: dict) -> dict[str, str]:
    """Return the image of each task, named by its digest as the engine does: registry/course/NAME@sha256:...

    A registry that is down may be up at the next try. A tag that does not exist will not exist then either.
    """
    # imported here, because the file is parsed often and this task runs once
    from docker_registry.api import LASTING
    from docker_registry.hook import DockerRegistryHook

    registry = DockerRegistryHook(REGISTRY)
    images = {}
    try:
        for name in IMAGES:
            repository = f"course/{name}"
            chosen = (params["digests"] or {}).get(name)
            if not chosen:
                chosen = registry.get_image_digest(repository, params["tag"]) if params["pin"] else params["tag"]
            images[name] = registry.reference(repository, chosen)
    except (*LASTING, AirflowNotFoundException) as error:  # the last: no such connection
        raise AirflowFailException(str(error)) from None
    return images


@task(outlets=[RANKINGS])
def record_images(images: dict[str, str], *, outlet_events) -> None:
    """Record in the event of the asset which images made the rows."""
    outlet_events[RANKINGS].extra = images


with DAG(
    "04_registry",
    start_date=FIRST_MONTH,
    schedule=DAILY,
    catchup=False,
    params=PARAMS
    | {
        "tag": Param(TAG, type="string", title="Tag", description="The tag of the images to run."),
        "pin": Param(
            True,
            type="boolean",
            title="Pin",
            description="Off: run the tag itself. Then what is pushed during the run changes the tasks to come.",
        ),
        "digests": Param(
            None,
            type=["null", "object"],
            properties=dict.fromkeys(IMAGES, DIGEST),
            additionalProperties=False,
            title="Digests",
            description='Run these instead of the tag: {"movielens-rank": "sha256:...", ...}',
        ),
    },
    user_defined_macros={"interval": month_of_interval},
    default_args={
        "owner": "course",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "docker_conn_id": REGISTRY,  # the engine logs in with it
        # Without it an engine that has an image of this name never asks the registry for a newer one. For a digest
        # ResilientDockerOperator ignores it: a local image of that digest cannot be another, registry or not.
        "force_pull": True,
        "network_mode": STACK,
        "mount_tmp_dir": False,
        "auto_remove": "force",
        "labels": {"course.stack": STACK},
        "mem_limit": "512m",
        "cpus": 0.5,
    },
    tags=["movie-ratings", "docker", "registry"],
    doc_md=__doc__,
):
    images = resolve_images()

    fetch_ratings = ResilientDockerOperator(
        task_id="fetch_ratings",
        image=images["movielens-fetch"],
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
        image=images["movielens-rank"],
        command=["--input_path", RATINGS_CSV, "--output_path", RANKINGS_CSV],
        mounts=[DATA],
        network_mode="none",
    )

    store_rankings = ResilientDockerOperator(
        task_id="store_rankings",
        image=images["movielens-store"],
        command=["--input_path", RANKINGS_CSV, "--interval_start", START, "--pipeline", "{{ dag.dag_id }}"],
        environment={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        mounts=[
            DATA,
            Mount(target="/run/secrets/database", source=f"{STACK}-database-login", type="volume", read_only=True),
        ],
    )

    fetch_ratings >> rank_movies >> store_rankings >> record_images(images)
