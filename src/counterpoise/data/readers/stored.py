"""Arrays in files of NumPy, whose headers are held against the bytes that are there before room is made for them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from counterpoise.data.readers.base import ReadError

_MOST = {ZIP_STORED: 1, ZIP_DEFLATED: 1032}  # bytes that one stored byte can stand for


def array_of(content: bytes, cell: str) -> np.ndarray:
    """The array of an ``.npy`` file; ReadError naming ``cell``."""
    return _array(io.BytesIO(content), len(content), cell, "")


def arrays_of(source: str | io.BytesIO, cell: str = "", only: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays of an ``.npz`` file, each read and its checksum verified when it is asked for.

    Args:
        source: path, or the content.
        cell: what errors are about; the path by default.
        only: the one array to read.

    Raises:
        ReadError: damaged, compressed or encrypted in a way that is not read, or holding something else.
    """
    cell = cell or str(source)
    try:
        with ZipFile(source) as file:
            seen = set[str]()
            for info in file.infolist():
                name = info.filename.removesuffix(".npy")
                if name in seen:
                    raise ReadError(cell, f"holds the array {name!r} twice")
                seen.add(name)
                if only is None or name == only:
                    yield name, _member(file, info, name, cell)
    except ReadError:
        raise
    except Exception as error:  # of zipfile and of what decompresses, each has its own
        raise ReadError(cell, f"is truncated or damaged ({type(error).__name__}: {error})") from error


def names_of(source: io.BytesIO) -> list[str]:
    """The names of the arrays in an ``.npz`` file."""
    with ZipFile(source) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]


def _member(file: ZipFile, info: ZipInfo, name: str, cell: str) -> np.ndarray:
    most = _MOST.get(info.compress_type)
    if most is not None and info.file_size > most * (info.compress_size + 64):
        raise ReadError(cell, f"array {name!r} claims {info.file_size} bytes, stored in {info.compress_size}: damaged")
    with file.open(info) as member:
        try:
            return _array(member, info.file_size, cell, f"array {name!r} ")
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(
                cell, f"array {name!r} is truncated or damaged ({type(error).__name__}: {error})"
            ) from error


def _array(file: IO[bytes], size: int, cell: str, what: str) -> np.ndarray:
    """The array that a header of NumPy and ``size`` bytes, header included, stand for."""
    shape, dtype = _header(file, cell, what)
    there, wanted = size - file.tell(), math.prod(shape) * dtype.itemsize
    if there != wanted:
        raise ReadError(
            cell,
            f"{what}is truncated or damaged (its header, {dtype} {shape}, means {wanted} bytes; {there} are there)",
        )
    file.seek(0)
    array = np.lib.format.read_array(file, allow_pickle=False)
    file.read(1)  # the end, where a checksum is compared
    return array


def _header(file: IO[bytes], cell: str, what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
    except ValueError as error:
        raise ReadError(cell, f"{what}is no array of NumPy") from error
    if version not in ((1, 0), (2, 0)):
        raise ReadError(
            cell, f"{what}has version {version[0]}.{version[1]} of NumPy's format, which plain numbers need not"
        )
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = read(file)
    except ValueError as error:
        raise ReadError(cell, f"{what}is truncated or damaged ({error})") from error
    if dtype.hasobject:
        raise ReadError(
            cell,
            f"{what}holds Python objects, which are never unpickled. For text, save x.astype(str); for numbers, "
            "x.astype(float)",
        )
    if min(shape, default=0) < 0:
        raise ReadError(cell, f"{what}is damaged (its shape is {shape})")
    return shape, dtype
