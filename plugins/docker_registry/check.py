"""Tries the connection to an image registry, and explains the answer.

    PYTHONPATH=plugins python -m docker_registry.check course_registry

The connection is found as Airflow's own command line finds it, and tried with DockerRegistryHook. Each line of the
output is `what: words`, and the password is in none. Exit code 0: the login works; 1: it does not, and the lines `fix`
say what to do; 2: no such connection, or bad arguments.
"""

import argparse
import json
import logging
import os
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

if __name__ == "__main__":
    # Airflow makes the folder for its logs, and a home around it, as soon as it is imported. Nothing is logged here.
    os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"] = tempfile.gettempdir()

import structlog
from airflow.configuration import conf
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from docker_registry.api import (
    DockerRegistryError,
    LoginRefused,
    Registry,
    RegistrySettingsError,
    RegistryUnavailable,
    is_loopback,
)
from docker_registry.hook import DockerRegistryHook
from docker_registry.logins import kind_of, look_swapped, mistakes, runs_out

TIMEOUT = 10  # seconds without an answer from the registry


class NoConnection(Exception):
    """No such connection, or none that Airflow can read. The message is one line, with the fix."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the connection that the arguments name; return the exit code. Bad arguments end the program with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m docker_registry.check",
        description="Try an Airflow connection to an image registry, and explain the answer.",
        epilog="Exit code 0: the login works; 1: it does not; 2: no such connection.",
    )
    parser.add_argument("conn_id", help="the connection, like course_registry")
    conn_id = parser.parse_args(arguments).conn_id
    _silence()
    try:
        return 0 if check(find(conn_id)) else 1
    except NoConnection as error:
        print(f"connection {conn_id}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # its words, or a traceback, may hold the password
        print(f"connection {conn_id}: the check itself failed, with {type(error).__name__}", file=sys.stderr)
        return 1


def _silence() -> None:
    """Keep Airflow's logs and warnings off the screen: some of them hold what could not be parsed."""
    logging.disable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.simplefilter("ignore")


# --- the check


def check(connection: Connection) -> bool:
    """Try a connection, and print what is found. Return whether its login works."""
    login, password = connection.login or "", connection.password or ""
    variable = _variable(connection.conn_id)
    where = variable if variable in os.environ else "Airflow's database or a secrets backend"
    _say("connection", f"{connection.conn_id}, from {where}")
    if look_swapped(login, password):
        return _fails("nobody was asked, as the login looks like a password", ["swap login and password"])
    if connection.extra and not _is_json_object(connection.extra):
        return _fails("extra is not a JSON object", ['write it as {"name": "value"}, or leave it out'])
    try:
        registry = DockerRegistryHook(connection.conn_id, timeout=TIMEOUT, retries=1).get_conn()
    except RegistrySettingsError as error:
        return _fails(str(error), _fixes_of_settings(connection))
    host = _host(connection)
    kind = kind_of(host)
    _say("address", f"{registry.url} ({kind.name})" if kind else registry.url)
    try:
        challenges = registry.challenges()
    except DockerRegistryError as error:
        return _fails(str(error), _fixes_of_address(registry, error))
    _say("asks for", _described(challenges, registry))
    _say("login", registry.shown(login) if login else "none")
    try:
        asked = registry.log_in()
    except RegistryUnavailable as error:
        return _fails(str(error), ["the address that gives the tokens has to be reachable from here too"])
    except DockerRegistryError as error:
        return _fails(str(error), _fixes_of_login(host, login, password))
    for note in _notes(connection, asked):
        _say("note", note)
    _say("result", f"logged in as {registry.shown(login)}" if login and asked else "answers, and asks for no login")
    return True


def _say(what: str, words: str) -> None:
    print(f"{what}: {words}", flush=True)


def _fails(answer: str, fixes: Iterator[str] | Sequence[str]) -> bool:
    _say("answer", answer)
    for fix in fixes:
        _say("fix", fix)
    _say("result", "the connection does not work")
    return False


def _described(challenges: dict[str, dict[str, str]], registry: Registry) -> str:
    ways = []
    if "bearer" in challenges:
        ways.append(f"a token (Bearer) from {registry.shown(challenges['bearer'].get('realm', '').partition('?')[0])}")
    if "basic" in challenges:
        ways.append("login and password (Basic)")
    return " or ".join(ways) or "no login, or one of an unknown kind"


def _notes(connection: Connection, asked: bool) -> Iterator[str]:
    """Yield what a login that works leaves open."""
    if end := runs_out(connection.password or ""):
        yield f"the password is a token, which runs out on {end:%Y-%m-%d at %H:%M} UTC"
    if connection.extra_dejson.get("api_url"):
        yield f"the engine's own way to the registry, {connection.host or 'with no host'}, was not tried"
    if not connection.login:
        yield "DockerOperator takes no docker_conn_id here: its hook insists on a login"
    elif not asked:
        yield "the registry has not looked at the login"


# --- the connection


def find(conn_id: str) -> Connection:
    """Find a connection as Airflow does: secrets backends, AIRFLOW_CONN_..., database. Raises NoConnection."""
    if _has_database():
        # As Airflow's own commands do. Without it the connections of the database are left to a worker's supervisor.
        os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise NoConnection(_why_not_found(conn_id)) from None
    return connection


def _variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _host(connection: Connection) -> str:
    """Return the name in `host`, which tells the kind of registry even when api_url is the way to it."""
    try:
        return urlsplit(f"//{(connection.host or '').strip().rpartition('://')[2]}").hostname or ""
    except ValueError:
        return ""


def _has_database() -> bool:
    """Return whether there is a database to ask: where there is no SQLite file, asking makes an empty one."""
    address = conf.get("database", "sql_alchemy_conn")
    return not address.startswith("sqlite:///") or Path(address.removeprefix("sqlite:///")).exists()


def _why_not_found(conn_id: str) -> str:
    variable = _variable(conn_id)
    if variable in os.environ:
        return f"{variable} is set, but {_why_unreadable(os.environ[variable], conn_id)}"
    for name in os.environ:
        if name.upper() == variable:
            return f"{name} is set, but Airflow looks for {variable}, all in capitals"
    return f"there is no {variable}, and {_why_not_in_database(conn_id)}"


def _why_unreadable(value: str, conn_id: str) -> str:
    """Return why Airflow cannot read a connection in a variable. Its own words would hold the value."""
    if not value.strip():
        return "it is empty"
    if not value.strip().startswith("{"):
        return "it is not a URI of a connection: percent-encode login and password, or write it as JSON, from { to }"
    try:
        Connection.from_json(value, conn_id)
    except json.JSONDecodeError as error:
        return (
            f"it does not parse as JSON (line {error.lineno}, column {error.colno}): write it with jq or with Python's "
            "json module, which put line breaks and quotes of a password as JSON has them"
        )
    except (TypeError, ValueError, AttributeError):
        pass
    return "something in it is not a field of a connection: conn_type, host, port, login, password, extra"


def _why_not_in_database(conn_id: str) -> str:
    from airflow.secrets.metastore import MetastoreBackend
    from cryptography.fernet import InvalidToken

    if not _has_database():
        return "there is no database of Airflow here"
    # Whatever is raised, its words are not shown: they may hold a password, the connection's or the database's.
    try:
        connection = MetastoreBackend().get_connection(conn_id)
    except (InvalidToken, ValueError):
        return "the one in Airflow's database was saved with another AIRFLOW__CORE__FERNET_KEY: save it again"
    except Exception as error:
        return f"Airflow's database cannot be read ({type(error).__name__}): is it up, and migrated?"
    if connection is None:
        return "Airflow's database has none of this name: `airflow connections list` shows what there is"
    return "Airflow cannot read the one in its database: save it again"


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


# --- what to do


def _fixes_of_settings(connection: Connection) -> Iterator[str]:
    """Yield how to fix a connection that cannot be used as it is. What is wrong is already printed."""
    value = os.environ.get(_variable(connection.conn_id), "")
    if value and not value.strip().startswith("{") and any(character in value for character in '{}"\n '):
        yield "login and password of a URI have to be percent-encoded; write the connection as JSON instead"
        return
    address, _, path = (connection.host or "").strip().rpartition("://")[2].partition("/")
    if address.endswith("docker.io"):
        yield "write index.docker.io as host: with https:// and /v1/ it is how `docker login` calls Docker Hub"
    elif path and "@" not in address:
        yield f"write {address} as host; what follows, {path}, belongs in the names of images"


def _fixes_of_address(registry: Registry, error: DockerRegistryError) -> Iterator[str]:
    """Yield what to do when nothing, or no registry, answers at an address."""
    scheme, netloc = urlsplit(registry.url)[:2]
    host = urlsplit(registry.url).hostname or ""
    if host in ("docker.io", "www.docker.com", "hub.docker.com"):
        yield "write index.docker.io as host: Docker Hub's API is there, and the engine takes it for docker.io"
    elif "CERTIFICATE_VERIFY_FAILED" in str(error):
        yield _fix_of_certificate(str(error))
    elif _is_registry(f"{'http' if scheme == 'https' else 'https'}://{netloc}"):
        other = "http" if scheme == "https" else "https"
        yield f"it speaks {other}: write {other}://{netloc} as host"
    elif isinstance(error, LoginRefused):
        yield "write the address that it redirects to as host, if that is where the login should go"
    elif not _has_address(host):
        yield f"no host is called {host}: look for a typo, or whether the name is known in another network only"
    elif is_loopback(host):
        yield (
            f"nothing of a registry at {netloc}. In a container, {host} is the container itself: "
            "give the registry's address there as api_url in extra"
        )
    elif "timed out" in str(error):
        yield "no answer in time: a firewall, a VPN or a proxy (HTTPS_PROXY, NO_PROXY) may be in between"
    else:
        yield "look at host and port: no registry answers there"


def _fix_of_certificate(error: str) -> str:
    if "expired" in error:
        return "the certificate has run out: the registry needs a new one"
    if "mismatch" in error:
        return "the certificate is for another name: write the host as it is in the certificate"
    return "an unknown authority has signed the certificate: name its file (PEM) as ca_cert in extra"


def _is_registry(url: str) -> bool:
    """Ask, without a login and whatever the certificate, whether a registry answers at a URL."""
    try:
        Registry(url, verify=False, timeout=TIMEOUT, retries=0).challenges()
    except DockerRegistryError:
        return False
    return True


def _has_address(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _fixes_of_login(host: str, login: str, password: str) -> list[str]:
    if not login:
        return ["put login and password into the connection"]
    found = mistakes(host, login, password, datetime.now(UTC))
    if kind := kind_of(host):
        usual = kind.usual
    elif login == "_json_key":
        usual = "this registry may compare every byte with the key it knows, down to the last line break of the file"
    else:
        usual = "try the same login and password with `docker login`"
    return found or [f"nothing is wrong with the form of the login; {usual}"]


if __name__ == "__main__":
    sys.exit(main())
