"""Whether an object that was made again is what it was: the guess of its arguments, held against the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_OF_MODULES = {*vars(nn.Module()), "_compiled_call_impl", "_flat_weight_refs"}
"""What PyTorch keeps in modules: parameters, buffers and modules are compared by name, hooks are not."""


def difference(before: Any, again: Any) -> str | None:
    """What differs between an object and one made from its description, the values of weights apart; None if nothing.

    Args:
        before: the original.
        again: made again.
    """
    if isinstance(before, nn.Module) and isinstance(again, nn.Module):
        return _of_modules(before, again)
    return _of_attributes("", before, again)


def _of_modules(before: nn.Module, again: nn.Module) -> str | None:
    mine, other = dict(before.named_modules()), dict(again.named_modules())
    for name, module in mine.items():
        if type(module) is not type(other.get(name)):
            was = type(module).__name__
            return f"{_named(name)} is of {was}, and made again {type(other.get(name)).__name__}"
    if extra := sorted(set(other) - set(mine)):
        return f"{_named(extra[0])} is there only when it is made again"
    shapes = [{k: (tuple(t.shape), t.dtype) for k, t in _tensors(m).items()} for m in (before, again)]
    for name in [*shapes[0], *shapes[1]]:
        if shapes[0].get(name) != shapes[1].get(name):
            return f"the tensor {name} is {shapes[0].get(name)}, and made again {shapes[1].get(name)}"
    for name, module in mine.items():
        if difference := _of_attributes(name, module, other[name]) or _of_passing_buffers(name, module, other[name]):
            return difference
    return None


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: t for name, t in module.state_dict().items() if isinstance(t, Tensor)}


def _of_passing_buffers(name: str, before: nn.Module, again: nn.Module) -> str | None:
    """Of buffers that no checkpoint holds."""
    for buffer in sorted(before._non_persistent_buffers_set | again._non_persistent_buffers_set):
        if not _alike(before._buffers.get(buffer), again._buffers.get(buffer), set()):
            return f"the buffer {buffer} of {_named(name)} differs"
    return None


def _of_attributes(name: str, before: Any, again: Any) -> str | None:
    if type(before) is not type(again):
        return f"it is of {type(before).__name__}, and made again {type(again).__name__}"
    mine, other = (_attributes(value) for value in (before, again))
    for key in sorted({*mine, *other}):
        if key not in mine or key not in other or not _alike(mine[key], other[key], set()):
            was, now = (repr(values.get(key, "nothing"))[:60] for values in (mine, other))
            return f"{key} of {_named(name)} is {was}, and made again {now}"
    return None


def _attributes(value: Any) -> dict[str, Any]:
    return {key: held for key, held in getattr(value, "__dict__", {}).items() if key not in _OF_MODULES}


def _named(name: str) -> str:
    return f"the module {name}" if name else "the object"


def _alike(a: Any, b: Any, seen: set[tuple[int, int]]) -> bool:
    """Equal values, at any depth; functions and classes only when they are the same ones."""
    if a is b or (id(a), id(b)) in seen:
        return True
    if type(a) is not type(b):
        return False
    seen.add((id(a), id(b)))
    if isinstance(a, nn.Parameter):
        return a.shape == b.shape
    if isinstance(a, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and (a.is_meta or torch.equal(a.cpu(), b.cpu()))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_alike(a[key], b[key], seen) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_alike(x, y, seen) for x, y in zip(a, b, strict=True))
    if isinstance(a, nn.Module):  # one that is kept in a list, say
        return _of_modules(a, b) is None
    if isinstance(a, float) and a != a:
        return b != b
    plain = isinstance(a, str | bytes | int | float | complex | bool | frozenset | set)
    if plain or type(a).__eq__ is not object.__eq__:
        return bool(a == b)
    own = getattr(a, "__dict__", None)
    return own is not None and not isinstance(a, type) and not callable(a) and _alike(own, b.__dict__, seen)
