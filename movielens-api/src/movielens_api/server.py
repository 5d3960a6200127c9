"""Run the application in Gunicorn: its socket, its workers, and the port file for those who wait for the address."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]

THREADS = 4  # per worker: a slow answer of the fault mode blocks one of them
GRACEFUL_TIMEOUT = 1  # seconds that a request may still take after SIGTERM
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket that does not listen yet; port 0 takes a free one. Raises OSError with the reason.

    Gunicorn would try a taken port for five seconds, and log more than one line about it.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class PortFile:
    """A file with the port number, which other programs wait for.

    Written under another name at once, so that a folder that is not writable fails the start; published when the
    server answers; removed when it has stopped.
    """

    def __init__(self, path: Path, port: int) -> None:
        self._path = path
        self._unpublished = path.with_name(f".{path.name}.{os.getpid()}")
        self._unpublished.write_text(f"{port}\n", encoding="ascii")

    def publish(self) -> None:
        self._unpublished.replace(self._path)

    def remove(self) -> None:
        self._unpublished.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)


class Server(BaseApplication):  # type: ignore[misc]
    """The application, loaded once and then forked, so that the workers share its memory."""

    def __init__(self, app: Flask, listener: socket.socket, workers: int, port_file: Path | None) -> None:
        self._app = app
        self._url = url(listener)
        self._port_file = PortFile(port_file, listener.getsockname()[1]) if port_file else None
        self._settings = {
            "bind": f"fd://{listener.detach()}",
            "workers": workers,
            "worker_class": "gthread",
            "threads": THREADS,
            "preload_app": True,
            "keepalive": 60,
            "graceful_timeout": GRACEFUL_TIMEOUT,
            "limit_request_line": 8190,  # the most: beyond it gunicorn itself answers 414, in HTML
            "loglevel": "warning",
            "control_socket_disable": True,
            # The heartbeat files: not on a disk that may stall, nor in a /tmp that may be read-only.
            "worker_tmp_dir": str(SHARED_MEMORY) if os.access(SHARED_MEMORY, os.W_OK) else None,
            "post_worker_init": self._announce,
            "on_exit": self._remove_port_file,
        }
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return self._app

    def _announce(self, worker: Any) -> None:
        if worker.age == 1:  # the first of this server; one that replaces a dead one is older
            if self._port_file:
                self._port_file.publish()
            print(f"listening on {self._url}", flush=True)

    def _remove_port_file(self, arbiter: Any) -> None:
        if self._port_file:
            self._port_file.remove()
