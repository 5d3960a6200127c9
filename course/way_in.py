"""Find the Airflow that is up: that of the stack, or that of the cluster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import click

from course import stack
from course.cluster import Cluster, current_context
from course.rest import Airflow
from course.settings import setting

USER = "airflow"


@contextmanager
def running_airflow(on: str | None = None, context: str | None = None) -> Iterator[Airflow]:
    """Give the REST API of the Airflow that is up; `on` says which when both are, "stack" or "cluster".

    Raises ClickException, one line, when there is none, or none that was asked for.
    """
    in_stack = on == "stack" or (on is None and context is None and _stack_is_up())
    cluster = None if on == "stack" else _cluster(context)
    if in_stack and cluster:
        raise click.ClickException("both the stack and the cluster are up: say which, ON=stack or ON=cluster")
    if cluster:
        with cluster.forwarded() as address:
            yield Airflow(address, USER, setting("AIRFLOW_PASSWORD"))
    elif on == "cluster" or context:
        raise click.ClickException("no Airflow on the cluster: `make k8s-up` puts it there")
    else:
        yield Airflow(f"http://127.0.0.1:{setting('AIRFLOW_PORT')}", USER, setting("AIRFLOW_PASSWORD"))


def _stack_is_up() -> bool:
    return shutil.which("docker") is not None and bool(stack.services())


def _cluster(context: str | None) -> Cluster | None:
    """Give the cluster of a context, by default the current one, when the course's Airflow is there."""
    if not shutil.which("kubectl") or not (name := context or current_context()):
        return None
    cluster = Cluster(name)
    return cluster if cluster.is_ours else None
