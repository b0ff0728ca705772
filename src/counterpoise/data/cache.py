"""Decoded inputs on disk, so that a second epoch decodes nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import math
import mmap
import os
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from counterpoise.data.readers.base import Reader, ReadError, all_finite, regular

_log = logging.getLogger(__name__)

_MAGIC = b"cpcache2"
_HEADER = 128  # bytes; magic, checksum, dtype and shape, then zeros
_FIXED = struct.Struct("<8sIBB")  # magic, CRC-32 of all that follows it, dtype, dimensions and order
_LAST = 0x80  # added to the dimensions when the third axis from the end, the colours of pictures, is last in the file
_DTYPES = (torch.uint8, torch.int64, torch.float32, torch.float64, torch.int32, torch.int16, torch.float16, torch.bool)
_MAPPED = 1 << 20  # bytes; below, one read is about twice as fast as the page faults of a mapping
_ATTEMPTS = 10  # at writing into a cache that is being deleted
_SETTLED = 2.0  # seconds after which a change of a file surely shows in its modification time


class CacheError(OSError):
    """The cache directory cannot be written."""


class _Seen(NamedTuple):
    """What the content of a cell was when these files and folders looked like this."""

    paths: tuple[str, ...]
    look: int
    content: str


class DecodeCache:
    """`Reader.decode` with a memory: same results, from files on disk (large ones memory-mapped) once they exist.

    An entry belongs to the *content* of the file (SHA-256) and to the settings that decoding
    depends on, so renamed and copied files share it, an edited file gets a new one, and two readers
    never mix. Which content a path has is remembered by its size and modification time; a
    second look costs one ``stat``.

    Any number of processes may share a directory: an entry is written under a name of its own and
    then renamed, so it is there completely or not at all. Each process verifies the checksum of an
    entry of another when it first meets it; a damaged one is decoded again.

    Args:
        directory: where entries are kept; made when missing. Safe to delete at any time.
        reader: what decodes.
    """

    def __init__(self, directory: str | Path, reader: Reader):
        self.directory, self.reader = Path(directory), reader
        folder = f"{type(reader).__name__.lower()}-{reader.decode_fingerprint()}-{_MAGIC[-1:].decode()}"
        self._entries = self.directory / folder
        self._log_path = self.directory / "contents.log"
        self._contents: dict[str, str] = {}  # hash of (path, size, time) -> hash of the content
        self._log_read = 0  # bytes of the log that are known
        self._seen: dict[str, _Seen] = {}  # by cell
        self._verified: set[str] = set()  # contents whose entries are whole and hold finite numbers

    def decode(self, cell: str) -> Tensor:
        """As `Reader.decode`. A large tensor is mapped from disk: `Reader.transform` copies what it needs.

        Raises:
            ReadError: as `Reader.decode`; failures are not remembered.
            CacheError: the cache cannot be written, for example because the disk is full.
        """
        try:
            content = self._content(cell)
        except (ReadError, CacheError):
            raise
        except OSError:
            return self.reader.decode(cell)  # which says what is wrong with the file
        path = self._path(content)
        known = self._load(path, content)
        if known is not None:
            return known
        decoded = self.reader.decode(cell)
        if self._store(path, decoded) and all_finite(decoded):
            self._verified.add(content)
        return decoded

    def fill(self, cells: Sequence[str], out: Tensor) -> list[int]:
        """Read known entries straight into the rows of ``out``, which saves half the time of many tensors.

        It reads only entries that this process has written or verified before, and whose numbers are finite.

        Args:
            cells: as for `decode`.
            out: (len(cells), ...), each row in memory as its entry lies in the file: contiguous, or with colours last.

        Returns:
            The positions of the rows that could not be read: others must be decoded. Such rows may be overwritten.
        """
        if not cells:
            return []
        last = channels_last(out[0])
        rows = out.movedim(-3, -1) if last else out
        expected, size = _rest(rows[0], last), rows[0].nbytes
        memory = rows.view(-1).numpy().view("uint8").data
        header, beyond, left = bytearray(_HEADER), bytearray(1), []
        for place, cell in enumerate(cells):
            try:
                content = self._content(cell)
                count = 0
                if content in self._verified:
                    file = os.open(self._path(content), os.O_RDONLY)
                    try:  # one call for all of it; a byte more would be another entry
                        count = os.readv(file, [header, memory[place * size : (place + 1) * size], beyond])
                    finally:
                        os.close(file)
                if count != _HEADER + size or header[_FIXED.size - 2 :] != expected:
                    left.append(place)
            except (OSError, ReadError):  # also of the log: decode says what is wrong
                left.append(place)
        return left

    def read(self, cell: str, generator: torch.Generator | None = None) -> Tensor:
        """As `Reader.read`, decoding at most once."""
        return self.reader.transform(self.decode(cell), generator)

    def _path(self, content: str) -> str:
        return f"{self._entries}/{content[0]}/{content}"

    def _content(self, cell: str) -> str:
        if not self.reader.reads_files:
            return _digest(cell.encode("utf-8", "surrogatepass"))
        seen = self._seen.get(cell)
        if seen is not None and _look(seen.paths) == seen.look:
            return seen.content
        files = [str(file) for file in self.reader.decoded_files(cell)]
        paths = (cell, *files) if os.path.isdir(cell) else tuple(files)  # a folder's time changes with what is in it
        look, newest = _look(paths), max(os.stat(path).st_mtime for path in paths)
        # A file changed twice within one tick of its clock would look the same, so the newest are hashed again.
        settled = abs(time.time() - newest) > _SETTLED
        content = self._content_of(files, settled)
        part = self.reader.part(cell)
        content = _digest(f"{content} {part}".encode()) if part else content
        if settled:
            self._seen[cell] = _Seen(paths, look, content)
        return content

    def _content_of(self, files: Sequence[str], settled: bool) -> str:
        stats = [os.stat(file) for file in files]
        looks = "\n".join(
            f"{os.path.abspath(f)}\0{s.st_size}\0{s.st_mtime_ns}" for f, s in zip(files, stats, strict=True)
        )
        name = _digest(looks.encode("utf-8", "surrogateescape"))
        content = self._contents.get(name) or self._remembered(name)
        if content is None:
            hashes = [_digest_of(file) for file in files]
            content = hashes[0] if len(hashes) == 1 else _digest("\n".join(hashes).encode())
            if settled:
                self._remember(name, content)
        return content

    def _remembered(self, name: str) -> str | None:
        """Look ``name`` up in what other processes and earlier runs have written since the last look."""
        try:
            if os.stat(self._log_path).st_size == self._log_read:
                return None
            with open(self._log_path, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._log_read:  # a new one: the cache was deleted
                    self._log_read = 0
                file.seek(self._log_read)
                new = file.read()
        except FileNotFoundError:
            return None
        complete = new.rfind(b"\n") + 1
        self._log_read += complete
        for line in new[:complete].decode("ascii", "replace").splitlines():
            known, _, content = line.partition(" ")
            if len(known) == len(content) == 32:  # a line cut short by a crash is not
                self._contents[known] = content
        return self._contents.get(name)

    def _remember(self, name: str, content: str) -> None:
        self._contents[name] = content

        def append() -> None:
            log = os.open(self._log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                length = os.write(log, f"{name} {content}\n".encode())  # one short append, never torn by another
                if os.lseek(log, 0, os.SEEK_CUR) == self._log_read + length:  # nobody else wrote
                    self._log_read += length
            finally:
                os.close(log)

        self._into(str(self.directory), append)

    def _load(self, path: str, content: str) -> Tensor | None:
        try:
            with open(path, "rb", buffering=0) as file:
                raw = _bytes_of(file)
        except FileNotFoundError:
            return None
        if len(raw) < _HEADER:
            return self._damaged(path)
        header = raw[:_HEADER].numpy().tobytes()
        magic, checksum, kind, dimensions = _FIXED.unpack_from(header)
        last, dimensions = bool(dimensions & _LAST), dimensions & ~_LAST
        if magic != _MAGIC or kind >= len(_DTYPES) or not 3 * last <= dimensions <= 8:
            return self._damaged(path)
        dtype, shape = _DTYPES[kind], struct.unpack_from(f"<{dimensions}Q", header, _FIXED.size)
        if len(raw) != _HEADER + math.prod(shape) * dtype.itemsize:
            return self._damaged(path)
        values = raw[_HEADER:].view(dtype).reshape(shape)
        if content not in self._verified:
            if _checksum(header[_FIXED.size - 2 :], raw[_HEADER:]) != checksum:
                return self._damaged(path)
            if all_finite(values):
                self._verified.add(content)
        return values.movedim(-1, -3) if last else values

    def _damaged(self, path: str) -> None:
        _log.warning("The cache entry %s is damaged and is decoded again.", path)

    def _into(self, folder: str, write: Callable[[], None]) -> bool:
        """Write into a folder that others may be deleting; False when they have won again and again."""
        try:
            for _ in range(_ATTEMPTS):
                try:
                    write()
                    return True
                except FileNotFoundError:
                    with contextlib.suppress(FileNotFoundError):  # a part of it went while it was made
                        os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error
        return False

    def _store(self, path: str, decoded: Tensor) -> bool:
        """Keep an entry; False when the cache is being deleted at this moment, and the next one may make it."""
        if not decoded.numel():
            raise ValueError(
                f"{type(self.reader).__name__} decoded to an empty tensor of shape {tuple(decoded.shape)}."
            )
        decoded = decoded.detach().cpu()
        last = channels_last(decoded)
        decoded = decoded.movedim(-3, -1) if last else decoded.contiguous()
        rest, payload = _rest(decoded, last), torch.from_numpy(decoded.view(-1).numpy().view("uint8"))
        head = struct.pack("<8sI", _MAGIC, _checksum(rest, payload)) + rest
        temporary = f"{path}.{uuid.uuid4().hex[:12]}.tmp"

        def write() -> None:
            try:
                _write(temporary, head, payload.numpy().data)
                os.replace(temporary, path)
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

        return self._into(os.path.dirname(path), write)

    def _unwritable(self, error: OSError) -> CacheError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        return CacheError(
            error.errno,
            f"The cache of decoded inputs cannot be written, {reason}. Free some space, give another cache "
            "directory, or go on without a cache. Finished entries stay valid",
            str(self.directory),
        )


def _write(path: str, *contents: bytes | memoryview) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        written = os.writev(file, contents)
        for content in map(memoryview, contents):
            done = min(written, len(content))
            written, content = written - done, content[done:]
            while content:  # one call may write less, when the disk is full for example; the next one says why
                content = content[os.write(file, content) :]
    finally:
        os.close(file)


def _rest(values: Tensor, last: bool = False) -> bytes:
    """The header behind the checksum: dtype, dimensions and order, shape as it lies in the file."""
    dimensions = values.ndim + _LAST * last
    rest = struct.pack(f"<BB{values.ndim}Q", _DTYPES.index(values.dtype), dimensions, *values.shape)
    return rest.ljust(_HEADER - _FIXED.size + 2, b"\0")


def channels_last(values: Tensor) -> bool:
    """Whether the third axis from the end, the colours of pictures, lies last in memory."""
    return values.ndim >= 3 and not values.is_contiguous() and values.movedim(-3, -1).is_contiguous()


def _checksum(rest: bytes, payload: Tensor) -> int:
    """Of a header and (bytes,) uint8."""
    return zlib.crc32(payload.numpy().data, zlib.crc32(rest))


def _look(paths: Sequence[str]) -> int:
    """By which a change of these files is seen: sizes and times of modification."""
    stats = map(os.stat, paths)
    return hash(tuple((s.st_size, s.st_mtime_ns) for s in stats))


def _bytes_of(file: FileIO) -> Tensor:
    """A whole file as (bytes,) uint8: mapped when it is large, so that only what is used is read."""
    size = os.fstat(file.fileno()).st_size
    if size >= _MAPPED:
        # A private mapping: reads come from the page cache, a write would stay in this process.
        return torch.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY), dtype=torch.uint8)
    raw = torch.empty(size, dtype=torch.uint8)
    return raw[: file.readinto(raw.numpy().data)] if size else raw


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_of(path: str) -> str:
    size = regular(path)
    with open(path, "rb", buffering=0) as file:
        # Processors have instructions for SHA-256. A small file needs none of the buffer of 256 KiB.
        digest = hashlib.file_digest(file, "sha256") if size > _MAPPED else hashlib.sha256(file.read())
    return digest.hexdigest()[:32]
