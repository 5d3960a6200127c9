"""A file is there whole, or as it was before; nothing is left beside it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from movielens_rank.whole_file import whole_file


@pytest.fixture(params=["unnamed", "named"])
def kind(request, monkeypatch):
    """Both ways of writing: the unnamed file of Linux, and the named one for file systems without those."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return request.param


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path, kind):
    path = tmp_path / "a.csv"
    with whole_file(path) as file:
        file.write("é\n")
        file.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == (kind == "named")
    assert path.read_bytes() == "é\n".encode()
    assert names(tmp_path) == ["a.csv"]


def test_a_file_that_was_there_is_replaced(tmp_path, kind):
    path = tmp_path / "a.csv"
    path.write_text("a long former content")
    with whole_file(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "a long former content"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_everything_as_it_was(tmp_path, kind, error):
    path = tmp_path / "a.csv"
    path.write_text("former")

    def fail_half_way():
        with whole_file(path) as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "former"
    assert names(tmp_path) == ["a.csv"]


def test_missing_folders_are_created(tmp_path, kind):
    with whole_file(tmp_path / "2019" / "01" / "a.csv") as file:
        file.write("new")
    assert (tmp_path / "2019" / "01" / "a.csv").read_text() == "new"


def test_the_umask_decides_who_may_read(tmp_path, kind):
    former = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.csv"):
            pass
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) == 0o640


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path, kind):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError), whole_file(tmp_path / "a.csv") as file:
        file.write("new")
    assert names(tmp_path) == ["a.csv"]


def test_no_descriptor_stays_open(tmp_path, kind):
    before = names(Path("/proc/self/fd"))
    with whole_file(tmp_path / "a.csv") as file:
        file.write("new")
    assert names(Path("/proc/self/fd")) == before


def test_a_process_killed_half_way_leaves_nothing(tmp_path):
    code = """if True:
        import sys
        from movielens_rank.whole_file import whole_file
        with whole_file(sys.argv[1]) as file:
            file.write("half" * 100_000)
            file.flush()
            print("half way", flush=True)
            sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "a.csv"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "half way\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert names(tmp_path) == []
