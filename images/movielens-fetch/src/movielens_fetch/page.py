"""One answer of the API: checked, and turned into CSV lines."""

import json
import math
from operator import itemgetter, lt
from typing import Any, NamedTuple, NoReturn

HEADER = b"userId,movieId,rating,timestamp\n"

# (timestamp, userId, movieId): what the API sorts by. A user rates a movie once, so no two ratings share it.
Key = tuple[int, int, int]

_KEYS = ("userId", "movieId", "rating", "timestamp")
_values = itemgetter(*_KEYS)


class Page(NamedTuple):
    """`rows` ratings out of `total` in the interval, as lines of CSV; `first` and `last` are None without rows."""

    rows: int
    total: int
    lines: bytes
    first: Key | None
    last: Key | None


class NotJson(ValueError):
    """The body is no JSON document: cut off on its way, or another server's error page."""


class NotAPage(ValueError):
    """The body is JSON, but not what the API promises. The text says where."""


class NotInOrder(ValueError):
    """The rows are not sorted by timestamp, userId and movieId, or one comes twice."""


def parse_page(body: bytes) -> Page:
    """The page in the body of an answer `{"result": [{userId, movieId, rating, timestamp}, ...], "total": N}`.

    Raises NotJson, NotAPage or NotInOrder. Works on whole columns: a check for each value costs three times as much.
    """
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise NotJson("the answer is cut off or not JSON") from error
    if not isinstance(answer, dict):
        raise NotAPage("the answer is not an object")
    total, result = answer.get("total"), answer.get("result")
    if type(total) is not int or total < 0:
        raise NotAPage(f"'total' is {_short(total)}, not a count")
    if not isinstance(result, list):
        raise NotAPage(f"'result' is {_short(result)}, not a list")
    if not result:
        return Page(0, total, b"", None, None)

    try:
        users, movies, ratings, timestamps = zip(*map(_values, result), strict=True)
    except KeyError as error:
        raise NotAPage(f"a rating lacks {error}") from error
    except TypeError as error:
        raise NotAPage("a rating is not an object") from error
    for name, column in (("userId", users), ("movieId", movies), ("timestamp", timestamps)):
        if set(map(type, column)) != {int}:
            raise NotAPage(f"a {name} is {_odd_one(column, int)}, not a whole number")
    if not set(map(type, ratings)) <= {int, float}:
        raise NotAPage(f"a rating is {_odd_one(ratings, int, float)}, not a number")
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


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _odd_one(column: tuple[Any, ...], *types: type) -> str:
    return _short(next(value for value in column if type(value) not in types))


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
