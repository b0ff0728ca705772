"""A regressor of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_consistent_length, column_or_1d
from torch import Tensor

from counterpoise.estimators.base import MultimodalEstimator
from counterpoise.estimators.inputs import numbers
from counterpoise.task import Regression, Task


class MultimodalRegressor(RegressorMixin, MultimodalEstimator):
    """A multimodal model as a regressor of scikit-learn; ``y`` is (n,) or (n, outputs) numbers.

    They are standardised by the training samples inside; predictions are in their units. All else is as for
    `MultimodalClassifier`, parameters and attributes included.

    >>> import numpy as np
    >>> from counterpoise.estimators import MultimodalRegressor
    >>> X = np.random.default_rng(0).normal(size=(60, 5))
    >>> model = MultimodalRegressor(modalities={"audio": slice(0, 3), "video": [3, 4]}, epochs=2)
    >>> model.fit(X, X.sum(1)).predict(X).shape
    (60,)
    """

    def predict(self, X: Any) -> np.ndarray:
        """(n,) or (n, outputs) numbers, as ``y`` was."""
        shown = self._shown(X).astype(np.float64)
        return shown[:, 0] if self._flat else shown

    def _target_of(self, y: Any, count: int) -> tuple[Tensor, Task]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        values = numbers(y, dtype=np.float64, ensure_2d=False, input_name="y")
        if values.ndim == 2 and values.shape[1] == 1:
            values = column_or_1d(values, warn=True)
        check_consistent_length(np.empty(count), values)
        self._flat = values.ndim == 1
        target = torch.from_numpy(values.reshape(len(values), -1).copy())
        return target, Regression([f"y{i}" for i in range(target.shape[1])])

    def _fitted(self, task: Task, target: Tensor) -> Task:
        return Regression.fitted(task.names, target)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
