"""A MovieLens API in a thread, on a real socket, that can be told to misbehave; and the command as a process."""

import json
import subprocess
import sys
import threading
from base64 import b64encode
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from movielens_fetch.download import fetch_ratings

USER, PASSWORD = "someone", "geheim, päss:word"
START, END = date(2019, 1, 1), date(2019, 2, 1)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.seen.append(Seen(url.path, self.query, self.headers["Authorization"], self.client_address[1]))
        answer = self.server.script.popleft() if self.server.script else self.server.always
        answer(self)

    def page(self, **changes):
        offset, limit = int(self.query["offset"]), int(self.query["limit"])
        names = ("userId", "movieId", "rating", "timestamp")
        page = {
            "result": [dict(zip(names, row, strict=True)) for row in self.server.ratings[offset : offset + limit]],
            "offset": offset,
            "limit": limit,
            "total": len(self.server.ratings),
        }
        return json.dumps(page | changes)

    def send(self, status, body, headers=(), length=None):
        content = body.encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def handle(self):
        with suppress(ConnectionError):  # the client went away, as some tests make it do
            super().handle()

    def log_message(self, format, *args):
        pass


@dataclass
class Seen:
    path: str
    query: dict
    authorization: str
    connection: int


class Api(ThreadingHTTPServer):
    """Serves `ratings`. The answers in `script` come first, one per request; then `always` answers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = deque()
        self.always = self.good()
        self.seen = []
        self.reached = threading.Event()  # set when a request is held
        self.closing = threading.Event()
        self.fill(50)

    @property
    def host(self):
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def login(self):
        return "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def fill(self, count, first=0):
        """Serve `count` ratings in the API's order, seven in the same second."""
        self.ratings = [(1 + n % 7, n, (1 + n % 10) / 2, 1546300800 + n // 7) for n in range(first, first + count)]

    def csv(self):
        """The file that a download must write."""
        lines = (f"{user},{movie},{rating},{timestamp}\n" for user, movie, rating, timestamp in self.ratings)
        return "userId,movieId,rating,timestamp\n" + "".join(lines)

    # Answers

    def good(self, **changes):
        """The page, with some of its keys changed."""
        return lambda handler: handler.send(200, handler.page(**changes))

    def body(self, text):
        return lambda handler: handler.send(200, text)

    def status(self, number, body="", **headers):
        return lambda handler: handler.send(number, body, {n.replace("_", "-"): v for n, v in headers.items()})

    def cut_off(self):
        """Half a page, with the length of a whole one."""

        def answer(handler):
            page = handler.page()
            handler.send(200, page[: len(page) // 2], length=len(page))
            handler.close_connection = True

        return answer

    def hang_up(self):
        def answer(handler):
            handler.close_connection = True

        return answer

    def hang(self):
        """No answer at all, until the test is over."""

        def answer(handler):
            self.reached.set()
            self.closing.wait()
            handler.close_connection = True

        return answer

    def drip(self, text, every):
        """One byte of a raw answer each `every` seconds."""

        def answer(handler):
            for byte in text.encode():
                if self.closing.wait(every):
                    break
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
            handler.close_connection = True

        return answer

    def flood(self):
        """A body without end."""

        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            while not self.closing.is_set():
                handler.wfile.write(b" " * 65536)

        return answer

    def after(self, change, then=None):
        """Change something, then answer."""

        def answer(handler):
            change()
            (then or self.good())(handler)

        return answer


@contextmanager
def serving():
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def api():
    with serving() as server:
        yield server


@pytest.fixture
def second_api():
    with serving() as server:
        yield server


@pytest.fixture
def output(tmp_path):
    """Where the CSV goes: into a folder of its own, so that a test sees anything left behind."""
    return tmp_path / "ratings" / "2019-01-01.csv"


@pytest.fixture
def fetch(api, output):
    """The library function with the API's address; a test adds its own arguments."""
    return partial(fetch_ratings, START, END, output, host=api.host, user=USER, password=PASSWORD, timeout=5)


@dataclass
class Command:
    """The command, to be run in a process of its own. A flag or variable set to None is left out."""

    flags: dict
    environment: dict
    start: list = field(default_factory=lambda: [sys.executable, "-m", "movielens_fetch"])

    def popen(self, **more):
        flags = [text for name, value in self.flags.items() if value is not None for text in (name, str(value))]
        environment = {name: value for name, value in self.environment.items() if value is not None}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.Popen([*self.start, *flags], env=environment, text=True, **streams)

    def run(self, **more):
        with self.popen(**more) as process:
            out, err = process.communicate(timeout=30)
        assert "Traceback" not in err
        assert "geheim" not in out + err
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def fails(self, exit_code, words):
        """Run; check exit code, the one line `Error: ...` with `words` in it, and that there is no file."""
        done = self.run()
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
        assert (done.returncode, done.stdout, len(errors)) == (exit_code, "", 1), done.stderr
        assert done.stderr.splitlines()[-1] == errors[0]
        assert words in errors[0]
        return errors[0]


@pytest.fixture
def command(api, output):
    return Command(
        {"--start_date": START, "--end_date": END, "--output_path": output, "--host": api.host, "--timeout": 5},
        {"MOVIELENS_USER": USER, "MOVIELENS_PASSWORD": PASSWORD, "PYTHONDONTWRITEBYTECODE": "1"},
    )
