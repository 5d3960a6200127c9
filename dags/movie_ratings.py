"""What the three versions of the pipeline share: the interval of a run, its schedule, its params, its Asset."""

import os
from datetime import datetime
from typing import NamedTuple

from airflow.sdk import Asset, Context, CronDataIntervalTimetable, Param, timezone
from airflow.sdk.exceptions import AirflowFailException
from dateutil.relativedelta import relativedelta
from jinja2 import pass_context

RANKINGS = Asset("movie_rankings")


class Interval(NamedTuple):
    """A half-open interval [start, end) of days in UTC, each as YYYY-MM-DD."""

    start: str
    end: str


@pass_context
def interval(context: Context) -> Interval:
    """Return the interval of this run: the month in its params, else the data interval of its schedule.

    Raises AirflowFailException for a manual run that has neither. In Airflow 3 such a run has no data interval.
    """
    if month := context["params"]["month"]:
        return _month_of(timezone.parse(f"{month}-01"))
    run = context["dag_run"]
    if run.data_interval_start is None or run.data_interval_end is None:
        raise AirflowFailException('this run has no interval: trigger it with a month, as in {"month": "2019-01"}')
    return Interval(f"{run.data_interval_start:%Y-%m-%d}", f"{run.data_interval_end:%Y-%m-%d}")


@pass_context
def month_of_interval(context: Context) -> Interval:
    """Return the whole month in which the interval of this run begins, for a schedule that ranks it again each day."""
    return _month_of(timezone.parse(interval(context).start))


def _month_of(day: datetime) -> Interval:
    first = day.replace(day=1)
    return Interval(f"{first:%Y-%m-%d}", f"{first + relativedelta(months=1):%Y-%m-%d}")


# Templates, so they are filled in when a task runs, not when the file is parsed.
START = "{{ interval().start }}"
END = "{{ interval().end }}"

FIRST_MONTH = timezone.datetime(2019, 1, 1)
# Not "@daily" or "@monthly" alone: their runs have start == end in Airflow 3. This timetable gives them real intervals.
DAILY = CronDataIntervalTimetable("@daily", timezone="UTC")
MONTHLY = CronDataIntervalTimetable("@monthly", timezone="UTC")
PARAMS = {
    "month": Param(
        None,
        type=["null", "string"],
        pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
        title="Month",
        description="The month to rank, as YYYY-MM. Leave it empty to take the interval of the schedule.",
    )
}

# The files of an interval, for every version that runs the tasks as images.
RATINGS_CSV = f"/data/ratings/{START}.csv"
RANKINGS_CSV = f"/data/rankings/{START}.csv"

# The name of the stack: its network, the prefix of its volumes, a label of its containers. Tests run a second stack
# beside a learner's.
STACK = os.environ.get("COURSE_STACK", "course")


# The tag of the task images. Where nobody has set it, a task fails with this name of a tag that does not exist.
TAG = os.environ.get("COURSE_VERSION") or "COURSE_VERSION-is-not-set"

# The registry that a cluster pulls them from, with / at its end; empty where the images are brought to the nodes.
REGISTRY = os.environ.get("COURSE_REGISTRY", "")
# A node asks a registry for a tag that it has pulled before only if it is told to, and the tag may have moved.
PULL_POLICY = "Always" if REGISTRY else "IfNotPresent"


def image(task: str) -> str:
    """Return the name of a task's image, as `make images` builds it; on a cluster, in the registry it pulls from."""
    return f"{REGISTRY}course/{task}:{TAG}"
