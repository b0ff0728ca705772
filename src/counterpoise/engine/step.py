"""One update: the batch and the verbs a method may use on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from counterpoise.engine import passes
from counterpoise.engine.averaging import SummedBackward, average_
from counterpoise.engine.run import Run
from counterpoise.functional import ascended, frozen_statistics, global_norm
from counterpoise.functional.means import masked_mean
from counterpoise.types import Batch, Output, Present


def scalar(name: str, value: object) -> None:
    """ValueError unless ``value`` is a tensor of one number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"{name} must be a tensor of one number, such as the mean over the batch; got {given}.")


class Step:
    """What a method sees of one batch.

    Attributes:
        batch: this replica's share of the global batch.
        model: the model being trained.
        task: what is predicted.
        phase: what trains now.
        phase_index: number of the phase.
        epoch: epochs finished so far in the run.
        index: number of the batch in the epoch.
        num_batches: batches in the epoch.
        generator: random numbers for editing weights, features or gradients: one CPU stream, equal on
            all replicas and part of the checkpoint.
    """

    def __init__(self, run: Run, batch: Batch, index: int, num_batches: int):
        self._run, self._fabric = run, run.fabric
        self.batch, self.index, self.num_batches = batch, index, num_batches
        self.model, self.task, self.phase = run.model, run.task, run.phase
        self.phase_index, self.epoch = run.phase_index, run.epoch
        self.generator = run.generator

    # -- what the model computes -----------------------------------------------------------------
    def encode(
        self, only: Collection[str] | None = None, inputs: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Features (batch, dim) in float32 of what the loader delivered, or of ``only`` these modalities."""
        inputs = self.batch.inputs if inputs is None else inputs
        only = tuple(inputs) if only is None else only
        return passes.encode(self.model, self._fabric, inputs, only, self.batch.present)

    def fuse(self, features: Mapping[str, Tensor], present: Present = None, *, unimodal: bool = True) -> Output:
        """Fused and unimodal logits of these features; ``present`` replaces the batch's own masks.

        ``unimodal=False`` leaves the unimodal ones out, for losses of the fused logits alone.
        """
        present = self.batch.present if present is None else present
        return passes.fuse(self.model, self._fabric, features, present, unimodal=unimodal)

    def forward(self, only: Collection[str] | None = None, *, unimodal: bool = True) -> Output:
        """``fuse(encode(only))``."""
        return self.fuse(self.encode(only), unimodal=unimodal)

    # -- what to minimise ------------------------------------------------------------------------
    def present(self, modality: str) -> Tensor | None:
        """(batch,) bool: who has this modality; None when all do."""
        return None if self.batch.present is None else self.batch.present.get(modality)

    def losses(self, logits: Tensor, target: Tensor | None = None) -> Tensor:
        """(batch,) loss of each sample."""
        return self._run.loss(logits, self.batch.target if target is None else target)

    def criterion(
        self,
        logits: Tensor,
        target: Tensor | None = None,
        present: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Mean loss over the batch, or over its samples where ``present`` is True (0 when there is none).

        Where the loss or the data weigh samples, it is the weighted mean. ``weight`` are the data's of the samples that
        a ``target`` other than the batch's belongs to.
        """
        target = self.batch.target if target is None else target
        weight = self.batch.weight if target is self.batch.target else weight
        return self._average(self._run.loss(logits, target), present, self._run.loss.counted(target, weight))

    def average(self, losses: Tensor, present: Tensor | None = None, *, weighted: bool = True) -> Tensor:
        """Mean of a method's own (batch,) losses, over the samples and with the weights of ``criterion``, or none."""
        weights = self._run.loss.counted(self.batch.target, self.batch.weight) if weighted else None
        return self._average(losses, present, weights)

    def _average(self, losses: Tensor, present: Tensor | None, weights: Tensor | None) -> Tensor:
        if weights is not None:
            present = weights.to(losses.dtype) * (1 if present is None else present)
        return masked_mean(losses, present, self.mean)

    def unimodal_loss(self, output: Output, modality: str) -> Tensor:
        """Mean loss of one modality's own logits over the samples that have it."""
        return self.criterion(output.unimodal[modality], present=self.present(modality))

    # -- gradients of the global batch -----------------------------------------------------------
    def trainable(self) -> list[nn.Parameter]:
        """Parameters that train in this phase, those of the method included."""
        return self._run.trainable()

    def backward(self, loss: Tensor, retain: bool = False) -> None:
        """Accumulate into ``.grad``; afterwards ``.grad`` is that of the global batch."""
        scalar("loss", loss)
        world, factor = self._fabric.world_size, self._factor()
        if world == 1 and factor is None:
            loss.backward(retain_graph=retain)
            return
        # what is there already is global and unscaled; only the new part may be averaged and divided
        parameters = self.trainable()
        before = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        loss = loss if factor is None else loss * factor
        with SummedBackward(loss, parameters, self._fabric) if world > 1 else nullcontext():
            (loss / world).backward(retain_graph=retain)
        if factor is not None:
            reached = [(p, p.grad) for p in parameters if p.grad is not None]
            for (p, _), g in zip(reached, self._unscaled([g for _, g in reached], factor), strict=True):
                p.grad = g
        for p, old in zip(parameters, before, strict=True):
            if old is not None:
                p.grad = old if p.grad is None else old + p.grad

    def grad(
        self, loss: Tensor, params: Sequence[Tensor], *, create_graph: bool = False, retain: bool = True
    ) -> list[Tensor]:
        """Gradient of the global batch, one tensor per parameter (zeros where unused); ``.grad`` is left alone."""
        factor = self._factor()
        loss = loss if factor is None else loss * factor
        grads = torch.autograd.grad(
            loss, params, retain_graph=retain, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )
        if not create_graph:
            average_(grads, self._fabric)
        elif self._fabric.world_size > 1:
            raise ValueError("create_graph=True works in one process only: an average over replicas has no graph.")
        if factor is None:
            return list(grads)
        return [g / factor for g in grads] if create_graph else self._unscaled(grads, factor)

    def _factor(self) -> Tensor | None:
        """What losses are multiplied by before a backward pass, on the device; None where nothing is scaled."""
        return None if self._run.loss_scale is None else self._run.loss_scale.factor

    def _unscaled(self, grads: Sequence[Tensor], factor: Tensor) -> list[Tensor]:
        assert self._run.loss_scale is not None
        return self._run.loss_scale.unscaled(grads)

    @contextmanager
    def ascent(self, objective: Callable[[Step], Tensor], rho: float | None = None) -> Iterator[None]:
        """Sharpness-aware minimisation: run the body at the worst point within ``rho`` of the weights.

        Args:
            objective: takes this step, returns the loss to climb.
            rho: radius (global norm over the trainable parameters); None takes the run's ``sam``.
                0 runs the body where the weights are.
        """
        rho = self._run.sam if rho is None else rho
        if rho == 0:
            yield
            return
        state = self.generator.get_state()
        params = self.trainable()
        grads = self._slope(objective, params)
        self.generator.set_state(state)  # both evaluations see the same masks and noise
        with frozen_statistics(self.model), ascended(params, grads, rho) as start:
            if self.index == 0:
                self._warn_if_lost(start, params, grads, rho)
            yield

    def _slope(self, objective: Callable[[Step], Tensor], params: Sequence[nn.Parameter]) -> list[Tensor]:
        """The gradient to climb, one tensor per parameter; ``.grad`` is left alone."""
        return self.grad(objective(self), params, retain=False)

    def _warn_if_lost(
        self, before: Sequence[Tensor], after: Sequence[Tensor], grads: Sequence[Tensor], rho: float
    ) -> None:
        if self._run.state.warned_rho:
            return
        # Only weights whose gradient counts beside the others: the radius is not to blame where the rest stand still.
        norm = global_norm(grads)
        floor = torch.where(norm > 0, 0.01 * norm / sum(g.numel() for g in grads) ** 0.5, torch.inf)
        asked = [g.abs() > floor for g in grads]
        moved = [torch.count_nonzero((b != a) & w) for b, a, w in zip(before, after, asked, strict=True)]
        counts = torch.stack([torch.stack(moved).sum(), torch.stack([torch.count_nonzero(w) for w in asked]).sum()])
        changed = float(counts[0] / counts[1])  # NaN where no weight has a gradient
        if changed < 0.5:
            self._run.state.warned_rho = True
            warnings.warn(
                f"SAM radius rho={rho:g} changes only {changed:.2%} of the weights: it is below the resolution of "
                "their number format, so this run is (nearly) plain training. Usual values are 0.01 to 0.5.",
                stacklevel=3,
            )

    # -- across replicas, and the update ---------------------------------------------------------
    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the replicas, detached."""
        return self._run.mean(value)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the replicas, detached."""
        return self._run.sum(value)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all replicas, (global batch, ...), for losses that compare samples with each other.

        Its gradient reaches this replica's rows, scaled so that after ``backward`` it is that of the global batch.
        """
        world = self._fabric.world_size
        if world == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(world)]
        torch.distributed.all_gather(parts, rows.detach().contiguous())
        if rows.requires_grad:
            parts[self._fabric.global_rank] = rows * world - (rows * (world - 1)).detach()
        return torch.cat(parts)

    def update(self) -> None:
        """Clip, move the parameters that have a gradient, forget the gradients."""
        self._run.update()

    def log(self, **values: Tensor | float) -> None:
        """Average these over the epoch into ``metrics.jsonl`` as ``train/<name>``."""
        self._run.log(values)
