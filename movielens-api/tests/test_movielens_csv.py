"""A real MovieLens download as data: converted once, served, and refused with file and line where it is malformed."""

from __future__ import annotations

import json
import os
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from movielens_api import movielens_csv, prepare
from movielens_api.columns import COLUMNS, DataError, open_dataset
from movielens_api.movielens_csv import ROW, convert, is_converted, parse_rows

# The form of the download: sorted by user and movie, titles with commas in quotes.
RATINGS = """userId,movieId,rating,timestamp
1,31,2.5,1260759144
1,1029,3.0,1260759179
2,10,4.0,835355493
2,17,5.0,835355681
3,10,0.5,835355493
3,1,4,835355493
"""
MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation
10,"American President, The (1995)",Comedy|Drama|Romance
17,Zoë (1995),(no genres listed)
"""


@pytest.fixture
def download(tmp_path):
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    (folder / "ratings.csv").write_text(RATINGS)
    (folder / "movies.csv").write_text(MOVIES, encoding="utf-8")
    return folder


def test_a_download_is_served_in_the_order_of_the_interface(serve, download):
    service = serve("--workers", 1, MOVIELENS_DATA=str(download))
    rows = service.get("/ratings").json()["result"]
    assert [(row["timestamp"], row["userId"], row["movieId"], row["rating"]) for row in rows] == [
        (835355493, 2, 10, 4.0),
        (835355493, 3, 1, 4.0),
        (835355493, 3, 10, 0.5),
        (835355681, 2, 17, 5.0),
        (1260759144, 1, 31, 2.5),
        (1260759179, 1, 1029, 3.0),
    ]
    titles = [movie["title"] for movie in service.get("/movies").json()["result"]]
    assert titles == ["Toy Story (1995)", "American President, The (1995)", "Zoë (1995)"]
    assert service.get("/ratings?start_date=2009-01-01").json()["total"] == 2


def test_it_is_converted_once_and_again_when_a_file_has_changed(serve, download):
    columns = download / ".movielens-api"
    serve("--data", download, "--workers", 1).stop()
    first = columns.stat().st_ino
    serve("--data", download, "--workers", 1).stop()
    assert columns.stat().st_ino == first
    with (download / "ratings.csv").open("a") as lines:
        lines.write("4,1,1.0,1000000000\n")
    service = serve("--data", download, "--workers", 1)
    assert service.get("/ratings").json()["total"] == 7


def test_a_change_of_the_same_size_counts_as_a_change(download, tmp_path):
    convert(download, tmp_path / "columns")
    assert is_converted(download, tmp_path / "columns")
    status = (download / "movies.csv").stat()
    os.utime(download / "movies.csv", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert not is_converted(download, tmp_path / "columns")


def test_windows_line_ends_and_a_missing_last_one_are_accepted(download, tmp_path):
    convert(download, tmp_path / "plain")
    (download / "ratings.csv").write_bytes(RATINGS.rstrip("\n").replace("\n", "\r\n").encode())
    convert(download, tmp_path / "windows")
    for name in COLUMNS:
        assert (np.load(tmp_path / "plain" / f"{name}.npy") == np.load(tmp_path / "windows" / f"{name}.npy")).all()


def test_a_download_without_ratings_is_empty_and_not_an_error(download, tmp_path):
    (download / "ratings.csv").write_text(RATINGS.splitlines()[0] + "\n")
    convert(download, tmp_path / "columns")
    assert open_dataset(tmp_path / "columns").ratings.page(None, None, 0, 10) == ([], 0)


def test_the_size_of_the_chunks_makes_no_difference(download, tmp_path, monkeypatch):
    convert(download, tmp_path / "whole")
    monkeypatch.setattr(movielens_csv, "CHUNK_BYTES", 30)
    convert(download, tmp_path / "pieces")
    for name in COLUMNS:
        assert (np.load(tmp_path / "whole" / f"{name}.npy") == np.load(tmp_path / "pieces" / f"{name}.npy")).all()


@pytest.mark.parametrize(
    "row",
    [
        "1,2,3.5", "1,2,3.5,4,5", "1,2,,4", ",2,3.5,4", "1,2,3.5,", "", "a,2,3.5,4", "1,-2,3.5,4", "1,2,5.5,4",
        "1,2,0.0,4", "1,2,0,4", "1,2,3.7,4", "1,2,3.50,4", "1,2,.5,4", "1,2,3,5,4", "1,2,35,4", "1, 2,3.5,4",
        "1,2,3.5,4294967296", "1,2,3.5,12345678901", '1,"2",3.5,4', "1,2,3.5,4 ", "1.0,2,3.5,4", "1,2,3_5,4",
    ],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [movielens_csv.CHUNK_BYTES, 30])
def test_a_bad_row_is_named_by_file_and_line(download, tmp_path, monkeypatch, row, chunk):
    monkeypatch.setattr(movielens_csv, "CHUNK_BYTES", chunk)
    lines = RATINGS.splitlines()
    lines.insert(4, row)
    (download / "ratings.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"ratings\.csv, line 5: ") as raised:
        convert(download, tmp_path / "columns")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "columns").exists()


@given(st.lists(st.from_regex(ROW, fullmatch=True) | st.binary(max_size=12), min_size=1, max_size=5))
def test_rows_are_accepted_exactly_when_each_has_the_form(rows):
    text = b"\n".join(rows) + b"\n"
    lines = text.split(b"\n")[:-1]
    matches = [ROW.fullmatch(line) for line in lines]
    is_good = all(match and all(int(number) < 2**32 for number in match.groups()) for match in matches)
    try:
        timestamp, user, movie, rating = parse_rows(text)
    except movielens_csv._BadRow:
        assert not is_good
        return
    assert is_good
    parsed = zip(user.tolist(), movie.tolist(), (rating / 2).tolist(), timestamp.tolist(), strict=True)
    expected = [line.split(b",") for line in lines]
    assert list(parsed) == [(int(u), int(m), float(r), int(t)) for u, m, r, t in expected]


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("ratings.csv", "user,movie,rating,timestamp\n1,2,3.5,4\n", "ratings.csv, line 1"),
        ("ratings.csv", RATINGS + "x,1,1.0,1\n", "ratings.csv, line 8"),
        ("movies.csv", "id,title\n", "movies.csv, line 1"),
        ("movies.csv", MOVIES + "x,Title (2000),Drama\n", "movies.csv, line 5"),
        ("movies.csv", MOVIES + '5,"never closed\n', "movies.csv, line 5"),
        ("movies.csv", None, "no movies.csv"),
        ("ratings.csv", None, "neither dataset.json"),
    ],
)
def test_a_bad_download_stops_the_start_with_one_line(command, download, file, content, named):
    if content is None:
        (download / file).unlink()
    else:
        (download / file).write_text(content, encoding="utf-8")
    done = subprocess.run(
        [command, "serve", "--port", "0", "--data", str(download)],
        capture_output=True,
        text=True,
        env={**os.environ, "API_USER": "u", "API_PASSWORD": "p"},
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("reading ")]
    assert named in line
    assert not (download / ".movielens-api").exists()


def test_a_download_that_cannot_be_written_is_converted_in_the_cache(tmp_path, download, monkeypatch):
    writable = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != download and writable(path, mode))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = prepare.ensure_converted(download)
    assert folder.parent == tmp_path / "cache" / "movielens-api"
    assert json.loads((folder / "dataset.json").read_text())["ratings"] == 6
    assert not (download / ".movielens-api").exists()
