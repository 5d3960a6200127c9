"""Fetch all pages of an interval into one file."""

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

from movielens_fetch.api import RatingsApi, TransientError
from movielens_fetch.atomic_write import atomic_write
from movielens_fetch.errors import FetchFailed
from movielens_fetch.page import HEADER, NotInOrder, Page
from movielens_fetch.retry import DeadlineExceeded, ProgressDeadline
from movielens_fetch.settings import DEFAULT_BATCH_SIZE, DEFAULT_TIMEOUT

log = logging.getLogger(__name__)


class Fetched(NamedTuple):
    """What a download took: `pages` were good answers, `retries` repeated one page, `restarts` the whole download."""

    rows: int
    pages: int
    retries: int
    restarts: int


class DataChanged(Exception):
    """This page does not continue the pages so far: the data changed between two requests."""


def fetch_ratings(
    start_date: date,
    end_date: date,
    output_path: Path,
    *,
    host: str,
    user: str,
    password: str,
    batch_size: int = DEFAULT_BATCH_SIZE,
    timeout: float = DEFAULT_TIMEOUT,
    on_progress: Callable[[int, int], None] = lambda rows, total: None,
) -> Fetched:
    """Write the ratings in [start_date, end_date) to `output_path`, a CSV file with the columns of page.FIELDS.

    The rows are in the API's order: by timestamp (UTC epoch seconds), userId, movieId. The memory in use depends on
    `batch_size`, the ratings in one request, and not on the interval. The file is complete, or it is not there. When
    the data changes between two pages the download starts over, so that no row is lost or duplicated. `timeout` is
    the limit in seconds without a new row. `on_progress` is called with the rows so far and the total.

    Raises FetchFailed where the limit is exceeded or the API is not reachable, BadInput where it refuses a parameter,
    OSError where the file cannot be written.
    """
    api = RatingsApi(host, user, password, start_date, end_date)
    deadline = ProgressDeadline(timeout)
    pages = retries = restarts = 0
    try:
        with atomic_write(output_path, "wb") as file:
            rows, previous = 0, None
            file.write(HEADER)
            while previous is None or rows < previous.total:
                try:
                    page = api.page(rows, batch_size, deadline.request_timeout)
                    _check_continues(page, rows, previous, batch_size)
                except TransientError as error:
                    deadline.back_off(str(error), at_least=error.retry_after, cut_short=error.cut_short)
                    retries += 1
                    continue
                except (DataChanged, NotInOrder) as error:
                    deadline.back_off(f"starting over, because {error}")
                    restarts += 1
                    rows, previous = 0, None
                    file.seek(len(HEADER))
                    file.truncate()
                    continue
                file.write(page.lines)
                rows, previous = rows + page.rows, page
                pages += 1
                deadline.record_progress(rows)
                on_progress(rows, page.total)
    except DeadlineExceeded as error:
        raise FetchFailed(f"gave up on {api.address} after {timeout:g} s without a new rating: {error}") from error
    return Fetched(rows, pages, retries, restarts)


def _check_continues(page: Page, rows: int, previous: Page | None, batch_size: int) -> None:
    """Raises DataChanged unless `page` holds exactly the rows that follow the first `rows` ones."""
    if previous and page.total != previous.total:
        raise DataChanged(f"the number of ratings changed from {previous.total} to {page.total}")
    expected = min(batch_size, page.total - rows)
    if page.rows != expected:
        raise DataChanged(f"a page has {page.rows} ratings, not {expected}")
    if previous and previous.last and page.first and not previous.last < page.first:
        raise DataChanged("a page does not begin after the one before it")
