"""A client of the MovieLens API: it requests one page, and tells transient failures from permanent ones."""

import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import requests

from movielens_fetch.errors import BadInput, FetchFailed
from movielens_fetch.page import NotAPage, NotJson, Page, parse_page

# A row takes about 80 bytes. An answer far beyond that is not a page, and would fill the memory.
MAX_BYTES_PER_ROW = 1_000
CHUNK_BYTES = 64 * 1024
FAIR_SECONDS = 1.0  # enough for any server that is not stuck


class TransientError(Exception):
    """The same request may succeed later; `retry_after` is how many seconds the server asked to wait.

    `cut_short` says that the request had so little time that its failure tells nothing of the server.
    """

    def __init__(self, cause: str, retry_after: float = 0.0, *, cut_short: bool = False) -> None:
        super().__init__(cause)
        self.retry_after = retry_after
        self.cut_short = cut_short


class Answer(NamedTuple):
    """A complete answer, received within the limits of time and size."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RatingsApi:
    """The ratings in [start_date, end_date) behind `host`, page by page, over one connection that is kept open."""

    def __init__(self, host: str, user: str, password: str, start_date: date, end_date: date) -> None:
        self.address = f"{host}/ratings"
        self._interval = {"start_date": start_date.isoformat(), "end_date": end_date.isoformat()}
        # requests sends text as Latin-1; this way what arrives is UTF-8
        self._login = (user.encode().decode("latin-1"), password.encode().decode("latin-1"))
        self._session = requests.Session()

    def page(self, offset: int, limit: int, seconds: float) -> Page:
        """Return at most `limit` ratings from `offset` on, within `seconds`.

        Raises TransientError for a failure that may pass, NotInOrder for rows that are not sorted, BadInput where the
        server refuses a parameter or the login, FetchFailed for all else.
        """
        answer = self._get_within(seconds, offset, limit)
        if answer.status != requests.codes.ok:
            raise self._error_of(answer)
        try:
            page = parse_page(answer.body)
        except NotJson as error:
            raise TransientError(str(error)) from error
        except NotAPage as error:
            raise FetchFailed(f"{self.address} does not answer as the MovieLens API does: {error}") from error
        if page.rows > limit:
            raise FetchFailed(f"{self.address} sent {page.rows} ratings where {limit} were asked for")
        return page

    def _get_within(self, seconds: float, offset: int, limit: int) -> Answer:
        # The timeout of requests is for each read: a server that sends a byte a second would never exceed it. So the
        # request has a thread, and a thread that is late is abandoned, together with its connection.
        pending: Future[Answer] = Future()
        session = self._session

        def run() -> None:
            try:
                pending.set_result(self._get(session, seconds, offset, limit))
            except Exception as error:
                pending.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            return pending.result(timeout=seconds)
        except TimeoutError as error:
            self._session = requests.Session()
            raise TransientError(f"no complete answer in {seconds:.1f} s", cut_short=seconds < FAIR_SECONDS) from error
        except requests.Timeout as error:
            raise TransientError(f"no complete answer in {seconds:.1f} s", cut_short=seconds < FAIR_SECONDS) from error
        except requests.RequestException as error:
            if isinstance(error, ValueError):  # InvalidURL and its like
                raise BadInput(f"{self.address} is not an address to connect to: {error}") from error
            raise TransientError(_root_cause(error)) from error

    def _get(self, session: requests.Session, seconds: float, offset: int, limit: int) -> Answer:
        with session.get(
            self.address,
            params={**self._interval, "offset": str(offset), "limit": str(limit)},
            auth=self._login,
            timeout=seconds,
            allow_redirects=False,  # the password is for this address only
            stream=True,
        ) as response:
            body = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                body += chunk
                if len(body) > CHUNK_BYTES + MAX_BYTES_PER_ROW * limit:
                    raise FetchFailed(f"{self.address} sent more than {len(body)} bytes for {limit} ratings")
            return Answer(response.status_code, response.headers, bytes(body))

    def _error_of(self, answer: Answer) -> Exception:
        """Return the exception for an answer whose status is not 200."""
        status = answer.status
        if status == requests.codes.too_many_requests or status >= 500:
            return TransientError(f"the API answered {status}", _retry_after(answer.headers.get("Retry-After", "")))
        if status == requests.codes.bad_request:
            return BadInput(f"{self.address} refused the request: {_error_text(answer.body)}")
        if status == requests.codes.unauthorized:
            return BadInput(
                f"{self.address} refused the login (401): check MOVIELENS_USER and MOVIELENS_PASSWORD "
                "or MOVIELENS_PASSWORD_FILE"
            )
        if 300 <= status < 400:
            target = _one_line(answer.headers.get("Location", "nowhere"))
            return FetchFailed(
                f"{self.address} redirects to {target} ({status}), where the password does not follow: "
                "pass the final address as --host"
            )
        return FetchFailed(f"{self.address} answered {status}: is it the MovieLens API?")


def _retry_after(value: str) -> float:
    """Return the seconds in a Retry-After header, which holds seconds or a date; 0 where it holds neither."""
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _error_text(body: bytes) -> str:
    """Return the text of an error answer `{"error": "..."}`, or the beginning of any other body."""
    text = body.decode(errors="replace")
    with suppress(ValueError, RecursionError, LookupError, TypeError):
        text = json.loads(text)["error"]
    return _one_line(str(text))


def _root_cause(error: BaseException) -> str:
    """Return the message of the innermost error, without what requests and urllib3 wrap around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    message = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _one_line(message) or type(error).__name__


def _one_line(text: str) -> str:
    """Return the beginning of an untrusted text, safe to print."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text[:1000]).split())
    return line if len(line) <= 200 else f"{line[:200]}..."
