"""Data sets that are ``Dataset`` objects of PyTorch, or anything else with ``len(ds)`` and ``ds[i]``.

**A sample** is a dict, a tuple (``names`` says of what), or a pair of a dict and the label. None or a missing key means
that the sample lacks the modality. Tensors, arrays, lists and numbers become tensors as in ``from_arrays``; a lone
number is a vector of one. Texts, names of files and pictures of PIL in the first sample get a reader, which a warning
says; they are read when a batch asks for them. ``pad`` makes batches of samples of different shapes.

**Random numbers.** Loaders read each sample once for all modalities that train. While one is read, the global random
numbers of PyTorch (on the CPU), NumPy and Python are those of (seed, epoch, position), in whatever process, and
afterwards the caller's again: augmentation in ``ds[i]`` repeats and resumes. Evaluation always draws the same. A
generator that the data set holds itself is its own affair.

**A look at all.** Where the labels or what is absent has to be found out, all samples are read once, with a bar when
that takes long; ``labels`` and ``present`` spare that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset

from counterpoise._checks import per_modality, spelled
from counterpoise._digests import digest
from counterpoise.task import Task
from counterpoise.types import Present, who_has

from .arrays import divide, mask_of
from .labels import alike, part_of, renamed
from .layout import Layout, layout_of_reader
from .readers import Reader
from .samples import Collate, Samples
from .seeding import borrowed_generators
from .split import Split, Splits, lacking, placed, weighed
from .survey import bind, surveyed
from .targets import encoded


class DatasetSplit(Split):
    """The samples of a data set of PyTorch, each read once for all modalities that a batch asks for.

    Its fingerprint is of the class of the data set, its number of samples, labels, weights, what is absent, and of how
    values are read; what samples hold is no part of it.

    Args:
        samples: what is read.
        target: as the task has it.
        task: what is predicted.
        ids: one name per sample.
        present: modality -> (n,) bool, where some sample lacks that modality.
    """

    def __init__(
        self,
        samples: Samples,
        target: Tensor,
        task: Task,
        ids: Sequence[str],
        present: Present = None,
    ):
        self.samples, self.target, self.task, self.ids = samples, target, task, ids
        self.modalities, self.present = samples.modalities, lacking(present)
        self.readers, self.collate = samples.readers, samples.collate

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        mask = (self.present or {}).get(modality)
        if mask is None or bool(mask[rows].any()):
            shown = None if mask is None else {modality: mask[rows]}
            return self.read_together(rows.tolist(), (modality,), seed, shown)[modality]
        example = self.batch([int(mask.int().argmax())], modality, None)  # absent in all: zeros of another's shape
        return example.new_zeros(len(rows), *example.shape[1:])

    def read_together(
        self,
        indices: Sequence[int],
        modalities: Sequence[str],
        seed: int | None,
        present: Present = None,
    ) -> dict[str, Tensor]:
        shown = {m: who_has(m, present, len(indices)) for m in modalities}
        wanted = [[m for m in modalities if shown[m][place]] for place in range(len(indices))]
        read = self.samples.read(indices, wanted, seed)
        together = {}
        for m, mask in shown.items():
            there = mask.nonzero().flatten()
            values = [read[place][m] for place in there.tolist()]
            x = self.samples.joined(m, values, [indices[place] for place in there.tolist()]) if values else None
            together[m] = placed(x, there, len(indices))
        return together

    def recording(self, modality: str) -> str:
        reader = self.samples.readers.get(modality)
        return super().recording(modality) if reader is None else reader.recording

    def altered(self, index: int, modality: str, alter: Callable[[Any], Any]) -> Tensor:
        reader = self.samples.readers.get(modality)
        if reader is None:
            return super().altered(index, modality, alter)
        with borrowed_generators() as seeded:
            return reader.altered(self.samples.values(index, None, seeded)[modality], alter)

    def layout(self, modality: str) -> Layout:
        reader = self.samples.readers.get(modality)
        return super().layout(modality) if reader is None else layout_of_reader(modality, reader)

    def fingerprint(self) -> str:
        sets = getattr(self.samples.dataset, "datasets", [self.samples.dataset])
        kinds = [f"{type(one).__module__}.{type(one).__qualname__}" for one in sets]
        readers = {m: reader.fingerprint() for m, reader in self.samples.readers.items()}
        read = f"{kinds} {self.modalities} {readers} {self.task.to_dict()}"
        masks = chain.from_iterable((self.present or {}).items())
        return digest(read, self.target, *masks, *weighed(self.weight))


@spelled
def from_dataset(
    dataset: Any,
    *,
    label: str = "label",
    names: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    readers: Mapping[str, Reader | str] | None = None,
    collate: Mapping[str, Collate] | None = None,
    labels: Any | None = None,
    present: Mapping[str, Any] | None = None,
    split: Any | None = None,
    val: float = 0.15,
    test: float = 0.15,
    group: Any | None = None,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    task: Task | str | None = None,
    sample_weight: Any | None = None,
) -> Splits:
    """A data set from a map-style ``Dataset`` of PyTorch, or anything else with ``len(ds)`` and ``ds[i]``.

    >>> import torch
    >>> from counterpoise.data import from_dataset
    >>> samples = [{"audio": torch.randn(8), "video": torch.randn(4), "label": i % 3} for i in range(60)]
    >>> data = from_dataset(samples)
    >>> len(data.train), data.modalities
    (42, ('audio', 'video'))

    Args:
        dataset: the samples, each as the head of this module says; or part -> samples, as {"train": ..., "test": ...},
            where ``labels``, ``present``, ``group`` and ``sample_weight`` are such mappings too, without ``split``.
        label: the name of the label in a sample.
        names: what the values of a tuple are, in order, the label among them.
        modalities: the inputs; other values are ignored. None takes all that the first sample has, and refuses others.
        readers: modality -> reader, or its name, for texts, pictures, waveforms and files, as in ``from_arrays``.
        collate: modality -> function from the tensors of a batch to one (n, ...); ``counterpoise.data.pad``, say.
        labels: (n,) labels, as ``y`` of ``from_arrays``; None for ``ds.targets``, else each sample's ``label``.
        present: modality -> (n,) bool, False where the sample lacks it; a modality that is not named is complete.
        split: (n,) names out of "train", "val", "test".
        val: share of all samples for validation (of the training samples when no part is "val").
        test: share of all samples for the test; 0 for none.
        group: (n,) names (speakers, say); no group is on two sides of a share split off by seed.
        seed: which random split.
        classes: names of the classes, labels or numbers in order; the sorted distinct labels when None.
        task: "single-label", "multi-label", "regression", or the task of another data set.
        sample_weight: (n,) numbers >= 0, how much each sample counts in the loss.

    Raises:
        ValueError: no such data set, samples that do not fit each other, labels that make no sense.
    """
    if isinstance(dataset, Mapping):
        sets = _by_part(dataset, split)
        labels, group = _joined("labels", labels, sets), _joined("group", group, sets)
        sample_weight, present = _joined("sample_weight", sample_weight, sets), _joined_masks(present, sets)
        split = np.repeat(list(sets), [len(one) for one in sets.values()])
    else:
        sets = {"": _checked(dataset)}
    samples, ids = _samples(sets, label, names=names, modalities=modalities, readers=readers, collate=collate)
    whole = _surveyed(samples, ids, _known(labels, sets, len(ids)), present, task, classes)
    return divide(whole, split=split, val=val, test=test, group=group, seed=seed, task=task, weight=sample_weight)


def _samples(sets: Mapping[str, Any], label: str, **how: Any) -> tuple[Samples, list[str]]:
    """The samples of all sets in one row, and what each is called."""
    ids = [f"{part}/{i}" if part else str(i) for part, one in sets.items() for i in range(len(one))]
    dataset = ConcatDataset(sets.values()) if len(sets) > 1 else next(iter(sets.values()))
    return Samples(dataset, label, place=lambda index: f"sample {ids[index]}", **how), ids


def _known(labels: Any | None, sets: Mapping[str, Any], count: int) -> Sequence[Any] | None:
    """The labels as far as no sample must be read for them."""
    if labels is None and all(hasattr(one, "targets") for one in sets.values()):
        labels = [y for one in sets.values() for y in _listed(one.targets, len(one), "targets of the data set")]
    return None if labels is None else _listed(labels, count, "labels")


def _surveyed(
    samples: Samples,
    ids: Sequence[str],
    labels: Sequence[Any] | None,
    present: Mapping[str, Any] | None,
    task: Task | str | None,
    classes: Sequence[str] | None,
) -> DatasetSplit:
    """All samples with their labels and masks, which are looked for where they are not given."""
    masks = None
    if present is not None:
        per_modality("present", present, samples.modalities)
        masks = {m: mask_of(m, mask, len(ids)) for m, mask in present.items()}
    labels, masks = surveyed(samples, labels, masks)
    bind(samples, masks)
    target, kind = encoded(_alike(labels, samples.label), task, classes, name=samples.label)
    for line in alike(kind.names):
        warnings.warn(f"{samples.label}: {line}.", stacklevel=4)
    return DatasetSplit(samples, target, kind, ids, masks)


def _checked(dataset: Any) -> Any:
    """``dataset`` when samples can be read from it by position; ValueError with the call to make otherwise."""
    kind = type(dataset).__name__
    if isinstance(dataset, DataLoader):
        raise ValueError(
            f"from_dataset takes a data set and not a {kind}, whose order and batches are not those of training here. "
            "Pass loader.dataset, and Trainer(batch_size=..., num_workers=...)."
        )
    if isinstance(dataset, Split | Splits):
        raise ValueError(f"This is a {kind}, which a Trainer takes as it is.")
    if isinstance(dataset, IterableDataset) or hasattr(dataset, "__next__") or not hasattr(dataset, "__getitem__"):
        raise ValueError(
            f"from_dataset reads samples by position, to divide, shuffle and resume, and a {kind} only gives them one "
            "after another. Collect them when they fit in memory: from_dataset(list(ds))."
        )
    if hasattr(dataset, "columns") or isinstance(dataset, str | bytes | np.ndarray | Tensor):
        raise ValueError(
            f"from_dataset takes a data set whose samples are dicts or tuples; got {kind}. For a DataFrame: Table(df); "
            "for arrays: from_arrays({'audio': A, 'video': V}, y)."
        )
    if not hasattr(dataset, "__len__"):
        raise ValueError(f"The data set must say how many samples it has; {kind} has no __len__.")
    if len(dataset) == 0:
        raise ValueError(f"The data set ({kind}) has no samples.")
    return dataset


def _by_part(datasets: Mapping[str, Any], split: Any | None) -> dict[str, Any]:
    """The data sets under the names of the parts; ValueError for other names, or with a ``split`` beside them."""
    if split is not None:
        raise ValueError("split is not used with a data set for each part; leave it out.")
    other = [name for name in datasets if part_of(str(name)) is None]
    if other or not datasets:
        raise ValueError(
            "A mapping must hold a data set for each part, as {'train': ..., 'val': ..., 'test': ...}; got "
            f"{', '.join(map(repr, datasets)) or 'nothing'}. For arrays: from_arrays({{'audio': A, 'video': V}}, y)."
        )
    renamed(datasets)  # two words for one part
    for name, one in datasets.items():
        if hasattr(one, "__len__") and len(one) == 0:
            raise ValueError(f"The data set of the part {name!r} has no samples; leave it out.")
    return {str(part_of(name)): _checked(one) for name, one in datasets.items()}


def _of_parts(values: Any) -> dict[str | None, Any]:
    """What is given under the names of the parts; None for a name of no part, and for what is no mapping."""
    return {part_of(str(part)): one for part, one in values.items()} if isinstance(values, Mapping) else {None: values}


def _joined(name: str, values: Any | None, sets: Mapping[str, Any]) -> list[Any] | None:
    """One list of what is given for each part."""
    if values is None:
        return None
    by_part = _of_parts(values)
    if set(by_part) != set(sets):
        raise ValueError(f"{name} must have an entry for each data set: {', '.join(sets)}.")
    return list(chain.from_iterable(_listed(by_part[part], len(one), name) for part, one in sets.items()))


def _joined_masks(present: Any | None, sets: Mapping[str, Any]) -> dict[str, Any] | None:
    """Modality -> the masks of all parts, one after another; a part that names it not is complete."""
    if present is None:
        return None
    by_part = _of_parts(present)
    if not set(by_part) <= set(sets) or not all(isinstance(masks, Mapping) for masks in by_part.values()):
        raise ValueError(
            f"present must map data sets ({', '.join(sets)}) to the masks of each, as {{'{next(iter(sets))}': "
            "{'audio': mask}}."
        )
    names = dict.fromkeys(m for masks in by_part.values() for m in masks)
    complete = {part: dict.fromkeys(names, np.ones(len(one), bool)) for part, one in sets.items()}
    whole = {part: {**masks, **by_part.get(part, {})} for part, masks in complete.items()}
    return {m: torch.cat([mask_of(m, whole[part][m], len(one)) for part, one in sets.items()]) for m in names}


def _listed(values: Any, size: int, name: str) -> Sequence[Any]:
    if not hasattr(values, "__len__") or len(values) != size:
        count = f"{len(values)} entries" if hasattr(values, "__len__") else type(values).__name__
        raise ValueError(f"{name} must have one entry per sample: {size} samples, {count}.")
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _alike(labels: Sequence[Any], name: str) -> Sequence[Any]:
    """The labels, unless some are texts and others are not: NumPy would make texts of them all."""
    texts = [isinstance(label, str) for label in labels]
    if any(texts) and not all(texts):
        first, other = texts.index(True), texts.index(False)
        raise ValueError(
            f"{name} must be all integers or all strings; sample {first} has {labels[first]!r}, sample {other} "
            f"{labels[other]!r}."
        )
    return labels
