"""The one login of the API: read from the environment, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


class CredentialsError(Exception):
    """The environment does not hold a valid login; the message names the variable."""


@dataclass(frozen=True)
class Credentials:
    user: str
    password: str = field(repr=False)

    def match(self, user: str, password: str) -> bool:
        """Return whether both are right. Always compares both, so that the time reveals nothing about either."""
        user_matches = hmac.compare_digest(user.encode(), self.user.encode())
        password_matches = hmac.compare_digest(password.encode(), self.password.encode())
        return user_matches & password_matches


def read_credentials(environment: Mapping[str, str]) -> Credentials:
    """Return the login in API_USER and API_PASSWORD, or in the file API_PASSWORD_FILE less the line break at its end.

    An empty variable counts as missing. Raises CredentialsError.
    """
    user = environment.get("API_USER", "")
    password = environment.get("API_PASSWORD", "")
    file = environment.get("API_PASSWORD_FILE", "")
    if not user:
        raise CredentialsError("API_USER is missing: set it to the name that clients log in with")
    if ":" in user:
        raise CredentialsError("API_USER has a colon, which ends the name in HTTP basic auth: choose another")
    if password and file:
        raise CredentialsError("API_PASSWORD and API_PASSWORD_FILE are both set: keep one of them")
    if file:
        try:
            password = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise CredentialsError(f"API_PASSWORD_FILE={file} cannot be read: {error}") from None
        if not password:
            raise CredentialsError(f"API_PASSWORD_FILE={file} is empty: write the password into it")
    if not password:
        raise CredentialsError("API_PASSWORD is missing: set it, or API_PASSWORD_FILE to a file that holds it")
    return Credentials(user, password)
