"""Read a CSV row by row: its header before pandas reads it, and its first bad row when pandas could not."""

import csv
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path


class BadRatings(ValueError):
    """The file is not a CSV of ratings, or of their sums; the message names the file, the line and the value."""


def read_header(path: str | os.PathLike[str], needed: tuple[str, ...]) -> list[str]:
    """Return the columns of the file, each of those `needed` among them once. Raises BadRatings, or OSError."""
    try:
        line, header = next(_rows(path), (1, []))
    except csv.Error as error:
        raise BadRatings(f"{path}: line 1: {error}") from error
    if not header:
        raise BadRatings(f"{path} is empty; it needs at least the header line {','.join(needed)}")
    for column in needed:
        if header.count(column) != 1:
            found = quoted(",".join(header))
            raise BadRatings(f"{path}: line {line}: the header needs one column {column!r}, but is {found}")
    return header


def first_bad_row(path: str | os.PathLike[str], why_bad: Callable[[dict[str, str]], str | None]) -> str | None:
    """Describe the first row that has a wrong length, or for which `why_bad` returns a reason; None if there is none.

    `why_bad` is called with the values of a row by their columns.
    """
    rows = _rows(path)
    _, header = next(rows)
    last_line = 1
    try:
        for line, row in rows:
            last_line = line
            if len(row) != len(header):
                return f"line {line}: {len(row)} fields, but the header has {len(header)}"
            values = dict(zip(header, row, strict=True))
            if reason := why_bad(values):
                return f"line {line}: {reason}"
            for column, value in values.items():
                if not value.isascii() and any("\udc80" <= character <= "\udcff" for character in value):
                    return f"line {line}: {column} {quoted(value)} is not UTF-8"
    except csv.Error as error:
        return f"after line {last_line}: {error}"
    return None


def is_whole_number(value: str) -> bool:
    """Return whether pandas reads the value as an int64."""
    return re.fullmatch(r"[+-]?[0-9]{1,19}", value.strip()) is not None and -(2**63) <= int(value) < 2**63


def quoted(value: str) -> str:
    """Quote a value for a message: one line, without control characters, shortened."""
    return ascii(value if len(value) <= 60 else value[:60] + "...")


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, header first, each with the number of its first line.

    Bytes that are not UTF-8 come through as surrogates: a bad row has to be shown, not to end the reading.
    """
    with Path(path).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        line = 1
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield line, row
            line = reader.line_num + 1
