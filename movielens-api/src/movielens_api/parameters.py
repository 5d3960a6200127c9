"""The query parameters: what each allows, how it is parsed, and how the OpenAPI document describes it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

Query = Iterable[tuple[str, list[str]]]


class BadParameter(Exception):
    """A query parameter that the API refuses, with what it accepts."""

    def __init__(self, parameter: str, problem: str, allowed: str) -> None:
        super().__init__(f"{parameter}: {problem}; allowed: {allowed}")
        self.parameter = parameter
        self.allowed = allowed


@dataclass(frozen=True)
class IntegerParameter:
    """A whole number in plain decimal digits: no sign, no spaces, no leading zeros."""

    name: str
    minimum: int
    maximum: int
    default: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}"

    @property
    def schema(self) -> dict[str, Any]:
        return {
            "type": "integer",
            "minimum": self.minimum,
            "maximum": self.maximum,
            "default": self.default,
        }

    def parse(self, text: str) -> int:
        # 16 digits are enough for every maximum here, and bound the cost of a long string of digits.
        if re.fullmatch(r"0|[1-9][0-9]{0,15}", text) and self.minimum <= int(text) <= self.maximum:
            return int(text)
        raise BadParameter(self.name, f"got {quoted(text)}", self.allowed)


@dataclass(frozen=True)
class DateParameter:
    """A day of the calendar as YYYY-MM-DD; its value is 00:00 UTC of that day in epoch seconds."""

    name: str
    default: None = None
    allowed: str = "a date that exists, as YYYY-MM-DD"

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}

    def parse(self, text: str) -> int:
        try:
            if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
                raise ValueError
            day = date.fromisoformat(text)
        except ValueError:
            raise BadParameter(self.name, f"got {quoted(text)}", self.allowed) from None
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


START_DATE = DateParameter("start_date")
END_DATE = DateParameter("end_date")
# 2**53 - 1 is the largest whole number that every JSON reader keeps exact; the answer repeats the offset.
OFFSET = IntegerParameter("offset", minimum=0, maximum=2**53 - 1, default=0)
LIMIT = IntegerParameter("limit", minimum=1, maximum=10_000, default=100)

Parameter = IntegerParameter | DateParameter

ALLOWED_START = "a date not after end_date, which is the first day that is not part of the interval"


def parse_query(query: Query, parameters: tuple[Parameter, ...]) -> dict[str, int]:
    """Return the values by name; a missing parameter has its default, or is left out if it has none.

    `query` holds each name with all its texts. Raises BadParameter for a name that is unknown or given twice, for
    a text that is not allowed, and for a start_date after the end_date.
    """
    known = {parameter.name: parameter for parameter in parameters}
    values = {name: parameter.default for name, parameter in known.items() if parameter.default is not None}
    for name, texts in query:
        if name not in known:
            raise BadParameter(name, "unknown parameter", ", ".join(known) or "none")
        if len(texts) > 1:
            raise BadParameter(name, f"given {len(texts)} times", "one value")
        values[name] = known[name].parse(texts[0])
    if values.get(START_DATE.name, -math.inf) > values.get(END_DATE.name, math.inf):
        raise BadParameter(START_DATE.name, "later than end_date", ALLOWED_START)
    return values


def quoted(text: str) -> str:
    """Return a client's text in quotes, in ASCII, shortened to fit in a line."""
    return ascii(text if len(text) <= 40 else f"{text[:37]}...")
