"""The loop, its devices and its files. The only package that imports Lightning Fabric."""

from counterpoise.engine.checkpoint import CheckpointError
from counterpoise.engine.evaluation import Predictions
from counterpoise.engine.interrupt import Interrupted
from counterpoise.engine.memory import keep_freed_memory
from counterpoise.engine.optim import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Milestones,
    Optimizer,
    Plateau,
    Schedule,
    StepDecay,
)
from counterpoise.engine.progress import ConsoleProgress
from counterpoise.engine.record import RunDirectory, RunDirectoryError
from counterpoise.engine.replicas import ReplicaLostError, make_fabric
from counterpoise.engine.run import Run
from counterpoise.engine.step import Step
from counterpoise.engine.torch_optim import TorchOptim
from counterpoise.engine.trackers import CSV, LOGGERS, MLflow, TensorBoard, Tracker, Trackio, WandB
from counterpoise.engine.trainer import Trainer
from counterpoise.observer import Observer

OPTIMIZERS = {cls.__name__: cls for cls in (SGD, Adam, AdamW, TorchOptim)}
"""The optimizers that have a name here; any other class of ``torch.optim`` goes by its own."""
SCHEDULES = {cls.__name__: cls for cls in (Constant, StepDecay, Milestones, Cosine, Plateau)}
"""The schedules of the learning rate, by name."""

__all__ = [
    "CSV",
    "LOGGERS",
    "OPTIMIZERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "CheckpointError",
    "ConsoleProgress",
    "Constant",
    "Cosine",
    "Interrupted",
    "MLflow",
    "Milestones",
    "Observer",
    "Optimizer",
    "Plateau",
    "Predictions",
    "ReplicaLostError",
    "Run",
    "RunDirectory",
    "RunDirectoryError",
    "Schedule",
    "Step",
    "StepDecay",
    "TensorBoard",
    "TorchOptim",
    "Tracker",
    "Trackio",
    "Trainer",
    "WandB",
    "keep_freed_memory",
    "make_fabric",
]
