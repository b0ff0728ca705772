"""Checks of what users pass in: every message names the argument, the rule and what was found."""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])

SYNONYMS = {
    "device": "accelerator",
    "gpus": "devices",
    "workers": "num_workers",
    "out": "run_dir",
    "output_dir": "run_dir",
}
"""What others call an argument."""
OF_A_PART = {
    "lr": ("optimizer", "SGD(lr=...)"),
    "learning_rate": ("optimizer", "SGD(lr=...)"),
    "momentum": ("optimizer", "SGD(momentum=...)"),
    "weight_decay": ("optimizer", "SGD(weight_decay=...)"),
}
"""Name -> the argument whose object has it, and how to make one."""


def nearest(name: object, options: Iterable[str], *, cutoff: float = 0.5) -> str:
    """`` Did you mean 'x'?`` for the most similar of ``options``; empty when none is."""
    folded = {option.casefold(): option for option in sorted(options)}
    longer = [
        option for start, option in folded.items() if start.startswith(str(name).casefold()) and len(str(name)) > 2
    ]
    if longer:  # "acc" is accuracy, and not mcc
        return f" Did you mean {min(longer, key=len)!r}?"
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=cutoff)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""


def did_you_mean(kind: str, name: object, options: Iterable[str]) -> str:
    """A message for an unknown name: the nearest one first, then the whole list."""
    known = sorted(options)
    return f"Unknown {kind} {name!r}.{nearest(name, known)} Known: {', '.join(known) or 'none'}."


def spelled(target: AnyCallable) -> AnyCallable:
    """A function or class that answers a misspelt keyword argument with what was meant, as the command line does."""
    if isinstance(target, type):
        if "__init__" in vars(target):
            setattr(target, "__init__", spelled(vars(target)["__init__"]))  # noqa: B010 - of a class, for the type checker
        return target  # pyright: ignore[reportReturnType]
    parameters = inspect.signature(target).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return target
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]

    @functools.wraps(target)
    def checked(*arguments: Any, **options: Any) -> Any:
        for name in options:
            if name not in known:
                of = type(arguments[0]).__name__ if target.__name__ == "__init__" else target.__name__
                raise TypeError(f"{of}: {_misspelt(name, known)}")
        return target(*arguments, **options)

    return checked  # pyright: ignore[reportReturnType]


class Spelled:
    """Makes every subclass ``spelled``, those of users too."""

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        spelled(cls)


def _misspelt(name: str, known: Sequence[str]) -> str:
    """What to say of a keyword argument that nobody takes."""
    part, example = OF_A_PART.get(name, ("", ""))
    if part in known:
        return f"Unknown argument {name!r}. Did you mean {part}={example}?"
    if (meant := SYNONYMS.get(name, "")) in known:
        return f"Unknown argument {name!r}. Did you mean {meant!r}?"
    return did_you_mean("argument", name, known)


def choice(argument: str, value: str, options: Iterable[str]) -> str:
    """``value`` when it is one of ``options``; ValueError naming the nearest otherwise."""
    options = tuple(options)
    if value not in options:
        raise ValueError(did_you_mean(argument, value, options))
    return value


def number(
    argument: str,
    value: float,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """``value`` when finite and in [low, high] (or strictly ``above`` / ``below``); ValueError otherwise."""
    if isinstance(value, Real) and not isinstance(value, (int, float)):
        value = float(value)  # of NumPy, from a grid, say
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    inside = finite and low <= value <= high
    inside = inside and (above is None or value > above) and (below is None or value < below)
    if inside:
        return value
    rules = [
        *([f"> {above}"] if above is not None else []),
        *([f"< {below}"] if below is not None else []),
        *([f">= {low}"] if low != -math.inf else []),
        *([f"<= {high}"] if high != math.inf else []),
    ]
    raise ValueError(f"{argument} must be a finite number {' and '.join(rules)}".rstrip() + f"; got {value!r}.")


def whole(argument: str, value: int, *, low: int) -> int:
    """``value`` as an int when it is a whole number of at least ``low``; ValueError otherwise: none is rounded."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{argument} must be a whole number >= {low}; got {value!r}.")
    return int(value)


_UNITS = {"s": 1, "m": 60, "h": 3600}


def duration(argument: str, value: float | str) -> float:
    """Seconds, from a number of them or text such as "90s", "30m" and "1.5h"; ValueError unless above 0."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([smh]?)\s*", value) if isinstance(value, str) else None
    try:
        seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else value
        return number(argument, seconds, above=0)  # pyright: ignore[reportArgumentType]
    except ValueError:
        rule = f"{argument} must be a time above 0 in seconds, or text such as '90s', '30m' or '1.5h'"
        raise ValueError(f"{rule}; got {value!r}.") from None


def per_modality(argument: str, value: Mapping[str, Any], modalities: Iterable[str]) -> None:
    """ValueError when ``value`` has a key that is no modality of the model."""
    known = tuple(modalities)
    for name in value:
        if name not in known:
            raise ValueError(f"{argument}: " + did_you_mean("modality", name, known))


def misnamed(modality: str) -> str:
    """Why no modality can have this name, wherever it comes from (a table, arrays, a model); empty when one can."""
    from torch.nn import ModuleDict

    taken = modality in ("fused", "shared") or hasattr(ModuleDict(), modality)
    if modality.strip() and "." not in modality and not taken and modality.isprintable():
        return ""
    return (
        f"A modality cannot be called {modality!r}: names are not empty, have neither a dot nor a control character, "
        "are not 'fused' or 'shared' (of scores and parameter groups), and are no attribute of torch.nn.ModuleDict, "
        f"which keeps its modules. Rename it, for example {re.sub(r'[^0-9A-Za-z]+', '_', modality)}_input."
    )


def shown(text: str) -> str:
    """Text from data as a terminal may have it: control characters and those that turn its direction as escapes."""
    unsafe = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
    return re.sub(unsafe, lambda match: match[0].encode("unicode_escape").decode(), text)


def hidden(text: str) -> str:
    """A message without the passwords of the URLs in it."""
    text = re.sub(r"(://[^\s:@/]*:)\S*@", r"\1***@", text)
    return re.sub(r"((?:password|passwd|pwd|token|secret)=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def settings(obj: object) -> dict[str, Any]:
    """The constructor arguments of ``obj``, read back from the attributes of the same names.

    Every class of this library keeps its constructor arguments under their own names (as in
    scikit-learn), so a configuration can be read off an object.
    """
    parameters = inspect.signature(type(obj).__init__).parameters.values()
    named = (p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    return {name: getattr(obj, name) for name in named if name != "self" and hasattr(obj, name)}
