"""A page of the API: validated, and turned into CSV lines."""

import json
import math
from operator import itemgetter, lt
from typing import Any, NamedTuple, NoReturn

# of a rating in the API's JSON, and the columns of the CSV file
USER_ID, MOVIE_ID, RATING, TIMESTAMP = FIELDS = ("userId", "movieId", "rating", "timestamp")
HEADER = f"{','.join(FIELDS)}\n".encode()

# (timestamp, userId, movieId): what the API sorts by. A user rates a movie once, so no two ratings share it.
Key = tuple[int, int, int]

_values = itemgetter(*FIELDS)


class Page(NamedTuple):
    """`rows` ratings out of `total` in the interval, as lines of CSV; `first` and `last` are None without rows."""

    rows: int
    total: int
    lines: bytes
    first: Key | None
    last: Key | None


class NotJson(ValueError):
    """The body is not a JSON document: it was cut off, or is another server's error page."""


class NotAPage(ValueError):
    """The body is JSON, but not what the API promises. The message says where."""


class NotInOrder(ValueError):
    """The rows are not sorted by timestamp, userId and movieId, or a row is duplicated."""


def parse_page(body: bytes) -> Page:
    """Return the page in an answer's body, `{"result": [an object with FIELDS for each rating], "total": N}`.

    Raises NotJson, NotAPage or NotInOrder. Works on whole columns: a check for each value costs three times as much.
    """
    try:
        answer = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotJson("the answer is cut off or not JSON") from error
    if not isinstance(answer, dict):
        raise NotAPage("the answer is not an object")
    total, result = answer.get("total"), answer.get("result")
    if type(total) is not int or total < 0:
        raise NotAPage(f"'total' is {_shortened(total)}, not a count")
    if not isinstance(result, list):
        raise NotAPage(f"'result' is {_shortened(result)}, not a list")
    if not result:
        return Page(0, total, b"", None, None)

    try:
        users, movies, ratings, timestamps = zip(*map(_values, result), strict=True)
    except KeyError as error:
        raise NotAPage(f"a rating lacks {error}") from error
    except TypeError as error:
        raise NotAPage("a rating is not an object") from error
    for name, column in ((USER_ID, users), (MOVIE_ID, movies), (TIMESTAMP, timestamps)):
        if set(map(type, column)) != {int}:
            raise NotAPage(f"a {name} is {_first_of_other_type(column, int)}, not a whole number")
    if not set(map(type, ratings)) <= {int, float}:
        raise NotAPage(f"a rating is {_first_of_other_type(ratings, int, float)}, not a number")
    texts = {rating: repr(float(rating)) for rating in set(ratings)}
    if not all(map(math.isfinite, texts)):
        raise NotAPage("a rating is infinite")

    keys = list(zip(timestamps, users, movies, strict=True))
    if not all(map(lt, keys, keys[1:])):
        raise NotInOrder("the rows are out of order")
    lines = [
        f"{user},{movie},{texts[rating]},{timestamp}\n"
        for user, movie, rating, timestamp in zip(users, movies, ratings, timestamps, strict=True)
    ]
    return Page(len(lines), total, "".join(lines).encode("ascii"), keys[0], keys[-1])


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _first_of_other_type(column: tuple[Any, ...], *types: type) -> str:
    return _shortened(next(value for value in column if type(value) not in types))


def _shortened(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
