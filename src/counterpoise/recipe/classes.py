"""What a configuration may name: classes of the kind that an option takes, and nothing else of Python."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any, get_args, get_origin

from jsonargparse import ArgumentParser, Namespace

from counterpoise.recipe.messages import UsageError

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def check_classes(parser: ArgumentParser, options: Namespace, within: str = "") -> None:
    """UsageError for whatever is named in ``options`` and is no class that its option takes, at any depth.

    Their modules are imported by now; none of the classes has been called.

    Args:
        parser: whose options they are.
        options: what it read.
        within: the option of the class that has them, for messages.
    """
    for action in parser._actions:
        value = options.get(action.dest)
        if value is None or value == action.default:
            continue
        hint = getattr(action, "_typehint", None)
        kinds = tuple(_kinds(hint))
        for option, named, arguments in _named(value, f"{within}{action.dest}", "Callable" in str(hint)):
            if not inspect.isclass(named) or not issubclass(named, kinds):
                name = f"{named.__module__}.{named.__qualname__}" if hasattr(named, "__qualname__") else repr(named)
                takes = f"a subclass of {' or '.join(kind.__name__ for kind in kinds)}" if kinds else "no class"
                raise UsageError(
                    f"--{option} takes {takes}; {name} is none. Options name classes, never functions; nothing of it "
                    "was called."
                )
            if arguments:
                check_classes(_parser_of(named, type(parser)), arguments, f"{option}.")


def _kinds(hint: Any) -> Iterator[type]:
    """The classes whose subclasses a type takes; plain values and protocols are none."""
    arguments = get_args(hint)
    if get_origin(hint) is Callable:
        arguments = arguments[-1:]
    for argument in arguments:
        yield from _kinds(argument)
    if not arguments and inspect.isclass(hint) and hint.__module__ != "builtins" and not hasattr(hint, "_is_protocol"):
        yield hint


def _named(value: Any, option: str, texts: bool) -> Iterator[tuple[str, Any, Namespace | None]]:
    """Option, object and arguments of everything that a value names; import paths in plain text with ``texts``."""
    if isinstance(value, Namespace | Mapping) and "class_path" in value:
        path = value["class_path"]
        yield option, resolve_name(path) if _PATH.fullmatch(str(path)) else path, value.get("init_args")
    elif isinstance(value, Namespace | Mapping):
        for name, inner in value.items():
            yield from _named(inner, f"{option}.{name}", texts)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _named(inner, option, texts)
    elif inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        yield option, value, None
    elif texts and isinstance(value, str) and _PATH.fullmatch(value):
        yield option, resolve_name(value), None


@cache
def _parser_of(named: type, kind: type[ArgumentParser]) -> ArgumentParser:
    parser = kind(exit_on_error=False)
    parser.add_class_arguments(named)
    return parser


def foreign(config: Any) -> list[str]:
    """What a configuration would import from outside this package; nothing is imported.

    Text that reads like an import path counts when there is such a module.
    """
    if isinstance(config, dict):
        values = [*config.values(), *config]
    elif isinstance(config, list):
        values = config
    else:
        path = config if isinstance(config, str) and _PATH.fullmatch(config) else "counterpoise.no"
        root = path.split(".")[0]
        ours = root in ("counterpoise", "torchmetrics")  # metrics by import path
        return [path] if not ours and (root in sys.modules or find_spec(root)) else []
    return sorted({path for value in values for path in foreign(value)})
