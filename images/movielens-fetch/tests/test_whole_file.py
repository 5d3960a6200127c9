"""The file is whole, or it is not there: after errors, on a full disk, and when the process is killed."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
from movielens_fetch import whole_file as module
from movielens_fetch.whole_file import whole_file

NAMED = """
import movielens_fetch.whole_file as module
module._open_unnamed = lambda folder: None
from movielens_fetch.__main__ import main
main()
"""


@pytest.fixture(params=["unnamed", "named"])
def kind(request, monkeypatch):
    """Both ways to write: the named one is for file systems that know no files without a name."""
    if request.param == "named":
        monkeypatch.setattr(module, "_open_unnamed", lambda folder: None)
    return request.param


def test_the_file_is_there_after_the_block_and_not_before(kind, output):
    with whole_file(output) as file:
        file.write(b"one")
        file.flush()
        assert not output.exists()
    assert output.read_bytes() == b"one"
    assert list(output.parent.iterdir()) == [output]


def test_an_older_file_is_replaced(kind, output):
    output.parent.mkdir()
    output.write_bytes(b"older and longer")
    with whole_file(output) as file:
        file.write(b"new")
    assert output.read_bytes() == b"new"
    assert list(output.parent.iterdir()) == [output]


def test_after_an_error_the_older_file_is_as_it_was(kind, output):
    output.parent.mkdir()
    output.write_bytes(b"old")

    def fail_half_way():
        with whole_file(output) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert output.read_bytes() == b"old"
    assert list(output.parent.iterdir()) == [output]


def test_the_mode_is_0644_less_the_umask(kind, output):
    before = os.umask(0o027)
    try:
        with whole_file(output):
            pass
    finally:
        os.umask(before)
    assert output.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_is_followed_and_stays(kind, output):
    output.parent.mkdir()
    link = output.with_name("latest.csv")
    link.symlink_to(output.name)
    with whole_file(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert output.read_bytes() == b"new"


def test_a_file_without_a_name_is_what_linux_gets(tmp_path):
    if sys.platform != "linux":
        pytest.skip("files without a name exist on Linux only")
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no files without a name in the temporary folder: {error}")
    with whole_file(tmp_path / "x.csv"):
        assert list(tmp_path.iterdir()) == []


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
