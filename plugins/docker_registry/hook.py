"""`DockerRegistryHook`: what Airflow asks of an image registry, by a connection.

    hook = DockerRegistryHook(registry_conn_id="course_registry")
    digest = hook.load_image(repository="movielens-rank", tag="1.2.0", image_path="/data/movielens-rank.tar")
    assert digest == hook.get_image_digest(repository="movielens-rank", tag="1.2.0")

The connection has the fields that DockerHook reads from it, so one connection serves DockerOperator and this hook:

    host      address of the registry as the engine knows it: name, or name:port, or a URL without a path. Without a
              scheme it is https, and http on this machine (localhost, 127.0.0.0/8), as for Docker.
    port      if it is not in host
    login, password
              a private registry of a cloud may want `_json_key` and the whole JSON key, as many lines as it has
    extra     api_url   where Airflow reaches the same registry, when that is another address than the engine's
              ca_cert   file of the CA certificates to verify the registry with, in PEM format
              insecure  true: do not verify the certificate
              email, reauth are DockerHook's

`ca_cert` and `insecure` are for this hook. The engine, which does the push, has its own settings for that.
A connection of any type serves; the type `docker_registry` has the form and the Test button (form.py).
"""

import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import docker  # type: ignore[import-untyped] # ships no types
from airflow.sdk import BaseHook, Connection
from docker.errors import APIError, DockerException, ImageLoadError, NotFound  # type: ignore[import-untyped]
from requests.exceptions import RequestException

from docker_registry.api import (
    TAG,
    AccessDenied,
    DigestMismatch,
    DockerRegistryError,
    Image,
    InvalidReference,
    Registry,
    RegistrySettingsError,
    is_loopback,
)

ARCHIVE_INDEX_LIMIT = 4 * 1024 * 1024  # bytes of manifest.json in an archive
TRUE = ("y", "yes", "t", "true", "on", "1")  # as DockerHook reads its extras
FALSE = ("n", "no", "f", "false", "off", "0", "")
UNREADABLE = (tarfile.TarError, EOFError, OSError, ValueError, RecursionError, zlib.error, lzma.LZMAError)


class InvalidArchive(DockerRegistryError):
    """A file that is not the archive of one image."""


class EngineError(DockerRegistryError):
    """The Docker engine cannot be reached, or refuses."""


class PushFailed(DockerRegistryError):
    """The engine could not push the image. The tag still stands for what it did before."""


class DockerRegistryHook(BaseHook):
    """Looks into an image registry, and puts images there.

    Every error is a DockerRegistryError of one line that names registry, repository and tag. Beside those named below
    each method raises RegistryUnavailable, LoginRefused, AccessDenied, InvalidReference and BadAnswer.

    :param registry_conn_id: the connection, which is read when it is first needed
    :param docker_url: the engine that load_image uses; default: DOCKER_HOST, else the socket
    :param timeout: seconds to wait for the registry's next byte
    :param engine_timeout: seconds to wait for the engine's next answer; while it loads an image it sends none
    :param retries: how often to ask the registry again after no answer, or the statuses 429, 500, 502, 503, 504
    """

    conn_name_attr = "registry_conn_id"
    default_conn_name = "course_registry"
    conn_type = "docker_registry"
    hook_name = "Docker Registry"

    def __init__(
        self,
        registry_conn_id: str = default_conn_name,
        docker_url: str | None = None,
        *,
        timeout: float = 30,
        engine_timeout: int = 600,
        retries: int = 3,
    ) -> None:
        super().__init__()
        self.registry_conn_id = registry_conn_id
        self.docker_url = docker_url
        self.timeout = timeout
        self.engine_timeout = engine_timeout
        self.retries = retries

    def get_conn(self) -> Registry:
        """Return the client of the registry's API. Raises RegistrySettingsError."""
        return self._registry

    def test_connection(self) -> tuple[bool, str]:
        """Return, for the button of the connection form, whether the registry answers and takes the login."""
        try:
            asked = self._registry.log_in()
        except DockerRegistryError as error:
            return False, str(error)
        login = self._connection.login
        if asked and login:
            return True, f"registry {self._registry.name}: logged in as {login}"
        return True, f"registry {self._registry.name} answers, and asks for no login"

    def list_repositories(self) -> list[str]:
        """List the names of the repositories, sorted."""
        return self._registry.repositories()

    def list_tags(self, repository: str) -> list[str]:
        """List the tags of a repository, sorted. Raises RepositoryNotFound."""
        return self._registry.tags(repository)

    def get_image_digest(self, repository: str, tag: str, platform: str | None = None) -> str:
        """Return what a tag stands for, as `sha256:...`, after comparing it with the content.

        An image for several platforms has an index (a manifest list) and a manifest for each of them. Without platform
        it is the digest of what the tag names, be it an index or a manifest: what to pin in `image@digest`. With one,
        like `linux/arm64`, it is the digest of that platform's manifest. Instead of a tag a digest will do.

        Raises RepositoryNotFound, TagNotFound, PlatformNotFound, DigestMismatch.
        """
        return self._registry.digest(repository, tag, platform)

    def reference(self, repository: str, tag: str) -> str:
        """Name an image as the engine does, registry/repository:tag, or with a digest registry/repository@sha256:...

        It is what the image argument of DockerOperator takes. The registry is not asked.
        """
        self._registry.image(repository, tag)  # is each a legal one?
        return f"{self._engine_address}/{repository}{'@' if ':' in tag else ':'}{tag}"

    def image_exists(self, repository: str, tag: str) -> bool:
        """Return whether the registry has the tag (or digest) in the repository; False for no such repository."""
        return self._registry.exists(repository, tag)

    def delete_image(self, repository: str, digest: str) -> None:
        """Delete an image by its digest, with all tags that stand for it. Raises ImageNotFound, RepositoryNotFound."""
        self._registry.delete(repository, digest)
        self.log.info("deleted %s@%s", repository, digest)

    def load_image(self, repository: str, tag: str, image_path: str | os.PathLike[str]) -> str:
        """Load an archive of `docker save` into the engine, tag it for the registry and push it. Return the digest.

        Loading also gives the image the names that are in the archive. When the push fails, the tag stands for what it
        did before, in the registry and in the engine.

        Raises InvalidArchive, EngineError, PushFailed, DigestMismatch.
        """
        about = self._registry.image(repository, tag)
        if not TAG.fullmatch(tag):
            raise InvalidReference(f"{about}: an image is pushed under a tag, and gets its digest from that")
        name, path = f"{self._engine_address}/{repository}", Path(image_path)
        _check_archive(path, about)
        self._registry.log_in()  # a wrong login should not be found out after a long load
        with self._engine(about) as engine, _tag_back_on_failure(engine, name, tag):
            image = _load(engine, path, about)
            self.log.info("loaded %s from %s", image.id, path)
            image.tag(name, tag)
            digest = self._push(engine, name, tag, about)
        there = self.get_image_digest(repository, tag)
        if there != digest:
            raise DigestMismatch(f"{about}: the engine pushed {digest}, but the tag stands for {there}")
        self.log.info("pushed %s:%s as %s", name, tag, digest)
        return digest

    # --- the connection

    @cached_property
    def _connection(self) -> Connection:
        return self.get_connection(self.registry_conn_id)

    @cached_property
    def _registry(self) -> Registry:
        extra = self._connection.extra_dejson
        api_url = extra.get("api_url")
        url = self._url("api_url", api_url) if api_url else self._url("host", self._connection.host)
        login, password = self._connection.login or "", self._connection.password or ""
        if bool(login) != bool(password):
            self._complain(f"{'password' if login else 'login'} is missing; a public registry needs neither")
        return Registry(
            url, login, password, verify=self._verification(extra), timeout=self.timeout, retries=self.retries
        )

    @property
    def _engine_address(self) -> str:
        """The registry in names of images."""
        parts = urlsplit(self._url("host", self._connection.host))
        # Docker would take a bare word for a user of Docker Hub, and send the login there.
        bare = "." not in parts.netloc and ":" not in parts.netloc and parts.netloc != "localhost"
        return f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}" if bare else parts.netloc

    def _url(self, field: str, value: str | None) -> str:
        """Complete an address of the connection to scheme://name[:port]."""
        value = (value or "").strip()
        if not value:
            self._complain(f"{field} is missing: the address of the registry, like registry.example.org:5000")
        scheme, given, rest = value.rpartition("://")
        try:
            parts = urlsplit(f"//{rest}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if "@" in value:
            self._complain(f"{field} holds a login: that belongs in the fields login and password")
        if not host or parts.path not in ("", "/") or parts.query or parts.fragment or any(map(str.isspace, rest)):
            self._complain(f"{field} is not an address of a registry: a name, perhaps with a port, but with no path")
        if given and scheme not in ("http", "https"):
            self._complain(f"{field} begins with {scheme}://: a registry speaks https or http")
        if field == "host" and self._connection.port:
            if port not in (None, self._connection.port):
                self._complain(f"host and port name two ports, {port} and {self._connection.port}")
            port = self._connection.port
        scheme = scheme or ("http" if is_loopback(host) else "https")
        netloc = f"[{host}]" if ":" in host else host
        return f"{scheme}://{netloc}:{port}" if port else f"{scheme}://{netloc}"

    def _verification(self, extra: dict[str, Any]) -> bool | str:
        insecure = str(extra.get("insecure") or "").lower()  # from a URI it comes as a word
        if insecure not in TRUE + FALSE:
            self._complain("insecure is neither true nor false")
        ca_cert = extra.get("ca_cert")
        if insecure in TRUE:
            if ca_cert:
                self._complain("insecure and ca_cert contradict each other: remove one")
            return False
        if ca_cert and not Path(ca_cert).is_file():
            self._complain(f"ca_cert is not a file: {ca_cert}")
        return ca_cert or True

    def _complain(self, what: str) -> NoReturn:
        raise RegistrySettingsError(f"connection {self.registry_conn_id}: {what}")

    # --- the engine

    @contextmanager
    def _engine(self, about: Image) -> Iterator[docker.DockerClient]:
        """Connect to the engine. Raises EngineError for whatever the engine does not do."""
        environment = dict(os.environ)
        if self.docker_url:
            environment["DOCKER_HOST"] = self.docker_url
        where = environment.get("DOCKER_HOST") or "the local socket"
        try:
            with closing(docker.from_env(environment=environment, timeout=self.engine_timeout)) as client:
                yield client
        except APIError as error:
            words = self._registry.shown(error.explanation or str(error))
            raise EngineError(f"{about}: the Docker engine at {where} refuses: {words}") from None
        except (DockerException, RequestException) as error:
            words = self._registry.shown(str(error))
            raise EngineError(f"{about}: no answer from a Docker engine at {where}: {words}") from None

    def _push(self, engine: docker.DockerClient, name: str, tag: str, about: Image) -> str:
        login, password = self._connection.login, self._connection.password
        auth = {"username": login, "password": password} if login else {}
        digest = None
        for event in engine.images.push(name, tag=tag, auth_config=auth, stream=True, decode=True):
            if "error" in event:
                words = self._registry.shown(event["error"])
                refused = any(word in words for word in ("denied", "unauthorized", "insufficient_scope", "basic auth"))
                raise (AccessDenied if refused else PushFailed)(f"{about}: no push of {name}:{tag}: {words}")
            digest = event.get("aux", {}).get("Digest", digest)
        if not isinstance(digest, str):
            raise PushFailed(f"{about}: the engine pushed {name}:{tag}, but does not report the digest")
        return digest


def _check_archive(path: Path, about: Image) -> None:
    """Read the list of images in an archive, before the engine gets it. Raises InvalidArchive."""
    hint = "make it with `docker save IMAGE -o FILE`"
    if not path.is_file():
        raise InvalidArchive(f"{about}: {path} is not a file" if path.exists() else f"{about}: {path} does not exist")
    try:
        with tarfile.open(path) as archive:
            content = archive.extractfile("manifest.json")
            images = json.loads(content.read(ARCHIVE_INDEX_LIMIT)) if content else None
    except KeyError:
        raise InvalidArchive(
            f"{about}: {path} is not an archive of an image, for it has no manifest.json: {hint}"
        ) from None
    except PermissionError:
        raise InvalidArchive(f"{about}: {path} cannot be read by this user") from None
    except UNREADABLE as error:
        raise InvalidArchive(f"{about}: {path} is not an archive of an image: {hint}") from error
    if not isinstance(images, list) or not images:
        raise InvalidArchive(f"{about}: {path} holds no image: {hint}")
    if len(images) > 1:
        raise InvalidArchive(f"{about}: {path} holds {len(images)} images, and a tag stands for one: {hint}")


def _load(engine: docker.DockerClient, path: Path, about: Image) -> Any:
    """Load an archive; return its image. Raises InvalidArchive."""
    try:
        with path.open("rb") as archive:
            images = {image.id: image for image in engine.images.load(archive)}  # one for each name in the archive
    except ImageLoadError as error:
        raise InvalidArchive(f"{about}: the engine cannot load {path}: {' '.join(str(error).split())}") from error
    if len(images) != 1:
        raise InvalidArchive(f"{about}: the engine found {len(images)} images in {path}, and a tag stands for one")
    return images.popitem()[1]


@contextmanager
def _tag_back_on_failure(engine: docker.DockerClient, name: str, tag: str) -> Iterator[None]:
    """Keep the engine from running, under a registry's tag, what the registry does not have."""
    try:
        before = engine.images.get(f"{name}:{tag}")
    except NotFound:
        before = None
    try:
        yield
    except BaseException:
        with suppress(APIError, RequestException):  # must not hide what went wrong
            if before:
                before.tag(name, tag)
            else:
                engine.images.remove(f"{name}:{tag}", noprune=True)
        raise
