"""Find the data folder to serve, and make it first if it is missing."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from movielens_api.columns import DataError, about_file
from movielens_api.generate import PROFILES, generate, is_generated
from movielens_api.movielens_csv import convert, is_converted, ratings_file


def data_folder(data: Path | None, profile: str, seed: int) -> Path:
    """Return the data folder of `data` (one itself, or a MovieLens download) or else of the profile and seed.

    Raises DataError if there is no data, or bad data, and OSError.
    """
    if data is None:
        folder = cache_folder() / f"{profile}-{seed}"
        ensure_generated(profile, seed, folder)
        return folder
    if about_file(data).exists():
        return data
    if ratings_file(data).exists():
        return ensure_converted(data)
    raise DataError(
        f"{data} has neither dataset.json (made by `movielens-api generate`) nor ratings.csv (a MovieLens download)"
    )


def ensure_converted(download: Path) -> Path:
    """Return the data folder of a MovieLens download: inside it if that is writable, else in the cache."""
    if os.access(download, os.W_OK):
        folder = download / ".movielens-api"
    else:
        name = hashlib.sha256(bytes(download.resolve())).hexdigest()[:16]
        folder = cache_folder() / f"download-{name}"
    if not is_converted(download, folder):
        with progress(f"reading {download}", ratings_file(download).stat().st_size) as advance:
            convert(download, folder, advance)
    return folder


def ensure_generated(profile: str, seed: int, folder: Path) -> None:
    """Generate the data folder of a profile and a seed, unless it is there."""
    if not is_generated(profile, seed, folder):
        with progress(f"generating {profile} with seed {seed}", PROFILES[profile].ratings) as advance:
            generate(profile, seed, folder, advance)


@contextmanager
def progress(label: str, length: int) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal, else the label on a line of its own; on standard error."""
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


def cache_folder() -> Path:
    """Return the folder that keeps data between runs: the user's cache, else a private temporary folder."""
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
        raise PermissionError(f"{temporary} belongs to another user: name a folder with --data")
    return temporary
