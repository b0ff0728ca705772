"""Evaluation: features once per set of weights, logits of any subset of the modalities from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from counterpoise.data.split import Split
from counterpoise.engine.loader import Loaders
from counterpoise.engine.passes import encode, fuse
from counterpoise.engine.replicas import Fabric, gather_rows, on_device
from counterpoise.engine.setup import check_split
from counterpoise.functional.precision import widest
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.types import FUSED, Batch, Output, who_has


class Predictions(NamedTuple):
    """Logits of the samples of a split, in order, on the CPU.

    Attributes:
        fused: (n, classes).
        unimodal: modality -> (n, classes).
        target: (n,).
        present: modality -> (n,) bool, or None.
        weight: (n,) how much each counts in the loss, or None.
    """

    fused: Tensor
    unimodal: dict[str, Tensor]
    target: Tensor
    present: dict[str, Tensor] | None
    weight: Tensor | None = None

    def named(self) -> dict[str, Tensor]:
        """``{"fused": ..., modality: ...}``."""
        return {"fused": self.fused, **self.unimodal}

    def anything(self) -> Tensor:
        """(n,) bool: which samples have at least one of the modalities."""
        return torch.stack([who_has(m, self.present, len(self.fused)) for m in self.unimodal]).any(0)

    def broken(self) -> dict[str, Tensor]:
        """``"fused"`` or a modality -> positions where it predicts from something and not by finite numbers."""
        there = {**(self.present or {}), "fused": self.anything()}
        wrong = {name: ~logits.isfinite().all(1) for name, logits in self.named().items()}
        rows = {name: (rows & there[name] if name in there else rows).nonzero() for name, rows in wrong.items()}
        return {name: positions.flatten() for name, positions in rows.items() if len(positions)}

    def sound(self) -> Predictions:
        """The same, with a modality absent in the samples that it predicts by numbers that are not finite."""
        broken = {name: rows for name, rows in self.broken().items() if name != FUSED}
        if not broken:
            return self
        present = dict(self.present or {})
        for m, rows in broken.items():
            present[m] = who_has(m, self.present, len(self.fused)).index_fill(0, rows, False)
        return self._replace(present=present)

    def refuse_broken(self, ids: Sequence[str], *, names: Collection[str], epoch: int | None, lr: float) -> None:
        """FloatingPointError when any of these is, naming the epoch of the weights, a sample and the learning rate."""
        weights = "the untrained weights" if epoch is None else f"the weights of epoch {epoch}"
        for name, rows in self.broken().items():
            if name not in names:
                continue
            raise FloatingPointError(
                f"With {weights}, the {name} prediction of {len(rows)} of {len(self.target)} samples is NaN or "
                f"infinite (the first is {ids[int(rows[0])]!r}). If it is so for all of them, training diverged: lower "
                f"the learning rate (lr={lr:g}) or set clip_norm, and train again. If for a few, look at what they "
                "hold: numbers far outside the range of the training samples overflow."
            )


class Evaluator:
    """Runs the model over splits in evaluation mode, and remembers the features of unchanged encoders.

    A modality's features of a split that is kept are computed again only when one of its encoder's
    tensors was written to since. PyTorch counts the in-place writes of every tensor, but not those through
    ``.data`` or by an optimizer's fused kernels, so sums of the tensors are compared as well.

    Args:
        model: what predicts.
        method: how parts become a prediction.
        loaders: what reads.
        fabric: which replica this is, and in what precision it computes.
    """

    def __init__(self, model: MultimodalModel, method: Method, loaders: Loaders, fabric: Fabric):
        self._model, self._method, self._loaders, self._fabric = model, method, loaders, fabric
        self._features: dict[tuple[int, str], tuple[Split, object, Tensor]] = {}  # holds the split: ids are reused

    def forget(self) -> None:
        """Drop the remembered features."""
        self._features = {}

    @torch.no_grad()
    def _version(self, modality: str) -> object:
        encoder = self._model.encoders[modality]
        tensors = [*encoder.parameters(), *encoder.buffers()]
        sums = torch.stack([t.sum(dtype=widest(t.device)) for t in tensors]).tolist() if tensors else []
        return [(id(t), t._version, total) for t, total in zip(tensors, sums, strict=True)]

    @torch.no_grad()
    def features(self, split: Split, only: Sequence[str], *, keep: bool = False) -> tuple[dict[str, Tensor], Tensor]:
        """Features (n_r, dim) of this replica's samples and their positions (n_r,).

        Args:
            split: what to read.
            only: the modalities to encode.
            keep: remember them (of the validation split, which is evaluated every epoch).
        """
        model, fabric = self._model, self._fabric
        known = {m: self._features.get((id(split), m)) for m in only}
        versions = {m: self._version(m) for m in only}
        fresh = {m: kept[2] for m, kept in known.items() if kept is not None and kept[1] == versions[m]}
        stale = [m for m in only if m not in fresh]
        batches = torch.arange(len(split)).split(self._loaders.batch_size)
        mine = torch.cat([batch[fabric.global_rank :: fabric.world_size] for batch in batches])
        if stale:
            parts: dict[str, list[Tensor]] = {m: [] for m in stale}
            frozen = fixed(p for m in stale for p in model.encoders[m].parameters())
            with evaluating(model, self._method), frozen:
                for batch in self._loaders.get(split).batches(stale):
                    batch = on_device(batch, fabric)
                    for m, z in encode(model, fabric, batch.inputs, stale, batch.present).items():
                        parts[m].append(z)
            for m in stale:
                fresh[m] = torch.cat(parts[m]) if parts[m] else torch.zeros(0, model.fusion.dims[m])
                if keep:
                    self._features[id(split), m] = split, versions[m], fresh[m]
        return {m: fresh[m] for m in only}, mine

    def outputs(
        self,
        split: Split,
        names: Sequence[str],
        *,
        order_seed: int | None = None,
        drop_last: bool = False,
        everything: bool = True,
    ) -> Iterator[tuple[Batch, Output]]:
        """Every batch of a split with the model's output of these modalities, as ``Run.outputs``."""
        loader = self._loaders.get(split, everything=everything)
        for batch in loader.batches(names, order_seed=order_seed, drop_last=drop_last):
            batch = on_device(batch, self._fabric)
            with evaluating(self._model, self._method), torch.no_grad():
                features = encode(self._model, self._fabric, batch.inputs, names, batch.present)
                output = fuse(self._model, self._fabric, features, batch.present)
            yield batch, output

    def predict(
        self, split: Split, subsets: Iterable[Collection[str] | None], *, keep: bool = False, pooled: bool = True
    ) -> Iterator[Predictions]:
        """Logits of every sample from each of these subsets of the modalities, each modality encoded once.

        Args:
            split: what to read.
            subsets: the modalities to use; None for all the method reads.
            keep: remember the features.
            pooled: predict by the model's pool where it has one.
        """
        check_split(split)
        model = self._model
        reads = self._method.reads(model.modalities)
        chosen = [model.select(reads if only is None else only) for only in subsets]
        features, mine = self.features(split, [m for m in model.modalities if any(m in c for c in chosen)], keep=keep)
        for names in chosen:
            yield self.fused({m: features[m] for m in names}, mine, split, pooled=pooled)

    def fused(self, features: Mapping[str, Tensor], mine: Tensor, split: Split, *, pooled: bool = True) -> Predictions:
        """Logits of every sample from features that are known, in batches.

        Args:
            features: modality -> (n_r, dim), zero where a sample lacks it; the modalities to use.
            mine: (n_r,) the positions of this replica's samples, as ``features`` says.
            split: whose targets, weights and absent samples these are.
            pooled: predict by the model's pool where it has one.
        """
        model, names = self._model, list(features)
        order = gather_rows(mine, self._fabric).argsort()
        empty = torch.zeros(0, model.num_classes)

        def whole(parts: list[Tensor]) -> Tensor:
            return gather_rows(torch.cat(parts).cpu() if parts else empty, self._fabric)[order]

        fused, unimodal = [], {m: [] for m in names}
        with evaluating(model, self._method), torch.no_grad():
            for start in range(0, len(mine), self._loaders.batch_size):
                rows = slice(start, start + self._loaders.batch_size)
                present = None
                if split.present is not None:
                    present = {m: p[mine[rows]].to(self._fabric.device) for m, p in split.present.items()}
                output = fuse(model, self._fabric, {m: z[rows] for m, z in features.items()}, present)
                output = self.decided(output, pooled=pooled)
                fused.append(output.logits)
                for m, u in output.unimodal.items():
                    unimodal[m].append(u)
        everyone = {m: whole(parts) for m, parts in unimodal.items()}
        return Predictions(whole(fused), everyone, split.target, split.present, split.weight)

    @torch.no_grad()
    def embed(self, split: Split) -> dict[str, Tensor]:
        """Modality -> features (n, dim), zero where it is absent, and ``"fused"`` -> what the fusion makes of them."""
        check_split(split)
        model = self._model
        names = model.select(self._method.reads(model.modalities))
        features, mine = self.features(split, names)
        present = {m: mask[mine].to(self._fabric.device) for m, mask in (split.present or {}).items()}
        with evaluating(model, self._method), self._fabric.autocast():
            fused = model.fusion.embed(features, present or None).float()
        order = gather_rows(mine, self._fabric).argsort()
        return {m: gather_rows(z.cpu(), self._fabric)[order] for m, z in {**features, FUSED: fused}.items()}

    def stream(self, split: Split) -> Iterator[tuple[Batch, Predictions]]:
        """As ``predict`` of all that the method reads, a batch at a time in order: memory does not grow with it."""
        for batch, output in self.outputs(split, self._method.reads(self._model.modalities)):
            with evaluating(self._model, self._method), torch.no_grad():
                output = self.decided(output)
            present = None if batch.present is None else {m: mask.cpu() for m, mask in batch.present.items()}
            unimodal = {m: u.cpu() for m, u in output.unimodal.items()}
            yield batch, Predictions(output.logits.cpu(), unimodal, batch.target.cpu(), present)

    def decided(self, output: Output, *, pooled: bool = True) -> Output:
        """With what is predicted as its logits."""
        output = self._method.decide(output, self._model)
        return output._replace(logits=self._model.read_out(output)) if pooled else output


@contextmanager
def fixed(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Without ``requires_grad``: on CPUs, PyTorch's GRU rounds small batches otherwise with it, even in ``no_grad``.

    Features that are remembered over phases would else differ from those that a resumed run computes.
    """
    trained = [p for p in parameters if p.requires_grad]
    for p in trained:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


class evaluating:  # noqa: N801 - a context manager, named like torch.no_grad
    """Evaluation mode inside, and exactly the modes from before outside."""

    def __init__(self, *parts: nn.Module):
        self._modules = [module for part in parts for module in part.modules()]

    def __enter__(self) -> None:
        self._modes = [module.training for module in self._modules]
        for module in self._modules:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, mode in zip(self._modules, self._modes, strict=True):
            module.training = mode
