"""The course command as a learner types it, in a process of its own."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from course.paths import REPO

COURSE = Path(sys.executable).with_name("course")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of the course that the tests of this module share, so that it is made once."""
    return tmp_path_factory.mktemp("course")


def course(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    env = os.environ | {"COURSE_HOME": str(home)}
    return subprocess.run([COURSE, *arguments], env=env, capture_output=True, text=True, timeout=120, check=False)


def count_rows(home: Path, month: str) -> int:
    with closing(sqlite3.connect(home / "movies.db")) as database:
        query = "SELECT count(*) FROM movie_rankings WHERE interval_start = ?"
        return database.execute(query, (f"{month}-01",)).fetchone()[0]


def processes_with(text: str) -> list[str]:
    """List the command lines on this machine that hold a text."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has just ended
            continue
        if text in line:
            lines.append(line)
    return lines


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition; fail when it does not come true in time."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "waited too long"
        time.sleep(0.05)


def test_a_run_shows_ten_ranked_movies_with_titles_and_how_long_it_took(home: Path) -> None:
    done = course(home, "run")
    assert done.returncode == 0, done.stderr
    for task in ("fetch_ratings", "rank_movies", "store_rankings"):
        assert re.search(rf"2019-01  {task} +success", done.stdout)
    ranked = re.findall(r"│ +(\d+) │ .+\(\d{4}\) +│ +(\d\.\d\d) │ +(\d+) │", done.stdout)
    assert [int(position) for position, _, _ in ranked] == list(range(1, 11))
    means = [float(mean) for _, mean, _ in ranked]
    assert means == sorted(means, reverse=True)
    assert all(int(ratings) >= 3 for _, _, ratings in ranked)
    assert "table movie_rankings, pipeline 01_mixed_operators" in done.stdout
    assert re.search(r"took \d+(\.\d)? s", done.stdout)
    assert "\x1b[" not in done.stdout
    assert count_rows(home, "2019-01") > 10
    assert not processes_with(str(home))


def test_several_months_are_run_one_after_the_other(home: Path) -> None:
    done = course(home, "run", "--month", "2019-12", "--months", "2", "--profile", "small")
    assert done.returncode == 0, done.stderr
    assert re.search(r"2019-12  store_rankings +success", done.stdout)
    assert re.search(r"2020-01  store_rankings +success", done.stdout)


def test_a_month_without_ratings_is_a_success_that_says_so(home: Path) -> None:
    done = course(home, "run", "--month", "2018-01")
    assert done.returncode == 0, done.stderr
    assert "no ratings in 2018-01" in done.stdout
    assert count_rows(home, "2018-01") == 0


@pytest.mark.parametrize(
    "month", ["foo", "2019-13", "2019-1", "2019-00", "", "2019-01-01", "\N{ARABIC-INDIC DIGIT TWO}019-01"]
)
def test_a_bad_month_is_one_line_with_the_form_it_expects(home: Path, month: str) -> None:
    done = course(home, "run", "--month", month)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "YYYY-MM" in done.stderr
    assert "Traceback" not in done.stderr


def test_top_shows_the_stored_ranking(home: Path) -> None:
    assert course(home, "run").returncode == 0
    done = course(home, "top", "--month", "2019-01", "--limit", "3")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"│ +\d+ │ .+\(\d{4}\) +│", done.stdout)) == 3


def test_top_before_any_run_says_what_to_do(tmp_path: Path) -> None:
    done = course(tmp_path, "top")
    assert done.returncode == 1
    assert done.stderr == "Error: nothing is stored yet: run `make run` first\n"


def test_doctor_finds_this_machine_ready_and_names_a_fix_for_what_is_missing(home: Path) -> None:
    env = os.environ | {"PATH": str(COURSE.parent)}  # a machine without docker and kubectl
    done = subprocess.run([COURSE, "doctor"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "ready for `make run`" in done.stdout
    assert "install Docker Engine" in done.stdout
    assert "install kubectl" in done.stdout


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_run_ends_the_api_and_airflow_too(tmp_path: Path, ended_by: signal.Signals) -> None:
    env = os.environ | {"COURSE_HOME": str(tmp_path)}
    command = [COURSE, "run", "--profile", "small", "--months", "60"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert any("fetch_ratings" in line for line in process.stdout)
        assert processes_with(str(tmp_path))
        process.send_signal(ended_by)
        process.wait(20)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[ended_by]
    wait_until(lambda: not processes_with(str(tmp_path)))
    after = course(tmp_path, "run", "--profile", "small")
    assert after.returncode == 0, after.stderr


def test_a_second_run_in_the_same_folder_waits_for_nobody_and_says_why(tmp_path: Path) -> None:
    env = os.environ | {"COURSE_HOME": str(tmp_path)}
    command = [COURSE, "run", "--profile", "small", "--months", "60"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        assert "MovieLens API" in next(line for line in process.stdout if "http" in line)
        second = course(tmp_path, "run")
        process.terminate()
        process.wait(20)
    assert second.returncode == 1
    assert second.stderr.startswith("Error: another run is under way")


def test_make_alone_prints_its_targets() -> None:
    done = subprocess.run(
        ["/usr/bin/env", "make", "-C", REPO, "--no-print-directory"], capture_output=True, text=True, check=True
    )
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"run", "test", "doctor", "top", "bench", "lock"}
