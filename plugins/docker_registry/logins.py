"""What private registries take for a login, and the usual mistakes with it.

Judged by the host and by what the login and the password look like, so without asking anybody. No sentence here holds
a part of a password. Where the facts are from:

- Google: Artifact Registry's page on authentication for Docker. `_json_key` with a service account's key file,
  `_json_key_base64` with the same in base64, `oauth2accesstoken` with an access token of an hour.
- Amazon: ECR's GetAuthorizationToken. The login AWS, and a token of 12 hours, which is base64 of a JSON with the time
  of its end in `expiration` (that part is not documented, so it is used when it is there).
- Azure: Container Registry's page on authentication. A token or a service principal with its password, or the
  login of zeros with a refresh token of 3 hours, which is a JWT.
- GitHub: its page on the container registry, and its announcement of token formats (`ghp_`, `github_pat_`, ...).
- Docker Hub: the engine's registry service takes docker.io and index.docker.io for the Hub; its API is at the latter.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

ZEROS = "00000000-0000-0000-0000-000000000000"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
PRIVATE_ECR = re.compile(
    r"\d+\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
)
# What a URI has to encode and a JSON must not.
PERCENT_CODE = re.compile(r"%(0A|0D|2[0-9A-F]|3[ABCDEF]|40|5[BCDE]|60|7[BCD])", re.IGNORECASE)


@dataclass(frozen=True)
class Kind:
    """A kind of registry."""

    name: str
    is_at: re.Pattern[str]  # the host
    mistakes: Callable[[str, str, str], Iterator[str]]  # of a host, a login and a password
    usual: str  # where to look when none is found


def kind_of(host: str, login: str = "") -> Kind | None:
    """Return the kind of a registry by its host; by its login too, as any registry may stand in for Google's."""
    for kind in KINDS:
        if kind.is_at.fullmatch(host.lower()):
            return kind
    return GOOGLE if login.startswith("_json_key") else None


def mistakes(host: str, login: str, password: str, now: datetime) -> list[str]:
    """Name what is wrong with a login that a registry has refused, each with its fix; surest first."""
    kind = kind_of(host, login)
    found = []
    end = runs_out(password)
    if end and end <= now:
        found.append(f"the password is a token that ran out on {end:%Y-%m-%d at %H:%M} UTC: get a new one")
    if kind:
        found += kind.mistakes(host.lower(), login, password)
    found += _of_any_login(login, password)
    return found


def runs_out(password: str) -> datetime | None:
    """Return when a token expires, if it says so itself: a JWT (RFC 7519, `exp`) or a password of ECR."""
    parts = password.strip().split(".")
    content, name = (_from_base64(parts[1]), "exp") if len(parts) == 3 else (_from_base64(password), "expiration")
    seconds = content.get(name) if isinstance(content, dict) else None
    if isinstance(seconds, int | float) and 0 < seconds < 1e11:
        return datetime.fromtimestamp(seconds, UTC)
    return None


def look_swapped(login: str, password: str) -> bool:
    """Return whether the password stands in the field of the login, where it would be shown."""
    return any(mark in login for mark in ("{", "\n", "PRIVATE KEY")) or password in ("_json_key", "AWS", ZEROS)


def _of_any_login(login: str, password: str) -> Iterator[str]:
    if login != login.strip():
        yield "the login begins or ends with white space: remove it"
    if login == "_json_key" or isinstance(_from_json(password), dict):
        return  # JSON may have any of what follows
    if password.endswith(("\n", "\r")):
        yield "the password ends in a line break, which belongs to it: `printf %s` adds none, `echo` does"
    elif password != password.strip():
        yield "the password begins or ends with white space: remove it"
    if _is_quoted(password.strip()):
        yield "the password has quotes around it, which belong to it: remove them"
    if PERCENT_CODE.search(password):
        yield (
            "the password has percent codes like %2F in it: only the URI form of a connection wants them, "
            "not JSON, not the form in the browser"
        )
    if re.match(r"docker\s+login\s", password):
        yield "the password is a whole `docker login` command: take only what follows its -p"
    if re.fullmatch(r"\*+|\$\{?\w+\}?|\{\{.*\}\}|<.*>", password.strip()):
        yield "the password is a placeholder, which nothing has filled in"


# --- Google


def _google(host: str, login: str, password: str) -> Iterator[str]:
    if login == "_json_key":
        yield from _json_key(password)
    elif login == "_json_key_base64":
        if _from_json(password):
            yield "the password is the JSON key itself: then the login is _json_key"
        elif not isinstance(_from_base64(password), dict):
            yield "the password is not base64 of a JSON key: make it with `base64 -w0 key.json`"
    elif _from_json(password):
        yield "the password is a JSON key: then the login is _json_key, whatever the key's account is called"
    elif login == "oauth2accesstoken":
        yield "an access token lasts an hour: get a new one with `gcloud auth print-access-token`"
    else:
        yield "the logins here are _json_key (with the whole JSON key), _json_key_base64 and oauth2accesstoken"


def _json_key(password: str) -> Iterator[str]:
    """Return why a password is not the key file of a service account."""
    text = password.strip()
    try:
        key = json.loads(text)
    except (ValueError, RecursionError) as error:
        yield _why_no_json(text, error)
        return
    if isinstance(key, str):
        yield "the password is JSON within a JSON string, encoded once too often: it has to begin with {"
    elif not isinstance(key, dict) or "private_key" not in key or "client_email" not in key:
        yield (
            "the password is JSON, but not the key of a service account, which has private_key and client_email: "
            "what `gcloud auth login` or a federation leaves behind will not do"
        )
    elif "\\n" in str(key["private_key"]):
        yield "the line breaks of private_key are escaped twice, as \\\\n: put the file in as it is"
    elif not str(key["private_key"]).startswith("-----BEGIN"):
        yield "private_key does not begin with -----BEGIN: put the file in as it is"


def _why_no_json(text: str, error: Exception) -> str:
    whole = "put the whole key file in, from { to }"
    if text.startswith("{"):
        if re.match(r"\{\s*\\", text):
            return f"the password has backslashes before its quotes or line breaks, from another encoding: {whole}"
        if re.match(r"\{\s*'", text):
            return "the password has single quotes: JSON has double ones, as in the key file"
        if not isinstance(error, json.JSONDecodeError):
            return f"the password does not parse as JSON: {whole}"
        where = f"line {error.lineno}, column {error.colno}"
        if error.msg.startswith("Invalid control character"):
            return (
                f"the password has a real line break within a string ({where}), where the key file has \\n: "
                "something, like `echo`, has replaced it"
            )
        if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
            return f"the password is cut off: as JSON it does not end ({where}): {whole}"
        return f"the password does not parse as JSON ({where}): {whole}"
    if _is_quoted(text):
        return f"the password has quotes around it, which belong to it: {whole}"
    if unquote(text).startswith("{"):
        return "the password is percent-encoded: only the URI form of a connection wants that"
    if isinstance(_from_base64(text), dict):
        return "the password is base64: then the login is _json_key_base64"
    if text.startswith("-----BEGIN"):
        return f"the password is the private key alone: {whole}"
    if text.startswith("ya29."):
        return "the password is an access token: then the login is oauth2accesstoken"
    if text.endswith(".json"):
        return "the password is the name of a file: put in what is in the file"
    return f"the password is not JSON: {whole}"


# --- the others


def _ecr(host: str, login: str, password: str) -> Iterator[str]:
    private = PRIVATE_ECR.fullmatch(host)
    new = (
        f"`aws ecr get-login-password --region {private[1]}`"
        if private
        else ("`aws ecr-public get-login-password --region us-east-1`")
    )
    if login != "AWS":
        yield f"the login is AWS here, in capitals, and the password comes from {new}"
    if _decoded(password).startswith("AWS:"):
        yield f"the password is login and password together, still in base64: take what {new} prints"
    elif re.fullmatch(r"[A-Za-z0-9/+]{40}", password):
        yield f"the password looks like the secret of an access key: {new} exchanges it for a password"
    elif not runs_out(password):
        yield f"a password lasts 12 hours: get a new one from {new}"


def _acr(host: str, login: str, password: str) -> Iterator[str]:
    is_jwt = isinstance(_from_base64(password.split(".")[1]), dict) if password.count(".") == 2 else False
    if login == ZEROS and not is_jwt:
        yield "the login of zeros goes with a refresh token, which `az acr login --name REGISTRY --expose-token` prints"
    elif login != ZEROS and is_jwt:
        yield f"the password is a refresh token: then the login is {ZEROS}"
    elif "@" in login:
        yield "a person's name and password are not taken: use a token, a service principal, or --expose-token"
    elif GUID.fullmatch(login) and login != ZEROS and GUID.fullmatch(password):
        yield "the password is the id of a service principal's secret, not its value"


def _github(host: str, login: str, password: str) -> Iterator[str]:
    if password.startswith("github_pat_"):
        yield "the password is a fine-grained token: GitHub Packages takes classic ones, with read:packages"
    elif password.startswith("ghs_"):
        yield "the password is a token of GitHub Actions or of an app, which ends with its job, or after an hour"
    elif not re.match(r"gh[opu]_", password.strip()):
        yield "the password has to be a classic personal access token (ghp_...) with read:packages"
    if "@" in login:
        yield "the login is a GitHub user name, not an e-mail address"


def _docker_hub(host: str, login: str, password: str) -> Iterator[str]:
    if "@" in login:
        yield "the login is a Docker ID, not an e-mail address"


GOOGLE = Kind(
    "Google",
    re.compile(r"(.+\.)?gcr\.io|.+\.pkg\.dev"),
    _google,
    "the key may be deleted or its service account disabled; "
    "to pull, the account needs the role roles/artifactregistry.reader",
)
KINDS = (
    GOOGLE,
    Kind(
        "Amazon ECR",
        re.compile(rf"{PRIVATE_ECR.pattern}|public\.ecr\.aws"),
        _ecr,
        "the token may be of another account or region, or its role lacks ecr:BatchGetImage",
    ),
    Kind(
        "Azure Container Registry",
        re.compile(r".+\.azurecr\.(io|cn|us)"),
        _acr,
        "a token may be disabled, the secret of a service principal has run out (after a year, if nobody chose), "
        "or the admin user is switched off",
    ),
    Kind(
        "GitHub",
        re.compile(r"ghcr\.io"),
        _github,
        "the token may have run out, lack read:packages, or not be authorized for the organization's single sign-on",
    ),
    Kind(
        "Docker Hub",
        re.compile(r"((index|registry-1|hub|www)\.)?docker\.(io|com)"),
        _docker_hub,
        "with two-factor login the password has to be a personal access token; it may also have run out",
    ),
)


# --- what a password looks like


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\"`"


def _decoded(text: str) -> str:
    """Decode base64, URL-safe or not, padded or not; the empty string for what is neither that nor text."""
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True).decode()
    except ValueError:
        return ""


def _from_base64(text: str) -> Any:
    return _from_json(_decoded(text))


def _from_json(text: str) -> Any:
    """Parse JSON; None for what is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
