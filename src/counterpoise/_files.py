"""Files that are there whole or not at all, archives that know when they are damaged, folders with one owner."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import os
import platform
import struct
import time
import uuid
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import IO, Any

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # no file locks on this system
    fcntl = None

_MARK = b"counterpoise sha256 "
_COMMENT = len(_MARK) + 64


# -- one file ------------------------------------------------------------------------------------------
@contextmanager
def writing(path: str | os.PathLike[str], mode: str = "w", *, newline: str | None = None) -> Iterator[IO[Any]]:
    """A file that becomes ``path`` when nothing goes wrong inside, and is gone otherwise.

    It is written beside ``path`` under a name of its own, flushed to the disk and renamed, and the folder is flushed
    too: after a kill or a power cut ``path`` is the old file or the new one. A link is replaced, never followed. What
    a killed process left behind goes when the same file is next written.

    Args:
        path: made or replaced; its folder must exist.
        mode: "w" (UTF-8), "wb" or "w+b".
        newline: of text, as for ``open``.

    Raises:
        OSError: it cannot be written, or ``path`` is a folder or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # renaming over a device would replace it
        raise OSError(errno.EEXIST, "is a folder or a device, and no file", str(path))
    sweep(path.parent, path.name)
    file = _beside(path, mode.replace("w", "x"), newline)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            rename(Path(file.name), path)
    except BaseException:
        Path(file.name).unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """A text file, as by ``writing``."""
    with writing(path) as file:
        file.write(text)


def rename(source: Path, target: Path) -> None:
    """Rename a file, for good once this returns."""
    os.replace(source, target)
    if not hasattr(os, "O_DIRECTORY"):  # where folders cannot be opened
        return
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sweep(folder: Path, name: str = "") -> None:
    """Remove what processes that are dead were writing in a folder, as ``name`` or as anything."""
    for left in folder.glob(f".{glob.escape(name[:50])}*.part"):
        with contextlib.suppress(OSError), left.open("r+b") as file:
            if lock(file):
                left.unlink()


def _beside(path: Path, mode: str, newline: str | None) -> IO[Any]:
    """A new file, locked while it is open, so that others see that it is in use."""
    while True:
        draft = path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex[:12]}.part")
        file = draft.open(mode, encoding=None if "b" in mode else "utf-8", newline=newline)
        if lock(file) is not False and os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # swept between the two calls


def lock(file: IO[Any]) -> bool | None:
    """Lock an open file for this process and those that inherit it; False when another has it, None without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system that has none
        return None
    return True


# -- archives ------------------------------------------------------------------------------------------
def seal(file: IO[bytes]) -> None:
    """Give a ZIP archive, such as ``torch.save`` writes, a comment that holds the digest of everything before it.

    Args:
        file: open for reading and writing.
    """
    end = file.seek(-2, os.SEEK_END)  # the length of the comment, of which there is none yet
    comment = _MARK + _digest(file, end).encode()
    file.seek(end)
    file.write(struct.pack("<H", len(comment)) + comment)


def verify(file: IO[bytes]) -> None:
    """ValueError when a file is not what was written: by the digest of ``seal``, or else an archive's own checksums.

    Other files pass. Reads on from the beginning afterwards.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _COMMENT))
    comment = file.read()
    if comment.startswith(_MARK):
        if comment != _MARK + _digest(file, size - _COMMENT - 2).encode():
            raise ValueError("its content is not what was written: the digest differs")
    elif zipfile.is_zipfile(file):
        if not comment.endswith(b"\0\0"):  # the length of a comment that is not there
            raise ValueError("its end is cut off or changed")
        try:
            damaged = zipfile.ZipFile(file).testzip()
        except Exception as error:  # zipfile raises half a dozen types for a damaged archive
            raise ValueError(f"it is a damaged archive: {error}") from error
        if damaged is not None:
            raise ValueError(f"its content is not what was written: the checksum of {damaged!r} differs")
    file.seek(0)


def read_tensors(path: str | os.PathLike[str], device: Any = "cpu") -> Any:
    """What ``torch.save`` wrote: tensors and plain values only, and no byte that differs from what was written.

    Args:
        path: the file.
        device: where the tensors go.

    Raises:
        ValueError: the file is damaged or cannot be read, or holds anything else; the message says which.
    """
    import torch

    try:
        with open(path, "rb") as file:
            verify(file)
            return torch.load(file, map_location=device, weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # PyTorch's own words recommend executing what is in the file
            reason = "it holds something else than tensors and plain values, and nothing in it is executed"
        raise ValueError(reason) from error


def sha256(path: str | os.PathLike[str]) -> str:
    """The digest of a whole file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(file: IO[bytes], end: int) -> str:
    """Of the first ``end`` bytes."""
    hasher = hashlib.sha256()
    file.seek(0)
    while end > 0 and (block := file.read(min(end, 1 << 20))):
        hasher.update(block)
        end -= len(block)
    return hasher.hexdigest()


# -- one owner -----------------------------------------------------------------------------------------
class OwnedError(RuntimeError):
    """Another process owns the folder; the message names it."""


_open_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """Makes this process the owner of a folder until ``release``, or until it ends, however it does.

    Where the file system has no locks there is no owner.

    Args:
        path: the file that says who it is; removed by ``release``. A link is not followed.

    Raises:
        OwnedError: another process, or another object of this one, has it.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        while True:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            self._file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8", errors="replace")
            if lock(self._file) is False:
                said = "".join(c for c in self._file.read(200) if c.isprintable())
                self._file.close()
                raise OwnedError(said or "another process")
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(self._file.fileno())):
                    break
            self._file.close()  # its owner removed it between the two calls
        _open_locks.add(self)
        self._file.truncate()
        self._file.write(f"process {os.getpid()} on {platform.node()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        self._file.flush()

    def release(self) -> None:
        """Let others have it; again does nothing."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()

    def leave(self) -> None:
        """Close the file of a process that forked: workers outlive a killed owner for a while."""
        self._file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [held.leave() for held in list(_open_locks)])
