"""A file that appears whole or not at all, whatever happens to the process that writes it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a text file (UTF-8, line ends as written) that takes its place at `path` when the block ends well.

    Until then `path` is untouched; an exception in the block leaves it so, and leaves nothing else behind. On Linux
    the unfinished file has no name, so even SIGKILL or a power cut leaves nothing to clean up. Missing parent
    folders are created. The file and its folder are synced to disk before the block is left.

    Raises OSError: no space, no permission, or a parent that is not a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    beside = f".{secrets.token_hex(8)}.part"
    try:
        descriptor, unnamed = _open_for_writing(path.parent, beside)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if unnamed:
                # A link cannot replace a file, so the file gets a name beside `path` first. Giving dst_dir_fd makes
                # Python call linkat(), which follows the /proc link to the file; plain link() would not.
                os.link(f"/proc/self/fd/{descriptor}", beside, dst_dir_fd=folder)
        os.replace(beside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder)
        raise
    finally:
        os.close(folder)


def _open_for_writing(folder: Path, beside: str) -> tuple[int, bool]:
    """Return a descriptor and whether it is an unnamed file; where those do not exist it is the file `beside`."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        # refused on file systems that cannot do it, such as NFS
        with suppress(OSError):
            return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666), True
    return os.open(folder / beside, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666), False
