"""What a search may vary: ``--param NAME=KIND:...``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from counterpoise.recipe.messages import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

SYNTAX = "NAME=float:LOW:HIGH, NAME=int:LOW:HIGH (either with :log at its end) or NAME=choice:A,B,..."
NUMBER = {"float": float, "int": int}


@dataclass(frozen=True)
class Parameter:
    """An option of ``fit`` and the values that it may take.

    Attributes:
        name: of the option, without the leading dashes.
        kind: ``float``, ``int`` or ``choice``.
        low: least value of a number.
        high: greatest value of a number, included.
        log: drawn evenly on a logarithmic scale.
        choices: what may be chosen, as typed.
    """

    name: str
    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[str, ...] = ()

    def ends(self) -> list[str]:
        """The values at the edges of the range, or all choices, as typed."""
        return list(self.choices) if self.kind == "choice" else [repr(self.low), repr(self.high)]

    def suggest(self, trial: Trial) -> str:
        """The value that the trial is to take, as typed."""
        if self.kind == "choice":
            return str(trial.suggest_categorical(self.name, self.choices))
        suggest: Any = trial.suggest_float if self.kind == "float" else trial.suggest_int
        return repr(suggest(self.name, self.low, self.high, log=self.log))


def parameter(text: str) -> Parameter:
    """Read one ``--param``.

    Raises:
        UsageError: when it is malformed; the message has the syntax.
    """
    name, equals, given = text.partition("=")
    name = name.lstrip("-")
    kind, _, values = given.partition(":")
    if not name or not equals or not values or kind not in (*NUMBER, "choice"):
        raise _malformed(text, "")
    if kind == "choice":
        # commas inside brackets are part of a value, as in choice:[audio,image],[image,audio]
        choices = tuple(v.strip() for v in re.split(r",(?![^\[]*\])", values) if v.strip())
        if len(set(choices)) < max(2, len(choices)):
            raise _malformed(text, "; a choice needs at least two different values")
        return Parameter(name, kind, choices=choices)
    low, _, rest = values.partition(":")
    high, _, scale = rest.partition(":")
    try:
        edges = NUMBER[kind](low), NUMBER[kind](high)
    except ValueError:
        raise _malformed(text, "") from None
    if scale not in ("", "log"):
        raise _malformed(text, f"; {scale!r} is not log")
    if not all(map(math.isfinite, edges)) or edges[0] >= edges[1]:
        raise _malformed(text, "; LOW must be less than HIGH")
    if scale and edges[0] <= 0:
        raise _malformed(text, "; a logarithmic range must be above 0")
    return Parameter(name, kind, *edges, log=bool(scale))


def _malformed(text: str, why: str) -> UsageError:
    return UsageError(f"--param must be {SYNTAX}; got {text!r}{why}. Example: --param optimizer.lr=float:1e-3:0.1:log")
