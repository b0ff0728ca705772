"""Where a run's scores can go beside its directory: settings of each tracker, and what writes to it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

from counterpoise._checks import Spelled
from counterpoise._extras import require


@runtime_checkable
class Logger(Protocol):
    """What is asked of a tracker's writer; every logger of Lightning Fabric and of Lightning is one."""

    @property
    def version(self) -> int | str | None:
        """What the tracker calls this run."""
        ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Numbers by name, after an epoch."""
        ...

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Settings, once."""
        ...

    def finalize(self, status: str) -> None:
        """Flush; the run is over, by ``"success"`` or ``"failed"``."""
        ...


class Tracker(Spelled, ABC):
    """Settings of a tracker; ``open`` begins a run in it, or goes on with one."""

    @abstractmethod
    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        """What writes to the tracker.

        Args:
            directory: of the run, which also names it.
            run: the ``version`` of the logger that it was begun with; None begins one.
            epoch: the last that was logged.
        """


class TensorBoard(Tracker):
    """Events of TensorBoard in the run directory (``tensorboard --logdir``)."""

    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        require("logger TensorBoard", "tensorboard")
        from lightning_fabric.loggers.tensorboard import TensorBoardLogger

        class Events(TensorBoardLogger):
            def finalize(self, status: str) -> None:
                super().finalize("success")  # else the file stays open

        return Events(directory, name="", version="", default_hp_metric=False, purge_step=epoch + 1)


class CSV(Tracker):
    """A table ``csv/metrics.csv`` in the run directory."""

    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        from lightning_fabric.loggers.csv_logs import CSVLogger

        (directory / "csv" / "metrics.csv").unlink(missing_ok=True)  # it is written anew, whole
        return CSVLogger(directory, name="", version="csv", flush_logs_every_n_steps=1)


class MLflow(Tracker):
    """A run of MLflow (package mlflow or mlflow-skinny).

    Args:
        uri: of the tracking server or store, as ``sqlite:///mlflow.db``; None for MLflow's own default.
        experiment: its name; made when it is new.
    """

    def __init__(self, uri: str | None = None, experiment: str = "counterpoise"):
        self.uri, self.experiment = uri, experiment

    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        require("logger MLflow", "mlflow")
        return _MLflowLogger(self, directory.name, run)


class _MLflowLogger:
    def __init__(self, settings: MLflow, name: str, run: str | None):
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        self._client = MlflowClient(settings.uri)
        if run is None:
            known = self._client.get_experiment_by_name(settings.experiment)
            experiment = self._client.create_experiment(settings.experiment) if known is None else known.experiment_id
            self.version: str = self._client.create_run(experiment, run_name=name).info.run_id
        else:
            self.version = run
            self._client.update_run(run, status="RUNNING")

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

        now = int(time.time() * 1000)
        self._client.log_batch(self.version, metrics=[Metric(k, v, now, step or 0) for k, v in metrics.items()])

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        values = [Param(name, str(value)[:6000]) for name, value in params.items()]  # longer ones are refused
        for start in range(0, len(values), 100):
            self._client.log_batch(self.version, params=values[start : start + 100])

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self.version, "FINISHED" if status == "success" else "FAILED")


class WandB(Tracker):
    """A run of Weights & Biases (package wandb).

    Args:
        project: its name.
        mode: "online", "offline" or "disabled"; None for what the environment says (``WANDB_MODE``).
    """

    def __init__(self, project: str = "counterpoise", mode: str | None = None):
        self.project, self.mode = project, mode

    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        require("logger WandB", "wandb")
        import wandb  # pyright: ignore[reportMissingImports]

        version = run or uuid4().hex[:12]
        begun = wandb.init(
            project=self.project, name=directory.name, id=version, resume="allow", mode=self.mode, dir=str(directory),
        )  # fmt: skip
        return _SimpleLogger(begun, version, lambda failed: begun.finish(exit_code=int(failed)))


class Trackio(Tracker):
    """A run of Trackio, in its local store (package trackio).

    Args:
        project: its name.
        space_id: of a Space of Hugging Face to write to instead.
    """

    def __init__(self, project: str = "counterpoise", space_id: str | None = None):
        self.project, self.space_id = project, space_id

    def open(self, directory: Path, run: str | None, epoch: int) -> Logger:
        require("logger Trackio", "trackio")
        import trackio  # pyright: ignore[reportMissingImports]

        version = run or f"{directory.name}-{uuid4().hex[:8]}"  # it has no number beside the name
        begun = trackio.init(
            project=self.project, name=version, space_id=self.space_id, resume="allow" if run else "never", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        return _SimpleLogger(begun, version, lambda _: begun.finish())


class _SimpleLogger:
    """Over a run object with ``log`` and ``config``."""

    def __init__(self, run: Any, version: str, finish: Any):
        self._run, self.version, self._finish = run, version, finish

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._run.log(metrics, step=step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        self._run.config.update(dict(params))

    def finalize(self, status: str) -> None:
        self._finish(status != "success")


LOGGERS: dict[str, type[Tracker]] = {cls.__name__: cls for cls in (CSV, MLflow, TensorBoard, Trackio, WandB)}
"""The trackers that scores can go to, by name."""
