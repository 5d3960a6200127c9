"""Read a rankings file, and validate every value in it."""

import csv
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from movielens_store.errors import BadInput

MAX_INTEGER = 2**31 - 1  # what an INTEGER column holds on every database


class Ranking(NamedTuple):
    """One line of the file, in the order of COLUMNS."""

    movie_id: int
    avg_rating: float
    num_ratings: int


def read_rankings(path: Path) -> list[Ranking]:
    """Return the rankings of a CSV file whose header is COLUMNS, in the file's order.

    Raises BadInput, with file, line and value, for anything that is not such a file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if header != list(COLUMNS):
                raise BadInput(f"{path}, line 1: the header is {','.join(header)!r}, not {','.join(COLUMNS)!r}")
            return [_ranking(values, f"{path}, line {lines.line_num}") for values in lines]
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text") from error
    except csv.Error as error:
        raise BadInput(f"{path}, line {lines.line_num}: {error}") from error


def _ranking(values: list[str], place: str) -> Ranking:
    if len(values) != len(COLUMNS):
        raise BadInput(f"{place}: {','.join(values)!r} has {len(values)} values, not {len(COLUMNS)}")
    numbers = (parse(text, f"{place}: {column}") for (column, parse), text in zip(COLUMNS.items(), values, strict=True))
    return Ranking(*numbers)


# int() and float() alone would let "1_0", " 1 ", "nan" and other scripts' digits through.


def _whole_number(text: str, place: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MAX_INTEGER:
        raise BadInput(f"{place} is {text!r}, not a whole number up to {MAX_INTEGER}")
    return int(text)


def _decimal_number(text: str, place: str) -> float:
    number = r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?"
    if not re.fullmatch(number, text) or not math.isfinite(float(text)):
        raise BadInput(f"{place} is {text!r}, not a number")
    return float(text)


# of the file, in order, each with the parser of its values
COLUMNS: dict[str, Callable[[str, str], Any]] = {
    "movieId": _whole_number,
    "avg_rating": _decimal_number,
    "num_ratings": _whole_number,
}
