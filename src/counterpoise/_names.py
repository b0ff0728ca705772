"""Short names of classes, and where each kind of them lives; that is imported when a name is looked up."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import Any

from counterpoise._checks import did_you_mean

REGISTRIES = {
    "method": "counterpoise.methods",
    "fusion": "counterpoise.fusions",
    "encoder": "counterpoise.encoders:ENCODERS",
    "loss": "counterpoise.losses:LOSSES",
    "optimizer": "counterpoise.engine:OPTIMIZERS",
    "schedule": "counterpoise.engine:SCHEDULES",
    "logger": "counterpoise.engine:LOGGERS",
}
"""Kind -> a mapping of names to classes; or a package with them in ``__all__``, beside a base called as the kind."""


def named(kind: str) -> dict[str, type]:
    """Short name -> class, of everything of a kind."""
    registry = resolve_name(REGISTRIES[kind])
    if isinstance(registry, dict):
        return registry
    classes = {name: getattr(registry, name) for name in registry.__all__}
    return {name: cls for name, cls in classes.items() if name.casefold() != kind}


def class_of(kind: str, name: str) -> type:
    """The class with this short name, in any case; ValueError with the nearest name for an unknown one."""
    known = named(kind)
    folded = {label.casefold(): label for label in known}
    if name.casefold() not in folded:
        raise ValueError(did_you_mean(kind, name, known))
    return known[folded[name.casefold()]]


def made(kind: str, value: Any) -> Any:
    """The object that a short name stands for, with its default options; anything else as it is.

    Raises:
        ValueError: for an unknown name, and one of a class that needs options.
    """
    if not isinstance(value, str):
        return value
    cls = class_of(kind, value)
    try:
        return cls()
    except TypeError as error:
        raise ValueError(f"{kind}={value!r} needs options: {error}. Pass {cls.__name__}(...) itself.") from error
