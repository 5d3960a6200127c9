"""The command rank-movies as a process: exit codes, what it prints, signals, a full disk."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).parent / "rank-movies"
HEADER = "userId,movieId,rating,timestamp\n"
RANKED = "movieId,avg_rating,num_ratings\n"


def rank(*arguments, **options):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, **options)


@pytest.fixture
def ratings(tmp_path):
    path = tmp_path / "in" / "ratings.csv"
    path.parent.mkdir()
    path.write_text(HEADER + "1,10,4,1\n2,10,4,2\n3,10,4,3\n1,20,5,4\n2,20,3.5,5\n")
    return path


@pytest.fixture
def output(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "rankings.csv"


def assert_refused(result, output, exit_code, *parts):
    assert result.returncode == exit_code, result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    for part in parts:
        assert part in last
    assert not any(output.parent.iterdir())


def test_the_last_line_of_stdout_says_what_was_done(ratings, output):
    result = rank("--input_path", ratings, "--output_path", output)
    assert result.returncode == 0, result.stderr
    [line] = result.stdout.splitlines()
    done = json.loads(line)
    assert done.pop("seconds") >= 0
    assert done == {"rows": 1, "ratings": 5, "path": str(output), "method": "mean"}
    assert output.read_text() == RANKED + "10,4.0,3\n"


def test_every_option_has_its_effect(ratings, output):
    result = rank(
        *("--input_path", ratings, "--output_path", output),
        *("--min_ratings", "2", "--method", "wilson", "--limit", "1"),
    )
    assert json.loads(result.stdout)["method"] == "wilson"
    header, ranked = output.read_text().splitlines()
    movie, score, ratings_of_it = ranked.split(",")
    assert (header + "\n", movie, ratings_of_it) == (RANKED, "10", "3")
    assert float(score) == pytest.approx(1 / (1 + 1.959964**2 / 3))  # what the bound comes to when all like it


def test_a_rerun_replaces_the_ranking(ratings, output):
    output.write_text("former")
    assert rank("--input_path", ratings, "--output_path", output).returncode == 0
    assert output.read_text() == RANKED + "10,4.0,3\n"
    assert list(output.parent.iterdir()) == [output]


def test_an_interval_without_ratings_is_not_an_error(ratings, output):
    ratings.write_text(HEADER)
    result = rank("--input_path", ratings, "--output_path", output.parent / "new" / "folder" / "r.csv")
    assert result.returncode == 0
    assert json.loads(result.stdout)["rows"] == 0
    assert (output.parent / "new" / "folder" / "r.csv").read_text() == RANKED


@pytest.mark.parametrize(
    "arguments",
    [["--min_ratings", "0"], ["--min_ratings", "x"], ["--limit", "0"], ["--method", "median"], ["--threads", "2"]],
)
def test_a_bad_argument_is_named(ratings, output, arguments):
    result = rank("--input_path", ratings, "--output_path", output, *arguments)
    assert_refused(result, output, 2, arguments[0])


def test_a_missing_argument_is_named(ratings, output):
    assert_refused(rank("--input_path", ratings), output, 2, "--output_path")
    assert_refused(rank("--output_path", output), output, 2, "--input_path")


def test_a_missing_input_is_named(ratings, output):
    missing = ratings.with_name("none.csv")
    assert_refused(rank("--input_path", missing, "--output_path", output), output, 2, "none.csv", "does not exist")
    assert_refused(rank("--input_path", ratings.parent, "--output_path", output), output, 2, "is a directory")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (HEADER + "1,10,4,1\n1,10,6.5,1\n", ["ratings.csv: line 3: rating '6.5'"]),
        (HEADER + "1,10.5,4,1\n", ["line 2: movieId '10.5'"]),
        (HEADER + "1,10,,1\n", ["line 2: rating ''"]),
        (HEADER + "1,10,nan,1\n", ["line 2: rating 'nan'"]),
        (HEADER + "1,10,4,1\n1,10\n", ["line 3: 2 fields"]),
        (HEADER + "1,10,4,1,9\n", ["line 2: 5 fields"]),
        ("movieId,score\n1,4\n", ["column 'rating'"]),
        ("", ["is empty"]),
        ("\x00\x7fELF\x02" * 100, ["column 'movieId'"]),
    ],
)
def test_bad_input_exits_with_2_and_one_line(ratings, output, content, parts):
    ratings.write_text(content)
    result = rank("--input_path", ratings, "--output_path", output)
    assert_refused(result, output, 2, *parts)
    assert len(result.stderr.splitlines()) == 2  # what it was doing, what was wrong


def test_the_first_bad_row_of_a_large_file_is_named_without_pandas_warnings(ratings, output):
    ratings.write_text(HEADER + "1,10,4,1\n" * 60_000 + "1,ten,4,1\n" * 2 + "1,10,4,1\n" * 20_000)
    result = rank("--input_path", ratings, "--output_path", output)
    assert_refused(result, output, 2, "line 60002: movieId 'ten'")
    assert len(result.stderr.splitlines()) == 2


def test_the_input_is_never_replaced(ratings):
    before = ratings.read_text()
    result = rank("--input_path", ratings, "--output_path", ratings.parent / ".." / "in" / "ratings.csv")
    assert result.returncode == 2
    assert "is the input file" in result.stderr
    assert ratings.read_text() == before


def test_an_output_that_cannot_be_a_file_is_named(ratings, output):
    result = rank("--input_path", ratings, "--output_path", ratings / "rankings.csv")
    assert_refused(result, output, 2, "ratings.csv is not a folder")
    assert_refused(rank("--input_path", ratings, "--output_path", output.parent), output, 2, "is a directory")


def many_movies(path, movies):
    path.write_text("movieId,rating\n" + "".join(f"{movie},4.5\n" for movie in range(movies)))


def test_a_file_size_limit_ends_in_one_line_and_no_file(ratings, output):
    many_movies(ratings, 20_000)
    result = rank(
        *("--input_path", ratings, "--output_path", output, "--min_ratings", "1"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert_refused(result, output, 1, "rankings.csv: File too large; nothing was written")


def test_a_full_disk_ends_in_one_line_and_no_file(ratings, output):
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", output.parent],  # noqa: S607
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        many_movies(ratings, 20_000)
        result = rank("--input_path", ratings, "--output_path", output, "--min_ratings", "1")
        assert_refused(result, output, 1, "rankings.csv: No space left on device; nothing was written")
    finally:
        subprocess.run(["umount", output.parent], check=True)  # noqa: S607


@pytest.mark.parametrize(
    ("signum", "exit_code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_a_signal_ends_it_and_leaves_nothing(ratings, output, signum, exit_code):
    ratings.write_text(HEADER + "1,10,4,1\n" * 5_000_000)
    with subprocess.Popen(
        [COMMAND, "--input_path", ratings, "--output_path", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline().startswith("ranking ")
        process.send_signal(signum)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == exit_code, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert not any(output.parent.iterdir())


def peak_memory(arguments):
    process = subprocess.Popen([COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss


def test_memory_does_not_grow_with_the_ratings(ratings, output):
    arguments = ["--input_path", ratings, "--output_path", output]
    ratings.write_text("movieId,rating\n" + "10,4\n" * 1_500_000)
    of_a_sixth = peak_memory(arguments)
    ratings.write_text("movieId,rating\n" + "10,4\n" * 9_000_000)
    assert peak_memory(arguments) < 1.25 * of_a_sixth  # whole columns of them would add 100 MB to its 120
