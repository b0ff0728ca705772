"""A batch in parts, one after another: the gradient of all of it, with the activations of one part in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress

import torch
from torch import Tensor, nn

from counterpoise.engine.averaging import average_
from counterpoise.engine.replicas import any_of_each
from counterpoise.engine.run import Run
from counterpoise.engine.step import Step, scalar
from counterpoise.method import Method
from counterpoise.types import Batch, Output


def step_in_parts(run: Run, batch: Batch, index: int, num_batches: int) -> Tensor:
    """One batch of a method whose ``whole_batch`` is None; returns the loss to report."""
    return _InParts(run, batch, index, num_batches).train(run.method)


class _Part(Step):
    """Some samples of a batch; its losses are their share of those of the whole batch, so that they add up.

    Args:
        whole: of the batch.
        rows: which of its samples.
    """

    def __init__(self, whole: Step, rows: slice):
        super().__init__(whole._run, whole.batch.moved(lambda x: x[rows]), whole.index, whole.num_batches)
        self._whole = whole.batch
        self._share = len(self.batch.index) / len(whole.batch.index)

    def criterion(
        self,
        logits: Tensor,
        target: Tensor | None = None,
        present: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        if target is not None and target is not self.batch.target:
            raise ValueError("criterion: where a batch comes in parts (accumulate), target must be step.batch.target.")
        return super().criterion(logits, target, present, weight)

    def _average(self, losses: Tensor, present: Tensor | None, weights: Tensor | None) -> Tensor:
        if present is None and weights is None:
            return self._share * losses.mean()
        counts, total = torch.ones_like(losses), losses.new_ones(len(self._whole.index))
        if present is not None:
            counts, total = counts * present, total * self._of_all(present)
        if weights is not None:
            everyone = self._run.loss.counted(self._whole.target, self._whole.weight)
            assert everyone is not None
            counts, total = counts * weights.to(losses), total * everyone.to(losses)
        amount = self.mean(total.sum())
        return (losses * counts).sum() / torch.where(amount > 0, amount, 1.0)

    def _of_all(self, present: Tensor) -> Tensor:
        """The mask of the whole batch that this is the part of."""
        masks = self.batch.present or {}
        name = next((m for m, mask in masks.items() if mask is present), None)
        if name is None or self._whole.present is None:
            raise ValueError(
                "present: where a batch comes in parts (accumulate), a loss is averaged over all samples or those of "
                "step.present(modality), since it must be known how many others there are."
            )
        return self._whole.present[name]

    def backward(self, loss: Tensor, retain: bool = False) -> None:
        scalar("loss", loss)
        factor = self._factor()
        (loss if factor is None else loss * factor).backward(retain_graph=retain)

    def log(self, **values: Tensor | float) -> None:
        self._run.log(values, self._share)


class _InParts(Step):
    """A batch whose gradient is made part by part; of processes, each makes its share of the batch so."""

    def __init__(self, run: Run, batch: Batch, index: int, num_batches: int):
        super().__init__(run, batch, index, num_batches)
        ends = [len(part) for part in torch.arange(len(batch.index)).tensor_split(run.accumulate)]
        starts = [sum(ends[:i]) for i in range(len(ends))]
        self._parts = [slice(start, start + size) for start, size in zip(starts, ends, strict=True)]

    def train(self, method: Method) -> Tensor:
        """What ``Method.step`` does, in parts."""
        outputs: list[Output] = []

        def learn(part: Step) -> Tensor:
            output = method(part)
            outputs.append(_detached(output))
            return method.loss(output, part)

        with self.ascent(method.objective):
            loss = self._add_up(learn)
        method.modulate(_joined(outputs), self)
        self.update()
        return loss

    def _slope(self, objective: Callable[[Step], Tensor], params: Sequence[nn.Parameter]) -> list[Tensor]:
        self._add_up(objective)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        for p in params:
            p.grad = None
        return grads

    def _add_up(self, objective: Callable[[Step], Tensor]) -> Tensor:
        """Have ``.grad``, where nothing is yet, be that of the global batch; the loss of it, detached."""
        state, losses = self.generator.get_state(), []
        for rows in self._parts:
            self.generator.set_state(state)  # what is drawn once for a batch is the same in all its parts
            part = _Part(self, rows)
            loss = objective(part)
            part.backward(loss)
            losses.append(loss.detach())
        self._settle()
        return torch.stack(losses).sum()

    def _settle(self) -> None:
        """Average over the replicas and unscale, once for all parts."""
        params = self.trainable()
        reached = any_of_each([p.grad is not None for p in params], self._fabric)
        params = list(compress(params, reached))
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        average_(grads, self._fabric)
        if (factor := self._factor()) is not None:
            grads = self._unscaled(grads, factor)
        for p, g in zip(params, grads, strict=True):
            p.grad = g


def _detached(output: Output) -> Output:
    unimodal, features = ({m: x.detach() for m, x in each.items()} for each in (output.unimodal, output.features))
    return output._replace(logits=output.logits.detach(), unimodal=unimodal, features=features)


def _joined(outputs: Sequence[Output]) -> Output:
    """The output of all samples, in order."""
    logits = torch.cat([output.logits for output in outputs])
    unimodal, features = (_rows([getattr(o, name) for o in outputs]) for name in ("unimodal", "features"))
    present = outputs[0].present
    return Output(logits, unimodal, features, None if present is None else _rows([o.present or {} for o in outputs]))


def _rows(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
