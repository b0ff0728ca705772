"""A classifier of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_consistent_length, column_or_1d
from torch import Tensor

from counterpoise.estimators.base import MultimodalEstimator
from counterpoise.estimators.inputs import numbers
from counterpoise.task import MultiLabel, SingleLabel, Task


class MultimodalClassifier(ClassifierMixin, MultimodalEstimator):
    """A multimodal model as a classifier of scikit-learn: one of several classes, or any number of labels.

    ``X`` is (n, columns) numbers or a data frame, divided among the modalities by ``modalities``, or a `Bundle`.
    Columns of texts or names of files, and pictures in a bundle, go through a reader. ``y`` is (n,) classes, or
    (n, labels) of zeros and ones for several labels. Identical samples are merged and count as many times; a share of
    the samples is held back to select the weights by.

    >>> import numpy as np
    >>> from counterpoise.estimators import MultimodalClassifier
    >>> X, y = np.random.default_rng(0).normal(size=(60, 5)), np.arange(60) % 2
    >>> model = MultimodalClassifier("OGM", modalities={"audio": slice(0, 3), "video": [3, 4]}, epochs=2)
    >>> model.fit(X, y).predict_proba(X).shape
    (60, 2)

    Args:
        method: how to train: a name, or one of ``counterpoise.methods``; ``method__alpha`` is an option of it. "auto"
            trains and predicts as ``cp.auto`` does, at ``optimizer``'s learning rate.
        fusion: name or class of a fusion, or what makes one; the method's own default when None.
        encoders: modality -> name of an encoder, module, or function that makes one; a default for each when None.
        modalities: modality -> its columns of ``X``, as a slice, names or positions; None takes all as one modality.
        optimizer: name, settings, or class of ``torch.optim``; ``optimizer__lr`` is an option of it.
        schedule: name or settings of a schedule of the learning rate.
        loss: name or one of ``counterpoise.losses``; None for the task's own.
        epochs: passes over the training samples, at least 1.
        batch_size: samples of a batch, at least 2; fewer where there are fewer.
        sam: radius of sharpness-aware minimisation; 0 is off. None is off, too, but for "auto", which has its own.
        early_stopping: epochs without a better score on validation after which training ends; None never ends it.
        validation_fraction: share of the samples to select the weights by, in (0, 1).
        accelerator: "auto", "cpu" or "gpu".
        random_state: seed, generator of NumPy, or None for another result each time.

    Attributes:
        classes_: the classes in the order of ``predict_proba``; of several labels their numbers, or column names.
        model_: the trained model.
        method_: the method as training left it.
        history_: losses and validation scores, one mapping per epoch.
        n_features_in_: columns, or modalities of a bundle.
        feature_names_in_: names of the columns, of a data frame.
        readers_: modality -> what reads its texts, files or pictures, guessed from the samples of ``fit``.
    """

    def predict(self, X: Any) -> np.ndarray:
        """(n,) the most probable class of each sample; (n, labels) of zeros and ones for several labels."""
        shown = self.predict_proba(X)
        if isinstance(self.model_.task, MultiLabel):
            return (shown > 0.5).astype(self._label_dtype)
        return self.classes_[shown.argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """(n, classes) probabilities; for several labels (n, labels), each the probability of yes."""
        shown = self._shown(X).astype(np.float64)
        return shown if isinstance(self.model_.task, MultiLabel) else shown / shown.sum(1, keepdims=True)

    def _target_of(self, y: Any, count: int) -> tuple[Tensor, Task]:
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            return self._labels_of(y, count)
        values = column_or_1d(y, warn=True)
        check_consistent_length(np.empty(count), values)
        self.classes_, codes = np.unique(values, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must have at least two classes; all {count} samples are of the class {values[0]!r}.")
        return torch.from_numpy(codes.astype(np.int64)), SingleLabel([str(name) for name in self.classes_])

    def _labels_of(self, y: Any, count: int) -> tuple[Tensor, Task]:
        names = getattr(y, "columns", None)
        values = numbers(y, accept_sparse=False, dtype=None)
        check_consistent_length(np.empty(count), values)
        self.classes_ = np.arange(values.shape[1]) if names is None else np.asarray(names)
        self._label_dtype = values.dtype
        return torch.from_numpy(values.astype(np.float32)), MultiLabel([str(name) for name in self.classes_])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
