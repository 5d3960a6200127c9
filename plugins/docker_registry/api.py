"""A client of the API that every image registry speaks: lists, manifests, digests, deletion.

The API is the OCI distribution specification 1.1; the login with a token is described by the CNCF distribution project.
Written on requests, as the client libraries leave open what matters here: oras 0.2 has no timeouts and does not compare
a manifest with its digest; python-dxf 12.1 refuses to log in over http, which a registry on loopback speaks, and does
not try again; neither limits how much it reads. The Docker SDK talks to an engine, which pushes, but does not list.

A registry may be hostile or broken, so:

- what it sends is counted (`BODY_LIMIT`, `PAGE_LIMIT`, `NAME_LIMIT`), timed, and compared with its digest;
- the login goes to the registry and to the token server that it names, never on to where either redirects, and never
  over http when the registry has https;
- what it says comes into an error shortened, and without the password.
"""

import base64
import hashlib
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from airflow.sdk.exceptions import AirflowException
from requests.adapters import HTTPAdapter
from requests.utils import parse_header_links
from urllib3.exceptions import HTTPError, MaxRetryError
from urllib3.util import Retry

BODY_LIMIT = 4 * 1024 * 1024  # bytes of one answer; the specification asks registries to take manifests of that size
PAGE_LIMIT = 1000  # pages of one list
NAME_LIMIT = 1_000_000  # names of one list
REDIRECT_LIMIT = 5
SHOWN_LIMIT = 200  # characters of a registry's own words in an error

REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
REPOSITORY_LENGTH = 255
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
IMAGE_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
MANIFEST_TYPES = ", ".join(INDEX_TYPES + IMAGE_TYPES)


class DockerRegistryError(AirflowException):
    """Base of all errors here. The message is one line: registry, repository, tag or digest, and what is wrong."""


class RegistrySettingsError(DockerRegistryError):
    """The connection lacks something, or contradicts itself."""


class InvalidReference(DockerRegistryError):
    """Not a valid repository, tag, digest or platform."""


class RegistryUnavailable(DockerRegistryError):
    """No answer, not even after the retries: wrong address, no network, wrong certificate, a server in trouble."""


class LoginRefused(DockerRegistryError):
    """Wrong login or password, or none where one is needed."""


class AccessDenied(DockerRegistryError):
    """The login is right, but does not allow this."""


class ImageNotFound(DockerRegistryError):
    """No such image. Raised itself for an unknown digest."""


class RepositoryNotFound(ImageNotFound):
    """No such repository."""


class TagNotFound(ImageNotFound):
    """The repository has no such tag."""


class PlatformNotFound(ImageNotFound):
    """The image is not made for this platform."""


class DigestMismatch(DockerRegistryError):
    """The registry has something else than its digest says."""


class BadAnswer(DockerRegistryError):
    """An answer that no registry should give."""


# What somebody has to fix: asking again would give the same answer. The other errors may go away.
LASTING = (RegistrySettingsError, InvalidReference, LoginRefused, AccessDenied, ImageNotFound)


@dataclass(frozen=True)
class Image:
    """What a request, and the error that may come of it, is about."""

    registry: str
    repository: str = ""
    reference: str = ""  # a tag or a digest

    def __str__(self) -> str:
        kind = "digest" if ":" in self.reference else "tag"
        named = {"registry": self.registry, "repository": self.repository, kind: self.reference}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value)


@dataclass(frozen=True)
class Answer:
    """A whole answer of a registry."""

    url: str  # after redirects
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Parse the body; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class _Session(requests.Session):
    """Leaves redirects alone: requests reads their bodies without a limit, with allow_redirects=False too."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class Registry:
    """One registry, and the login for it.

    :param url: scheme, host and port, like `https://registry.example.org:5000`
    :param verify: whether to verify the server's certificate, or the file of the CA certificates to do that with
    :param timeout: seconds to wait for a connection, and for each next piece of an answer
    :param retries: how often to try again after a failed connection, a timeout, or the statuses 429, 500, 502 to 504
    :param page_size: names to ask for at a time
    """

    def __init__(
        self,
        url: str,
        login: str = "",
        password: str = "",
        *,
        verify: bool | str = True,
        timeout: float = 30,
        retries: int = 3,
        page_size: int = 100,
    ) -> None:
        self.url = url
        self.name = urlsplit(url).netloc
        self._login = login
        self._verify = verify
        self._timeout = timeout
        self._page_size = page_size
        # As bytes: requests would encode a str as Latin-1. The password may be a JSON key of many lines.
        basic = base64.b64encode(f"{login}:{password}".encode()).decode() if login else ""
        self._basic = f"Basic {basic}" if login else ""
        self._secrets = [secret for secret in (password, json.dumps(password)[1:-1], basic) if secret]
        self._authorizations: dict[str, str] = {}  # by scope; kept until the registry refuses it
        self._session = _Session()
        # A proxy of the network, which the environment may name, does not lead to this machine.
        self._session.trust_env = not is_loopback(urlsplit(url).hostname or "")
        retry = Retry(
            total=retries,
            backoff_factor=0.3,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=("GET", "HEAD"),  # a second DELETE would not find what the first deleted
            raise_on_status=False,
            retry_after_max=30,
        )
        self._session.mount("https://", HTTPAdapter(max_retries=retry))
        self._session.mount("http://", HTTPAdapter(max_retries=retry))

    def log_in(self) -> bool:
        """Check that this is a registry and takes the login. Return whether it asked for one."""
        about = Image(self.name)
        answer = self._send("GET", f"{self.url}/v2/", about)
        if answer.status != 200:
            raise self._error(answer, about)
        return "" in self._authorizations

    def challenges(self) -> dict[str, dict[str, str]]:
        """Ask without a login. Return how the registry wants one: parameters by lower-case scheme.

        Empty when it asks for no login, or for one of another scheme than Basic and Bearer. A web page is a BadAnswer.
        """
        about = Image(self.name)
        answer = self._follow("GET", f"{self.url}/v2/", about, "application/json", None)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise BadAnswer(f"{about}: {self._place(answer.url)} is a web page, so this is not a registry")
        if answer.status == 200:
            return {}
        if answer.status != 401:
            raise self._error(answer, about)
        if not self._is_mine(answer.url):
            raise self._led_away(answer, about)
        return dict(_challenges(answer.headers.get("WWW-Authenticate", "")))

    def repositories(self) -> list[str]:
        """List the names of all repositories, sorted."""
        return self._list("/v2/_catalog", "repositories", REPOSITORY, Image(self.name), "registry:catalog:*")

    def tags(self, repository: str) -> list[str]:
        """List the tags of a repository, sorted. Raises RepositoryNotFound."""
        about = self.repository(repository)
        return self._list(f"/v2/{repository}/tags/list", "tags", TAG, about, _scope(repository, "pull"))

    def digest(self, repository: str, reference: str, platform: str | None = None) -> str:
        """Return the digest of what a tag (or digest) stands for, after comparing it with the content.

        Of an image for several platforms that is the digest of its index (manifest list), or, with a platform like
        `linux/arm64`, the digest of that platform's manifest. Raises RepositoryNotFound, TagNotFound, PlatformNotFound,
        DigestMismatch.
        """
        about = self.image(repository, reference)
        if platform is not None:
            _check_platform(platform, about)
        digest, manifest = self._fetch("manifests", about)
        if manifest.get("schemaVersion") != 2:
            raise BadAnswer(f"{about}: the manifest is not of schema 2: push the image again with a current engine")
        if platform is None:
            return digest
        if "manifests" in manifest:
            offered = {_platform(one.get("platform")): one.get("digest") for one in _objects(manifest["manifests"])}
        else:
            _, config = self._fetch("blobs", replace(about, reference=self._config_digest(manifest, about)))
            offered = {_platform(config): digest}
        for name, digest_of_one in offered.items():
            if _fits(platform, name) and isinstance(digest_of_one, str) and DIGEST.fullmatch(digest_of_one):
                return digest_of_one
        there = self.shown(", ".join(name for name in offered if name and "unknown" not in name))
        raise PlatformNotFound(f"{about}: not made for {platform}, but for {there or 'none'}")

    def exists(self, repository: str, reference: str) -> bool:
        """Return whether the repository has a tag (or digest)."""
        about = self.image(repository, reference)
        url = f"{self.url}/v2/{repository}/manifests/{reference}"
        answer = self._send("HEAD", url, about, _scope(repository, "pull"), MANIFEST_TYPES)
        if answer.status not in (200, 404):
            raise self._error(answer, about)
        return answer.status == 200

    def delete(self, repository: str, digest: str) -> None:
        """Delete a manifest, and so all tags that stand for it. Raises ImageNotFound, RepositoryNotFound."""
        about = self.image(repository, digest)
        if not DIGEST.fullmatch(digest):
            raise InvalidReference(f"{about}: only a digest can be deleted, like sha256: and 64 hex digits")
        url = f"{self.url}/v2/{repository}/manifests/{digest}"
        answer = self._send("DELETE", url, about, _scope(repository, "pull,delete"))
        if answer.status == 404:
            raise self._not_found(about)
        if answer.status == 405:
            hint = "REGISTRY_STORAGE_DELETE_ENABLED=true allows it"
            raise AccessDenied(f"{about}: this registry does not delete images ({hint})")
        if answer.status not in (200, 202):
            raise self._error(answer, about)

    def repository(self, name: str) -> Image:
        """Check the name of a repository. Raises InvalidReference."""
        about = Image(self.name)
        valid = isinstance(name, str) and REPOSITORY.fullmatch(name)
        if not valid or len(name) > REPOSITORY_LENGTH:
            rule = "lower-case letters, digits and . _ - in parts with / between, without registry and tag"
            raise InvalidReference(f"{about}: {self.shown(repr(name))} is not a repository name: {rule}")
        return replace(about, repository=name)

    def image(self, repository: str, reference: str) -> Image:
        """Check a name and a tag (or digest) as far as that needs no registry. Raises InvalidReference."""
        about = self.repository(repository)
        if not (isinstance(reference, str) and (TAG.fullmatch(reference) or DIGEST.fullmatch(reference))):
            rule = "letters, digits and . _ -, at most 128, and no . or - in front"
            raise InvalidReference(f"{about}: {self.shown(repr(reference))} is not a tag: {rule}")
        return replace(about, reference=reference)

    # --- manifests and lists

    def _fetch(self, kind: str, about: Image) -> tuple[str, dict[str, Any]]:
        """Get a manifest or a blob that is JSON, with its digest, which is that of the bytes that came."""
        url = f"{self.url}/v2/{about.repository}/{kind}/{about.reference}"
        accept = MANIFEST_TYPES if kind == "manifests" else "*/*"
        answer = self._send("GET", url, about, _scope(about.repository, "pull"), accept)
        if answer.status == 404:
            raise self._not_found(about)
        if answer.status != 200:
            raise self._error(answer, about)
        content = answer.json()
        if not isinstance(content, dict):
            raise BadAnswer(f"{about}: the answer is not a manifest")
        claims = [answer.headers["Docker-Content-Digest"]] if "Docker-Content-Digest" in answer.headers else []
        if DIGEST.fullmatch(about.reference):
            claims.append(about.reference)
        for claim in claims:
            actual = _digest(answer.body, "sha512" if claim.startswith("sha512:") else "sha256")
            if claim != actual:
                raise DigestMismatch(f"{about}: the digest is said to be {self.shown(claim)}, but it is {actual}")
        return claims[0] if claims else _digest(answer.body, "sha256"), content

    def _config_digest(self, manifest: dict[str, Any], about: Image) -> str:
        config = manifest.get("config")
        digest = config.get("digest") if isinstance(config, dict) else None
        if not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
            raise BadAnswer(f"{about}: the manifest does not name its configuration")
        return digest

    def _not_found(self, about: Image) -> ImageNotFound:
        """Return the error that says what is missing: registries answer alike for a repository and for a tag."""
        try:
            self.tags(about.repository)
        except RepositoryNotFound as error:
            return error
        except DockerRegistryError:
            pass  # the tags may be out of reach; what was asked for is not there all the same
        if DIGEST.fullmatch(about.reference):
            return ImageNotFound(f"{about}: no such image in the repository")
        return TagNotFound(f"{about}: the repository has no such tag")

    def _list(self, path: str, key: str, legal: re.Pattern[str], about: Image, scope: str) -> list[str]:
        url = f"{self.url}{path}?n={self._page_size}"
        names: set[str] = set()
        for _ in range(PAGE_LIMIT):
            answer = self._send("GET", url, about, scope)
            if answer.status == 404 and about.repository:
                raise RepositoryNotFound(f"{about}: no such repository")
            if answer.status != 200:
                raise self._error(answer, about)
            page = answer.json()
            found = page.get(key) if isinstance(page, dict) else 0
            if found is None:  # the tags of a repository that lost its last one
                found = []
            if not (isinstance(found, list) and all(isinstance(name, str) and legal.fullmatch(name) for name in found)):
                raise BadAnswer(f"{about}: the answer is not a list of {key}")
            names.update(found)
            links = parse_header_links(answer.headers.get("Link", ""))
            following = next((link["url"] for link in links if link.get("rel") == "next"), None)
            if following is None:
                return sorted(names)
            url = _join(answer.url, following)
            if not self._is_mine(url):
                raise BadAnswer(f"{about}: the next page of {key} is on another host, {self.shown(url)}")
            if len(names) > NAME_LIMIT:
                break
        raise BadAnswer(f"{about}: the list of {key} does not end")

    # --- requests and logins

    def _send(self, method: str, url: str, about: Image, scope: str = "", accept: str = "application/json") -> Answer:
        """Send a request, with a login if the registry asks for one. Raises LoginRefused, AccessDenied."""
        answer = self._follow(method, url, about, accept, self._authorizations.get(scope))
        if answer.status == 401 and self._is_mine(answer.url):  # even after a token has expired
            self._authorizations[scope] = self._answer_challenge(answer, about, scope)
            answer = self._follow(method, url, about, accept, self._authorizations[scope])
        if answer.status == 401:
            self._authorizations.pop(scope, None)
            if not self._is_mine(answer.url):
                raise self._led_away(answer, about)
            bearer = dict(_challenges(answer.headers.get("WWW-Authenticate", ""))).get("bearer", {})
            if bearer.get("error") == "insufficient_scope":
                raise AccessDenied(f"{about}: {self._who()} may not do this")
            raise LoginRefused(f"{about}: refuses {self._who()}")
        if answer.status == 403:
            raise AccessDenied(f"{about}: {self._who()} may not do this{self._said(answer)}")
        return answer

    def _follow(self, method: str, url: str, about: Image, accept: str, authorization: str | None) -> Answer:
        """Send a request where it leads, with the login to the registry alone."""
        for _ in range(REDIRECT_LIMIT + 1):
            answer = self._exchange(method, url, about, accept, authorization if self._is_mine(url) else None)
            if answer.status not in (301, 302, 303, 307, 308) or "Location" not in answer.headers or method == "DELETE":
                return answer
            url = _join(url, answer.headers["Location"])
            self._check_scheme(url, about)
        raise BadAnswer(f"{about}: more than {REDIRECT_LIMIT} redirects")

    def _exchange(
        self,
        method: str,
        url: str,
        about: Image,
        accept: str,
        authorization: str | None,
        params: list[tuple[str, str]] | None = None,
    ) -> Answer:
        """Send one request and read the whole answer. Raises RegistryUnavailable, BadAnswer."""

        def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
            # Not a header of the call: requests would put the login of ~/.netrc in its place.
            if authorization:
                request.headers["Authorization"] = authorization
            return request

        body = bytearray()
        try:
            with self._session.request(
                method,
                url,
                params=params,
                auth=sign,
                headers={"Accept": accept, "Accept-Encoding": "identity"},  # digests are of the bytes as they are
                timeout=self._timeout,
                verify=self._verify,  # of each request, as REQUESTS_CA_BUNDLE would override the session's
                stream=True,
            ) as response:
                for chunk in response.raw.stream(64 * 1024, decode_content=False):
                    body += chunk
                    if len(body) > BODY_LIMIT:
                        raise BadAnswer(f"{about}: the answer is longer than {BODY_LIMIT} bytes")
        except requests.exceptions.SSLError as error:
            raise RegistryUnavailable(
                f"{about}: {self._place(url)} has no valid certificate ({_cause(error)})"
            ) from None
        except (requests.RequestException, HTTPError) as error:
            raise RegistryUnavailable(f"{about}: no answer from {self._place(url)} ({_cause(error)})") from None
        return Answer(url, response.status_code, response.headers, bytes(body))

    def _answer_challenge(self, answer: Answer, about: Image, scope: str) -> str:
        """Make the Authorization header that the registry asks for."""
        challenges = dict(_challenges(answer.headers.get("WWW-Authenticate", "")))
        if "bearer" in challenges:
            return f"Bearer {self._token(challenges['bearer'], about, scope)}"
        if "basic" not in challenges:
            raise BadAnswer(f"{about}: asks for a login that is neither Basic nor Bearer")
        if not self._basic:
            raise LoginRefused(f"{about}: asks for a login, and the connection has none")
        return self._basic

    def _token(self, challenge: dict[str, str], about: Image, scope: str) -> str:
        """Get a token from the server that the registry names."""
        realm = challenge.get("realm", "")
        self._check_scheme(realm, about)
        params = [("service", challenge["service"])] if "service" in challenge else []
        params += [("scope", one) for one in challenge.get("scope", scope).split()]
        answer = self._exchange("GET", realm, about, "application/json", self._basic, params)
        server = f"its token server {self._place(realm)}"
        if answer.status in (401, 403):
            raise LoginRefused(f"{about}: {server} refuses {self._who()}{self._said(answer)}")
        if answer.status != 200:
            raise self._error(answer, about, server)
        content = answer.json()
        token = (content.get("token") or content.get("access_token")) if isinstance(content, dict) else None
        if not (isinstance(token, str) and re.fullmatch(r"[!-~]+", token)):
            raise BadAnswer(f"{about}: {server} gave no token")
        return token

    def _led_away(self, answer: Answer, about: Image) -> LoginRefused:
        return LoginRefused(f"{about}: redirects to {self._place(answer.url)}, which asks for a login, and gets none")

    def _error(self, answer: Answer, about: Image, who: str = "it") -> DockerRegistryError:
        kind = RegistryUnavailable if answer.status == 429 or answer.status >= 500 else BadAnswer
        return kind(f"{about}: {who} answered {answer.status} to {self._place(answer.url)}{self._said(answer)}")

    def _who(self) -> str:
        return f"the login {self._login}" if self._login else "anonymous access"

    def _said(self, answer: Answer) -> str:
        """Return the registry's own words for an error, to append to ours."""
        content = answer.json()
        errors = content.get("errors") if isinstance(content, dict) else None
        words = [f"{one.get('code')}: {one.get('message')}" for one in _objects(errors)]
        return f" ({self.shown('; '.join(words))})" if words else ""

    def shown(self, text: str) -> str:
        """Make foreign text fit for one line of an error: without secrets, printable, short."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = "".join(character if character.isprintable() else " " for character in text)
        return text if len(text) <= SHOWN_LIMIT else f"{text[:SHOWN_LIMIT]}..."

    def _place(self, url: str) -> str:
        """Make a URL fit for an error: no query, no login."""
        parts = urlsplit(url)
        return self.shown(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")

    def _check_scheme(self, url: str, about: Image) -> None:
        """Raise BadAnswer for what is not an address, or for one where encryption would end."""
        schemes = ("https",) if self.url.startswith("https:") else ("https", "http")
        scheme, host, port = _origin(url)
        if scheme not in schemes or not host or port is None:
            raise BadAnswer(f"{about}: leads to {self.shown(url)!r}, not an address, or not as safe as its own")

    def _is_mine(self, url: str) -> bool:
        return _origin(url) == _origin(self.url)


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine, as Docker decides that."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(content: bytes, algorithm: str) -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _scope(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"


def _challenges(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Parse a WWW-Authenticate header, which may hold several challenges, into (lower-case scheme, parameters)."""
    for scheme, text in re.findall(r'(?i)\b(basic|bearer)\s+((?:[\w-]+\s*=\s*(?:"[^"]*"|[^\s",]+)\s*,?\s*)+)', header):
        parameters = re.findall(r'([\w-]+)\s*=\s*(?:"([^"]*)"|([^\s",]+))', text)
        yield scheme.lower(), {name.lower(): quoted or plain for name, quoted, plain in parameters}


def _check_platform(platform: str, about: Image) -> None:
    if not (isinstance(platform, str) and re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?", platform)):
        raise InvalidReference(f"{about}: {platform!r:.100} is not a platform: like linux/amd64 or linux/arm/v7")


def _platform(entry: object) -> str:
    """Write the platform of an index's entry or of an image's configuration as os/architecture[/variant]."""
    parts = [entry.get(key) for key in ("os", "architecture", "variant")] if isinstance(entry, dict) else []
    return "/".join(str(part) for part in parts if part)


def _fits(asked: str, offered: str) -> bool:
    """Return whether a platform is the one asked for; a variant matters only where one is asked for."""
    asked, offered = (name.replace("/arm64/v8", "/arm64") for name in (asked, offered))  # v8 is the only arm64
    return offered == asked or (asked.count("/") == 1 and offered.startswith(f"{asked}/"))


def _objects(value: object) -> list[dict[str, Any]]:
    """Keep what is an object in a list of a foreign JSON."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port of a URL; empty for what is not a URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return "", None, None


def _join(url: str, link: str) -> str:
    """Resolve a link of a foreign server; empty for what is not one."""
    try:
        return urljoin(url, link)
    except ValueError:
        return ""


def _cause(error: BaseException) -> str:
    """Find what went wrong first, in one line, under the layers of requests and urllib3."""
    if isinstance(error, requests.RequestException) and error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    if isinstance(error, MaxRetryError) and error.reason:
        error = error.reason
    # urllib3 begins with its own object: "HTTPConnection(host=..., port=...): what happened"
    return " ".join(re.sub(r"^<?\w+\(.*?\)>?: ", "", str(error)).split())
