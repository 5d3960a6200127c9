"""Pages of the memory-mapped columns, compared with a plain filter over all rows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from movielens_api.columns import DataError, Movies, Ratings, open_dataset, read_movies

ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 6, 1_000, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(1, 10),
    ),
    max_size=60,
).map(sorted)
BOUND = st.none() | st.sampled_from([-1, 0, 1, 5, 6, 2**32 - 1, 2**32]) | st.integers(-(10**11), 10**12)


def as_ratings(rows):
    timestamps, users, movies, halves = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Ratings(
        np.array(timestamps, np.uint32),
        np.array(users, np.uint32),
        np.array(movies, np.uint32),
        np.array(halves, np.uint8),
    )


def in_interval(rows, start, end):
    """The same filter, over every row."""
    return [
        {"userId": user, "movieId": movie, "rating": halves * 0.5, "timestamp": timestamp}
        for timestamp, user, movie, halves in rows
        if (start is None or timestamp >= start) and (end is None or timestamp < end)
    ]


@given(ROWS, BOUND, BOUND)
def test_any_interval_gives_what_a_filter_over_all_rows_gives(rows, start, end):
    expected = in_interval(rows, start, end)
    assert as_ratings(rows).page(start, end, 0, 10_000) == (expected, len(expected))


@given(ROWS, BOUND, BOUND, st.integers(1, 70))
def test_any_page_size_gives_the_same_rows(rows, start, end, size):
    ratings = as_ratings(rows)
    expected = in_interval(rows, start, end)
    collected = []
    for offset in range(0, len(expected), size):
        page, total = ratings.page(start, end, offset, size)
        assert len(page) == min(size, len(expected) - offset)
        assert total == len(expected)
        collected += page
    assert collected == expected


@given(ROWS, BOUND, st.integers(0, 2**53 - 1))
def test_an_offset_past_the_end_is_empty_and_keeps_the_total(rows, start, beyond):
    total = len(in_interval(rows, start, None))
    assert as_ratings(rows).page(start, None, total + beyond, 10) == ([], total)


MOVIES = st.lists(st.tuples(st.integers(0, 99), st.text(st.characters(codec="utf-8")), st.text("ab|")), max_size=20)


@given(MOVIES, st.integers(0, 30), st.integers(1, 30))
def test_a_page_of_movies_is_a_slice_of_all_movies(movies, offset, limit):
    page, total = Movies(movies).page(offset, limit)
    expected = [dict(zip(("movieId", "title", "genres"), movie, strict=True)) for movie in movies]
    assert orjson.loads(orjson.dumps(page)) == expected[offset : offset + limit]
    assert total == len(movies)


def test_a_page_does_not_read_the_whole_column(tmp_path):
    size = 2**25
    column = np.lib.format.open_memmap(tmp_path / "timestamp.npy", mode="w+", dtype=np.uint32, shape=(size,))
    column[-1] = 7
    del column
    timestamps = np.load(tmp_path / "timestamp.npy", mmap_mode="r").view(np.ndarray)
    ones = np.broadcast_to(np.uint32(1), (size,))
    before = resident_bytes()
    assert Ratings(timestamps, ones, ones, ones).page(5, None, 0, 10)[1] == 1
    # What is read of a mapped file becomes part of the process: the whole column would be 128 MB.
    assert resident_bytes() - before < 32 * 2**20


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_damaged_folder_is_refused_by_name(generated, tmp_path):
    source = generated("small")

    def damaged(name, content):
        folder = tmp_path / name
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / name).write_bytes(content)
        return folder

    about = json.loads((source / "dataset.json").read_text())
    for name, content, named in [
        ("rating.npy", b"", "rating.npy"),
        ("rating.npy", (source / "rating.npy").read_bytes()[:-1], "rating.npy"),
        ("userId.npy", (source / "rating.npy").read_bytes(), "userId.npy"),
        ("dataset.json", b"{", "dataset.json"),
        ("dataset.json", json.dumps({**about, "format": 99}).encode(), "format 99"),
        ("dataset.json", json.dumps({**about, "ratings": 999}).encode(), "timestamp.npy"),
        ("movies.csv", b"id,name\n", "line 1"),
        ("movies.csv", b"movieId,title,genres\n1,x\n", "line 2"),
    ]:
        folder = damaged(name, content)
        with pytest.raises(DataError, match=named):
            open_dataset(folder)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def test_quoted_titles_with_commas_and_quotes_are_read(tmp_path):
    file = tmp_path / "movies.csv"
    file.write_text(
        'movieId,title,genres\r\n11,"American President, The (1995)",Comedy|Drama\r\n'
        '2,"He said ""no"" (1990)",(no genres listed)\r\n',
        encoding="utf-8",
    )
    assert read_movies(file) == [
        (2, 'He said "no" (1990)', "(no genres listed)"),
        (11, "American President, The (1995)", "Comedy|Drama"),
    ]
