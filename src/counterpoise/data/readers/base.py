"""What every reader is: one cell of a table in, one tensor out, and every bad file an error."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from counterpoise import _checks

_REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file (a part of the path is a file, not a folder)",
    errno.EISDIR: "is a folder, not a file",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ELOOP: "a loop of symbolic links",
    errno.ENAMETOOLONG: "the path is too long for this file system",
}


DECODING = 2
"""Raised when readers of this library give other values than before, so that no cache and no run mixes the two."""


class ReadError(ValueError):
    """A cell that cannot be read; the message is one line: the cell, then the reason.

    Attributes:
        cell: the path or the text.
        reason: what is wrong with it.
    """

    def __init__(self, cell: str, reason: str = ""):
        self.cell, self.reason = cell, " ".join(str(reason).split())
        super().__init__(self.cell, self.reason)  # both, so that it survives the way out of a worker process

    def __str__(self) -> str:
        return f"{self.cell}: {self.reason}" if self.reason else self.cell


class Reader(_checks.Spelled, ABC):
    """Turns one cell of a table (a path or a text) into a tensor.

    The work is in two steps: `decode` is expensive, deterministic and may be cached on disk
    (`counterpoise.data.cache`), `transform` is cheap and holds everything random. A subclass writes
    `load` and `transform`, and keeps its constructor arguments under their own names.

    Attributes:
        kind: layout of a sample: ``spectrogram`` (1, F, T), ``image`` (C, H, W), ``frames``
            (C, T, H, W), ``array`` (any fixed shape), ``sequence`` (T, D) or ``text`` (length,) int64.
        reads_files: True when a cell is a path, False when it is the value itself.
        takes: the values that stand for a cell, in words.
        extensions: file endings, lower case with the dot, by which `guess` knows a column.
        decoded_by: names of the settings that `decode` depends on; the others may change without
            making cached values stale.
        repeats: whether samples often have equal cells, so that equal ones in two parts of a table say nothing.
        learns: whether it must be fitted to training samples (`fit`) before it reads.
        fitted: what it has learned from them, as plain values; None before, and of readers with nothing to learn.
        recording: what corruptions act on: a ``waveform``, ``pixels``, ``words``; ``numbers`` are those it gives.
        stream: readers of one table with the same name here draw the same random numbers for a row, so
            that crops of views of one scene agree; None draws for each modality alone.
    """

    kind: str
    reads_files: ClassVar[bool] = True
    takes: ClassVar[str] = "the name or the bytes of a file"
    extensions: ClassVar[tuple[str, ...]] = ()
    decoded_by: tuple[str, ...] = ()
    repeats: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    fitted: dict[str, Any] | None = None
    recording: ClassVar[str] = "numbers"
    stream: ClassVar[str | None] = None

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...] | None:
        """Shape of one transformed sample; None while it is not known (see `bind`)."""

    @property
    def dtype(self) -> torch.dtype:
        """Type of a transformed sample."""
        return torch.float32

    @property
    def plain(self) -> bool:
        """Whether `transform` gives what `decode` gave, of a known shape, so that a cache can read into the batch."""
        return False

    @property
    def batched(self) -> bool:
        """Whether `cut` and `transform_batch` do what `transform` does; not of a class that changes this alone."""
        owner = next(kind for kind in type(self).__mro__ if "transform" in vars(kind))
        return self.plain or bool({"cut", "transform_batch"} & vars(owner).keys())

    @abstractmethod
    def load(self, cell: str) -> Tensor:
        """What `decode` returns; may raise anything."""

    @abstractmethod
    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        """The sample as the encoder gets it, in memory of its own.

        Args:
            decoded: from `decode`; not written to (it may be mapped from a cache).
            generator: None reads for evaluation. Otherwise training augmentation is drawn from it
                and from nothing else.
        """

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        """What goes to the device of one decoded sample, where `transform_batch` does the rest of `transform`.

        Args:
            decoded: from `decode`; not written to.
            generator: as for `transform`, and drawn from in the same order.

        Returns:
            A view of the part that is used, ``decoded`` itself when that is all of it; and the numbers that were drawn
            for the rest. Parts of samples that were decoded to one shape have one shape.
        """
        return decoded, ()

    def transform_batch(self, parts: Tensor, drawn: Tensor) -> Tensor:
        """What `transform` makes of each sample, of many at once; equal to it but for rounding.

        Args:
            parts: (n, ...) from `cut`, on any device; not written to.
            drawn: (n, k) float64 from `cut`, on the CPU, so that nothing waits for the device.
        """
        return parts

    def load_value(self, value: Any) -> Tensor:
        """What `load` returns, of a value in memory; may raise anything. Readers of files take their bytes."""
        if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:  # of a data set of Hugging Face
            return self.load(value["path"]) if value["bytes"] is None else self.load_value(value["bytes"])
        if isinstance(value, bytes) and self.reads_files:
            with tempfile.NamedTemporaryFile() as file:
                file.write(value)
                file.flush()
                return self.load(file.name)
        raise ReadError(_named(value), f"{type(self).__name__} takes {self.takes}; got {_named(value)}")

    def decode(self, cell: Any) -> Tensor:
        """The content of a cell, without anything random.

        Args:
            cell: a path or a text, as a table has it; or what it stands for, as ``takes`` says.

        Raises:
            ReadError: the file is missing, damaged, truncated or of another type; the value is none that is taken.
        """
        if isinstance(cell, os.PathLike):
            cell = os.fspath(cell)
        if isinstance(cell, str):
            with self._reading(cell):
                return self.load(cell)
        with self._reading(_named(cell)):
            return self.load_value(cell)

    def read(self, cell: Any, generator: torch.Generator | None = None) -> Tensor:
        """One sample: `transform` of `decode`."""
        return self.transform(self.decode(cell), generator)

    def altered(self, cell: Any, alter: Callable[[Any], Any]) -> Tensor:
        """As `read` for evaluation, after ``alter`` of what was recorded; see ``recording``."""
        return alter(self.read(cell))

    def bind(self, cell: Any) -> None:
        """Learn from an example what the options leave open; most readers have nothing to learn."""

    def learnt(self) -> dict[str, Any]:
        """What `bind` learnt, as plain values; `learn` takes it up again where there are no data."""
        return {}

    def learn(self, learnt: Mapping[str, Any]) -> None:
        """Counterpart of `learnt`."""

    def fit(self, cells: Sequence[str]) -> Reader:
        """The reader with what it learns from the cells of all training samples; most have nothing to learn."""
        return self

    def said(self, cell: str) -> str:
        """A cell as people read it."""
        return cell

    def files(self, cell: str) -> list[Path]:
        """The files a cell is made of, in order."""
        return [Path(without_window(cell))] if self.reads_files else []

    def decoded_files(self, cell: str) -> list[Path]:
        """Those of them that `decode` opens, with which the content of a cell is the same."""
        return self.files(cell)

    def part(self, cell: str) -> str:
        """Which part of the files is decoded; "" for all of them."""
        return ""

    def problems(self, cell: str) -> str | None:
        """What is wrong with a cell, in one line, or None; reads the whole cell."""
        try:
            with self._reading(cell):
                sample = self.transform(self.decode(cell), None)
        except ReadError as error:
            return error.reason if error.cell == cell else str(error)
        if not all_finite(sample):
            return "holds NaN or infinity"
        return None

    def fingerprint(self) -> str:
        """A short hash of the class and all its settings, but for what it has learned."""
        return self._hash({name: value for name, value in _checks.settings(self).items() if name != "fitted"})

    def decode_fingerprint(self) -> str:
        """A short hash of the class and the settings that `decode` depends on."""
        return self._hash({name: getattr(self, name) for name in self.decoded_by})

    @contextmanager
    def _reading(self, cell: str) -> Iterator[None]:
        """Whatever goes wrong inside becomes a ReadError about ``cell``."""
        try:
            yield
        except (ReadError, ImportError):
            raise
        except MemoryError as error:
            raise ReadError(cell, f"needs more memory than there is ({error})".replace(" ()", "")) from error
        except OSError as error:
            reason = _REASONS.get(error.errno or 0) or error.strerror or str(error)
            raise ReadError(cell, reason + self._hint(cell)) from error
        except Exception as error:
            raise ReadError(cell, f"{type(error).__name__}: {error}" + self._hint(cell)) from error

    def _hash(self, values: dict[str, object]) -> str:
        named = [type(self).__module__, type(self).__qualname__, DECODING, values]
        text = json.dumps(named, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def _hint(self, cell: str) -> str:
        ending = Path(cell).suffix.lower() if self.reads_files else ""
        if not ending or not self.extensions or ending in self.extensions:
            return ""
        return f" ({type(self).__name__.lower()} expects {' '.join(self.extensions)}, this is {ending})"


def _named(value: Any) -> str:
    """A value, for messages: its type."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeiouAEIO' else 'a'} {kind}"


_WINDOW = re.compile(r"#(\d+):(\d+)$")


def window_of(cell: str) -> tuple[int, int] | None:
    """(start, end) of a cell like ``video.avi#138:218``, which means the frames 138 to 217; else None."""
    match = _WINDOW.search(cell)
    return (int(match[1]), int(match[2])) if match else None


def without_window(cell: str) -> str:
    """The path in such a cell."""
    return _WINDOW.sub("", cell)


def all_finite(x: Tensor) -> bool:
    """Whether no number is NaN or infinite; asks their sum first, which is ten times as fast."""
    return not x.is_floating_point() or bool(x.sum().isfinite()) or bool(x.isfinite().all())


def regular(cell: str) -> int:
    """Bytes of a file; ReadError when it is empty, or no file: a pipe may never send anything, a device never end."""
    state = os.stat(cell)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), cell)
    if not stat.S_ISREG(state.st_mode):
        raise ReadError(cell, "is a device, a pipe or a socket, not a file")
    if not state.st_size:
        raise ReadError(cell, "is empty (0 bytes)")
    return state.st_size


def read_bytes(cell: str) -> bytes:
    """A whole file; ReadError as from `regular`."""
    regular(cell)
    return Path(cell).read_bytes()


def flag(argument: str, value: bool) -> bool:
    """``value`` when it is True or False; ValueError otherwise."""
    if not isinstance(value, bool):
        raise ValueError(f"{argument} must be True or False; got {value!r}.")
    return value
