"""A download that is interrupted, by a signal or a full disk, leaves no part of a file."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest

# the command on a system without unnamed files
NAMED = """
import os
del os.O_TMPFILE
from movielens_fetch.__main__ import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_kill_in_the_middle_of_the_download_leaves_nothing(api, command, output, number, code):
    api.script.extend([api.good(), api.hang()])
    command.flags["--batch_size"] = 10
    with command.popen() as process:
        assert api.reached.wait(20)
        process.send_signal(number)
        out, err = process.communicate(timeout=5)
    assert process.returncode == code
    assert out == ""
    assert "Traceback" not in err
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_named_part_is_removed_on_a_signal(api, command, output, number, code):
    command.start = [sys.executable, "-c", NAMED]
    command.flags["--batch_size"] = 10
    api.script.extend([api.good(), api.hang()])
    with command.popen() as process:
        assert api.reached.wait(20)
        assert len(list(output.parent.iterdir())) == 1
        process.send_signal(number)
        process.communicate(timeout=5)
    assert process.returncode == code
    assert list(output.parent.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(api, command, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = [shutil.which("mount") or "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small disk can only be mounted by root")
    try:
        api.fill(20_000)
        command.flags["--output_path"] = disk / "ratings.csv"
        command.fails(1, f"cannot write {disk}/ratings.csv: No space left on device")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run([shutil.which("umount"), str(disk)], check=True)


def test_a_file_beyond_the_allowed_size_is_one_line_and_leaves_nothing(api, command, output):
    api.fill(20_000)
    done = command.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"Error: cannot write {output}: File too large"
    assert list(output.parent.iterdir()) == []
