"""Features of frozen encoders, computed once and then read instead of the inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from counterpoise._digests import digest
from counterpoise.data.split import Split
from counterpoise.encoders import Frozen
from counterpoise.engine.evaluation import Evaluator
from counterpoise.engine.replicas import Fabric, gather_rows
from counterpoise.model import MultimodalModel
from counterpoise.types import Present


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
        self.readers, self.collate = whole.readers, whole.collate
        self.target, self.present, self.weight = whole.target, whole.present, whole.weight

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        if modality not in self.features:
            return self.whole.batch(indices, modality, seed)
        return self.features[modality].index_select(0, torch.as_tensor(indices, dtype=torch.int64))

    def read_together(
        self,
        indices: Sequence[int],
        modalities: Sequence[str],
        seed: int | None,
        present: Present = None,
    ) -> dict[str, Tensor]:
        inputs = [m for m in modalities if m not in self.features]
        ready = [m for m in modalities if m in self.features]
        read = self.whole.read_together(indices, inputs, seed, present) if inputs else {}
        read |= super().read_together(indices, ready, seed, present)
        return {m: read[m] for m in modalities}

    def example(self, modality: str) -> Tensor | None:
        return self.whole.example(modality)

    def fingerprint(self) -> str:
        return digest(self.whole.fingerprint(), self._encoders)


def unencoded(split: Split) -> Split:
    """The split with the inputs again."""
    return split.whole if isinstance(split, Encoded) else split


def encode_once(
    split: Split, model: MultimodalModel, reads: Collection[str], evaluator: Evaluator, fabric: Fabric
) -> Split:
    """The split with features in the place of inputs, where encoders are ``Frozen(..., reuse=True)``.

    Args:
        split: what to encode.
        model: whose encoders count.
        reads: the modalities that are needed.
        evaluator: runs them.
        fabric: the replicas, each of which encodes its share.
    """
    encoders = {m: e for m, e in model.encoders.items() if m in reads and isinstance(e, Frozen) and e.reuse}
    if not encoders or isinstance(split, Encoded):
        return split
    for m, encoder in encoders.items():
        if encoder.is_feature(split.batch([0], m, None).shape):
            raise ValueError(
                f"encoders[{m!r}]: Frozen(..., reuse=True) cannot tell the samples of {m!r}, vectors of "
                f"{encoder.dim} numbers, from its features. Leave reuse out; encoding vectors is quick."
            )
    features, mine = evaluator.features(split, tuple(encoders))
    order = gather_rows(mine, fabric).argsort()
    content = [part for m, e in encoders.items() for name, t in e.state_dict().items() for part in (m, name, t)]
    whole = {m: gather_rows(z.cpu(), fabric)[order] for m, z in features.items()}
    return Encoded(split, whole, digest(*content))
