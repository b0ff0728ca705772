"""The loop. It knows phases, epochs, devices and checkpoints, and no method by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from counterpoise._checks import number
from counterpoise.data.split import Split, Splits, positions
from counterpoise.engine import setup
from counterpoise.engine.compiling import compile_encoders
from counterpoise.engine.evaluation import Evaluator, Predictions, SubsetScores, evaluating
from counterpoise.engine.loader import Loader, Loaders
from counterpoise.engine.loop import run_phases
from counterpoise.engine.observer import ConsoleProgress
from counterpoise.engine.optim import SGD, Constant, Optimizer, Schedule, parameter_groups, update
from counterpoise.engine.replicas import make_fabric
from counterpoise.engine.saving import Keeper
from counterpoise.engine.state import State, mix, untouched_randomness
from counterpoise.engine.step import Step
from counterpoise.engine.trial import make_trial
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.observer import Observer
from counterpoise.types import Batch, Output, Phase


class Trainer:
    """Trains a model by a method, selects on validation, evaluates.

    Args:
        model: encoders and fusion.
        method: how to train it.
        epochs: the budget, at least 1; methods with phases share it out.
        batch_size: samples of the global batch (over all replicas), at least 2; an epoch trains on whole batches.
        optimizer: SGD, Adam or AdamW settings.
        schedule: how the learning rate moves.
        sam: radius of sharpness-aware minimisation around any method; 0 is off, 0.05 is usual.
        clip_norm: largest gradient norm, > 0; None leaves gradients alone.
        monitor: metric of the fused prediction on validation that selects the weights; None for the task's.
        metrics: what ``evaluate`` reports, by name or by the import path of a class of torchmetrics; None for the
            task's.
        seed: of data order, augmentation and everything random in training.
        accelerator: "auto", "cpu", "gpu".
        devices: processes on this machine.
        num_nodes: machines.
        precision: "32-true" or "bf16-mixed".
        num_workers: processes that read data ahead; 0 reads in the training process.
        compile: run every encoder through PyTorch's compiler; the first batch then takes a minute or more.
        run_dir: where to write settings, metrics and checkpoints; None writes nothing.
        observers: read-only watchers.
        progress: show a progress bar, or a line an epoch where the output is no terminal.
        label: name of the run in tables and reports; None for the method's.
        loss: one of ``counterpoise.losses``; None for the task's own.
        fabric: use this one instead of ``accelerator``, ``devices``, ``num_nodes`` and ``precision``.

    Raises:
        ValueError: for settings out of range, naming the argument.
    """

    def __init__(
        self,
        model: MultimodalModel,
        method: Method,
        *,
        epochs: int = 20,
        batch_size: int = 64,
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        sam: float = 0.0,
        clip_norm: float | None = None,
        monitor: str | None = None,
        metrics: Sequence[str] | None = None,
        seed: int = 0,
        accelerator: str = "auto",
        devices: int = 1,
        num_nodes: int = 1,
        precision: str = "32-true",
        num_workers: int = 0,
        compile: bool = False,
        run_dir: str | PathLike[str] | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = True,
        label: str | None = None,
        loss: Loss | None = None,
        fabric: Fabric | None = None,
    ):
        setup.check_parts(model=model, method=method, optimizer=optimizer, schedule=schedule, loss=loss)
        setup.check_numbers(epochs=epochs, batch_size=batch_size, sam=sam, clip_norm=clip_norm, num_workers=num_workers)
        monitor, metrics = setup.check_metrics(model.task, metrics, monitor)
        setup.check_observers(observers)
        self.epochs, self.batch_size, self.num_workers = epochs, batch_size, num_workers
        self.settings, self.schedule = optimizer or SGD(), schedule or Constant()
        self.sam, self.clip_norm, self.label = sam, clip_norm, label
        self.monitor, self.metrics, self.seed, self.run_dir = monitor, metrics, seed, run_dir
        self.fabric = fabric or make_fabric(
            accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision
        )
        if self.batch_size % self.fabric.world_size:
            raise ValueError(f"batch_size={batch_size} must be a multiple of the {self.fabric.world_size} replicas.")
        if fabric is None and self.fabric.world_size > 1:
            self.fabric.launch()
        shown = progress and self.fabric.is_global_zero
        self.observers = [*observers, *([ConsoleProgress()] if shown else [])]
        self.fabric.to_device(model)
        self.fabric.to_device(method)
        self.loss = setup.prepared(loss, model.task).to(self.device)
        self.model, self.task, self.method = model, model.task, method
        if self.fabric.world_size > 1:
            self.fabric.strategy.setup_module(self.model)
        if compile:
            compile_encoders(model, self.device)
        self._own = {id(p) for p in self.model.parameters() if p.requires_grad}
        self.config: str | None = None  # the command line's options in full, kept with the run
        self.compile, self.is_trial = compile, False
        self.loaders = Loaders(batch_size, num_workers, self.fabric)
        self.evaluator, self.keeper = Evaluator(self), Keeper(self)
        self.reset()
        setup.check_method(self)

    def reset(self) -> None:
        """Forget every run before: ``fit`` starts here."""
        self.state = State()
        self.generator = torch.Generator().manual_seed(mix(self.seed, "generator"))
        self.history: list[dict[str, Any]] = []
        self.totals: dict[str, tuple[Tensor, int]] = {}
        self.rows: Tensor | None = None
        self.visible: dict[str, Tensor] | None = None
        self.warned_rho = False
        self.keeper.forget()
        self.model.zero_grad(set_to_none=True)
        self.method.zero_grad(set_to_none=True)

    # -- what everyone may ask -------------------------------------------------------------------
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
    def num_batches(self) -> int:
        """Batches in an epoch."""
        return len(self.train_split if self.rows is None else self.rows) // self.batch_size

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
        value = value.detach()
        if self.fabric.world_size == 1:
            return value
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value

    def loader(self, split: Split, *, everything: bool = False) -> Loader:
        """The loader of a split; ``everything`` gives each replica every sample."""
        return self.loaders.get(split, everything=everything)

    # -- evaluation ------------------------------------------------------------------------------
    def outputs(
        self,
        split: Split | Literal["train", "val"],
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
        data = self._split(split)
        loader = self.loader(data, everything=not shard)
        order = mix(self.seed, self.epoch, "outputs") if shuffle else None
        names = self.model.select(only)
        for index, batch in enumerate(loader.batches(names, order_seed=order, drop_last=drop_last)):
            batch = self.fabric.to_device(batch)
            with evaluating(self), torch.no_grad():
                output = Step(self, batch, index, -(-len(data) // self.batch_size)).forward(names)
            yield batch, output

    def _split(self, split: Split | Literal["train", "val"]) -> Split:
        found = getattr(self, f"{split}_split", None) if isinstance(split, str) else split
        if found is None:
            raise ValueError(f"There is no split {split!r} before fit(train, val); pass the split itself.")
        return found

    def restore(self, path: str | PathLike[str], data: Split) -> None:
        """Load ``best.ckpt`` of a finished run, to evaluate or predict.

        Args:
            path: the checkpoint.
            data: any split of the run's shape; methods size their buffers by it.

        Raises:
            CheckpointError: when the file is damaged or of another model.
        """
        self.train_split = self.val_split = data
        self.method.setup(self)
        self.keeper.load_best(Path(path))

    def predict(self, split: Split, only: Sequence[str] | None = None) -> Predictions:
        """Fused and unimodal logits of every sample, in order."""
        return self.evaluator.predict(split, only)

    def scores(self, split: Split | Literal["train", "val"], only: Sequence[str] | None = None) -> dict[str, float]:
        """``fused/accuracy``, ``audio/accuracy``, ..., ``fused/loss`` of a split."""
        data = self._split(split)
        found = self.evaluator.predict(data, only, keep=data is getattr(self, "val_split", None))
        wanted = dict.fromkeys([self.task.yardstick, self.monitor, "loss"])
        return self.task.scores(found.named(), found.target, found.present, tuple(wanted), self.loss.mean)

    def evaluate(self, split: Split) -> dict[str, float]:
        """All ``metrics`` and the loss of a split: fused and per modality."""
        setup.check_data(self, split)
        found = self.evaluator.predict(split)
        wanted = dict.fromkeys([*self.metrics, "loss"])
        return self.task.scores(found.named(), found.target, found.present, tuple(wanted), self.loss.mean)

    def evaluate_subsets(self, split: Split, named: Sequence[Sequence[str]] | None = None) -> SubsetScores:
        """Fused metrics from subsets of the modalities (``metrics.subsets`` or ``named``), of samples that have any."""
        return self.evaluator.subset_scores(split, named)

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
    ) -> Trainer:
        """A trial run on a copy of the model; call ``fit()`` on it. This run is untouched.

        Args:
            method: how the copy is trained.
            epochs: for how long.
            model: train this one instead of a copy.
            train: on this instead of the training split.
            val: select on this instead of the validation split.
            lr: constant learning rate of the trial; None uses this run's rate and schedule from their start.
        """
        trial = make_trial(self, method, epochs, model=model, lr=lr)
        trial.train_split, trial.val_split = train or self.train_split, val or self.val_split
        return trial

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

    def resample(self, indices: Tensor | None, present: Mapping[str, Tensor] | None = None) -> None:
        """Train on these rows from the next epoch on; None restores the whole split.

        Args:
            indices: (n,) positions in the training split, repetitions allowed, at least a batch of them.
            present: modality -> (n,) bool; False hides that modality of the row.
        """
        self.rows = None if indices is None else positions(indices, len(self.train_split))
        self.visible = None if present is None else {m: p.detach().cpu().bool() for m, p in present.items()}

    def load_best(self) -> None:
        """Put the best weights so far, by validation, into the model."""
        self.model.load_state_dict(self.keeper.best["model"])

    def stop(self) -> None:
        """End the phase after this epoch."""
        self.state.stopping = True

    # -- the loop ----------------------------------------------------------------------------------
    def run(self, splits: Splits, *, resume: bool = False, data: str = "") -> dict[str, Any]:
        """``fit`` on train and validation, then evaluate on test; returns what ``result.json`` holds.

        Args:
            splits: the data set.
            resume: continue from ``run_dir``'s last checkpoint when there is one.
            data: name of the data set, for tables and reports.
        """
        setup.check_whole(splits)
        with self.keeper.holding():
            self.fit(splits.train, splits.val, resume=resume)
            return self.keeper.finish(splits.test, data)

    def fit(self, train: Split | None = None, val: Split | None = None, *, resume: bool = False) -> Trainer:
        """Train, and leave the weights that were best on validation in the model.

        Args:
            train: what to learn from.
            val: what selects the weights; the test split has no place here.
            resume: continue from ``run_dir``'s last checkpoint when there is one.

        Raises:
            ValueError: when data, model and settings do not fit together.
            CheckpointError: when the checkpoint belongs to another model, method or data set.
            Interrupted: after Ctrl-C, once a checkpoint is written.
        """
        self.train_split, self.val_split = setup.check_training(self, train, val)
        self.loss.fit(self.train_split.target)
        with self.keeper.holding(), untouched_randomness() if self.is_trial else nullcontext():
            run_phases(self, resume)
        return self

    # -- updates -----------------------------------------------------------------------------------
    def update(self) -> None:
        """Clip, move the parameters that have a gradient, forget the gradients."""
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([p for p in self.trainable() if p.grad is not None], self.clip_norm)
        for observer in self.observers:
            observer.before_update(self)
        update(self.optimizer)
        self.optimizer.zero_grad(set_to_none=True)

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """Average these over the epoch; tensors stay on their device until its end."""
        for name, value in values.items():
            total, count = self.totals.get(name, (torch.zeros((), device=self.device), 0))
            value = value.detach() if isinstance(value, Tensor) else value
            self.totals[name] = total + value, count + 1

    def make_optimizer(self) -> None:
        self.optimizer = self.settings.build(parameter_groups(self.model, self.method, self._own))

    def _lr(self, index: int) -> float:
        at = self.state.schedule_epoch + index / max(1, self.num_batches)
        return self.settings.lr * self.schedule.factor(at, self.state.schedule_span)

    def set_lr(self, index: int) -> None:
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
