"""Version 3: one operator for every task. Each step is an image; a Kubernetes cluster runs it as a pod.

fetch-ratings -> rank-movies -> store-rankings. The pods share the claim `data-volume`, and find the API by its Service.

An image's entrypoint is its command, so `arguments` holds the command's flags. Airflow needs no library of any task,
and no password either: each pod finds its own in a file.
"""

from datetime import timedelta

from airflow.providers.cncf.kubernetes.secret import Secret
from airflow.sdk import DAG, Param
from kubernetes.client import models as k8s
from movie_ratings import (
    END,
    FIRST_MONTH,
    MONTHLY,
    PARAMS,
    PULL_POLICY,
    RANKINGS,
    RANKINGS_CSV,
    RATINGS_CSV,
    START,
    image,
    interval,
)
from resilient_kubernetes import ResilientKubernetesPodOperator
from resilient_kubernetes.restricted import RESTRICTED

CLAIM = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="data-volume")

with DAG(
    "03_kubernetes",
    start_date=FIRST_MONTH,
    schedule=MONTHLY,
    catchup=False,
    params=PARAMS
    | {
        "deferrable": Param(
            False,
            type="boolean",
            title="Deferrable",
            description="While a pod runs, wait in the triggerer and not in a worker. The log then comes at the end.",
        )
    },
    user_defined_macros={"interval": interval},
    default_args={
        "owner": "course",
        "retries": 2,
        "retry_delay": timedelta(seconds=10),
        "image_pull_policy": PULL_POLICY,
        "labels": {"app.kubernetes.io/part-of": "airflow-in-containers", "app.kubernetes.io/name": "task"},
        "volumes": [k8s.V1Volume(name="data", persistent_volume_claim=CLAIM)],
        "volume_mounts": [k8s.V1VolumeMount(name="data", mount_path="/data")],
        "container_resources": k8s.V1ResourceRequirements(
            requests={"cpu": "100m", "memory": "128Mi"},  # what the scheduler sets aside on a node
            limits={"cpu": "1", "memory": "512Mi"},  # more processor is throttled, more memory kills the container
        ),
        "on_finish_action": "delete_pod",  # even after a failure; log and events are in Airflow by then
        "termination_grace_period": 10,  # seconds from SIGTERM to SIGKILL
        "service_account_name": "task",  # it has no rights in the cluster
        **RESTRICTED,
    },
    tags=["movie-ratings", "kubernetes"],
):
    fetch_ratings = ResilientKubernetesPodOperator(
        task_id="fetch_ratings",
        image=image("movielens-fetch"),
        arguments=["--start_date", START, "--end_date", END, "--output_path", RATINGS_CSV],
        env_vars={
            "MOVIELENS_HOST": "http://movielens-api",
            "MOVIELENS_USER": "course",
            "MOVIELENS_PASSWORD_FILE": "/run/secrets/movielens/password",
        },
        secrets=[Secret("volume", "/run/secrets/movielens", "movielens-login")],
    )

    rank_movies = ResilientKubernetesPodOperator(
        task_id="rank_movies",
        image=image("movielens-rank"),
        arguments=["--input_path", RATINGS_CSV, "--output_path", RANKINGS_CSV],
    )

    store_rankings = ResilientKubernetesPodOperator(
        task_id="store_rankings",
        image=image("movielens-store"),
        arguments=["--input_path", RANKINGS_CSV, "--interval_start", START, "--pipeline", "{{ dag.dag_id }}"],
        env_vars={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        secrets=[Secret("volume", "/run/secrets/database", "database-login")],
        outlets=[RANKINGS],
    )

    fetch_ratings >> rank_movies >> store_rankings
