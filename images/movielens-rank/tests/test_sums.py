"""Sums of ratings: however ratings are split, the sums of the parts rank as the whole does."""

import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from movielens_rank import BadRatings, rank_file, rank_sums, ratings_csv, sum_file
from movielens_rank.names import METHODS
from movielens_rank.sums_csv import MAX_RATINGS, read_sums

COMMANDS = Path(sys.executable).parent
RATINGS = "userId,movieId,rating,timestamp\n"
SUMS = "movieId,microstars,ratings,liked\n"

stars = st.integers(1, 10).map(lambda halves: halves / 2) | st.floats(0.5, 5)
months = st.lists(st.lists(st.tuples(st.integers(-2, 6), stars), max_size=20), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sums")


def write(path, ratings):
    path.write_text(RATINGS + "".join(f"1,{movie},{rating!r},100\n" for movie, rating in ratings))
    return path


def summed(folder, months):
    """Write each month's ratings, add them up, and return the files of sums."""
    files = [folder / f"sums-{number}.csv" for number in range(len(months))]
    for month, sums in zip(months, files, strict=True):
        assert sum_file(write(folder / "ratings.csv", month), sums)[1] == len(month)
    return files


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=60, deadline=None)
@given(months=months, min_ratings=st.integers(1, 6), limit=st.none() | st.integers(1, 5), seed=st.randoms())
def test_the_sums_of_any_split_rank_as_all_ratings_at_once(folder, method, months, min_ratings, limit, seed):
    parts = summed(folder, months)
    seed.shuffle(parts)
    how = (min_ratings, method, limit)
    counts = rank_sums(parts, folder / "of-parts.csv", *how)
    whole = write(folder / "whole.csv", itertools.chain(*months))
    assert counts == rank_file(whole, folder / "of-whole.csv", *how)
    assert (folder / "of-parts.csv").read_bytes() == (folder / "of-whole.csv").read_bytes()


@given(month=st.lists(st.tuples(st.integers(1, 4), stars), min_size=1, max_size=20), chunk_rows=st.integers(1, 21))
@settings(max_examples=60, deadline=None)
def test_what_was_added_up_is_never_refused_and_chunks_do_not_show(folder, month, chunk_rows):
    [sums] = summed(folder, [month])
    at_once = sums.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratings_csv, "CHUNK_ROWS", chunk_rows)
        summed(folder, [month])
    assert sums.read_bytes() == at_once
    assert read_sums(sums)["ratings"].sum() == len(month)


def test_sums_are_whole_numbers_by_movie(tmp_path):
    ratings = write(tmp_path / "ratings.csv", [(20, 3.5), (3, 4.0), (20, 4.5), (20, 0.5)])
    assert sum_file(ratings, tmp_path / "sums.csv") == (2, 4)
    assert (tmp_path / "sums.csv").read_text() == SUMS + "3,4000000,1,1\n20,8500000,3,1\n"


def test_a_month_without_ratings_has_sums_and_changes_nothing(tmp_path):
    parts = summed(tmp_path, [[], [(1, 4.0), (1, 3.0), (1, 5.0)], []])
    assert parts[0].read_text() == SUMS
    assert rank_sums(parts, tmp_path / "out.csv") == (1, 3)
    assert (tmp_path / "out.csv").read_text() == "movieId,avg_rating,num_ratings\n1,4.0,3\n"
    assert rank_sums(parts[:1], tmp_path / "out.csv", 1, "bayes") == (0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; it needs at least the header line movieId,microstars,ratings,liked"),
        (RATINGS + "1,10,4,1\n", "line 1: the header needs one column 'microstars', but is"),
        (SUMS + "3,4000000,1,1\n3.0,4000000,1,1\n", "line 3: movieId '3.0' is not a whole number"),
        (SUMS + "3,4e6,1,1\n", "line 2: microstars '4e6' is not"),
        (SUMS + "3,,1,1\n", "line 2: microstars '' is not"),
        (SUMS + "3,True,1,1\n", "line 2: microstars 'True' is not"),
        (SUMS + "3,9223372036854775808,1,1\n", "line 2: microstars '9223372036854775808' is not"),
        (SUMS + "3,4000000,1\n", "line 2: 3 fields"),
        (SUMS + "3,4000000,1,1,\n", "line 2: 5 fields"),
        (SUMS + "3,0,0,0\n", "line 2: no 0 ratings, 0 of them liked, add up to 0 microstars"),
        (SUMS + "3,4000000,1,-1\n", "line 2: no 1 ratings, -1 of them liked"),
        (SUMS + "3,8000000,2,3\n", "line 2: no 2 ratings, 3 of them liked"),
        (SUMS + "3,5000001,1,1\n", "line 2: no 1 ratings, 1 of them liked, add up to 5000001 microstars"),
        (SUMS + "3,3999999,1,1\n", "line 2: no 1 ratings"),
        (SUMS + "3,499999,1,0\n", "line 2: no 1 ratings"),
        (SUMS + "3,4500000,1,0\n", "line 2: no 1 ratings"),
        (SUMS + f"3,{MAX_RATINGS * 10**6 + 10**6},{MAX_RATINGS + 1},0\n", f"line 2: no {MAX_RATINGS + 1} ratings"),
        (SUMS + f"3,{2**62},{2**62},{2**62}\n", "line 2: no 46"),
    ],
)
def test_a_file_without_valid_sums_is_refused_by_file_line_and_value(tmp_path, content, message):
    path = tmp_path / "sums.csv"
    path.write_text(content)
    with pytest.raises(BadRatings) as caught:
        rank_sums([path], tmp_path / "out.csv")
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


# --- the commands


def run(command, *arguments):
    return subprocess.run([COMMANDS / command, *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_commands_rank_months_as_the_year_and_say_so_on_the_last_line(tmp_path):
    months = [[(1, 4.0), (2, 5.0)], [(1, 3.5), (2, 5.0)], [(1, 4.5), (3, 1.0)]]
    inputs = []
    for number, month in enumerate(months):
        sums = tmp_path / "sums" / f"{number}.csv"
        ratings = write(tmp_path / "ratings.csv", month)
        done = run("sum-ratings", "--input_path", ratings, "--output_path", sums)
        assert done.returncode == 0, done.stderr
        [line] = done.stdout.splitlines()
        said = json.loads(line)
        assert said.pop("seconds") >= 0
        assert said == {"rows": 2, "ratings": 2, "path": str(sums)}
        inputs += ["--input_path", sums]
    how = ("--min_ratings", "2", "--method", "bayes", "--limit", "1")
    done = run("rank-sums", *inputs, "--output_path", tmp_path / "of-months.csv", *how)
    said = json.loads(done.stdout)
    assert said.pop("seconds") >= 0
    assert said == {"rows": 1, "ratings": 6, "path": str(tmp_path / "of-months.csv"), "method": "bayes"}
    whole = write(tmp_path / "ratings.csv", itertools.chain(*months))
    assert run("rank-movies", "--input_path", whole, "--output_path", tmp_path / "of-year.csv", *how).returncode == 0
    assert (tmp_path / "of-months.csv").read_bytes() == (tmp_path / "of-year.csv").read_bytes()


def assert_refused(done, output, *words):
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    *_, last = done.stderr.splitlines()
    assert last.startswith("Error: ")
    assert len(done.stderr.splitlines()) <= 2  # what it was doing, what was wrong
    for word in words:
        assert word in last
    assert not output.exists()


def test_what_the_commands_cannot_use_is_named_in_one_line(tmp_path):
    [sums] = summed(tmp_path, [[(1, 4.0)]])
    ratings, output = tmp_path / "ratings.csv", tmp_path / "out.csv"
    to_output = ("--output_path", output)
    again = sums.parent / ".." / sums.parent.name / sums.name
    assert_refused(run("sum-ratings", *to_output), output, "--input_path")
    assert_refused(run("rank-sums", *to_output), output, "--input_path")
    assert_refused(run("sum-ratings", "--input_path", sums, *to_output), output, "sums-0.csv: line 1", "'rating'")
    assert_refused(run("rank-sums", "--input_path", ratings, *to_output), output, "ratings.csv: line 1", "microstars")
    assert_refused(run("rank-sums", "--input_path", tmp_path, *to_output), output, "is a directory")
    assert_refused(run("rank-sums", "--input_path", sums, "--input_path", "none.csv", *to_output), output, "none.csv")
    assert_refused(run("rank-sums", "--input_path", sums, "--input_path", again, *to_output), output, "2 times")
    assert_refused(run("sum-ratings", "--input_path", ratings, *to_output, "--method", "mean"), output, "--method")
    before = sums.read_bytes()
    done = run("rank-sums", "--input_path", sums, "--output_path", again)
    assert (done.returncode, sums.read_bytes()) == (2, before)
    assert "is the input file" in done.stderr


@pytest.mark.parametrize(
    ("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
@pytest.mark.parametrize("command", ["sum-ratings", "rank-sums"])
def test_a_signal_ends_a_command_and_leaves_nothing(folder, command, signum, exit_code):
    source, output = folder / "large" / command, folder / "stopped" / "out.csv"
    if not source.exists():
        source.parent.mkdir(exist_ok=True)
        output.parent.mkdir(exist_ok=True)
        rows = (RATINGS, "1,10,4,1\n") if command == "sum-ratings" else (SUMS, "3,4000000,1,1\n")
        source.write_text(rows[0] + rows[1] * 5_000_000)
    process = subprocess.Popen(
        [COMMANDS / command, "--input_path", source, "--output_path", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr.readline().startswith(("adding up ", "ranking "))
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not any(output.parent.iterdir())


@pytest.mark.parametrize("command", ["rank-movies", "sum-ratings", "rank-sums"])
def test_help_names_every_option_and_does_not_import_pandas(command):
    done = run(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: {command} ")
    assert {"--input_path", "--output_path", "--version", "--help"} <= set(done.stdout.split())
    code = "import sys, movielens_rank.entry_points; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
