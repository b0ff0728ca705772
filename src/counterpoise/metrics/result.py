"""``result.json``, what a finished run says: written with a digest, and read by everybody in the same way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from counterpoise._json import to_json
from counterpoise.metrics.scoring import LOWER_IS_BETTER

NAME = "result.json"
NOTHING = type(None)
KINDS: dict[str, tuple[type, ...]] = {
    "method": (str,), "label": (str,), "seed": (int,), "data": (str,), "modalities": (list,), "classes": (list,),
    "fusion": (str,), "seconds": (int, float), "cost": (dict,), "epochs": (int,), "best_epoch": (int, NOTHING),
    "monitor": (str,), "val": (dict,), "test": (dict, NOTHING), "subsets": (dict,), "lower_is_better": (list,),
}  # fmt: skip
"""What the parts of a result are. Other parts may be anything, and none must be there."""


def result_text(result: Mapping[str, Any]) -> str:
    """The content of ``result.json``."""
    imported = {metric for key in result.get("val") or () if "." in (metric := key.rsplit("/", 1)[-1])}
    less = sorted(imported & LOWER_IS_BETTER)  # a reader does not import what a result names
    plain = json.loads(to_json({**result, "lower_is_better": less} if less else result))
    return to_json({**plain, "digest": _digest(plain)}, indent=2, ensure_ascii=False) + "\n"


def read_result(directory: Path) -> dict[str, Any] | None:
    """The result of the run in a directory; None where there is no ``result.json``.

    Raises:
        ValueError: the file is empty, cut off or changed, or holds something else; the message says what.
        OSError: it cannot be read.
    """
    try:
        text = (directory / NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    if not text.strip():
        raise ValueError("it is empty")
    try:
        result = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(result, dict):
        raise ValueError(f"it holds a {type(result).__name__} where a mapping belongs")
    digest = result.pop("digest", None)
    if digest is not None and digest != _digest(result):
        raise ValueError("its content is not what was written: the digest differs")
    _check(result)
    LOWER_IS_BETTER.update(name for name in result.get("lower_is_better", ()) if "." in name)
    return result


def result_of(directory: Path) -> dict[str, Any] | None:
    """The result of the run in a directory; None when it has not ended, or ``result.json`` cannot be read."""
    try:
        return read_result(directory)
    except (OSError, ValueError):
        return None


def finished(directory: Path) -> bool:
    """Whether the run in a directory has ended: it has a readable ``result.json``."""
    return result_of(directory) is not None


def _check(result: Mapping[str, Any]) -> None:
    for name, kinds in KINDS.items():
        value = result.get(name)
        if name in result and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise ValueError(f"{name} must be {' or '.join(k.__name__ for k in kinds)}; found {value!r:.60}")
    for name in ("modalities", "classes", "lower_is_better"):
        if not all(isinstance(one, str) for one in result.get(name, ())):
            raise ValueError(f"{name} must be a list of names; found {result[name]!r:.60}")
    subsets = result.get("subsets", {})
    scores = {name: result.get(name) or {} for name in ("val", "test")}
    for name, values in {**scores, **{f"subsets.{key}": value for key, value in subsets.items()}}.items():
        if not isinstance(values, dict):
            raise ValueError(f"{name} must be a mapping of scores; found {values!r:.60}")
        for metric, value in values.items():
            if not isinstance(value, (int, float, NOTHING)) or isinstance(value, bool):
                raise ValueError(f"{name} {metric!r} must be a number; found {value!r:.60}")


def _digest(result: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
