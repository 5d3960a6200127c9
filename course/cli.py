"""The `course` command. The Makefile calls it; `course --help` lists what it can do."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any, NoReturn

import click
from rich.console import Console

from course.months import Month, MonthType
from course.settings import version as course_version

# Modules that only one command needs are imported inside it: `course top` should not wait for them.

PIPELINE = "01_mixed_operators"
PROFILES = click.Choice(["small", "100k", "1m", "25m"])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def course() -> None:
    """The companion of the course: run the pipeline, look at its results, check this machine."""
    os.environ["COURSE_VERSION"] = course_version()  # for Compose, the DAGs, and all else that a command starts


@course.command()
@click.option("--month", type=MonthType(), default="2019-01", help="The first month to rank.")
@click.option("--months", type=click.IntRange(1, 120), default=1, help="How many months, one after the other.")
@click.option("--profile", type=PROFILES, default="100k", help="How much data the API serves.")
@click.option("--started", type=float, hidden=True, help="When the whole command began, in epoch seconds.")
def run(month: Month, months: int, profile: str, started: float | None) -> None:
    """Run the pipeline here, without Docker: fetch, rank, store, and show the top ten."""
    from course import embedded
    from course.paths import DATABASE, shown
    from course.rankings import print_rankings, read_titles, stored_rankings

    began = time.time()
    console = Console()
    wanted = [month.later(number) for number in range(months)]
    with embedded.only_run():
        embedded.generate_data(profile)
        with console.status("starting the MovieLens API"), embedded.movielens_api(profile) as api:
            console.print(f"MovieLens API: http://{api.host}:{api.port}, {profile} ratings")
            follow(console, embedded.run_dag(PIPELINE, wanted, api))

    titles = read_titles(profile)
    for one in wanted:
        rankings = stored_rankings(PIPELINE, one.first_day)
        if rankings:
            print_rankings(console, f"Top ten of {one}, {len(rankings)} movies ranked", rankings[:10], titles)
        elif embedded.count_ratings(one) == 0:
            console.print(f"no ratings in {one}: zero rows stored")
        else:
            console.print(f"no movie has enough ratings in {one}: zero rows stored")
    console.print(f"rows: {shown(DATABASE)}, table movie_rankings, pipeline {PIPELINE}", soft_wrap=True)
    took = time.time() - (started or began)
    console.print(f"took {took:.0f} s" if took >= 10 else f"took {took:.1f} s")


def follow(console: Console, events: Any) -> None:
    """Show the events of a run as they happen: what is under way, and a line for each task that ended."""
    with console.status("starting Airflow") as status:
        month = ""
        for event in events:
            if phase := event.get("phase"):
                month = event.get("month", month)
                status.update(f"{month} {phase}".strip())
            elif task := event.get("task"):
                if event["state"] == "running":
                    status.update(f"{month} {task}")
                else:
                    mark = "[green]success[/]" if event["state"] == "success" else f"[red]{event['state']}[/]"
                    console.print(f"  {month}  {task:<15} {mark}  {event['seconds']:.1f} s", highlight=False)


@course.command()
@click.option("--month", type=MonthType(), help="The month to show; the latest one that is stored, if left out.")
@click.option("--limit", type=click.IntRange(1), default=10, help="How many movies.")
@click.option("--pipeline", default=PIPELINE, help="Which version of the pipeline stored the rows.")
@click.option("--profile", type=PROFILES, default="100k", help="The data that has the titles.")
def top(month: Month | None, limit: int, pipeline: str, profile: str) -> None:
    """Show a stored ranking."""
    from course.rankings import latest_interval, print_rankings, read_titles, stored_rankings

    start = month.first_day if month else latest_interval(pipeline)
    rankings = stored_rankings(pipeline, start, limit) if start else []
    if start is None or not rankings:
        raise click.ClickException(f"pipeline {pipeline} has no rows" + (f" for {month}" if month else ""))
    print_rankings(Console(), f"Top {limit} of {start:%Y-%m}, {pipeline}", rankings, read_titles(profile))


@course.command()
def doctor() -> None:
    """Check what this machine has, and say how to get what is missing."""
    from course.doctor import examine, print_findings

    findings = examine()
    print_findings(Console(), findings)
    if any(finding.is_missing for finding in findings):
        raise SystemExit(1)


@course.command()
@click.argument("parts", nargs=-1, type=click.Choice(["small", "100k", "1m", "25m", "tasks"]))
def bench(parts: tuple[str, ...]) -> None:
    """Measure the numbers of the course again: profiles, and what Airflow and the engines add to a task.

    Without an argument: 100k, 1m, 25m and tasks. All figures go to .course/bench.json too.
    """
    from course.bench import run_bench
    from course.paths import HOME

    run_bench(list(parts), HOME / "bench.json")


@course.command()
@click.option(
    "--image", "chosen", multiple=True, metavar="NAME=IMAGE", help="An image to use instead of the official one."
)
def env(chosen: tuple[str, ...]) -> None:
    """Make .env, with passwords for this machine; add what is missing in it, change nothing else."""
    from course.settings import write_env

    added = write_env(**dict(one.split("=", 1) for one in chosen))
    click.echo(f"added to .env: {', '.join(added)}" if added else ".env has all it needs")


@course.command()
def version() -> None:
    """Print the version of the course, which is the tag of its images: COURSE_VERSION, if that is set."""
    click.echo(course_version())


@course.command()
def images() -> None:
    """Build every image whose inputs changed, and show the sizes."""
    from course import images as images_
    from course.doctor import check_engine

    if (engine := check_engine()).fix:
        raise click.ClickException(str(engine))
    console = Console()
    images_.build(console)
    images_.print_sizes(console)


@course.command()
def push() -> None:
    """Push the task images to the registry of the stack, and show their digests."""
    from course import registry
    from course.doctor import check_engine

    if (engine := check_engine()).fix:
        raise click.ClickException(str(engine))
    registry.push(Console(soft_wrap=True))


@course.command("compose-up")
def compose_up() -> None:
    """Start the whole stack and wait until it is healthy."""
    from course import registry, stack

    console = Console(soft_wrap=True)
    stack.up(console)
    registry.push(console)
    stack.print_addresses(console)


@course.command("compose-down")
def compose_down() -> None:
    """Stop the stack; its data stay."""
    from course import stack

    console = Console(soft_wrap=True)
    stack.down(console)
    console.print("the stack is down; its data stay for the next `make compose-up`")


@course.command("compose-clean")
@click.option("--force", is_flag=True, help="Do not ask.")
def compose_clean(force: bool) -> None:
    """Remove all that the stack left: containers, networks, volumes, images, .env, logs."""
    from course import stack

    if not force:
        click.confirm("Remove the stack with all its data, its images, its logs and .env?", abort=True)
    console = Console(soft_wrap=True)
    stack.clean(console)
    console.print("the stack, its data, its images, its logs and .env are gone")


@course.command("airflow", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def airflow_(arguments: tuple[str, ...]) -> None:
    """Run a command of Airflow's CLI in the stack."""
    from course import stack

    raise SystemExit(stack.run_airflow(arguments))


@course.command("registry-check")
@click.argument("connection")
def registry_check(connection: str) -> None:
    """Try a connection to an image registry, and explain the answer.

    The connection is one of the stack, or that of the variable AIRFLOW_CONN_... where it is set here.
    """
    from course import stack
    from course.paths import PLUGINS

    if f"AIRFLOW_CONN_{connection.upper()}" in os.environ:
        command = [sys.executable, "-m", "docker_registry.check", connection]
        environment = os.environ | {"PYTHONPATH": str(PLUGINS)}
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    raise SystemExit(stack.run_registry_check(connection))


def params_of(context: click.Context, option: click.Parameter, text: str) -> dict[str, Any]:
    """Return params of a DAG, read from JSON."""
    try:
        params = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not JSON: {error}") from None
    if not isinstance(params, dict):
        raise click.BadParameter(f"{text!r} is not a JSON object")
    return params


CONTEXT = click.option("--context", help="A context of kubectl; default: the current one, if it looks local.")


@course.command("k8s-up")
@CONTEXT
def k8s_up(context: str | None) -> None:
    """Put the pipeline and Airflow on a Kubernetes cluster and wait until all is ready."""
    from course import cluster

    console = Console(soft_wrap=True)
    chosen = cluster.choose(context, lambda: cluster.make_kind_cluster(console))
    chosen.check()
    console.print(f"context {chosen.context}", highlight=False)
    chosen.up(console)
    chosen.print_endpoint(console)


@course.command("k8s-down")
@CONTEXT
def k8s_down(context: str | None) -> None:
    """Remove what k8s-up put on the cluster, with its data."""
    from course import cluster

    console = Console(soft_wrap=True)
    cluster.choose(context).down(console)


@course.command("dag-run")
@click.option("--dag", required=True, help="Which DAG.")
@click.option("--month", type=MonthType(), help="The month to rank; default: 2019-01, for a DAG that asks for one.")
@click.option("--conf", callback=params_of, default="{}", help="More params of the DAG, in JSON: '{\"year\": 2019}'.")
@click.option("--on", type=click.Choice(["stack", "cluster"]), help="Which Airflow; default: the one that is up.")
@CONTEXT
def dag_run(dag: str, month: Month | None, conf: dict[str, object], on: str | None, context: str | None) -> None:
    """Run a DAG in the stack or on the cluster over the REST API, and follow it. Exits by its outcome."""
    from course.endpoint import running_airflow

    console = Console(soft_wrap=True)
    with running_airflow(on, context) as airflow:
        params = airflow.params_of(dag)
        if "month" in params:
            conf = {"month": str(month or "2019-01")} | conf
        elif month:
            known = f"its params are {', '.join(sorted(params))}" if params else "it has no params"
            raise click.ClickException(f"{dag} asks for no month; {known}")
        run_id = airflow.trigger(dag, conf)
        name = f"{dag} for {conf['month']}" if "month" in conf else dag
        console.print(f"{name}: {run_id}", highlight=False)
        succeeded = airflow.follow(console, dag, run_id)
    console.print(f"{name}: {'success' if succeeded else 'failed'}")
    if not succeeded:
        raise SystemExit(1)


def stop(signal_number: int, frame: object) -> NoReturn:
    """Turn a signal into an exit, so that every `with` block ends what it started."""
    raise SystemExit(128 + signal_number)


def main() -> None:
    """Run the command. A mistake of the user is one line on stderr, not a traceback."""
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    try:
        course(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"Error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except PermissionError as error:  # for example a file that an earlier sudo left
        click.echo(f"Error: permission denied for {error.filename}: it belongs to another user", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
