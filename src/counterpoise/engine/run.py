"""What is going on: one training, what methods and observers may ask of it, and all that a checkpoint holds of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from counterpoise._checks import number, whole
from counterpoise.data.split import Split
from counterpoise.engine import setup
from counterpoise.engine.compiling import compile_encoders
from counterpoise.engine.evaluation import Evaluator, Predictions
from counterpoise.engine.loader import Loaders
from counterpoise.engine.optim import Constant, Optimizer, Schedule, parameter_groups, restore, update
from counterpoise.engine.replicas import Fabric, summed
from counterpoise.engine.rows import Rows
from counterpoise.engine.scaling import loss_scale
from counterpoise.engine.state import State, mix, pairs, random_state, set_random_state
from counterpoise.engine.watching import Observers
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.types import FUSED, Batch, Output, Phase, Present

Part = Split | Literal["train", "val"]  # "train" and "val" are those of the run


@dataclass(eq=False, repr=False)
class Run:
    """One training of a model by a method: its settings, where it stands, and what may be asked between two batches.

    Attributes:
        model, method: what is trained, and how.
        loss: what is minimised.
        fabric: devices, processes and precision.
        train: trains a run; ``fit`` of a trial run calls it.
        epochs: like all that follows an argument of ``Trainer``, which checks it.
        is_trial: made by ``fork``.
        splits: "train" and "val", as far as there are any.
        history: the lines of ``metrics.jsonl`` so far.
        generator: random numbers of methods, equal on all replicas.
        optimizer: of the phase.
        rows: what ``resample`` was given last.
        loss_scale: what losses are multiplied by in float16; None in other precisions.
        totals: name -> sum and count of what is logged in this epoch.
        best: the weights that were best on validation, and what else ``best.ckpt`` holds; empty before any.
    """

    model: MultimodalModel
    method: Method
    loss: Loss
    fabric: Fabric
    train: Callable[[Run], None]
    epochs: int
    batch_size: int
    optimizer_settings: Optimizer
    schedule: Schedule
    sam: float
    clip_norm: float | None
    monitor: str
    metrics: tuple[str, ...]
    seed: int
    num_workers: int
    compile: bool
    sampler: str | None
    early_stopping: int | None
    budget: float | None
    observers: Observers = field(default_factory=Observers)
    is_trial: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        for part in (self.model, self.method, self.loss):
            self.fabric.to_device(part)
        if self.fabric.world_size > 1:
            self.fabric.strategy.setup_module(self.model)
        if self.compile:
            compile_encoders(self.model, self.device)
        setup.check_method(self.model, self.method)
        setup.check_parts_of(self.method, self.accumulate, self.batch_size // self.fabric.world_size)
        self.task = self.model.task
        self.splits: dict[str, Split] = {}
        self.loaders = Loaders(self.batch_size, self.num_workers, self.fabric)
        self.evaluator = Evaluator(self.model, self.method, self.loaders, self.fabric)
        self._own = {id(p) for p in self.model.parameters() if p.requires_grad}
        self.reset()

    def open(self, train: Split | None, val: Split | None) -> None:
        """Train on and select by these splits; None leaves the one of before."""
        for name, split in (("train", train), ("val", val)):
            if split is not None:
                setup.check_split(split)
                self.splits[name] = split

    def reset(self) -> None:
        """Forget what was trained before."""
        self.state = State()
        self.generator = torch.Generator().manual_seed(mix(self.seed, "generator"))
        self.history: list[dict[str, Any]] = []
        self.totals: dict[str, tuple[Tensor, float]] = {}
        self.rows, self.loss_scale = Rows(), loss_scale(self.fabric)
        self.best: dict[str, Any] = {}
        self.model.zero_grad(set_to_none=True)
        self.method.zero_grad(set_to_none=True)

    def set_up(self) -> None:
        """Have the method check what it needs and allocate its buffers."""
        self.method.setup(self)
        self.fabric.to_device(self.method)

    # -- what everyone may ask -------------------------------------------------------------------
    @property
    def train_split(self) -> Split:
        """What is learned from."""
        return self.split("train")

    @property
    def val_split(self) -> Split:
        """What selects the weights."""
        return self.split("val")

    def split(self, split: Split | str) -> Split:
        """The split itself, or the one of that name."""
        if isinstance(split, str) and split not in self.splits:
            raise ValueError(f"There is no split {split!r} before fit(train, val); pass the split itself.")
        return self.splits[split] if isinstance(split, str) else split

    @property
    def phase(self) -> Phase:
        """What trains now."""
        return self.state.phase or Phase(self.epochs)

    @property
    def phase_index(self) -> int:
        """Number of the current phase."""
        return self.state.phase_index

    @property
    def epoch(self) -> int:
        """Epochs finished; inside ``on_epoch_end`` the number (from 0) of the epoch that just ended."""
        return self.state.epoch

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.fabric.device

    @property
    def num_rows(self) -> int:
        """Samples of an epoch, repetitions counted."""
        return len(self.train_split if self.rows.indices is None else self.rows.indices)

    @property
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return self.num_rows // self.batch_size

    @property
    def lr_now(self) -> float:
        """The learning rate of the shared parameters at this moment."""
        return self._lr(self.state.batch_in_epoch)

    def trainable(self) -> list[nn.Parameter]:
        """Parameters that train in this phase, those of the method included."""
        return [p for p in [*self.model.parameters(), *self.method.parameters()] if p.requires_grad]

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether the parameter of the model was trainable when it was handed over."""
        return id(parameter) in self._own

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over the replicas, detached."""
        return self.sum(value) / self.fabric.world_size

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the replicas, detached."""
        return summed(value.detach(), self.fabric)

    # -- evaluation ------------------------------------------------------------------------------
    def outputs(
        self,
        split: Part,
        only: Sequence[str] | None = None,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        shard: bool = False,
    ) -> Iterator[tuple[Batch, Output]]:
        """Every batch of a split with the model's output: evaluation mode, no gradient, no augmentation.

        Args:
            split: what to read.
            only: the modalities to read and run; None for all.
            shuffle: in an order drawn from the seed and the epoch.
            drop_last: leave an incomplete last batch out.
            shard: give each replica its share of every global batch; combine with ``mean`` or ``sum``.
        """
        order = mix(self.seed, self.epoch, "outputs") if shuffle else None
        return self.evaluator.outputs(
            self.split(split), self.model.select(only), order_seed=order, drop_last=drop_last, everything=not shard
        )

    def predict(self, split: Part, only: Collection[str] | None = None, *, keep: bool = False) -> Predictions:
        """Logits of every sample, from these modalities only.

        Args:
            split: what to read.
            only: the modalities to use; None for all the method reads.
            keep: remember the features.

        Raises:
            FloatingPointError: when a prediction is not finite, naming a sample; with a pool, when that is not.
        """
        data = self.split(split)
        (predictions,) = self.evaluator.predict(data, [only], keep=keep)
        return self._checked(predictions, data.ids)

    def predict_subsets(
        self, split: Part, subsets: Iterable[Collection[str] | None], *, keep: bool = False
    ) -> Iterator[Predictions]:
        """As ``predict``, from each of these subsets in turn; with a pool, what is not finite counts as absent."""
        data = self.split(split)
        each = self.evaluator.predict(data, subsets, keep=keep)
        return (self._checked(one, data.ids) if self.model.pool is None else one.sound() for one in each)

    def stream(self, split: Split) -> Iterator[Predictions]:
        """As ``predict``, a batch at a time in order, so that memory does not grow with the samples."""
        for batch, predictions in self.evaluator.stream(split):
            yield self._checked(predictions, [split.ids[int(i)] for i in batch.index])

    def _checked(self, predictions: Predictions, ids: Sequence[str]) -> Predictions:
        epoch = self.state.best_epoch if self.state.phase is None else self.state.epoch + 1
        names = predictions.named() if self.model.pool is None else (FUSED,)
        predictions.refuse_broken(ids, names=names, epoch=epoch, lr=self.optimizer_settings.lr)
        return predictions if self.model.pool is None else predictions.sound()

    def scores(self, split: Part, only: Sequence[str] | None = None) -> dict[str, float]:
        """``fused/accuracy``, ``audio/accuracy``, ..., ``fused/loss`` of a split."""
        keep = self.split(split) is self.splits.get("val")
        return self._scores(self.predict(split, only, keep=keep), self.task.yardstick, self.monitor, "loss")

    def evaluate(self, split: Split) -> dict[str, float]:
        """All ``metrics``, the monitor and the loss of a split: fused and per modality."""
        setup.check_data(self.model, self.method, split)
        return self._scores(self.predict(split), *self.metrics, self.monitor, "loss")

    def _scores(self, of: Predictions, *metrics: str) -> dict[str, float]:
        names = tuple(dict.fromkeys(metrics))
        return self.task.scores(of.named(), of.target, of.present, names, self.loss.mean, of.weight)

    # -- what a method may ask for at a boundary ---------------------------------------------------
    def fork(
        self,
        method: Method,
        epochs: int,
        *,
        model: MultimodalModel | None = None,
        train: Split | None = None,
        val: Split | None = None,
        lr: float | None = None,
    ) -> Run:
        """A trial run on a copy of the model; call ``fit()`` on it. This run is untouched.

        Args:
            method: how the copy is trained.
            epochs: for how long.
            model: train this one instead of a copy.
            train: on this instead of the training split.
            val: select on this instead of the validation split.
            lr: constant learning rate of the trial; None uses this run's rate and schedule from their start.
        """
        settings, schedule, loss = copy.deepcopy((self.optimizer_settings, self.schedule, self.loss))
        if lr is not None:
            settings.lr, schedule = lr, Constant()
        if model is None:
            model = copy.deepcopy(self.model)
            for mine, other in zip(self.model.parameters(), model.parameters(), strict=True):
                other.requires_grad_(self.owns(mine))  # whatever the current phase trains
        trial = replace(
            self, model=model, method=method, loss=loss, epochs=whole("epochs", epochs, low=1),
            optimizer_settings=settings, schedule=schedule, early_stopping=None, budget=None, observers=Observers(),
            is_trial=True,
        )  # fmt: skip
        trial.open(train or self.train_split, val or self.val_split)
        return trial

    def fit(self) -> Run:
        """Train this trial run, and leave the weights that were best on validation in its model."""
        self.train(self)
        return self

    def freeze(self, modality: str) -> None:
        """From now on nothing of this modality's branch moves: parameters, buffers, optimizer state."""
        self.model.select([modality])
        if modality not in self.state.frozen:
            self.state.frozen.append(modality)
        for p in nn.ModuleList(self.model.branch_of(modality)).parameters():
            self.optimizer.state.pop(p, None)
        self.select()

    def rescale(self, modality: str, factor: float) -> None:
        """Multiply the learning rate of this modality's parameters by ``factor`` (not cumulative)."""
        self.model.select([modality])
        self.state.scales[modality] = number("factor", factor, low=0)

    def resample(self, indices: Tensor | None, present: Present = None, *, ordered: bool = False) -> None:
        """Train on these rows from the next epoch on, in ``on_epoch_start`` from this one; None restores the split.

        Args:
            indices: (n,) positions in the training split, repetitions allowed, at least a batch of them.
            present: modality -> (n,) bool; False hides that modality of the row.
            ordered: a global batch is consecutive rows; otherwise each epoch shuffles them. Not with a sampler.
        """
        setup.check_order(self.method, self.sampler if ordered else None)
        self.rows = Rows.of(len(self.train_split), indices, present, ordered)

    def load_best(self) -> None:
        """Put the best weights so far, by validation, into the model."""
        self.model.load_state_dict(self.best["model"])

    def stop(self) -> None:
        """End the phase after this epoch."""
        self.state.stopping = True

    # -- what the engine does with it --------------------------------------------------------------
    def update(self) -> None:
        """Clip, move the parameters that have a gradient, forget the gradients."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([p for p in self.trainable() if p.grad is not None], self.clip_norm)
        for observer in self.observers:
            observer.before_update(self)
        update(self.optimizer, self.loss_scale)

    def log(self, values: Mapping[str, Tensor | float], share: float = 1) -> None:
        """Average these over the epoch, as ``share`` of a batch; tensors stay on their device until its end."""
        for name, value in values.items():
            total, count = self.totals.get(name) or (torch.zeros((), device=self.device), 0)
            self.totals[name] = total + share * (value.detach() if isinstance(value, Tensor) else value), count + share

    def make_optimizer(self) -> None:
        """A new one, over all that was trainable when it was handed over."""
        self.optimizer = self.optimizer_settings.build(parameter_groups(self.model, self.method, self._own))

    def _lr(self, index: int) -> float:
        at = self.state.schedule_epoch + index / max(1, self.num_batches)
        return self.optimizer_settings.lr * self.schedule.factor(at, self.state.schedule_span)

    def set_lr(self, index: int) -> None:
        """The rates of a batch of the epoch."""
        lr = self._lr(index)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"] * self.state.scales.get(group["name"], 1.0)

    def select(self) -> None:
        """Let the parameters of this phase train; everything else is in evaluation mode and without gradient."""
        active = self.model.select(self.phase.train)
        self.model.train()
        self.method.train()
        for m in self.model.modalities:
            frozen = self.model.branch_of(m) if m in self.state.frozen else []
            for module in self.model.modules_of(m):
                module.train(m in active and module not in frozen)
                for p in module.parameters():
                    p.requires_grad_(module.training and id(p) in self._own)
                    p.grad = p.grad if p.requires_grad else None  # else the next update would move it

    # -- what a checkpoint holds -------------------------------------------------------------------
    def _parts(self) -> dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]:
        """Name in a checkpoint -> what writes that part down, and what takes it up again."""
        own = {n: getattr(self, n) for n in ("state", "model", "method", "schedule", "observers", "loss_scale")}
        return {
            **{name: (part.state_dict, part.load_state_dict) for name, part in own.items() if part is not None},
            "optimizer": (lambda: self.optimizer.state_dict(), lambda saved: restore(self.optimizer, saved)),
            "generator": (self.generator.get_state, lambda saved: self.generator.set_state(saved.cpu())),
            "random": (random_state, self._set_random),
            "resampled": (lambda: self.rows.state_dict(), lambda saved: self.resample(**saved)),
            "history": (lambda: self.history, partial(setattr, self, "history")),
            "totals": (lambda: dict(self.totals), lambda saved: setattr(self, "totals", pairs(saved))),
        }

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands, tensors and plain values; the best weights are apart."""
        return {name: write() for name, (write, _) in self._parts().items()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Counterpart of ``state_dict``."""
        for name, (_, take) in self._parts().items():
            take(saved[name])

    def _set_random(self, saved: dict[str, Any]) -> None:
        # between epochs they are seeded anew; a checkpoint inside one is of a process that was alone
        if self.state.batch_in_epoch and self.fabric.is_global_zero:
            set_random_state(saved)
