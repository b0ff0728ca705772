"""Objects as plain data and back: the import path of a class, and the arguments of its constructor.

Lists, texts, numbers and None stand for themselves. Everything else is a mapping with one of these keys:
``class_path`` (with ``init_args``, or ``args`` in order), ``object`` (a class or a function itself), ``tuple``,
``dict`` and ``ordered`` (pairs), ``dtype``, ``float`` (one that JSON has no spelling for).
"""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from counterpoise.data.readers.base import Reader
from counterpoise.losses import Loss
from counterpoise.method import Method

T = TypeVar("T")

OURS, TORCH, MAIN = "counterpoise.", "torch.nn.", "__main__."
_PARTS = (nn.Module, Reader)
"""What may be called without trust, when it is of this package or of torch.nn."""
_KEEPERS = (Method, Loss, Reader)
"""What promises to keep every argument under its own name."""
_RECURRENT = {
    nn.RNN: ("nonlinearity",),
    nn.GRU: (),
    nn.LSTM: ("proj_size",),
}
_OF_RECURRENT = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
_STARTS = {"weights": None, "pretrained": False}
"""Arguments of our encoders that say where weights come from: those of a trained model are stored beside it."""


class NotPortableError(ValueError):
    """An object of which class or arguments cannot be written down; the message says why."""


class UntrustedError(ValueError):
    """A description names what is not of this package, and nobody said that it may be imported."""


# -- to plain data -------------------------------------------------------------------------------------
def written(value: Any, name: str, *, sources: bool = False) -> Any:
    """Plain data that ``made`` makes an equal object of.

    The arguments of a constructor are read back from the attributes of the same names, which every class of this
    library keeps; of other classes that is a guess (see ``alike``).

    Args:
        value: an object.
        name: what messages call it.
        sources: keep where the weights of encoders come from, which a class with ``from_source`` asks for.

    Raises:
        NotPortableError: a class that cannot be imported (of a closure, say), or arguments that are not known.
    """
    value = value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, list | tuple) and type(value) in (list, tuple, torch.Size):
        items = [written(item, f"{name}[{i}]") for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        pairs = [[written(key, name), written(inner, f"{name}[{key!r}]")] for key, inner in value.items()]
        return {"ordered" if isinstance(value, OrderedDict) else "dict": pairs}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return {"object": _path_of(value, name)}
    if isinstance(value, Tensor | np.ndarray):
        raise NotPortableError(f"{name} is an argument that is an array; keep it in a buffer, or in a file")
    return {"class_path": _path_of(type(value), name), **_arguments(value, name, sources)}


def _path_of(value: Any, name: str) -> str:
    """Where a class or function can be imported from."""
    path = f"{value.__module__}.{value.__qualname__}"
    if "<lambda>" in path:
        raise NotPortableError(f"{name} is a lambda, which has no name to import it by")
    if "<locals>" in path:
        raise NotPortableError(f"{name} is {value.__qualname__}, defined inside a function, where nothing imports it")
    try:
        there = resolve_name(path)
    except (ImportError, AttributeError, ValueError):
        there = None
    if there is not value:
        raise NotPortableError(f"{name} is {path}, which is not what an import of that name gives")
    return path


def _arguments(value: Any, name: str, sources: bool) -> dict[str, Any]:
    """What the constructor was called with, as ``init_args`` or ``args``."""
    cls = type(value)
    if isinstance(value, nn.Sequential | nn.ModuleList | nn.ModuleDict) and cls.__init__ in _CONTAINERS:
        return {"args": _contained(value, name)}
    if isinstance(value, nn.RNNBase) and (own := next((k for k in _RECURRENT if cls.__init__ is k.__init__), None)):
        values = {argument: getattr(value, argument) for argument in (*_OF_RECURRENT, *_RECURRENT[own])}
        return {"init_args": values}
    sources = sources or getattr(cls, "from_source", False)
    starts = _STARTS if cls.__module__.startswith(f"{OURS}encoders") and not sources else {}
    arguments = {}
    for argument in inspect.signature(cls.__init__).parameters.values():
        if argument.name == "self" or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        if argument.name in starts:
            arguments[argument.name] = starts[argument.name]
        elif hasattr(value, argument.name):
            held = getattr(value, argument.name)
            arguments[argument.name] = written(
                _said(held, argument.default), f"{name}.{argument.name}", sources=sources
            )
        elif argument.default is argument.empty or isinstance(value, _KEEPERS):
            raise NotPortableError(
                f"{name} ({cls.__name__}) does not keep its argument {argument.name!r}; write "
                f"self.{argument.name} = {argument.name} in its __init__"
            )
    return {"init_args": arguments}


_CONTAINERS = (nn.Sequential.__init__, nn.ModuleList.__init__, nn.ModuleDict.__init__)


def _said(held: Any, default: Any) -> Any:
    """The argument behind an attribute: of layers, ``bias`` is a tensor or None where True or False was said."""
    if isinstance(held, Tensor):
        return True
    return False if held is None and isinstance(default, bool) else held


def _contained(value: nn.Module, name: str) -> list[Any]:
    modules = {key: module for key, module in value._modules.items() if module is not None}
    items = {key: written(module, f"{name}[{key}]") for key, module in modules.items()}
    if isinstance(value, nn.ModuleDict):
        return [{"dict": [list(pair) for pair in items.items()]}]
    if isinstance(value, nn.ModuleList):
        return [list(items.values())]
    numbered = list(items) == [str(i) for i in range(len(items))]
    return list(items.values()) if numbered else [{"ordered": [list(pair) for pair in items.items()]}]


# -- back ----------------------------------------------------------------------------------------------
def foreign(values: Any) -> list[str]:
    """The import paths in a description that are neither of this package nor of torch.nn; nothing is imported."""
    return sorted({path for path in _paths(values) if not path.startswith((OURS, TORCH))})


def is_ours(values: Any) -> bool:
    """Whether all classes of a description are of this package, and so keep their arguments."""
    return all(path.startswith(OURS) for path in _paths(values))


def _paths(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from (str(values[key]) for key in ("class_path", "object") if key in values)
        values = list(values.values())
    if isinstance(values, list):
        for inner in values:
            yield from _paths(inner)


def made(values: Any, kind: type[T], *, trust: bool = False) -> T:
    """The object that ``written`` described.

    Args:
        values: plain data.
        kind: the class that it must be of.
        trust: import and call what is neither of this package nor of torch.nn.

    Raises:
        UntrustedError: there is such a thing and no trust; nothing was imported.
        NotPortableError: a class that is not here, or does not take its arguments.
        ValueError: no description of such an object.
    """
    if not trust and (others := foreign(values)):
        raise UntrustedError(", ".join(others))
    if not isinstance(values, dict) or "class_path" not in values:
        raise ValueError(f"a {kind.__name__} is described by its class_path; found {str(values)[:80]!r}")
    instance = _made(values, trust)
    if not isinstance(instance, kind):
        raise ValueError(f"{values['class_path']} is no {kind.__name__}")
    return instance


def imported(values: Any, *, trust: bool = False) -> Any:
    """The class or function that ``written`` described; UntrustedError as from ``made``."""
    if not trust and (others := foreign(values)):
        raise UntrustedError(", ".join(others))
    return _imported(str(values["object"]), trust)


def _made(values: Any, trust: bool) -> Any:
    if isinstance(values, list):
        return [_made(inner, trust) for inner in values]
    if not isinstance(values, dict):
        return values
    if "class_path" in values:
        return _called(values, trust)
    ((tag, inner),) = values.items()
    if tag == "tuple":
        return tuple(_made(item, trust) for item in inner)
    if tag in ("dict", "ordered"):
        pairs = [(_made(key, trust), _made(item, trust)) for key, item in inner]
        return OrderedDict(pairs) if tag == "ordered" else dict(pairs)
    if tag == "dtype":
        return dtype_of(inner)
    if tag == "float":
        return float(inner)
    if tag == "object":
        return _imported(inner, trust)
    raise ValueError(f"{tag!r} is no part of a description")


def dtype_of(name: Any) -> torch.dtype:
    """The type of tensors of that name; ValueError for anything else that torch has."""
    dtype = getattr(torch, str(name), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is no type of tensors")
    return dtype


def _imported(path: str, trust: bool) -> Any:
    try:
        named = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        where = "where it was defined, the script that trained the run" if path.startswith(MAIN) else "here"
        raise NotPortableError(f"{path} cannot be imported {where}: {error}") from error
    # a path through a module's own imports would lead anywhere
    if not trust and path != f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}":
        raise UntrustedError(path)
    return named


def _called(values: dict[str, Any], trust: bool) -> Any:
    path = str(values["class_path"])
    cls = _imported(path, trust)
    if not isinstance(cls, type) or not (trust or issubclass(cls, _PARTS)):
        raise UntrustedError(path)
    arguments = [_made(item, trust) for item in values.get("args", [])]
    named = {str(name): _made(item, trust) for name, item in values.get("init_args", {}).items()}
    try:
        return cls(*arguments, **named)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise NotPortableError(f"{path} does not take the arguments it was described by ({said[:300]})") from error
