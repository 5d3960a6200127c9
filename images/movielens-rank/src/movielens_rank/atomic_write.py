"""Write a file atomically: it appears complete or not at all, whatever ends the process that writes it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, overload


@overload
def atomic_write(path: str | os.PathLike[str], mode: Literal["w"] = "w") -> AbstractContextManager[IO[str]]: ...
@overload
def atomic_write(path: str | os.PathLike[str], mode: Literal["wb"]) -> AbstractContextManager[IO[bytes]]: ...
@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a new file, as UTF-8 text or as bytes, that replaces the file at `path` when the block succeeds.

    Until then, and after an exception or the death of the process, `path` is as it was. On Linux the unfinished file
    has no name, so not even SIGKILL leaves a part of it behind. Where that is not supported it stands beside `path`
    as `.*.part`, and only an end without Python's clean-up (SIGKILL, os._exit) leaves it there.

    A symbolic link at `path` is followed, not replaced. Missing parent folders are created. Line ends are written as
    given. The mode is 0644 less the umask. File and folder are synced to disk before the block is left.

    Raises OSError where the file cannot be opened, written or synced.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as cleanup:
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        cleanup.callback(os.close, folder)
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        cleanup.callback(_unlink, part.name, folder)
        descriptor = _open_unnamed(folder)
        unnamed = descriptor is not None
        if descriptor is None:
            descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
        file = os.fdopen(descriptor, "wb") if mode == "wb" else os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        cleanup.callback(_close, file)

        yield file

        file.flush()
        os.fsync(descriptor)
        if unnamed:
            _link(descriptor, target.name, part.name, folder)
        else:
            os.replace(part.name, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _open_unnamed(folder: int) -> int | None:
    """Return the descriptor of a new file without a name in `folder`, None where the system has no such files."""
    if hasattr(os, "O_TMPFILE") and Path("/proc/self/fd").is_dir():
        # Refused on file systems that lack it, such as NFS. Any other reason stops the named file too, and shows there.
        with suppress(OSError):
            return os.open(".", os.O_TMPFILE | os.O_RDWR, 0o644, dir_fd=folder)
    return None


def _link(descriptor: int, name: str, part: str, folder: int) -> None:
    """Name the unnamed file; where the name is taken, by way of the name `part`, since only a rename replaces."""

    def link(new: str) -> None:
        # dst_dir_fd makes this linkat(), which can follow the link in /proc; plain link() cannot
        os.link(f"/proc/self/fd/{descriptor}", new, dst_dir_fd=folder, follow_symlinks=True)

    try:
        link(name)
    except FileExistsError:
        link(part)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)


def _close(file: IO[Any]) -> None:
    with suppress(OSError):  # on a full disk, what is left in the buffer fails a second time
        file.close()


def _unlink(part: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(part, dir_fd=folder)
