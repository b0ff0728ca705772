"""What classifier and regressor share: parameters, ``fit``, and predictions of new samples."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import Tensor

from counterpoise._checks import number, settings
from counterpoise._names import made
from counterpoise.answer.preset import DEFAULT
from counterpoise.build import build_model
from counterpoise.data.arrays import ArraySplit
from counterpoise.data.layout import Layout
from counterpoise.data.split import Split, Splits
from counterpoise.data.splitting import holdout
from counterpoise.engine import Trainer
from counterpoise.engine.torch_optim import optimizer_of
from counterpoise.estimators.inputs import Inputs, inputs_of
from counterpoise.task import Task


class Samples(ArraySplit):
    """Samples in memory, some of whose modalities say themselves what they look like: texts, as numbers of words."""

    def __init__(self, inputs: Any, target: Tensor, task: Task, layouts: Mapping[str, Layout], **more: Any):
        super().__init__(inputs, target, task, **more)
        self.layouts = layouts

    def layout(self, modality: str) -> Layout:
        return self.layouts[modality] if modality in self.layouts else super().layout(modality)


PARTS = ("method", "optimizer", "schedule", "loss")
"""Parameters with parameters of their own: ``method__alpha``."""
AUTO = "auto"
"""The method that is no method: what ``cp.auto`` trains."""


class MultimodalEstimator(BaseEstimator):
    """What `MultimodalClassifier` and `MultimodalRegressor` share; see there."""

    def __init__(
        self,
        method: Any = "Joint",
        *,
        fusion: Any = None,
        encoders: Mapping[str, Any] | None = None,
        modalities: Mapping[str, Any] | None = None,
        optimizer: Any = "SGD",
        schedule: Any = "Constant",
        loss: Any = None,
        epochs: int = 50,
        batch_size: int = 32,
        sam: float | None = None,
        early_stopping: int | None = None,
        validation_fraction: float = 0.15,
        accelerator: str = "auto",
        random_state: Any = None,
    ):
        self.method, self.fusion, self.encoders, self.modalities = method, fusion, encoders, modalities
        self.optimizer, self.schedule, self.loss = optimizer, schedule, loss
        self.epochs, self.batch_size, self.sam, self.early_stopping = epochs, batch_size, sam, early_stopping
        self.validation_fraction, self.accelerator, self.random_state = validation_fraction, accelerator, random_state

    # -- parameters ------------------------------------------------------------------------------
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name; with ``deep`` also those of method, optimizer, schedule and loss: ``method__tau``."""
        params = super().get_params(deep=False)
        if deep:
            for part in PARTS:
                own = _settings(part, params[part])
                params |= {f"{part}__{name}": value for name, value in own.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``method__tau=0.2`` makes the method anew with that option.

        Raises:
            ValueError: for a parameter that there is not.
        """
        nested: dict[str, dict[str, Any]] = {}
        for name in [name for name in params if name.partition("__")[0] in PARTS and "__" in name]:
            part, _, option = name.partition("__")
            nested.setdefault(part, {})[option] = params.pop(name)
        super().set_params(**params)
        for part, options in nested.items():
            object_of = optimizer_of if part == "optimizer" else lambda value, part=part: made(part, value)
            present = object_of(getattr(self, part))
            known = _settings(part, present)
            for option in options:
                if option not in known:
                    raise ValueError(
                        f"Invalid parameter {option!r} for the {part} of {type(self).__name__}. Valid parameters are: "
                        f"{sorted(known)}."
                    )
            setattr(self, part, type(present)(**{**known, **options}))
        return self

    # -- training --------------------------------------------------------------------------------
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train, and keep the weights that were best on a share that is split off these samples.

        Args:
            X: (n, columns) numbers, a data frame or a `Bundle`.
            y: (n,) or (n, outputs).
            sample_weight: (n,) numbers >= 0, how much each sample counts.
            groups: (n,) names (speakers, say); no group is on both sides of the share for validation.

        Raises:
            ValueError: for data that cannot be learned from, naming what is wrong.
        """
        number("validation_fraction", self.validation_fraction, above=0, below=1)
        inputs = inputs_of(self, X, self.modalities, reset=True)
        target, task = self._target_of(y, len(inputs))
        whole, names = _whole(inputs, target, task, self._weights(sample_weight, X), groups)
        if len(whole) < 4:
            raise ValueError(
                f"n_samples={len(whole)} different samples that count: fit needs at least 4, to train and to select by."
            )
        train, val = holdout(task.strata(whole.target), self.validation_fraction, 0, names)
        task = self._fitted(task, whole.target[train])
        whole = Samples(whole.inputs, whole.target, task, inputs.layouts, present=whole.present, weight=whole.weight)
        self._train(Splits(whole.subset(torch.from_numpy(train)), whole.subset(torch.from_numpy(val))))
        return self

    def _weights(self, sample_weight: Any, X: Any) -> np.ndarray:
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise ValueError("sample_weight is zero for all samples: nothing would count.")
        return weight

    def _train(self, data: Splits) -> None:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        preset = DEFAULT if isinstance(self.method, str) and self.method.casefold() == AUTO else None
        if preset is None:
            method = copy.deepcopy(made("method", self.method))
            building, sam = {"heads": method.own_heads, "fusion": method.default_fusion}, 0.0
        else:
            method = preset.method(**preset.settings)
            building, sam = dict(preset.building), preset.training["sam"]
        if self.fusion:
            building["fusion"] = self.fusion
        encoders = data if self.encoders is None else copy.deepcopy(dict(self.encoders))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(encoders, task=data.task, example=data, **building)
        trainer = Trainer(
            model, method, epochs=self.epochs, batch_size=min(self.batch_size, len(data.train)),
            optimizer=copy.deepcopy(self.optimizer), schedule=copy.deepcopy(self.schedule),
            loss=copy.deepcopy(self.loss), sam=sam if self.sam is None else self.sam,
            early_stopping=self.early_stopping, seed=seed, accelerator=self.accelerator, progress=False,
        )  # fmt: skip
        trainer.fit(data.train, data.val)
        self.model_, self.method_, self.history_ = model.cpu(), method.cpu(), trainer.history

    # -- prediction ------------------------------------------------------------------------------
    def votes(self, X: Any) -> dict[str, np.ndarray]:
        """What each modality alone predicts, and all together as ``fused``: name -> predictions, NaN where absent."""
        split, outputs_by = self._outputs(X)
        task, votes = self.model_.task, {}
        for name, outputs in outputs_by.items():
            votes[name] = task.predictions(outputs).numpy()
            if split.present is not None and name in split.present:
                votes[name][~split.present[name].numpy()] = np.nan
        return votes

    def _outputs(self, X: Any) -> tuple[Split, dict[str, Tensor]]:
        """The samples, and the outputs of all modalities together and of each."""
        check_is_fitted(self)
        inputs = inputs_of(self, X, self.modalities, reset=False)
        task = self.model_.task
        count, size = len(inputs), max(2, self.batch_size)
        # whole batches only: the last bits of a matrix product depend on its size
        rows = torch.arange(-(-count // size) * size).clamp(max=count - 1)
        nothing = torch.zeros(count, dtype=torch.int64)
        whole = Samples(inputs.values, nothing, task, inputs.layouts, present=inputs.present)
        trainer = Trainer(self.model_, self.method_, batch_size=size, accelerator=self.accelerator, progress=False)
        try:
            predictions = trainer.predict(whole.subset(rows))
        finally:
            self.model_.cpu()
        return whole, {name: outputs[:count] for name, outputs in predictions.named().items()}

    def _shown(self, X: Any) -> np.ndarray:
        """(n, width) predictions of all modalities together, as the task shows them."""
        outputs = self._outputs(X)[1]
        return self.model_.task.predictions(outputs["fused"]).numpy()

    # -- of classifier and regressor ---------------------------------------------------------------
    def _target_of(self, y: Any, count: int) -> tuple[Tensor, Task]:
        """The target of all samples, and what is predicted; notes what ``y`` was."""
        raise NotImplementedError

    def _fitted(self, task: Task, target: Tensor) -> Task:
        """The task with what it learns of the target of the training samples."""
        return task


def _settings(part: str, value: Any) -> dict[str, Any]:
    """The options of a part; none where it is None, or no such part."""
    try:
        present = optimizer_of(value) if part == "optimizer" else made(part, value)
    except ValueError:
        return {}
    return settings(present) if type(present).__module__.split(".")[0] != "builtins" and present is not None else {}


def _whole(
    inputs: Inputs, target: Tensor, task: Task, weight: np.ndarray, groups: Any
) -> tuple[Samples, np.ndarray | None]:
    """All samples that count, in an order of their own: identical ones merged, with the sum of their weights.

    So no sample is on both sides of a split, a weight of 2 is the sample twice to the bit, and the order of the rows
    decides nothing.
    """
    names = None if groups is None else np.asarray(groups)
    if names is not None and names.shape != (len(target),):
        raise ValueError(f"groups must be ({len(target)},) names, one per sample; got shape {names.shape}.")
    columns = [target, *inputs.values.values(), *inputs.present.values()]
    rows = [column.reshape(len(column), -1).numpy() for column in columns]
    keys = []
    for i in range(len(target)):
        state = hashlib.blake2b(b"" if names is None else repr(names[i]).encode(), digest_size=16)
        for row in rows:
            state.update(np.ascontiguousarray(row[i]).data)
        keys.append(state.digest())
    counted = np.flatnonzero(weight > 0)
    _, first, place = np.unique(np.array(keys, "V16")[counted], return_index=True, return_inverse=True)
    sums = torch.from_numpy(np.bincount(place, weight[counted]))
    chosen = torch.from_numpy(counted[first])
    split = Samples(
        {m: x[chosen] for m, x in inputs.values.items()},
        target[chosen],
        task,
        inputs.layouts,
        present={m: mask[chosen] for m, mask in inputs.present.items()},
        weight=None if bool((sums == sums[0]).all()) else sums,
    )
    return split, None if names is None else names[counted[first]]
