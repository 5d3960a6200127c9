"""The command `movielens-api`: generate data, serve it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import click

from movielens_api.columns import DataError
from movielens_api.credentials import CredentialsError, read_credentials
from movielens_api.faults import KINDS, Faults
from movielens_api.generate import DEFAULT_PROFILE, PROFILES
from movielens_api.prepare import data_folder, ensure_generated

FOLDER_PATH = click.Path(file_okay=False, path_type=Path)


def split_kinds(context: click.Context, option: click.Parameter, text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise click.BadParameter(f"{kind!r} is not one of {', '.join(KINDS)}")
    return kinds


profile_option = click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default=DEFAULT_PROFILE,
    envvar="MOVIELENS_PROFILE",
    show_default=True,
    show_envvar=True,
    help=f"How many ratings: {'; '.join(f'{profile.ratings:,}' for profile in PROFILES.values())}.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=1,
    envvar="MOVIELENS_SEED",
    show_default=True,
    show_envvar=True,
    help="The same profile and seed give the same bytes.",
)


@click.group(no_args_is_help=False)
@click.version_option(package_name="movielens-api")
def cli() -> None:
    """A mock MovieLens API with seeded data."""


@cli.command("generate")
@profile_option
@seed_option
@click.option(
    "--output",
    type=FOLDER_PATH,
    required=True,
    envvar="MOVIELENS_OUTPUT",
    show_envvar=True,
    help="The folder to create. It appears when it is complete; an older data folder there is replaced.",
)
def generate_command(profile: str, seed: int, output: Path) -> None:
    """Generate a data folder."""
    ensure_generated(profile, seed, output)
    click.echo(str(output))


@cli.command()
@click.option(
    "--data",
    type=FOLDER_PATH,
    envvar="MOVIELENS_DATA",
    show_envvar=True,
    help="A data folder, or a MovieLens download (ratings.csv, movies.csv). Without it: --profile and --seed.",
)
@profile_option
@seed_option
@click.option("--host", default="127.0.0.1", envvar="API_HOST", show_default=True, show_envvar=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    envvar="API_PORT",
    show_default=True,
    show_envvar=True,
    help="0 takes a free one.",
)
@click.option(
    "--port-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="API_PORT_FILE",
    show_envvar=True,
    help="Write the port number to this file once the server answers; remove it at the end.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=2,
    envvar="API_WORKERS",
    show_default=True,
    show_envvar=True,
    help="Processes. They share one copy of the data.",
)
@click.option(
    "--fault-rate",
    type=click.FloatRange(0, 1),
    default=0.0,
    envvar="API_FAULT_RATE",
    show_default=True,
    show_envvar=True,
    help="Which share of the answers of /ratings and /movies goes wrong.",
)
@click.option(
    "--fault-seed",
    type=int,
    default=1,
    envvar="API_FAULT_SEED",
    show_default=True,
    show_envvar=True,
    help="Each worker repeats its faults for the same seed.",
)
@click.option(
    "--fault-kinds",
    callback=split_kinds,
    default=",".join(KINDS),
    envvar="API_FAULT_KINDS",
    show_default=True,
    show_envvar=True,
    help="Separated by commas: too many requests, server error, late, cut off half way.",
)
@click.option(
    "--fault-delay",
    type=click.FloatRange(min=0),
    default=1.5,
    envvar="API_FAULT_DELAY",
    show_default=True,
    show_envvar=True,
    help="Seconds by which a slow answer is late.",
)
def serve(
    data: Path | None,
    profile: str,
    seed: int,
    host: str,
    port: int,
    port_file: Path | None,
    workers: int,
    fault_rate: float,
    fault_seed: int,
    fault_kinds: tuple[str, ...],
    fault_delay: float,
) -> None:
    """Serve ratings and movies until SIGTERM.

    The login comes from the environment only: API_USER, and API_PASSWORD or API_PASSWORD_FILE.
    """
    credentials = read_credentials(os.environ)
    # Imported late: they take 0.2 s, which `generate` does not need.
    from movielens_api.app import create_app
    from movielens_api.columns import open_dataset
    from movielens_api.server import Server, bind

    if port_file:
        port_file.unlink(missing_ok=True)  # one of an earlier server would mislead those who wait for this one
    listener = bind(host, port)
    dataset = open_dataset(data_folder(data, profile, seed))
    faults = Faults(fault_rate, fault_seed, fault_kinds, fault_delay) if fault_rate else None
    Server(create_app(dataset, credentials, faults), listener, workers, port_file).run()


def main() -> None:
    # Process 1 of a container has no default action for SIGTERM: without this handler, a stop during the generation
    # would have to wait for SIGKILL. Gunicorn replaces it when it starts.
    signal.signal(signal.SIGTERM, _exit_on_signal)
    try:
        sys.exit(cli(standalone_mode=False))
    except (DataError, CredentialsError) as error:
        _fail(str(error), 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("stopped", 130)


def _exit_on_signal(signal_number: int, frame: object) -> NoReturn:
    sys.exit(128 + signal_number)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"movielens-api: {message}", err=True)
    sys.exit(code)
