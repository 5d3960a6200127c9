"""The file is complete, or as it was before; nothing is left beside it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from movielens_rank.atomic_write import atomic_write


@pytest.fixture(params=["unnamed", "named"])
def kind(request, monkeypatch):
    """Both ways of writing: the unnamed file of Linux, and the named one for file systems without those."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    return request.param


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path, kind):
    path = tmp_path / "a.csv"
    with atomic_write(path) as file:
        file.write("é\r\n")
        file.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == (kind == "named")
    assert path.read_bytes() == "é\r\n".encode()
    assert names(tmp_path) == ["a.csv"]


def test_bytes_can_be_written_and_taken_back(tmp_path, kind):
    with atomic_write(tmp_path / "a.csv", "wb") as file:
        file.write(b"kept, dropped")
        file.seek(4)
        file.truncate()
    assert (tmp_path / "a.csv").read_bytes() == b"kept"


def test_an_older_file_is_replaced(tmp_path, kind):
    path = tmp_path / "a.csv"
    path.write_text("older and longer")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "older and longer"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_everything_as_it_was(tmp_path, kind, error):
    path = tmp_path / "a.csv"
    path.write_text("older")

    def fail_half_way():
        with atomic_write(path) as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "older"
    assert names(tmp_path) == ["a.csv"]


def test_missing_folders_are_created(tmp_path, kind):
    with atomic_write(tmp_path / "2019" / "01" / "a.csv") as file:
        file.write("new")
    assert (tmp_path / "2019" / "01" / "a.csv").read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o027, 0o640), (0o000, 0o644)])
def test_the_mode_is_0644_less_the_umask(tmp_path, kind, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.csv"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.csv").stat().st_mode) == mode


def test_a_symbolic_link_is_followed_and_stays(tmp_path, kind):
    (tmp_path / "months").mkdir()
    link = tmp_path / "latest.csv"
    link.symlink_to("months/2019-01.csv")
    for content in ("new", "newer"):
        with atomic_write(link) as file:
            file.write(content)
        assert link.is_symlink()
        assert (tmp_path / "months" / "2019-01.csv").read_text() == content
    assert names(tmp_path / "months") == ["2019-01.csv"]


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path, kind):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path / "a.csv") as file:
        file.write("new")
    assert names(tmp_path) == ["a.csv"]


def test_no_descriptor_stays_open(tmp_path, kind):
    before = names(Path("/proc/self/fd"))
    with atomic_write(tmp_path / "a.csv") as file:
        file.write("new")
    assert names(Path("/proc/self/fd")) == before


def test_a_file_without_a_name_is_what_linux_gets(tmp_path):
    if sys.platform != "linux":
        pytest.skip("files without a name exist on Linux only")
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_RDWR))
    except OSError as error:
        pytest.skip(f"no files without a name in the temporary folder: {error}")
    with atomic_write(tmp_path / "a.csv"):
        assert names(tmp_path) == []


def test_a_process_killed_half_way_leaves_nothing(tmp_path):
    code = """if True:
        import sys
        from movielens_rank.atomic_write import atomic_write
        with atomic_write(sys.argv[1]) as file:
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
