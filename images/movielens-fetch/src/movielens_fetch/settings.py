"""Defaults of the flags, and what comes from the environment: the password is never an argument."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from movielens_fetch.errors import BadInput

DEFAULT_HOST = "http://movielens:5000"
DEFAULT_BATCH_SIZE = 1000
DEFAULT_TIMEOUT = 120.0  # seconds


def check_host(host: str) -> str:
    """Return the address without a slash at its end. Raises BadInput where it is not http(s)://HOST[:PORT][/PATH]."""
    try:
        parts = urlsplit(host)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        extra = parts.query or parts.fragment or any(char.isspace() or not char.isprintable() for char in host)
    except ValueError:  # a port that is not a number, a bracket that is not closed
        valid, extra, parts = False, "", urlsplit("")
    if "@" in host:  # not repeated in the message: it may be a password
        raise BadInput("--host must not hold a login: set MOVIELENS_USER and MOVIELENS_PASSWORD")
    if not valid or extra:
        raise BadInput(f"--host is {host!r}, not an address such as {DEFAULT_HOST}")
    return host.rstrip("/")


def login() -> tuple[str, str]:
    """Return user and password: MOVIELENS_USER, and MOVIELENS_PASSWORD or the file that MOVIELENS_PASSWORD_FILE names.

    Raises BadInput where one is missing, where both kinds of password are set, or the file cannot be read.
    """
    user = os.environ.get("MOVIELENS_USER")
    password = os.environ.get("MOVIELENS_PASSWORD")
    path = os.environ.get("MOVIELENS_PASSWORD_FILE")
    if not user:
        raise BadInput("set MOVIELENS_USER to the user of the MovieLens API")
    if ":" in user:
        raise BadInput("MOVIELENS_USER holds a colon, which basic authentication does not allow")
    if password and path:
        raise BadInput("both MOVIELENS_PASSWORD and MOVIELENS_PASSWORD_FILE are set: unset one of them")
    if path:
        try:
            password = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise BadInput(f"MOVIELENS_PASSWORD_FILE: cannot read {path}: {reason}") from None
        if not password:
            raise BadInput(f"MOVIELENS_PASSWORD_FILE: {path} is empty")
    if not password:
        raise BadInput("set MOVIELENS_PASSWORD, or MOVIELENS_PASSWORD_FILE to a file that holds it")
    return user, password
