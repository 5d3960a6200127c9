"""A year of months at once: each month is added up by containers of its own, then one ranks the sums of them all.

month: fetch_ratings -> sum_ratings, 12 times; then rank_sums -> store_rankings

The mean of a year cannot be made of the means of its months. Their sums can be added up, and exactly: so the ranking is
the one that rank-movies makes of all ratings of the year at once, byte for byte, and for every method.

A month fails alone. Its retry, or clearing it, runs that month again and no other; the year waits for all twelve.

No schedule: the ratings are those of 2019 to 2023, and a schedule would only bring years without any.

The engine is a choice: COURSE_ENGINE=docker, which is the default, runs containers, COURSE_ENGINE=kubernetes pods.
"""

import os
from datetime import timedelta

from airflow.sdk import DAG, Context, Param, task_group, timezone
from dateutil.relativedelta import relativedelta
from jinja2 import pass_context
from movie_ratings import END, PULL_POLICY, RANKINGS, RATINGS_CSV, STACK, START, Interval, image

# Both shape the DAG itself, so they are read whenever the file is parsed, on every worker too. They are not Variables:
# each parsing would ask Airflow's database for them.
ENGINE = os.environ.get("COURSE_ENGINE", "docker")
MAX_ACTIVE = os.environ.get("COURSE_MAX_ACTIVE", "4")  # four pods, each with its worker's, fit into the quota
if not MAX_ACTIVE.isdecimal() or int(MAX_ACTIVE) < 1:  # with 0 no task would ever start
    raise ValueError(f"COURSE_MAX_ACTIVE must be a number from 1 on, not {MAX_ACTIVE!r}")
AT_ONCE = int(MAX_ACTIVE)


@pass_context
def interval(context: Context) -> Interval:
    """Return the interval of this task: its month if it is mapped, else the whole year of the run."""
    year, month = int(context["params"]["year"]), context["ti"].map_index  # 2019.0 is an integer in JSON
    start, length = timezone.datetime(year, 1, 1), relativedelta(years=1)
    if month >= 0:  # of a task that is not mapped it is -1
        start, length = start + relativedelta(months=month), relativedelta(months=1)
    return Interval(f"{start:%Y-%m-%d}", f"{start + length:%Y-%m-%d}")


# Each of the twelve files is named: a folder would bring in the sums of other years too.
SUMS_CSV = f"/data/sums/{START}.csv"
YEAR = "{{ interval().start[:4] }}"
SUMS_OF_THE_YEAR = [f"/data/sums/{YEAR}-{month:02}-01.csv" for month in range(1, 13)]
YEAR_CSV = f"/data/rankings/{YEAR}.csv"


# One function per engine makes a task: it runs an image with `arguments`, for its entrypoint or for another command.


def docker_task(task_id, image_name, arguments, entrypoint=None, login=None, environment=None, **settings):
    """Return a task that runs a container. `login` names the volume with its password; without it, no network."""
    from docker.types import Mount
    from resilient_docker import ResilientDockerOperator

    mounts = [Mount("/data", f"{STACK}-data", type="volume")]
    if login:
        mounts.append(Mount(f"/run/secrets/{login}", f"{STACK}-{login}-login", type="volume", read_only=True))
    return ResilientDockerOperator(
        task_id=task_id,
        image=image(image_name),
        entrypoint=entrypoint,
        command=arguments,
        environment=environment,
        mounts=mounts,
        network_mode=STACK if login else "none",
        labels={"course.stack": STACK},
        mount_tmp_dir=False,
        auto_remove="force",
        mem_limit="512m",
        cpus=0.5,
        **settings,
    )


def kubernetes_task(task_id, image_name, arguments, entrypoint=None, login=None, environment=None, **settings):
    """Return a task that runs a pod. `login` names the Secret with its password."""
    from airflow.providers.cncf.kubernetes.secret import Secret
    from kubernetes.client import models as k8s
    from resilient_kubernetes import ResilientKubernetesPodOperator
    from resilient_kubernetes.restricted import RESTRICTED

    claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="data-volume")
    return ResilientKubernetesPodOperator(
        task_id=task_id,
        image=image(image_name),
        image_pull_policy=PULL_POLICY,
        cmds=entrypoint,
        arguments=arguments,
        env_vars=environment,
        secrets=[Secret("volume", f"/run/secrets/{login}", f"{login}-login")] if login else [],
        volumes=[k8s.V1Volume(name="data", persistent_volume_claim=claim)],
        volume_mounts=[k8s.V1VolumeMount(name="data", mount_path="/data")],
        labels={"app.kubernetes.io/part-of": "airflow-in-containers", "app.kubernetes.io/name": "task"},
        container_resources=k8s.V1ResourceRequirements(
            requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "1", "memory": "512Mi"}
        ),
        on_finish_action="delete_pod",
        termination_grace_period=10,
        service_account_name="task",
        **RESTRICTED,
        **settings,
    )


if ENGINE == "docker":
    container_task, API = docker_task, "http://movielens-api:5000"
elif ENGINE == "kubernetes":
    container_task, API = kubernetes_task, "http://movielens-api"
else:
    raise ValueError(f"COURSE_ENGINE must be docker or kubernetes, not {ENGINE!r}")


@task_group
def month(number):
    """Fetch one month and add it up. All that the mapping has to know of `number` is how many there are."""
    # So many at once of each of the two tasks; of all tasks of a run together, the DAG says below.
    limits = {"max_active_tis_per_dagrun": AT_ONCE, "map_index_template": "{{ interval().start[:7] }}"}
    fetch_ratings = container_task(
        "fetch_ratings",
        "movielens-fetch",
        ["--start_date", START, "--end_date", END, "--output_path", RATINGS_CSV],
        login="movielens",
        environment={
            "MOVIELENS_HOST": API,
            "MOVIELENS_USER": "course",
            "MOVIELENS_PASSWORD_FILE": "/run/secrets/movielens/password",
        },
        **limits,
    )
    sum_ratings = container_task(
        "sum_ratings",
        "movielens-rank",
        ["--input_path", RATINGS_CSV, "--output_path", SUMS_CSV],
        entrypoint=["sum-ratings"],
        **limits,
    )
    fetch_ratings >> sum_ratings


with DAG(
    "07_all_months",
    schedule=None,
    max_active_tasks=AT_ONCE,  # in each run
    max_active_runs=1,  # two years at once would be twice as many
    params={
        "year": Param(
            type="integer",  # and no default, so a run without a year is refused before it begins
            minimum=2019,
            maximum=2023,
            title="Year",
            description="The year to rank, 2019 to 2023.",
        )
    },
    user_defined_macros={"interval": interval},
    default_args={"owner": "course", "retries": 2, "retry_delay": timedelta(seconds=10)},
    tags=["movie-ratings", ENGINE],
    doc_md=__doc__,
):
    rank_sums = container_task(
        "rank_sums",
        "movielens-rank",
        ["--output_path", YEAR_CSV, *(word for path in SUMS_OF_THE_YEAR for word in ("--input_path", path))],
        entrypoint=["rank-sums"],
    )
    store_rankings = container_task(
        "store_rankings",
        "movielens-store",
        ["--input_path", YEAR_CSV, "--interval_start", START, "--pipeline", "{{ dag.dag_id }}"],
        login="database",
        environment={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        outlets=[RANKINGS],
    )
    month.expand(number=list(range(1, 13))) >> rank_sums >> store_rankings
