"""Features of frozen encoders, computed once and then read instead of the inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from counterpoise.data.split import Split, digest
from counterpoise.encoders import Frozen
from counterpoise.engine.evaluation import evaluating
from counterpoise.engine.replicas import gather_rows

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


class Encoded(Split):
    """A split of which some modalities are features already; the others are read as before.

    Args:
        whole: the split.
        features: modality -> (n, dim).
        encoders: a hash of what computed them.
    """

    def __init__(self, whole: Split, features: Mapping[str, Tensor], encoders: str):
        self.whole, self.features, self._encoders = whole, dict(features), encoders
        self.modalities, self.task, self.ids = whole.modalities, whole.task, whole.ids
        self.target, self.present = whole.target, whole.present

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        if modality not in self.features:
            return self.whole.batch(indices, modality, seed)
        return self.features[modality].index_select(0, torch.as_tensor(indices, dtype=torch.int64))

    def fingerprint(self) -> str:
        return digest(self.whole.fingerprint(), self._encoders)


def encode_once(trainer: Trainer) -> None:
    """Replace inputs by features, in the trainer's splits, for encoders that are ``Frozen(..., reuse=True)``."""
    read = trainer.method.reads(trainer.model.modalities)
    encoders = {m: e for m, e in trainer.model.encoders.items() if m in read and isinstance(e, Frozen) and e.reuse}
    if not encoders or trainer.is_trial:  # a trial runs on the splits of its run
        return
    for name in ("train_split", "val_split"):
        split: Split = getattr(trainer, name)
        if not isinstance(split, Encoded):
            setattr(trainer, name, _encoded(trainer, split, encoders))


def _encoded(trainer: Trainer, split: Split, encoders: Mapping[str, Frozen]) -> Encoded:
    for m, encoder in encoders.items():
        if encoder.is_feature(split.batch([0], m, None).shape):
            raise ValueError(
                f"encoders[{m!r}]: Frozen(..., reuse=True) cannot tell the samples of {m!r}, vectors of "
                f"{encoder.dim} numbers, from its features. Leave reuse out; encoding vectors is quick."
            )
    with evaluating(trainer), torch.no_grad():
        features, mine = trainer.evaluator.features(split, tuple(encoders), keep=False)
    order = gather_rows(mine, trainer.fabric).argsort()
    content = [part for m, e in encoders.items() for name, t in e.state_dict().items() for part in (m, name, t)]
    whole = {m: gather_rows(z.cpu(), trainer.fabric)[order] for m, z in features.items()}
    return Encoded(split, whole, digest(*content))
