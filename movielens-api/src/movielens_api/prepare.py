"""Find the data folder to serve, and make it first if need be."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from movielens_api.columns import DataError
from movielens_api.generate import PROFILES, generate, is_generated
from movielens_api.movielens_csv import convert, is_converted


def data_folder(data: Path | None, profile: str, seed: int) -> Path:
    """The data folder of `data` (one itself, or a MovieLens download) or else of the profile and seed.

    Raises DataError if there is no data, or bad data, and OSError.
    """
    if data is None:
        folder = cache_folder() / f"{profile}-{seed}"
        generated(profile, seed, folder)
        return folder
    if (data / "dataset.json").exists():
        return data
    if (data / "ratings.csv").exists():
        return converted(data)
    raise DataError(
        f"{data} has neither dataset.json (made by `movielens-api generate`) nor ratings.csv (a MovieLens download)"
    )


def converted(download: Path) -> Path:
    """The data folder of a MovieLens download: inside it if it can be written, else in the cache."""
    if os.access(download, os.W_OK):
        folder = download / ".movielens-api"
    else:
        name = hashlib.sha256(bytes(download.resolve())).hexdigest()[:16]
        folder = cache_folder() / f"download-{name}"
    if not is_converted(download, folder):
        with progress(f"reading {download}", (download / "ratings.csv").stat().st_size) as advance:
            convert(download, folder, advance)
    return folder


def generated(profile: str, seed: int, folder: Path) -> None:
    """Make the data folder of a profile and a seed, unless it is there."""
    if not is_generated(profile, seed, folder):
        with progress(f"generating {profile} with seed {seed}", PROFILES[profile].ratings) as advance:
            generate(profile, seed, folder, advance)


@contextmanager
def progress(label: str, length: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, else the label on a line of its own; on standard error."""
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


def cache_folder() -> Path:
    """Where data is kept between runs: the user's cache, or a private temporary folder if that cannot be written."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "movielens-api"
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    except (OSError, RuntimeError):
        pass  # a read-only disk, or a user without a home, as in a container
    temporary = Path(tempfile.gettempdir()) / f"movielens-api-{os.getuid()}"
    temporary.mkdir(mode=0o700, exist_ok=True)
    if temporary.stat().st_uid != os.getuid():
        raise PermissionError(f"{temporary} belongs to someone else: name a folder with --data")
    return temporary
