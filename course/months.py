"""Months as a learner types them: 2019-01."""

import datetime
import re
from typing import NamedTuple

import click


class Month(NamedTuple):
    """One month of one year, which prints as YYYY-MM."""

    year: int
    month: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"

    @property
    def first_day(self) -> datetime.date:
        return datetime.date(self.year, self.month, 1)

    def later(self, months: int) -> "Month":
        """Return the month that many months later."""
        years, month = divmod(self.month - 1 + months, 12)
        return Month(self.year + years, month + 1)


class MonthType(click.ParamType[Month]):
    """A click parameter that is a month, written YYYY-MM."""

    name = "YYYY-MM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Month:
        if isinstance(value, Month):
            return value
        found = re.fullmatch(r"([0-9]{4})-([0-9]{2})", str(value))
        # from 1970: the ratings carry epoch seconds
        if not found or not 1970 <= int(found[1]) <= 2100 or not 1 <= int(found[2]) <= 12:
            self.fail(f"{value!r} is not a month: write it as YYYY-MM, for example 2019-01", param, ctx)
        return Month(int(found[1]), int(found[2]))
