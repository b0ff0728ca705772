"""A trained model, to predict with."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from counterpoise._extras import require
from counterpoise.data.readers import Reader
from counterpoise.data.samples import Collate
from counterpoise.data.split import Split
from counterpoise.engine import Predictions, Trainer
from counterpoise.exporting import export
from counterpoise.method import Method
from counterpoise.portable import Description
from counterpoise.task import MultiLabel, Regression, Task
from counterpoise.trained.card import card_of
from counterpoise.trained.folder import CONFIG, write_folder
from counterpoise.trained.intake import intakes
from counterpoise.trained.samples import labelled_table, samples_of
from counterpoise.trained.votes import Prediction, answers, explained


def has_own_rule(method: Method) -> bool:
    """Whether a method decides what is predicted, so that what it holds matters beyond training."""
    return type(method).predict is not Method.predict or type(method).decide is not Method.decide


class TrainedModel:
    """A trained model with all that it needs to read raw samples; ``counterpoise.load`` gives it.

    ``data`` below is one sample as a dict (``{"audio": "a.wav", "image": "b.png"}``), a list of such dicts, a dict of
    columns (lists, arrays, tensors), a DataFrame, the name of a CSV or Parquet file, or a split. A value is what the
    modality's reader takes (a path, a text, a picture, ...), or a torch tensor, which goes to the encoder as it is.
    What is left out, None, empty or NaN is absent. One sample gives one answer, anything else an array with an entry
    for each; nothing is said of a sample without any modality (None, NaN).

    Args:
        trainer: with the trained weights.
        description: what it is made of.
        readers: modality -> what reads it.
        result: what was measured of it (``result.json``); None when nothing was.
        collates: modality -> what makes one tensor of samples that differ in shape.

    Attributes:
        trainer: evaluates splits, as in training.
        description: what it is made of, as plain data.
        result: content of ``result.json`` of its run, or None.
    """

    def __init__(
        self,
        trainer: Trainer,
        description: Description,
        readers: dict[str, Reader],
        result: Mapping[str, Any] | None = None,
        collates: Mapping[str, Collate] | None = None,
    ):
        self.trainer, self.description, self.result = trainer, description, result
        self._intakes = intakes(description.modalities, readers, collates or {})

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

    def reader(self, modality: str) -> Reader | None:
        """What reads the values of a modality; None where it was trained on tensors."""
        return self._intakes[modality].reader

    def samples(self, data: Any, *, root: str | Path | None = None, labelled: bool = False) -> Split:
        """The samples as a split, for ``trainer``.

        Args:
            data: samples.
            root: as for ``predict``.
            labelled: with the labels of a table, to evaluate.

        Raises:
            ValueError: labels are asked for and ``data`` is no table with such columns.
        """
        if labelled and not isinstance(data, Split):
            return labelled_table(data, self._intakes, self.modalities, self.task, root, self.description.labels)
        return samples_of(data, self._intakes, self.modalities, self.task, root)[0]

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
        predictions = self.trainer.predict(split)
        if explain:
            several: list[Prediction] = explained(self.trainer.current, split, predictions)
            return several[0] if one else several
        said = answers(self.task, self._shown(predictions), predictions.anything())
        if one:
            return said[0]
        if isinstance(self.task, MultiLabel):
            return said
        if isinstance(self.task, Regression):
            return self._numbers(predictions)[:, 0] if self.task.width == 1 else self._numbers(predictions)
        return np.array(said) if predictions.anything().all() else np.array(said, dtype=object)

    def predict_proba(self, data: Any, *, root: str | Path | None = None) -> np.ndarray:
        """Probabilities of the classes or labels, (n, classes), or (classes,) of one sample.

        Raises:
            ValueError: for a model that predicts numbers.
        """
        if isinstance(self.task, Regression):
            raise ValueError("Numbers are predicted, which have no probabilities; predict(data) gives them.")
        split, one = self._split(data, root)
        numbers = self._numbers(self.trainer.predict(split))
        return numbers[0] if one else numbers

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

    def evaluate(self, data: Any, *, root: str | Path | None = None) -> dict[str, float]:
        """The metrics of labelled samples, a split or a table, fused and per modality, as ``Trainer.evaluate``."""
        return self.trainer.evaluate(self.samples(data, root=root, labelled=True))

    # -- for others ------------------------------------------------------------------------------------
    def save_pretrained(self, folder: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write it as a folder that ``counterpoise.load`` opens anywhere.

        ``model.safetensors`` holds the weights, ``config.json`` all else as plain data, readers and class names
        included, and ``README.md`` is a card with the scores of every subset of the modalities, where they were
        measured.

        Args:
            folder: made when missing.
            overwrite: replace a model that is there.

        Raises:
            FileExistsError: there is one.
            ValueError: the model was made by ``build``, or of parts that were not written down.
        """
        folder = Path(folder).expanduser()
        if self.description.unknown:
            reasons = "; ".join(self.description.unknown)
            raise ValueError(
                f"This model cannot be made elsewhere from what is written down: {reasons}. "
                "Put the classes into a module that can be imported, with arguments kept under their own names, and "
                "train again."
            )
        if (folder / CONFIG).exists() and not overwrite:
            raise FileExistsError(f"{folder} holds a model. Pass overwrite=True to replace it.")
        run = self.trainer.current
        parts = {"model": run.model, "loss": run.loss, **({"method": run.method} if has_own_rule(run.method) else {})}
        write_folder(
            folder,
            self.description,
            {name: part.state_dict() for name, part in parts.items()},
            epoch=run.state.best_epoch,
            result=self.result,
            card=card_of(self.description, self.result, run.method.label),
        )
        return folder

    @staticmethod
    def from_pretrained(source: str | PathLike[str], **options: Any) -> TrainedModel:
        """``counterpoise.load``, under the name that other libraries have for it."""
        from counterpoise.trained.loading import load

        return load(source, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what ``save_pretrained`` writes to the hub of Hugging Face, where you are logged in.

        Args:
            repo_id: as "owner/name".
            options: of ``huggingface_hub.ModelHubMixin.push_to_hub``, such as ``private=True``.

        Returns:
            The address of the commit.

        Raises:
            ImportError: the extra ``hub`` is not installed.
        """
        require("push_to_hub", "huggingface_hub")
        from counterpoise.trained.hub import OnHub

        return OnHub(self).push_to_hub(repo_id, **options)

    def export(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the model into one file that predicts without this package; see ``counterpoise.export``.

        Args:
            path: ends in ``.onnx`` or ``.pt2``.
            overwrite: replace a file that is there.

        Raises:
            ValueError: a modality of which training did not say one shape.
        """
        example = {}
        for m in self.modalities:
            described = self.description.modalities[m]
            if described.shape is None:
                raise ValueError(
                    f"The shape of the input {m!r} is not known: no training sample had the modality, or its samples "
                    "differ in shape. counterpoise.export takes an example."
                )
            example[m] = torch.zeros(1, *described.shape, dtype=described.of_torch)
        model, method = self.trainer.model, self.trainer.method
        return export(model, method, path, example, readers=self.readers, overwrite=overwrite)

    @property
    def readers(self) -> dict[str, Reader]:
        """Modality -> what reads it, of those that are not trained on tensors."""
        return {m: intake.reader for m, intake in self._intakes.items() if intake.reader is not None}

    def __repr__(self) -> str:
        read = ", ".join(f"{m}: {type(i.reader).__name__ if i.reader else i.shape}" for m, i in self._intakes.items())
        return f"TrainedModel({self.task!r} from {read}; {self.trainer.method.label})"

    def _split(self, data: Any, root: str | Path | None) -> tuple[Split, bool]:
        return samples_of(data, self._intakes, self.modalities, self.task, root)

    def _shown(self, predictions: Predictions) -> Tensor:
        return self.task.predictions(predictions.fused)

    def _numbers(self, predictions: Predictions) -> np.ndarray:
        """Probabilities or numbers (n, width), NaN for samples without any modality."""
        numbers = self._shown(predictions).numpy().copy()
        numbers[~predictions.anything().numpy()] = np.nan
        return numbers
