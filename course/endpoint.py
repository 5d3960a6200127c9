"""Find the Airflow that is up: that of the stack, or that of the cluster."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import click

from course import stack
from course.cluster import Cluster, choose, current_context
from course.rest import Airflow
from course.settings import setting

USER = "airflow"


@contextmanager
def running_airflow(on: str | None = None, context: str | None = None) -> Iterator[Airflow]:
    """Yield the REST API of the Airflow that is up; where both are, `on` says which: "stack" or "cluster".

    Raises ClickException, one line, when there is none, or none that was asked for.
    """
    asked_for_cluster = on == "cluster" or context is not None
    in_stack = on == "stack" or (not asked_for_cluster and _stack_is_up())
    cluster = None if on == "stack" else choose(context) if asked_for_cluster else _current_cluster()
    if cluster and asked_for_cluster:
        cluster.check_answers()
        if not cluster.is_ours:
            raise click.ClickException(f"no Airflow in context {cluster.context}: `make k8s-up` puts it there")
    if in_stack and cluster:
        raise click.ClickException("both the stack and the cluster are up: say which, ON=stack or ON=cluster")
    if cluster:
        with cluster.forwarded() as address:
            yield Airflow(address, USER, setting("AIRFLOW_PASSWORD"), "make k8s-up")
    else:
        yield Airflow(lambda: f"http://127.0.0.1:{setting('AIRFLOW_PORT')}", USER, setting("AIRFLOW_PASSWORD"))


def _stack_is_up() -> bool:
    return shutil.which("docker") is not None and bool(stack.services())


def _current_cluster() -> Cluster | None:
    """Return the cluster of the current context, when it is up and the course's Airflow is there."""
    if not shutil.which("kubectl") or not (name := current_context()):
        return None
    cluster = Cluster(name)
    try:
        return cluster if cluster.is_ours else None
    except click.ClickException:  # it is down, or not ours
        return None
