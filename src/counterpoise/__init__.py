"""Balanced multimodal learning: training when one modality learns faster and starves the rest.

The short way from features in memory to a trained model::

    import counterpoise as cp

    data = cp.from_arrays({"audio": A, "video": V}, y)
    model = cp.build_model({"audio": MyAudio(), "video": MyVideo()}, "Late", num_classes=10, example=data.train)
    trainer = cp.Trainer(model, cp.methods.IGM(), epochs=20)
    result = trainer.run(data)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from counterpoise import encoders, functional, fusions, methods
    from counterpoise.answer.auto import auto
    from counterpoise.answer.distil import distil
    from counterpoise.benchmark.cross_validation import CrossValidation, cross_validate
    from counterpoise.build import build_model
    from counterpoise.data import Splits, Table, digits, from_arrays, from_dataset, from_hf, from_log
    from counterpoise.engine import SGD, Adam, AdamW, Trainer
    from counterpoise.estimators import Bundle, MultimodalClassifier, MultimodalRegressor
    from counterpoise.exporting import Exported, export
    from counterpoise.integrations import balance
    from counterpoise.method import Method
    from counterpoise.model import MultimodalModel
    from counterpoise.observer import Observer
    from counterpoise.studies.diagnosis.runs import diagnose
    from counterpoise.studies.robustness import robustness
    from counterpoise.trained import TrainedModel, load

__version__ = "0.1.0"

_HOMES = {
    "Adam": "engine",
    "AdamW": "engine",
    "Bundle": "estimators",
    "Exported": "exporting",
    "CrossValidation": "benchmark.cross_validation",
    "Method": "method",
    "MultimodalClassifier": "estimators",
    "MultimodalModel": "model",
    "MultimodalRegressor": "estimators",
    "Observer": "observer",
    "SGD": "engine",
    "Splits": "data",
    "Table": "data",
    "TrainedModel": "trained",
    "Trainer": "engine",
    "auto": "answer.auto",
    "balance": "integrations",
    "build_model": "build",
    "cross_validate": "benchmark.cross_validation",
    "diagnose": "studies.diagnosis.runs",
    "digits": "data",
    "distil": "answer.distil",
    "export": "exporting",
    "from_arrays": "data",
    "from_dataset": "data",
    "from_hf": "data",
    "from_log": "data",
    "load": "trained",
    "robustness": "studies.robustness",
}
_PACKAGES = ("data", "encoders", "engine", "functional", "fusions", "integrations", "methods", "metrics", "report")

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Bundle",
    "CrossValidation",
    "Exported",
    "Method",
    "MultimodalClassifier",
    "MultimodalModel",
    "MultimodalRegressor",
    "Observer",
    "Splits",
    "Table",
    "TrainedModel",
    "Trainer",
    "auto",
    "balance",
    "build_model",
    "cross_validate",
    "diagnose",
    "digits",
    "distil",
    "encoders",
    "export",
    "from_arrays",
    "from_dataset",
    "from_hf",
    "from_log",
    "functional",
    "fusions",
    "load",
    "methods",
    "robustness",
]


def __dir__() -> list[str]:
    """With what is imported on first use, so that it can be completed and is in ``help``."""
    return sorted({*globals(), *_HOMES, *_PACKAGES})


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import counterpoise`` costs nothing."""
    if name in _HOMES:
        from counterpoise._extras import named_when_missing

        with named_when_missing(f"counterpoise.{name}"):
            return getattr(import_module(f"counterpoise.{_HOMES[name]}"), name)
    if name in _PACKAGES:
        return import_module(f"counterpoise.{name}")
    raise AttributeError(f"module 'counterpoise' has no attribute {name!r}")
