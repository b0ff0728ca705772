"""Training in turns: who, in what order, for how long, and per-modality settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from counterpoise._checks import did_you_mean, number, per_modality

PerModality = float | Mapping[str, float]


def turns(order: Sequence[str] | None, modalities: tuple[str, ...]) -> tuple[str, ...]:
    """The modalities in training order; the model's own for None. ValueError unless it is a permutation."""
    if order is None:
        return modalities
    for m in order:
        if m not in modalities:
            raise ValueError("order: " + did_you_mean("modality", m, modalities))
    if sorted(order) != sorted(modalities):
        raise ValueError(f"order must hold every modality once ({', '.join(modalities)}); got {', '.join(order)}.")
    return tuple(order)


def stage_epochs(stages: Sequence[int] | None, budget: int, count: int) -> list[int]:
    """Epochs of each stage, going round ``count`` modalities.

    None gives every modality ``budget`` epochs, as joint training does, in two rounds (one when ``budget``
    is 1; the first round takes what is left over).
    """
    if stages is None:
        rounds = min(2, budget)
        return [budget // rounds + (r < budget % rounds) for r in range(rounds) for _ in range(count)]
    if len(stages) < count:
        raise ValueError(f"stages must be at least {count}, one for each of the modalities; got {len(stages)}.")
    return list(stages)


def predecessors(order: Sequence[str], directions: Sequence[str] | None) -> list[tuple[str, str]]:
    """(source, target) pairs of neighbours in the cycle ``order``: those named "source->target", all for None."""
    cycle = {f"{order[i - 1]}->{m}": (order[i - 1], m) for i, m in enumerate(order)}
    chosen = (
        list(cycle) if directions is None else ["->".join(part.strip() for part in d.split("->")) for d in directions]
    )
    for direction in chosen:
        if direction not in cycle:
            problem = did_you_mean("direction", direction, cycle)
            raise ValueError(f"directions: each stage is acted on by the modality of the stage before. {problem}")
    return [cycle[d] for d in chosen]


def of(value: PerModality, modality: str) -> float:
    """One modality's number; 0 where a mapping does not name it."""
    return value.get(modality, 0.0) if isinstance(value, Mapping) else value


def at_least_zero(argument: str, value: PerModality) -> PerModality:
    """``value`` when none of its numbers is negative."""
    for v in value.values() if isinstance(value, Mapping) else [value]:
        number(argument, v, low=0)
    return value


def named_modalities(argument: str, value: PerModality, modalities: Sequence[str], *, everyone: bool = False) -> None:
    """ValueError when a mapping names no modality of the model, or with ``everyone`` leaves one out."""
    if isinstance(value, Mapping):
        per_modality(argument, value, modalities)
        if everyone and set(value) != set(modalities):
            raise ValueError(
                f"{argument} must name every modality ({', '.join(modalities)}); got {', '.join(value) or 'none'}."
            )
