"""The command line: flags, settings, what it prints where, and its exit codes."""

import json
import os
import pty
import sys
from pathlib import Path

import pytest


def test_it_ends_with_one_json_line_on_stdout(api, command, output):
    command.flags["--batch_size"] = 20
    api.script.append(api.status(500))
    done = command.run()
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout).pop("seconds")
    assert 0 < seconds < 5
    assert json.loads(done.stdout) == {
        "rows": 50,
        "path": str(output),
        "pages": 3,
        "retries": 1,
        "restarts": 0,
        "seconds": seconds,
    }
    assert done.stdout.count("\n") == 1
    assert output.read_text() == api.csv()


def test_the_log_says_each_retry_with_its_cause_and_leaves_the_last_line_to_the_result(api, command):
    api.script.extend([api.status(500), api.good(), api.good(total=60)])
    command.flags["--batch_size"] = 25
    lines = command.run().stderr.splitlines()
    assert lines[0].startswith("the API answered 500; trying again in 0.")
    assert lines[1].startswith("starting over, because the number of ratings changed from 50 to 60; trying again in 0.")
    assert lines[2:] == []


def test_a_terminal_gets_a_progress_bar(command, output):
    ours, theirs = pty.openpty()
    with command.popen(stderr=theirs) as process:
        os.close(theirs)
        out, _ = process.communicate(timeout=30)
    shown = b""
    try:
        while more := os.read(ours, 65536):
            shown += more
    except OSError:  # how Linux says that the other end of a terminal is closed
        pass
    os.close(ours)
    assert b"50/50" in shown
    assert json.loads(out)["rows"] == 50


def test_help_names_every_flag_and_setting(command):
    command.flags = {}
    command.start.append("--help")
    text = command.run().stdout
    for word in ("start_date", "end_date", "output_path", "host", "batch_size", "timeout"):
        assert f"--{word} " in text
    for word in ("MOVIELENS_HOST", "MOVIELENS_USER", "MOVIELENS_PASSWORD", "MOVIELENS_PASSWORD_FILE"):
        assert word in text


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"--start_date": None}, "Missing option '--start_date'"),
        ({"--start_date": "2019-02-01"}, "--start_date 2019-02-01 is not before --end_date 2019-02-01"),
        ({"--start_date": "2019-03-01"}, "--start_date 2019-03-01 is not before --end_date 2019-02-01"),
        ({"--start_date": "2019-1-1"}, "'--start_date': '2019-1-1' is not a day as YYYY-MM-DD"),
        ({"--start_date": "20190101"}, "'20190101' is not a day"),
        ({"--end_date": "2019-02-30"}, "'--end_date': '2019-02-30' is not a day"),
        ({"--end_date": ""}, "'--end_date': '' is not a day"),
        ({"--batch_size": 0}, "'--batch_size': 0 is not in the range"),
        ({"--batch_size": 10_001}, "'--batch_size': 10001 is not in the range"),
        ({"--timeout": 0}, "'--timeout'"),
        ({"--timeout": "nan"}, "'--timeout'"),
        ({"--timeout": "inf"}, "'--timeout'"),
        ({"--output_path": "/dev/null"}, "/dev/null is not a regular file"),
        ({"--output_path": "/"}, "is a directory"),
        ({"--host": "movielens"}, "'movielens', not an address such as http://movielens:5000"),
        ({"--host": "movielens:5000"}, "not an address"),
        ({"--host": "ftp://movielens"}, "not an address"),
        ({"--host": "http://"}, "not an address"),
        ({"--host": "http://movielens:port"}, "not an address"),
        ({"--host": "http://movielens?x=1"}, "not an address"),
        ({"--host": "http://[::1"}, "not an address"),
        ({"--host": "http://someone:geheim@movielens"}, "must not hold a login"),
        ({"--password": "x"}, "No such option '--password'"),
    ],
)
def test_a_bad_argument_is_one_line_and_exit_code_2(api, command, output, flags, words):
    command.flags |= flags
    command.fails(2, words)
    assert api.seen == []
    assert not output.exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MOVIELENS_USER": None}, "set MOVIELENS_USER"),
        ({"MOVIELENS_USER": "a:b"}, "MOVIELENS_USER holds a colon"),
        ({"MOVIELENS_PASSWORD": None}, "set MOVIELENS_PASSWORD, or MOVIELENS_PASSWORD_FILE"),
        ({"MOVIELENS_PASSWORD": ""}, "set MOVIELENS_PASSWORD, or MOVIELENS_PASSWORD_FILE"),
        ({"MOVIELENS_PASSWORD_FILE": "/run/secret"}, "both MOVIELENS_PASSWORD and MOVIELENS_PASSWORD_FILE"),
        (
            {"MOVIELENS_PASSWORD": None, "MOVIELENS_PASSWORD_FILE": "/nowhere"},
            "cannot read /nowhere: No such file or directory",
        ),
        ({"MOVIELENS_PASSWORD": None, "MOVIELENS_PASSWORD_FILE": "/dev/null"}, "/dev/null is empty"),
    ],
)
def test_a_missing_setting_is_one_line_and_exit_code_2(api, command, settings, words):
    command.environment |= settings
    command.fails(2, words)
    assert api.seen == []


def test_the_password_can_come_from_a_file_that_ends_with_a_newline(api, command, tmp_path):
    file = tmp_path / "password"
    file.write_text(command.environment.pop("MOVIELENS_PASSWORD") + "\n")
    command.environment["MOVIELENS_PASSWORD_FILE"] = str(file)
    assert command.run().returncode == 0
    assert {seen.authorization for seen in api.seen} == {api.login}


def test_the_address_can_come_from_the_environment_with_a_path_and_a_slash(api, command):
    command.environment["MOVIELENS_HOST"] = command.flags.pop("--host") + "/v1/"
    assert command.run().returncode == 0
    assert api.seen[0].path == "/v1/ratings"


def test_a_wrong_login_is_exit_code_2(api, command):
    api.always = api.status(401)
    command.fails(2, "refused the login (401)")


def test_a_refused_parameter_is_exit_code_2(api, command):
    api.always = api.status(400, '{"error": "limit: got 1000"}')
    command.fails(2, "limit: got 1000")


def test_an_api_that_keeps_failing_is_exit_code_1(api, command, output):
    api.always = api.status(500)
    command.flags["--timeout"] = 3
    command.fails(1, f"gave up on {api.host}/ratings after 3 s without a new rating: the API answered 500")
    assert list(output.parent.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_exit_code_1(command, tmp_path):
    (tmp_path / "file").touch()
    command.flags["--output_path"] = tmp_path / "file" / "folder" / "ratings.csv"
    command.fails(1, f"cannot write {tmp_path}/file/folder/ratings.csv: Not a directory")


def test_a_stdout_that_is_full_is_one_line(command):
    with Path("/dev/full").open("w") as full, command.popen(stdout=full) as process:
        _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert err.splitlines()[-1] == "Error: cannot write to stdout: No space left on device"


# Linux counts the memory of the parent to the child (until exec), so the child says its own.
PEAK = """
import sys
from movielens_fetch.__main__ import main
try:
    main()
finally:
    print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_the_memory_does_not_grow_with_the_interval(api, command):
    def peak(count):
        api.fill(count)
        done = command.run()
        assert json.loads(done.stdout)["rows"] == count
        return int(done.stderr.split()[-2]) / 1024

    command.start = [sys.executable, "-c", PEAK]
    command.flags["--batch_size"] = 10_000
    one_page, many_pages = peak(10_000), peak(200_000)
    assert many_pages < one_page + 5
    assert many_pages < 80
