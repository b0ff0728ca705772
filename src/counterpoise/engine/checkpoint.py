"""Files that a run can be continued from: written whole or not at all, read without pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from counterpoise import _files
from counterpoise._checks import settings


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used here."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` so that ``path`` is either the old file or the new one, whole.

    Raises:
        CheckpointError: when the disk is full or not writable; the old file is intact.
    """
    try:
        with _files.writing(path, "w+b") as file:
            torch.save(dict(state), file)
            _files.seal(file)
    except (OSError, RuntimeError) as error:  # torch reports a short write as RuntimeError
        kept = "the previous one is intact" if path.exists() else "there is no earlier one"
        raise CheckpointError(
            f"Could not write checkpoint {path}: {error} ({kept}). Free some space and resume."
        ) from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are accepted, and no byte that differs from what was written.

    Raises:
        CheckpointError: when the file is missing, truncated or changed, or holds anything else.
    """
    if not path.is_file():
        raise CheckpointError(f"No checkpoint at {path}.")
    try:
        saved = _files.read_tensors(path, device)
        if not isinstance(saved, dict):
            raise ValueError(f"it holds a {type(saved).__name__} where the parts of a run belong")
    except ValueError as error:
        raise CheckpointError(
            f"{path} is no readable checkpoint ({error}). If the disk was full or the copy was cut short, "
            "restore the file or start the run again in a new directory."
        ) from error
    return saved


@contextmanager
def content_of(path: Path) -> Iterator[None]:
    """What goes wrong inside is the fault of what the checkpoint holds: a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise CheckpointError(
            f"{path} does not hold what a checkpoint of this run does ({reason[:400]}). Another program or another "
            "version of this library wrote it; restore the file or start the run again in a new directory."
        ) from error


def fingerprint(model: nn.Module, **parts: object) -> dict[str, Any]:
    """What a checkpoint must agree with: the model's tensors and layers, and the settings of each part."""
    shapes = {
        name: "x".join(map(str, t.shape)) or "scalar" for name, t in model.state_dict().items() if isinstance(t, Tensor)
    }
    layers = {name: f"{type(m).__name__}({m.extra_repr()})" for name, m in model.named_modules() if name}
    described = {name: part if isinstance(part, str) else describe(part) for name, part in parts.items()}
    return {**described, "layers": layers, "model": shapes}  # in this order, so that causes come before effects


def describe(part: object) -> dict[str, str]:
    """The class of an object and its constructor arguments, as text."""
    return {"class": type(part).__name__, **{name: _text(value) for name, value in settings(part).items()}}


def _text(value: object) -> str:
    """``repr``, but the same in every process: that of a function holds its address."""
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, FunctionType | type) else repr(value)


def differences(saved: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each thing that a checkpoint and this run do not agree on."""
    lines = []
    for name in dict.fromkeys([*saved, *here]):
        a, b, label = saved.get(name), here.get(name), f"{prefix}{name}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{label}.")
        elif a != b:
            lines.append(
                f"{label}: {'nothing' if a is None else a} in the checkpoint, {'nothing' if b is None else b} here"
            )
    return lines


def refuse_other(saved: Mapping[str, Any], here: Mapping[str, Any], path: Path) -> None:
    """CheckpointError naming the differences, when there are any."""
    lines = differences(saved, here)
    if lines:
        more = f"\n  ... and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise CheckpointError(
            f"{path} belongs to another run:\n  " + "\n  ".join(lines[:8]) + more + "\nUse the settings of that run "
            "(its config.yaml), or start a new run directory."
        )


def short_hash(*parts: object) -> str:
    """Sixteen hexadecimal digits of the text of ``parts``."""
    return hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).hexdigest()
