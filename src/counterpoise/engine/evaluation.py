"""Evaluation: features once per set of weights, logits of any subset of the modalities from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from counterpoise.data.split import Split
from counterpoise.engine.replicas import gather_rows
from counterpoise.engine.setup import check_split
from counterpoise.functional.shapley import coalitions, sampled_orders, shapley, shapley_error
from counterpoise.metrics.balance import subset_name, subsets

if TYPE_CHECKING:
    from counterpoise.engine.trainer import Trainer


SubsetScores = dict[str, dict[str, float]]
"""``"audio+image"`` -> metric -> score."""


class Predictions(NamedTuple):
    """Logits of the samples of a split, in order, on the CPU.

    Attributes:
        fused: (n, classes).
        unimodal: modality -> (n, classes).
        target: (n,).
        present: modality -> (n,) bool, or None.
    """

    fused: Tensor
    unimodal: dict[str, Tensor]
    target: Tensor
    present: dict[str, Tensor] | None

    def named(self) -> dict[str, Tensor]:
        """``{"fused": ..., modality: ...}``."""
        return {"fused": self.fused, **self.unimodal}

    def anything(self) -> Tensor:
        """(n,) bool: which samples have at least one of the modalities."""
        everyone = torch.ones(len(self.fused), dtype=torch.bool)
        return torch.stack([(self.present or {}).get(m, everyone) for m in self.unimodal]).any(0)

    def broken(self) -> dict[str, Tensor]:
        """``"fused"`` or a modality -> positions where it predicts from something and not by finite numbers."""
        there = {**(self.present or {}), "fused": self.anything()}
        wrong = {name: ~logits.isfinite().all(1) for name, logits in self.named().items()}
        found = {name: (rows & there[name] if name in there else rows).nonzero() for name, rows in wrong.items()}
        return {name: rows.flatten() for name, rows in found.items() if len(rows)}


class Evaluator:
    """Runs the model over splits without gradient and remembers the features of unchanged encoders.

    A modality's features of the validation split are computed again only when one of its encoder's
    tensors was written to since. PyTorch counts the in-place writes of every tensor, but not those through
    ``.data`` or by an optimizer's fused kernels, so sums of the tensors are compared as well.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._features: dict[tuple[int, str], tuple[Split, object, Tensor]] = {}  # holds the split: ids are reused

    def forget(self) -> None:
        """Drop the remembered features."""
        self._features = {}

    @torch.no_grad()
    def _version(self, modality: str) -> object:
        encoder = self._trainer.model.encoders[modality]
        tensors = [*encoder.parameters(), *encoder.buffers()]
        sums = torch.stack([t.sum(dtype=torch.float64) for t in tensors]).tolist() if tensors else []
        return [(id(t), t._version, total) for t, total in zip(tensors, sums, strict=True)]

    def features(self, split: Split, only: Sequence[str], *, keep: bool) -> tuple[dict[str, Tensor], Tensor]:
        """Features (n_r, dim) of this replica's samples and their positions (n_r,)."""
        trainer = self._trainer
        known = {m: self._features.get((id(split), m)) for m in only}
        versions = {m: self._version(m) for m in only}
        fresh = {m: kept[2] for m, kept in known.items() if kept is not None and kept[1] == versions[m]}
        stale = [m for m in only if m not in fresh]
        positions = torch.arange(len(split))
        mine = torch.cat(
            [c[trainer.fabric.global_rank :: trainer.fabric.world_size] for c in positions.split(trainer.batch_size)]
        )
        if stale:
            parts: dict[str, list[Tensor]] = {m: [] for m in stale}
            with fixed(p for m in stale for p in trainer.model.encoders[m].parameters()):
                for batch in trainer.loader(split).batches(stale):
                    batch = trainer.fabric.to_device(batch)
                    with trainer.fabric.autocast():
                        encoded = trainer.model.encode(batch.inputs, stale, batch.present)
                    for m, z in encoded.items():
                        parts[m].append(z.float())
            for m in stale:
                fresh[m] = torch.cat(parts[m]) if parts[m] else torch.zeros(0, trainer.model.fusion.dims[m])
                if keep:
                    self._features[id(split), m] = split, versions[m], fresh[m]
        return {m: fresh[m] for m in only}, mine

    @torch.no_grad()
    def predict(self, split: Split, only: Sequence[str] | None = None, *, keep: bool = False) -> Predictions:
        """Logits of every sample, from these modalities only.

        Args:
            split: what to read.
            only: the modalities to use; None for all the method reads.
            keep: remember the features (the validation split, which is evaluated every epoch).

        Raises:
            FloatingPointError: when a prediction is not finite, naming the epoch of the weights and a sample.
        """
        check_split(split)
        trainer, model = self._trainer, self._trainer.model
        names = model.select(trainer.method.reads(model.modalities) if only is None else only)
        with evaluating(trainer):
            features, mine = self.features(split, names, keep=keep)
            fused, unimodal = [], {m: [] for m in names}
            for rows in self._chunks(len(mine)):
                present = (
                    None
                    if split.present is None
                    else {m: p[mine[rows]].to(trainer.device) for m, p in split.present.items()}
                )
                with trainer.fabric.autocast():
                    output = model.fuse({m: z[rows] for m, z in features.items()}, present)
                output = output._replace(
                    logits=output.logits.float(), unimodal={m: u.float() for m, u in output.unimodal.items()}
                )
                output = trainer.method.decide(output, model)
                fused.append(model.read_out(output))
                for m, u in output.unimodal.items():
                    unimodal[m].append(u)
        order = gather_rows(mine, trainer.fabric).argsort()
        empty = torch.zeros(0, model.num_classes)

        def whole(parts: list[Tensor]) -> Tensor:
            return gather_rows(torch.cat(parts).cpu() if parts else empty, trainer.fabric)[order]

        found = Predictions(
            whole(fused), {m: whole(parts) for m, parts in unimodal.items()}, split.target, split.present
        )
        self._refuse_broken(found, split.ids)
        return found

    def _refuse_broken(self, found: Predictions, ids: Sequence[str]) -> None:
        state, lr = self._trainer.state, self._trainer.settings.lr
        epoch = state.best_epoch if state.phase is None else state.epoch + 1
        weights = "the untrained weights" if epoch is None else f"the weights of epoch {epoch}"
        for name, rows in found.broken().items():
            raise FloatingPointError(
                f"With {weights}, the {name} prediction of {len(rows)} of {len(found.target)} samples is NaN or "
                f"infinite (the first is {ids[int(rows[0])]!r}). If it is so for all of them, training diverged: lower "
                f"the learning rate (lr={lr:g}) or set clip_norm, and train again. If for a few, look at what they "
                "hold: numbers far outside the range of the training samples overflow."
            )

    def stream(self, split: Split) -> Iterator[Predictions]:
        """As ``predict``, a batch at a time in order, so that memory does not grow with the samples."""
        trainer, model = self._trainer, self._trainer.model
        for batch, output in trainer.outputs(split, trainer.method.reads(model.modalities)):
            with evaluating(trainer), torch.no_grad():
                output = trainer.method.decide(output, model)
                fused = model.read_out(output)
            present = None if batch.present is None else {m: mask.cpu() for m, mask in batch.present.items()}
            unimodal = {m: u.cpu() for m, u in output.unimodal.items()}
            found = Predictions(fused.cpu(), unimodal, batch.target.cpu(), present)
            self._refuse_broken(found, [split.ids[int(i)] for i in batch.index])
            yield found

    def subset_scores(self, split: Split, named: Sequence[Sequence[str]] | None = None) -> SubsetScores:
        """The metrics of the fused prediction from subsets of the modalities: ``metrics.subsets``, or the ``named``."""
        trainer, results = self._trainer, {}
        reads = trainer.method.reads(trainer.model.modalities)
        for names in subsets(reads) if named is None else map(trainer.model.select, named):
            found = self.predict(split, names, keep=True)
            logits, target = found.fused, found.target
            if found.present is not None:
                some = torch.stack([found.present.get(m, torch.ones(len(target), dtype=torch.bool)) for m in names])
                logits, target = logits[some.any(0)], target[some.any(0)]
            scores = (
                trainer.task.scores({"fused": logits}, target, None, trainer.metrics, trainer.loss.mean)
                if len(target)
                else {}
            )
            results[subset_name(names)] = {name.removeprefix("fused/"): value for name, value in scores.items()}
        self.forget()
        return results

    def contributions(self, split: Split) -> dict[str, dict[str, float]]:
        """Shapley share of each modality in the accuracy, sampled, where there are too many subsets to list.

        A sample that has none of a subset's modalities counts as wrong; nothing at all is worth the accuracy of the
        most frequent class.

        Returns:
            modality -> ``"share"`` and its standard ``"error"``; empty for up to ``LATTICE`` modalities.
        """
        names = self._trainer.method.reads(self._trainer.model.modalities)
        orders = sampled_orders(names)
        if orders is None:
            return {}
        values = {frozenset[str](): split.target.bincount().max() / split.target.numel()}
        for subset in coalitions(names, orders):
            found = self.predict(split, tuple(subset), keep=True)
            values[subset] = ((found.fused.argmax(1) == found.target) & found.anything()).double().mean()
        self.forget()
        shares, errors = shapley(values, names, orders), shapley_error(values, names, orders)
        return {m: {"share": float(shares[m]), "error": float(errors[m])} for m in names}

    def _chunks(self, count: int) -> Iterator[slice]:
        size = self._trainer.batch_size
        return (slice(start, start + size) for start in range(0, count, size))


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

    def __init__(self, trainer: Trainer):
        self._modules = list(trainer.model.modules()) + list(trainer.method.modules())

    def __enter__(self) -> None:
        self._modes = [module.training for module in self._modules]
        for module in self._modules:
            module.training = False

    def __exit__(self, *_: object) -> None:
        for module, mode in zip(self._modules, self._modes, strict=True):
            module.training = mode
