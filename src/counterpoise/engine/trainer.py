"""What a user has of the engine: settings, and the verbs train, evaluate, predict."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoise._checks import duration, spelled
from counterpoise.data.split import Split, Splits
from counterpoise.engine import loop, setup
from counterpoise.engine.evaluation import Predictions
from counterpoise.engine.optim import Optimizer, Schedule
from counterpoise.engine.progress import ConsoleProgress
from counterpoise.engine.replicas import Fabric, make_fabric
from counterpoise.engine.result import SubsetScores, contributions, result_of, subset_scores
from counterpoise.engine.reuse import unencoded
from counterpoise.engine.run import Run
from counterpoise.engine.saving import Checkpoints, fingerprint_of, load_selected
from counterpoise.engine.trackers import Logger, Tracker
from counterpoise.engine.tracking import logger_of
from counterpoise.losses import Loss
from counterpoise.method import Method
from counterpoise.model import MultimodalModel
from counterpoise.observer import Observer


@spelled
class Trainer:
    """Trains a model by a method, selects on validation, evaluates.

    Args:
        model: encoders and fusion.
        method: how to train it; a name, of this or other parts, stands for default options.
        epochs: the budget, at least 1; methods with phases share it out.
        batch_size: samples of the global batch (over all replicas), at least 2; an epoch trains on whole batches.
        optimizer: SGD, Adam, AdamW or TorchOptim settings; or a class of ``torch.optim``, or a ``functools.partial``.
        schedule: how the learning rate moves.
        sam: radius of sharpness-aware minimisation around any method; 0 is off, 0.05 is usual.
        clip_norm: largest gradient norm, > 0; None leaves gradients alone.
        monitor: metric of the fused prediction on validation that selects the weights; None for the task's.
        metrics: what ``evaluate`` reports, by name or import path; None for the task's.
        seed: of data order, augmentation and everything random in training.
        accelerator: "auto", "cpu", "gpu".
        devices: processes on this machine.
        num_nodes: machines.
        precision: "32-true", "bf16-mixed", or on GPUs of Nvidia "16-mixed".
        num_workers: processes that read data ahead; 0 reads in the training process.
        accumulate: parts that a batch's gradient is made in, to save memory; at least 1.
        sampler: "balanced" draws as many samples an epoch, every class equally often; None trains on each sample once.
        early_stopping: end training when the monitor has not been better for so many epochs, at least 1; None never
            does. Methods that must finish refuse it.
        budget: seconds of training, or text such as "30m"; no epoch begins that would not end in it, and a run that it
            stopped goes on when resumed with more. None trains for all epochs.
        compile: run every encoder through PyTorch's compiler; the first batch then takes a minute or more.
        run_dir: where to write settings, metrics and checkpoints; None writes nothing.
        logger: where scores go beside ``run_dir``: "csv", "mlflow", "tensorboard", "trackio", "wandb"; settings of one,
            as ``counterpoise.engine.MLflow(uri=...)``; or a logger of Lightning Fabric or Lightning. None: nowhere.
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
        method: Method | str,
        *,
        epochs: int = 20,
        batch_size: int = 64,
        optimizer: Optimizer | str | Callable[..., torch.optim.Optimizer] | None = None,
        schedule: Schedule | str | None = None,
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
        accumulate: int = 1,
        sampler: str | None = None,
        early_stopping: int | None = None,
        budget: float | str | None = None,
        compile: bool = False,
        run_dir: str | PathLike[str] | None = None,
        logger: Tracker | Logger | str | None = None,
        observers: Sequence[Observer] = (),
        progress: bool = True,
        label: str | None = None,
        loss: Loss | str | None = None,
        fabric: Fabric | None = None,
    ):
        parts = setup.parts_of(model, method, optimizer, schedule, loss)
        setup.check_numbers(epochs=epochs, batch_size=batch_size, sam=sam, clip_norm=clip_norm, num_workers=num_workers)
        monitor, metrics = setup.check_metrics(model.task, metrics, monitor)
        setup.check_sampler(model.task, sampler)
        setup.check_stopping(parts.method, early_stopping)
        self.logger = logger_of(logger, run_dir)
        fabric = _launched(fabric, batch_size, accelerator, devices, num_nodes, precision)
        self.current = Run(
            model, parts.method, parts.loss, fabric,
            train=loop.fit,
            epochs=epochs, batch_size=batch_size,
            optimizer_settings=parts.optimizer,
            schedule=parts.schedule,
            sam=sam,
            clip_norm=clip_norm,
            monitor=monitor,
            metrics=metrics,
            seed=seed,
            num_workers=num_workers,
            compile=compile, accumulate=accumulate,
            sampler=sampler,
            early_stopping=early_stopping,
            budget=None if budget is None else duration("budget", budget),
            observers=setup.watching(observers, [ConsoleProgress()] if progress and fabric.is_global_zero else []),
        )  # fmt: skip
        self.model, self.method, self.loss, self.fabric = model, parts.method, parts.loss, fabric
        self.batch_size, self.monitor, self.run_dir, self.label = batch_size, monitor, run_dir, label

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl`` so far: one per epoch."""
        return self.current.history

    def __repr__(self) -> str:
        run = self.current
        state = f"epoch {run.state.epoch} of {run.epochs}" if run.history else f"{run.epochs} epochs, not trained"
        return (
            f"Trainer({self.method.label}, {state}, batches of {self.batch_size} by "
            f"{type(run.optimizer_settings).__name__}; {self.model.extra_repr()})"
        )

    def run(self, splits: Splits, *, resume: bool = False, data: str = "", config: str | None = None) -> dict[str, Any]:
        """``fit`` on train and validation, then evaluate on test; returns what ``result.json`` holds.

        Args:
            splits: the data set.
            resume: continue from ``run_dir``'s last checkpoint when there is one; a finished run without scores on
                test gets them.
            data: name of the data set, for tables and reports.
            config: content of ``config.yaml``; None for what a checkpoint must agree with.
        """
        setup.check_whole(splits)
        tested = splits.test is not None
        with Checkpoints(self.run_dir, self.fabric, self.label, tested=tested, logger=self.logger) as checkpoints:
            self.current.open(splits.train, splits.val)
            loop.fit(self.current, checkpoints, resume=resume, config=config, data=data)
            result = result_of(self.current, splits.test, data=data, label=self.label)
            checkpoints.write_result(result)
        return result

    def fit(self, train: Split | None = None, val: Split | None = None, *, resume: bool = False) -> Trainer:
        """Train, and leave the weights that were best on validation in the model.

        Args:
            train: what to learn from; None for that of the fit before.
            val: what selects the weights; the test split has no place here.
            resume: continue from ``run_dir``'s last checkpoint when there is one.

        Raises:
            ValueError: when data, model and settings do not fit together.
            CheckpointError: when the checkpoint belongs to another model, method or data set.
            Interrupted: after Ctrl-C, once a checkpoint is written.
        """
        self.current.open(train, val)
        with Checkpoints(self.run_dir, self.fabric, self.label, logger=self.logger) as checkpoints:
            loop.fit(self.current, checkpoints, resume=resume)
        return self

    def check(self, split: Split) -> None:
        """ValueError when the method cannot train this model on such data; nothing is trained or written."""
        self.current.open(split, split)
        self.current.set_up()

    def fingerprint(self, train: Split, val: Split) -> dict[str, Any]:
        """All that makes a run on these splits what it is, the weights before training apart; plain values."""
        self.current.open(train, val)
        return fingerprint_of(self.current)

    def restore(self, path: str | PathLike[str], data: Split) -> None:
        """Load ``best.ckpt`` of a finished run, to evaluate or predict.

        Args:
            path: the checkpoint.
            data: any split of the run's shape; methods size their buffers by it.

        Raises:
            CheckpointError: when the file is damaged or of another model.
        """
        self.check(data)
        load_selected(self.current, Path(path))

    def predict(self, samples: Split | Mapping[str, Any], only: Collection[str] | None = None) -> Predictions:
        """Fused and unimodal logits of every sample, in order, from all that the method reads or ``only`` these.

        Args:
            samples: a split, or modality -> array or tensor (n, ...), as the encoders take them.
            only: the modalities to use.

        Raises:
            FloatingPointError: when a prediction is not finite, naming the epoch of the weights and a sample.
            ValueError: for arrays of other modalities, or of different lengths.
        """
        if isinstance(samples, Mapping):
            samples = setup.unlabelled(samples, self.model, self.method, only)
        return self.current.predict(samples, only)

    def stream(self, split: Split) -> Iterator[Predictions]:
        """As ``predict``, a batch at a time in order, so that memory does not grow with the samples."""
        return self.current.stream(split)

    def embed(self, split: Split) -> dict[str, Tensor]:
        """Modality -> features (n, dim), zero where it is absent, and ``"fused"`` -> what the fusion makes of them."""
        return self.current.evaluator.embed(split)

    def evaluate(self, split: Split) -> dict[str, float]:
        """All ``metrics``, the monitor and the loss of a split: fused and per modality."""
        return self.current.evaluate(split)

    def evaluate_subsets(self, split: Split, named: Sequence[Sequence[str]] | None = None) -> SubsetScores:
        """Fused metrics from subsets of the modalities (``metrics.subsets`` or ``named``), of samples that have any."""
        return subset_scores(self.current, split, named)

    def contributions(self, split: Split) -> dict[str, dict[str, float]]:
        """Sampled Shapley shares in the task's yardstick, where modalities are too many for all subsets; else empty."""
        return contributions(self.current, split)

    def export(self, path: str | PathLike[str], example: Split | None = None, *, overwrite: bool = False) -> Path:
        """Write the model into one file that predicts as ``predict`` does, without this package; see ``cp.export``.

        Args:
            path: ends in ``.onnx`` or ``.pt2``.
            example: what a sample looks like, and how it is read; None for the split that training read.
            overwrite: replace a file that is there.
        """
        from counterpoise.exporting import export

        example = unencoded(self.current.train_split) if example is None else example
        return export(self.model, self.method, path, example, overwrite=overwrite)


def _launched(
    fabric: Fabric | None, batch_size: int, accelerator: str, devices: int, num_nodes: int, precision: str
) -> Fabric:
    """The replicas: somebody's own, or new ones that are started here."""
    made = fabric or make_fabric(accelerator=accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    if batch_size % made.world_size:
        raise ValueError(f"batch_size={batch_size} must be a multiple of the {made.world_size} replicas.")
    if fabric is None and made.world_size > 1:
        made.launch()
    return made
