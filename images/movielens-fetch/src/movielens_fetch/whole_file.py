"""A file that appears whole or not at all, whatever ends the process that writes it."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# What open() says where a file cannot be without a name: the file system, or a kernel from before 3.11
_UNNAMED_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file for writing; at the end of the block it stands at `path`, in place of what was there.

    After an exception, or the death of the process, `path` is as it was. On Linux the file has no name until it is
    whole, so not even SIGKILL leaves a part of it behind. Where that is not supported, the part stands beside `path`
    under a name that begins with a dot, and only SIGKILL leaves it there. Missing parent folders are created; the
    mode is 0644 less the umask; file and folder are synced to disk.

    Raises OSError where the file cannot be opened, written or synced.
    """
    target = path.resolve()  # so that a symbolic link is followed and not replaced
    target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as undo:
        folder = os.open(target.parent, os.O_RDONLY)
        undo.callback(os.close, folder)
        part = f".{target.name[:200]}.{secrets.token_hex(4)}"
        undo.callback(_remove, part, folder)
        number = _open_unnamed(folder)
        named = number is None
        if number is None:
            number = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644, dir_fd=folder)
        file = os.fdopen(number, "wb")
        undo.callback(_close, file)

        yield file

        file.flush()
        os.fsync(number)
        if named:
            os.replace(part, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            _name(number, target.name, part, folder)
        os.fsync(folder)


def _open_unnamed(folder: int) -> int | None:
    flag = getattr(os, "O_TMPFILE", None)  # Linux only
    if flag is None:
        return None
    try:
        return os.open(".", flag | os.O_RDWR, 0o644, dir_fd=folder)
    except OSError as error:
        if error.errno in _UNNAMED_UNSUPPORTED:
            return None
        raise


def _name(number: int, name: str, part: str, folder: int) -> None:
    """Gives the unnamed file its name. A link cannot replace a file, only a rename can."""

    def link(new: str) -> None:
        # dst_dir_fd makes this linkat(), which can follow the link in /proc; link() cannot
        os.link(f"/proc/self/fd/{number}", new, dst_dir_fd=folder, follow_symlinks=True)

    try:
        link(name)
    except FileExistsError:
        link(part)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # on a full disk, what is left in the buffer fails a second time
        file.close()


def _remove(part: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(part, dir_fd=folder)
