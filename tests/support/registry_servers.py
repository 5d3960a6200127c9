"""Image registries for tests: the real one behind passwords or tokens, and servers that answer as they are told."""

import base64
import hashlib
import http.server
import json
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
import requests
from support.docker_engine import Engine, published, service_image, wait_until

PASSWORD = """it's "so" \\ $HOME: ü"""
JSON_KEY = """{
  "type": "service_account",
  "project_id": "course",
  "private_key": "-----BEGIN PRIVATE KEY-----\\nMIIEv/AIBADANBgkq+hkiG9w0%40BAQEFAASC==\\n-----END PRIVATE KEY-----\\n",
  "client_email": "airflow@course.example.org",
  "token_uri": "https://oauth2.example.org/token?a=b&c=d#e"
}
"""
# What htpasswd -B makes of these two. Of the key bcrypt sees the first 72 bytes: three lines.
HTPASSWD = """course:$2y$05$bMZJT78B4U6Efjp9zbqDMO9/nhWIxU50gx1p.Vd8a74kU5njM1F5m
_json_key:$2y$05$4a3gA90vf6tZqCoHna6hjOnO2rkacTbO74qmCzG/0aQqXXRl4dWWa
"""
LISTEN = {"5000/tcp": ("127.0.0.1", None)}


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case

    @property
    def login(self) -> tuple[str, str]:
        """The login and the password that came, or two empty strings."""
        kind, _, encoded = self.headers.get("authorization", "").partition(" ")
        login, _, password = base64.b64decode(encoded if kind == "Basic" else "").decode().partition(":")
        return login, password


Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Server:
    """A server of this process, that remembers what it was asked."""

    address: str = ""
    seen: list[Request] = field(default_factory=list)


@contextmanager
def serve(reply: Callable[[Request], Reply], certificate: Path | None = None) -> Iterator[Server]:
    one = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, parts.path, parse_qs(parts.query), headers)
            one.seen.append(request)
            status, headers, body = reply(request)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_DELETE = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Listener(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not trust the certificate, or has read enough, hangs up

    listener = Listener(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    one.address = f"127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield one
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def reply(content: object, status: int = 200, **headers: str) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, body


@dataclass
class RunningRegistry:
    address: str
    volume: str
    login: str = "course"
    password: str = PASSWORD
    asked: list[Request] = field(default_factory=list)  # what its token server was asked

    def connection(self) -> dict[str, str]:
        return {"host": self.address, "login": self.login, "password": self.password}

    def put(self, path: str, content: bytes, **headers: str) -> None:
        """Put a manifest, as no engine of one platform does for an index."""
        login = (self.login.encode(), self.password.encode())
        answer = requests.put(f"http://{self.address}{path}", content, auth=login, headers=headers, timeout=10)
        assert answer.status_code == 201, answer.text

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = sha256(content)
        login = (self.login.encode(), self.password.encode())
        place = requests.post(f"http://{self.address}/v2/{repository}/blobs/uploads/", auth=login, timeout=10)
        end = requests.put(place.headers["Location"], content, params={"digest": digest}, auth=login, timeout=10)
        assert end.status_code == 201, end.text
        return digest


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def start_registry(docker_engine: Engine, volume: str, files: dict[str, Path], **settings: str) -> str:
    """Start a registry; return its address. Files are mounted, and stand in settings by their names."""
    container = docker_engine.start(
        service_image("REGISTRY_IMAGE", "registry:2.8"),
        environment={"REGISTRY_STORAGE_DELETE_ENABLED": "true"} | settings,
        volumes={volume: {"bind": "/var/lib/registry"}}
        | {str(path): {"bind": f"/certificates/{name}", "mode": "ro"} for name, path in files.items()},
        ports=LISTEN,
    )
    address = f"127.0.0.1:{published(container, 5000)}"

    def answers() -> bool:
        try:
            requests.get(f"http://{address}/v2/", timeout=5)  # with TLS too: it then says that it wants that
        except requests.ConnectionError:
            return False
        return True

    wait_until(answers, "a registry that answers", container)
    return address


def registry_with_passwords(docker_engine: Engine, folder: Path) -> RunningRegistry:
    """Start a registry with a file of passwords."""
    file = folder / "htpasswd"
    file.write_text(HTPASSWD)
    volume = docker_engine.volume("images")
    settings = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "course",
        "REGISTRY_AUTH_HTPASSWD_PATH": "/certificates/htpasswd",
    }
    return RunningRegistry(start_registry(docker_engine, volume, {"htpasswd": file}, **settings), volume)


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)  # noqa: S607


def make_certificate(folder: Path) -> Path:
    """Make a certificate for 127.0.0.1, beside it its key, and ca.pem, which signed it."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    uses = ["-addext", "keyUsage=critical,keyCertSign,digitalSignature"]
    openssl("req", "-x509", *key, *uses, "-subj", "/CN=the course's CA",
            "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")  # fmt: skip
    openssl("req", "-x509", *key, "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-subj", "/CN=registry",
            "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
            "-keyout", f"{folder}/registry.key", "-out", f"{folder}/registry.pem")  # fmt: skip
    return folder / "registry.pem"


@contextmanager
def registry_with_tokens(docker_engine: Engine, certificate: Path) -> Iterator[RunningRegistry]:
    """Start a registry that sends its clients to a token server of ours.

    There `_json_key` may do everything, and `reader` may pull.
    """
    ca = certificate.with_name("ca.pem")
    key = ca.with_suffix(".key").read_text()
    x5c = [base64.b64encode(ssl.PEM_cert_to_DER_cert(ca.read_text())).decode()]

    def give_token(request: Request) -> Reply:
        if request.login not in (("_json_key", JSON_KEY), ("reader", PASSWORD)):
            return reply({"errors": [{"code": "UNAUTHORIZED", "message": f"not {request.login[1]}"}]}, 401)
        access = []
        for scope in request.query.get("scope", []):
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            allowed = ["pull"] if request.login[0] == "reader" else actions.split(",")
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": "course", "sub": request.login[0], "aud": request.query["service"][0], "exp": now + 300,
                  "nbf": now - 10, "iat": now, "jti": os.urandom(8).hex(), "access": access}  # fmt: skip
        return reply({"token": jwt.encode(claims, key, "ES256", headers={"x5c": x5c})})

    with serve(give_token) as server:
        volume = docker_engine.volume("tokens")
        settings = {
            "REGISTRY_AUTH": "token",
            "REGISTRY_AUTH_TOKEN_REALM": f"http://{server.address}/token",
            "REGISTRY_AUTH_TOKEN_SERVICE": "course-registry",
            "REGISTRY_AUTH_TOKEN_ISSUER": "course",
            "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": "/certificates/ca.pem",
        }
        address = start_registry(docker_engine, volume, {"ca.pem": ca}, **settings)
        yield RunningRegistry(address, volume, "_json_key", JSON_KEY, server.seen)
