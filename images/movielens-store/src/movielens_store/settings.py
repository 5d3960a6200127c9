"""The defaults, and DATABASE_URL, which comes from the environment or a mounted file and never from an argument."""

import os
from pathlib import Path

from movielens_store.errors import BadInput

DEFAULT_TABLE = "movie_rankings"
EXAMPLE_URL = "mysql://USER:PASSWORD@HOST:3306/DATABASE"


def database_url() -> str:
    """Return the value of DATABASE_URL, or the content of the file that DATABASE_URL_FILE names.

    Raises BadInput where neither or both are set, or the file cannot be read.
    """
    value = os.environ.get("DATABASE_URL")
    path = os.environ.get("DATABASE_URL_FILE")
    if value and path:
        raise BadInput("both DATABASE_URL and DATABASE_URL_FILE are set: unset one of them")
    if path:
        try:
            value = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise BadInput(f"DATABASE_URL_FILE: cannot read {path}: {reason}") from None
        if not value:
            raise BadInput(f"DATABASE_URL_FILE: {path} is empty")
    if not value:
        raise BadInput(f"set DATABASE_URL, such as {EXAMPLE_URL}, or DATABASE_URL_FILE, a file that holds it")
    return value
