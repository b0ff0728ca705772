"""A file of ONNX opened again: what it says of itself, and predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import numpy as np

from counterpoise._checks import per_modality
from counterpoise._extras import require
from counterpoise.exporting.facts import FORMAT, KEY
from counterpoise.task import Task, task_of


class Exported:
    """A model that ``export`` wrote as ``.onnx``, run by ONNX Runtime.

    It needs nothing of what trained it. A ``.pt2`` is opened by ``torch.export.load``.

    Args:
        path: the file.

    Attributes:
        facts: what the file says of itself: task, modalities with shapes, types and readers, names of outputs.

    Raises:
        ImportError: the extra ``export`` is not installed.
        ValueError: no file of ONNX, of another origin, or written by a later version.
    """

    def __init__(self, path: str | PathLike[str]):
        require("Exported", "onnxruntime")
        import onnxruntime

        self.path = fspath(path)
        if self.path.endswith(".pt2"):
            raise ValueError(f"{path} is opened by torch.export.load(...).module(), which unpickles: trust its origin.")
        with open(self.path, "rb") as file:
            content = file.read()
        try:
            self._session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # of ONNX Runtime, which has its own for each
            raise ValueError(f"{path} is no file of ONNX, or a damaged one: {error}") from error
        stated = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if stated is None:
            raise ValueError(f"{path} was not written by counterpoise.export: it does not say what goes in.")
        self.facts: dict[str, Any] = json.loads(stated)
        if self.facts["format"] > FORMAT:
            raise ValueError(f"{path} was written by a later version of counterpoise: upgrade this one.")

    @property
    def task(self) -> Task:
        """What is predicted."""
        return task_of(self.facts["task"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """What goes in, in order."""
        return tuple(self.facts["modalities"])

    def __call__(self, inputs: Mapping[str, Any], present: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Every output by name, each (n, classes).

        Args:
            inputs: modality -> (n, ...), preprocessed as ``facts`` says, in its type. One that is left out is absent
                for all samples.
            present: modality -> (n,) bool, for those that some sample lacks.

        Raises:
            ValueError: an input that the model does not take, or of another shape or type, naming it.
        """
        per_modality("inputs", inputs, self.modalities)
        per_modality("present", present or {}, self.modalities)
        arrays = {m: self._checked(m, np.asarray(x)) for m, x in inputs.items()}
        if len(sizes := {m: len(x) for m, x in arrays.items()}) == 0 or len(set(sizes.values())) > 1:
            raise ValueError(f"inputs must be of one number of samples, at least of one modality; got {sizes}.")
        count = next(iter(sizes.values()))
        given = {}
        for m, facts in self.facts["modalities"].items():
            mask = np.asarray((present or {}).get(m, np.full(count, m in arrays)))
            if mask.shape != (count,) or mask.dtype != np.bool_:
                raise ValueError(f"present[{m!r}] must be ({count},) bool; got {mask.dtype} of shape {mask.shape}.")
            if m not in arrays and mask.any():
                raise ValueError(f"present[{m!r}] says that there are samples, and inputs has no {m!r}.")
            nothing = np.zeros((count, *facts["shape"]), facts["dtype"])
            given |= {facts["input"]: arrays.get(m, nothing), facts["mask"]: mask}
        names = [output.name for output in self._session.get_outputs()]
        values = self._session.run(names, given)
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def _checked(self, modality: str, x: np.ndarray) -> np.ndarray:
        facts = self.facts["modalities"][modality]
        shape, kind = tuple(facts["shape"]), facts["dtype"]
        if x.ndim != 1 + len(shape) or x.shape[1:] != shape or x.dtype != kind:
            cure = f" Pass x.astype({kind!r})." if x.shape[1:] == shape else ""
            raise ValueError(
                f"inputs[{modality!r}] must be (n, {', '.join(map(str, shape))}) of {kind}; got {x.dtype} of shape "
                f"{x.shape}.{cure}"
            )
        return x

    def __repr__(self) -> str:
        return f"Exported({self.path!r}: {self.facts['method']}, {', '.join(self.modalities)} -> {self.task!r})"
