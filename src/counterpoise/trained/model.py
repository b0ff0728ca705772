"""A trained model, to predict with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from counterpoise.data.readers import Reader
from counterpoise.data.split import Split
from counterpoise.engine import Predictions, Trainer
from counterpoise.portable import Description
from counterpoise.task import MultiLabel, Regression, Task
from counterpoise.trained.intake import intakes
from counterpoise.trained.samples import samples_of
from counterpoise.trained.votes import Prediction, answers, explained


class TrainedModel:
    """A trained model with all that it needs to read raw samples; ``counterpoise.load`` gives it.

    ``data`` below is one sample as a dict (``{"audio": "a.wav", "image": "b.png"}``), a list of such dicts, a dict of
    columns (lists, arrays, tensors), a DataFrame, the name of a CSV or Parquet file, or a split. A value is what the
    modality's reader takes, a path or a text, or a torch tensor, which goes to the encoder as it is. What is left out,
    None, empty or NaN is absent. One sample gives one answer, anything else an array with an entry for each; nothing
    is said of a sample without any modality (None, NaN).

    Args:
        trainer: with the trained weights.
        description: what it is made of.
        readers: modality -> what reads it.

    Attributes:
        trainer: evaluates splits, as in training.
        description: what it is made of, as plain data.
    """

    def __init__(self, trainer: Trainer, description: Description, readers: dict[str, Reader]):
        self.trainer, self.description = trainer, description
        self._intakes = intakes(description.modalities, readers)

    @property
    def task(self) -> Task:
        """What is predicted."""
        return self.trainer.model.task

    @property
    def classes_(self) -> np.ndarray:
        """Names of the classes, labels or numbers, in the order of the columns of ``predict_proba``."""
        return np.array(self.task.names)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that predictions are made from, in order."""
        model = self.trainer.model
        return model.select(self.trainer.method.reads(model.modalities))

    def predict(self, data: Any, *, root: str | Path | None = None, explain: bool = False) -> Any:
        """Class names, label sets (tuples of names) or numbers.

        Args:
            data: samples.
            root: what paths are relative to; by default the folder of a table, else the working directory.
            explain: give a ``Prediction`` for each sample instead, with what each modality says and its share.

        Returns:
            One sample: its answer. Several: (n,) of class names or numbers, (n, numbers) for several of them; a list
            of label sets, or of predictions.
        """
        split, one = self._split(data, root)
        found = self.trainer.predict(split)
        if explain:
            several: list[Prediction] = explained(self.trainer.current, split, found)
            return several[0] if one else several
        said = answers(self.task, self._shown(found), found.anything())
        if one:
            return said[0]
        if isinstance(self.task, MultiLabel):
            return said
        if isinstance(self.task, Regression):
            return self._numbers(found)[:, 0] if self.task.width == 1 else self._numbers(found)
        return np.array(said) if found.anything().all() else np.array(said, dtype=object)

    def predict_proba(self, data: Any, *, root: str | Path | None = None) -> np.ndarray:
        """Probabilities of the classes or labels, (n, classes), or (classes,) of one sample.

        Raises:
            ValueError: for a model that predicts numbers.
        """
        if isinstance(self.task, Regression):
            raise ValueError("Numbers are predicted, which have no probabilities; predict(data) gives them.")
        split, one = self._split(data, root)
        found = self._numbers(self.trainer.predict(split))
        return found[0] if one else found

    def embed(self, data: Any, *, root: str | Path | None = None) -> dict[str, np.ndarray]:
        """Modality -> its features (n, dim), NaN where it is absent, and ``"fused"`` -> those of the whole sample.

        The fused ones are what the fused logits are linear in (``Gated``, ``FiLM``, ``Attention``), else the features
        side by side, with zeros for what is absent. Of one sample they are (dim,).
        """
        split, one = self._split(data, root)
        features = {m: z.numpy().copy() for m, z in self.trainer.embed(split).items()}
        for m, mask in (split.present or {}).items():
            if m in features:
                features[m][~mask.numpy()] = np.nan
        return {m: z[0] if one else z for m, z in features.items()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """The metrics of labelled samples, fused and per modality, as ``Trainer.evaluate`` gives them."""
        return self.trainer.evaluate(split)

    def __repr__(self) -> str:
        read = ", ".join(f"{m}: {type(i.reader).__name__ if i.reader else i.shape}" for m, i in self._intakes.items())
        return f"TrainedModel({self.task!r} from {read}; {self.trainer.method.label})"

    def _split(self, data: Any, root: str | Path | None) -> tuple[Split, bool]:
        return samples_of(data, self._intakes, self.modalities, self.task, root)

    def _shown(self, found: Predictions) -> Tensor:
        return self.task.predictions(found.fused)

    def _numbers(self, found: Predictions) -> np.ndarray:
        """Probabilities or numbers (n, width), NaN for samples without any modality."""
        numbers = self._shown(found).numpy().copy()
        numbers[~found.anything().numpy()] = np.nan
        return numbers
