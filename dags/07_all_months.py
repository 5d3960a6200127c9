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
from movie_ratings import FETCH, RANKINGS, RATINGS_CSV, STACK, START, Interval, image

# Both shape the DAG itself, so they are read when the file is parsed, and that is often, on every worker too. So no
# Variable: each parsing would ask Airflow's database for it.
ENGINE = os.environ.get("COURSE_ENGINE", "docker")
MAX_ACTIVE = os.environ.get("COURSE_MAX_ACTIVE", "4")  # four pods, each with its worker's, fit into the quota
if not MAX_ACTIVE.isdecimal() or int(MAX_ACTIVE) < 1:  # with 0 no task would ever start
    raise ValueError(f"COURSE_MAX_ACTIVE must be a number from 1 on, not {MAX_ACTIVE!r}")
AT_ONCE = int(MAX_ACTIVE)


@pass_context
def interval(context: Context) -> Interval:
    """Tell the interval of this task: its month if it is mapped, else the whole year of the run."""
    year, month = int(context["params"]["year"]), context["ti"].map_index  # 2019.0 is an integer in JSON
    start, length = timezone.datetime(year, 1, 1), relativedelta(years=1)
    if month >= 0:  # of a task that is not mapped it is -1
        start, length = start + relativedelta(months=month), relativedelta(months=1)
    return Interval(f"{start:%Y-%m-%d}", f"{start + length:%Y-%m-%d}")


# What runs in the containers. Each of the twelve files is named: a folder would bring in the sums of other years too.
YEAR_CSV = "/data/rankings/{{ interval().start[:4] }}.csv"
SUM = ["--input_path", RATINGS_CSV, "--output_path", f"/data/sums/{START}.csv"]
RANK = ["--output_path", YEAR_CSV]
for number in range(1, 13):
    RANK += ["--input_path", f"/data/sums/{{{{ interval().start[:4] }}}}-{number:02}-01.csv"]
STORE = ["--input_path", YEAR_CSV, "--interval_start", START, "--pipeline", "{{ dag.dag_id }}"]

# How they run: `step` makes a task of arguments for an image, or for another command than its entrypoint.
if ENGINE == "docker":
    from docker.types import Mount
    from task_container import TaskContainer

    API = "http://movielens-api:5000"
    SETTINGS = {"mount_tmp_dir": False, "auto_remove": "force", "mem_limit": "512m", "cpus": 0.5}

    def step(task_id, name, arguments, entrypoint=None, login=None, environment=None, **settings):
        mounts = [Mount("/data", f"{STACK}-data", type="volume")]
        if login:
            mounts.append(Mount(f"/run/secrets/{login}", f"{STACK}-{login}-login", type="volume", read_only=True))
        settings |= {"mounts": mounts, "environment": environment, "network_mode": STACK if login else "none"}
        return TaskContainer(task_id=task_id, image=image(name), entrypoint=entrypoint, command=arguments, **settings)

elif ENGINE == "kubernetes":
    from airflow.providers.cncf.kubernetes.secret import Secret
    from kubernetes.client import models as k8s
    from task_pod import RESTRICTED, TaskPod

    API = "http://movielens-api"
    CLAIM = k8s.V1PersistentVolumeClaimVolumeSource(claim_name="data-volume")
    SETTINGS = {
        "labels": {"app.kubernetes.io/part-of": "airflow-in-containers", "app.kubernetes.io/name": "task"},
        "volumes": [k8s.V1Volume(name="data", persistent_volume_claim=CLAIM)],
        "volume_mounts": [k8s.V1VolumeMount(name="data", mount_path="/data")],
        "container_resources": k8s.V1ResourceRequirements(
            requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "1", "memory": "512Mi"}
        ),
        "on_finish_action": "delete_pod",
        "termination_grace_period": 10,
        **RESTRICTED,
    }

    def step(task_id, name, arguments, entrypoint=None, login=None, environment=None, **settings):
        settings["secrets"] = [Secret("volume", f"/run/secrets/{login}", f"{login}-login")] if login else []
        settings["env_vars"] = environment
        return TaskPod(task_id=task_id, image=image(name), cmds=entrypoint, arguments=arguments, **settings)

else:
    raise ValueError(f"COURSE_ENGINE must be docker or kubernetes, not {ENGINE!r}")


@task_group
def month(number):
    """Fetch one month and add it up. How many months there are is all that the mapping has to know of `number`."""
    # Of each of the two tasks so many at once; of all tasks of a run together, the DAG says below.
    limits = {"max_active_tis_per_dagrun": AT_ONCE, "map_index_template": "{{ interval().start[:7] }}"}
    fetch_ratings = step(
        "fetch_ratings",
        "movielens-fetch",
        FETCH,
        login="movielens",
        environment={
            "MOVIELENS_HOST": API,
            "MOVIELENS_USER": "course",
            "MOVIELENS_PASSWORD_FILE": "/run/secrets/movielens/password",
        },
        **limits,
    )
    fetch_ratings >> step("sum_ratings", "movielens-rank", SUM, ["sum-ratings"], **limits)


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
    default_args={"owner": "course", "retries": 2, "retry_delay": timedelta(seconds=10), **SETTINGS},
    tags=["movie-ratings", ENGINE],
    doc_md=__doc__,
):
    rank_sums = step("rank_sums", "movielens-rank", RANK, ["rank-sums"])
    store_rankings = step(
        "store_rankings",
        "movielens-store",
        STORE,
        login="database",
        environment={"DATABASE_URL_FILE": "/run/secrets/database/url"},
        outlets=[RANKINGS],
    )
    month.expand(number=list(range(1, 13))) >> rank_sums >> store_rankings
