"""One look at every sample of a data set, for the labels and for what is absent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._checks import nearest

from .progress import after_two_seconds
from .readers import ReadError
from .samples import Samples
from .seeding import borrowed_generators


def surveyed(
    samples: Samples, labels: Sequence[Any] | None, present: dict[str, Tensor] | None
) -> tuple[Sequence[Any], dict[str, Tensor]]:
    """The labels and the masks of all samples; what is None is found in one pass, which compares shapes as well.

    Args:
        samples: what to look at.
        labels: one per sample, when they are known.
        present: modality -> (n,) bool, when it is known; a modality that is not there is complete.

    Raises:
        ValueError: a sample without a label or without any modality, or with a label that cannot be one.
    """
    own_labels: list[Any] = []
    masks = {m: torch.zeros(len(samples), dtype=torch.bool) for m in samples.modalities}
    if labels is None or present is None:
        with borrowed_generators() as seeded:
            for index in after_two_seconds(range(len(samples)), len(samples), "reading the samples once"):
                values = samples.values(index, None, seeded)
                for m in masks:
                    masks[m][index] = m in values
                    if m in values and m not in samples.readers:
                        samples.finite(m, samples.tensor(m, values[m], index, None), index)
                if labels is None:
                    own_labels.append(_label(samples, values, index))
    if present is not None:
        masks |= {m: torch.ones_like(mask) for m, mask in masks.items()} | present
    nowhere = [m for m, mask in masks.items() if not mask.any()]
    if nowhere:
        raise ValueError(f"Every sample lacks {nowhere[0]!r}; leave it out: modalities=...")
    nothing = ~torch.stack(list(masks.values())).any(0)
    if nothing.any():
        raise ValueError(
            f"{samples.place(int(nothing.int().argmax()))} lacks every modality ({int(nothing.sum())} do)."
        )
    return own_labels if labels is None else labels, masks


def bind(samples: Samples, present: dict[str, Tensor]) -> None:
    """Let readers learn from a sample what they cannot know, such as the shape of an array."""
    for m, reader in samples.readers.items():
        for index in present[m].nonzero().flatten()[:5].tolist() if reader.shape is None else ():
            with borrowed_generators() as seeded:
                value = samples.values(index, None, seeded)[m]
            try:
                reader.bind(value)
                break
            except ReadError:  # a bad value is reported where it is read
                continue


def _label(samples: Samples, values: dict[str, Any], index: int) -> Any:
    where, name = samples.place(index), samples.label
    if name not in values:
        hint = nearest(name, values)
        raise ValueError(
            f"{where} has no label {name!r} (it has {', '.join(map(repr, values))}).{hint} Name it: label=..., or pass "
            "labels=."
        )
    value = values[name]
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        return value.item() if value.ndim == 0 else value.tolist()
    if isinstance(value, str | int | float | set | frozenset | list | tuple):
        return value
    raise ValueError(
        f"{where}: its label {name!r} must be the name or number of a class, a collection of label names, or numbers; "
        f"got {type(value).__name__}."
    )
