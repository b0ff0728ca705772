"""Worse inputs, on purpose: modalities taken away, and noise, blur and the like in what was recorded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from counterpoise._checks import did_you_mean, number
from counterpoise._digests import digest
from counterpoise.data.readers import Tabular
from counterpoise.data.seeding import sample_seed
from counterpoise.data.split import Split, lacking
from counterpoise.types import who_has

ABSENT = "absent"
"""The corruption that takes the modality away from a share of the samples that have it."""


# -- what is done to one sample ------------------------------------------------------------------------
def at_snr(wave: Tensor, noise: Tensor, snr: float) -> Tensor:
    r"""A waveform with noise, scaled so that their powers have a ratio of ``snr`` decibels.

    .. math:: y = x + e \sqrt{\frac{\overline{x^2}}{\overline{e^2}\, 10^{\text{snr} / 10}}}

    The powers are means up to the last sample of the waveform that is not zero: silence that was appended to a short
    recording stays silent. So does a silent waveform, as nothing is so much louder than it.

    Args:
        wave: (samples,).
        noise: (samples,), of any power above 0.
        snr: in dB; 0 is noise as loud as the recording.
    """
    last = int(wave.nonzero().max()) + 1 if bool(wave.any()) else 0
    if not last:
        return wave.clone()
    x, e = wave[:last].double(), noise[:last].double()
    scale = x.square().mean().div(e.square().mean() * 10 ** (snr / 10)).sqrt()
    return torch.cat([(x + scale * e).to(wave.dtype), wave[last:]])


def shifted(steps: Tensor, share: float, later: bool) -> Tensor:
    """A sequence (T, ...) moved in time by ``share`` of its length; its first or last step stands where none is left.

    Args:
        steps: as many as there are.
        share: in [0, 1].
        later: to the end; else to the start.
    """
    by = min(round(share * len(steps)), len(steps) - 1)
    places = torch.arange(len(steps)) + (-by if later else by)
    return steps[places.clamp(0, len(steps) - 1)]


def _snr(wave: Tensor, level: float, draw: torch.Generator, scale: Tensor | None) -> Tensor:
    return at_snr(wave, torch.randn(wave.shape, generator=draw), level)


def _noise(x: Tensor, level: float, draw: torch.Generator, scale: Tensor | None) -> Tensor:
    if scale is None:
        raise ValueError("noise needs scale=deviations(train, modality), which it is relative to.")
    added = level * scale.to(x.dtype) * torch.randn(x.shape, generator=draw)
    # of a sequence, steps of zeros are padding and stay
    return x + added * (x != 0).any(-1, keepdim=True) if scale.ndim == 1 and x.ndim == 2 else x + added


def _shift(x: Tensor, level: float, draw: torch.Generator, scale: Tensor | None) -> Tensor:
    return shifted(x, level, later=bool(torch.rand((), generator=draw) < 0.5))


def _words(words: Any, level: float, draw: torch.Generator, scale: Tensor | None) -> Any:
    """Of a list of words, or of token numbers (length,) with zeros at the end; one word at least is left."""
    there = words if isinstance(words, list) else words[words != 0]
    luck = torch.rand(len(there), generator=draw)
    kept = (luck >= level) | (luck == luck.max()) if len(there) else luck.bool()
    if isinstance(words, list):
        return [word for word, keep in zip(words, kept.tolist(), strict=True) if keep]
    return torch.nn.functional.pad(there[kept], (0, len(words) - int(kept.sum())))


def _blur(pixels: Tensor, level: float, draw: torch.Generator, scale: Tensor | None) -> Tensor:
    from torchvision.transforms.v2 import functional as V

    least = min(pixels.shape[-2:])
    sigma = level / 100 * least
    if least < 2 or not sigma:
        return pixels
    return V.gaussian_blur(pixels, [2 * min(math.ceil(3 * sigma), least - 1) + 1] * 2, [sigma] * 2)


def _jpeg(pixels: Tensor, level: float, draw: torch.Generator, scale: Tensor | None) -> Tensor:
    import numpy as np
    from PIL import Image as Pillow

    def stored(picture: np.ndarray) -> np.ndarray:
        file, grey = io.BytesIO(), picture.shape[-1] == 1
        Pillow.fromarray(picture[..., 0] if grey else picture).save(file, "JPEG", quality=int(level))
        return np.array(Pillow.open(file)).reshape(picture.shape)

    pictures = pixels.reshape(-1, *pixels.shape[-3:]).movedim(-3, -1).contiguous().numpy()
    return torch.from_numpy(np.stack([stored(p) for p in pictures])).movedim(-1, -3).reshape(pixels.shape)


# -- what there is -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Corruption:
    """One way to make an input worse.

    Attributes:
        takes: what it acts on: a ``waveform``, ``pixels``, ``words``, any ``numbers``, or those of a ``sequence``.
        unit: of its levels, for axes.
        levels: by default, from mild to severe.
        clean: the level that changes nothing; infinite where no number of the scale stands for that.
        low: the least level there is.
        high: the highest.
        apply: (recording, level, generator, deviations) -> recording. The draws do not depend on the level.
    """

    takes: Literal["waveform", "pixels", "words", "numbers", "sequence"]
    unit: str
    levels: tuple[float, ...]
    clean: float
    low: float
    high: float
    apply: Callable[[Any, float, torch.Generator, Tensor | None], Any]

    def places(self, levels: Sequence[float]) -> list[float]:
        """Where levels stand between clean and bad: by their size, or evenly where clean is no number."""
        return list(levels) if math.isfinite(self.clean) else [float(i) for i in range(len(levels))]


CORRUPTIONS = {
    "snr": Corruption("waveform", "SNR (dB)", (20, 10, 0, -10), math.inf, -100, 100, _snr),
    "blur": Corruption("pixels", "blur (% of the side)", (1, 2, 4, 8), 0, 0, 100, _blur),
    "jpeg": Corruption("pixels", "JPEG quality", (50, 25, 10, 5), math.inf, 1, 95, _jpeg),
    "words": Corruption("words", "share of words lost", (0.25, 0.5, 0.75), 0, 0, 1, _words),
    "noise": Corruption("numbers", "noise (training sd)", (0.5, 1, 2, 4), 0, 0, math.inf, _noise),
    "shift": Corruption("sequence", "shift (of the length)", (0.1, 0.25, 0.5), 0, 0, 1, _shift),
}
"""Name -> what it does, beside ``ABSENT``."""


def corruptions_of(split: Split, modality: str) -> list[str]:
    """The names of those that fit a modality: by its recording, or its numbers."""
    recording = split.recording(modality)
    if recording == "numbers":
        example = split.example(modality)
        if example is None:
            return []
        recording = "numbers" if example.is_floating_point() else "words"
    takes = {recording}
    if recording == "numbers" and _axes(split, modality) == "sequence":
        takes.add("sequence")
    return [name for name, kind in CORRUPTIONS.items() if kind.takes in takes]


def refuse_misfit(split: Split, modality: str, name: str) -> None:
    """ValueError for a modality or corruption that there is not, and for one that acts on something else."""
    if modality not in split.modalities:
        raise ValueError(did_you_mean("modality", modality, split.modalities))
    fitting = corruptions_of(split, modality)
    if name not in CORRUPTIONS:
        raise ValueError(f"{modality!r}: {did_you_mean('corruption', name, [*fitting, ABSENT])}")
    if name not in fitting:
        raise ValueError(
            f"{modality!r}: {name} acts on {CORRUPTIONS[name].takes}, and what is recorded here is "
            f"{split.recording(modality)}. Take {' or '.join([*fitting, ABSENT])}."
        )


def levels_of(name: str, levels: Iterable[float] | None = None, where: str = "levels") -> list[float]:
    """The levels of a corruption, the clean one first, from mild to severe; its default ones when None.

    Raises:
        ValueError: an unknown corruption, a level out of range or there twice.
    """
    if name not in CORRUPTIONS:
        raise ValueError(did_you_mean("corruption", name, CORRUPTIONS))
    kind = CORRUPTIONS[name]
    stated = [float(level) for level in (kind.levels if levels is None else levels) if level != kind.clean]
    for level in stated:
        if name == "jpeg" and level != round(level):
            raise ValueError(f"{where}: qualities of JPEG are whole numbers; got {level:g}.")
        number(where, level, low=kind.low, **({} if math.isinf(kind.high) else {"high": kind.high}))
    if len(set(stated)) < len(stated) or not stated:
        raise ValueError(f"{where} must be different numbers, one at least beside the clean one; got {stated}.")
    return [kind.clean, *sorted(stated, reverse=math.isinf(kind.clean))]


def deviations(train: Split, modality: str) -> Tensor:
    """What noise is relative to: standard deviations over the samples of a training part that have the modality.

    Returns:
        (D,) for sequences (T, D), over the steps that are not padding; of pictures, sounds and frames one per channel,
        (C, 1, ...); of everything else one per number, as a sample is. Of a row of a table 0 but for its numbers.
    """
    rows = who_has(modality, train.present, len(train)).nonzero().flatten()
    kind, count, total, squares = _axes(train, modality), 0.0, 0.0, 0.0
    for chunk in rows.split(64):
        x = train.batch(chunk.tolist(), modality, None).double()
        if kind == "sequence":
            steps = x.flatten(0, 1)
            x = steps[(steps != 0).any(-1)]
        elif kind in ("image", "spectrogram", "frames"):
            x = x.transpose(0, 1).flatten(1).T
        count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
    if not count:
        raise ValueError(f"No training sample has {modality!r}, so that noise has nothing to be relative to.")
    mean = torch.as_tensor(total) / count
    scale = (torch.as_tensor(squares) / count - mean.square()).clamp(min=0).sqrt()
    reader = train.readers.get(modality)
    if isinstance(reader, Tabular):  # what says that a number is missing, and categories, are no measurements
        scale[len(reader.numeric) :] = 0
    if kind in ("image", "spectrogram", "frames"):
        return scale.reshape(-1, *[1] * (len(train.layout(modality).shape) - 1))
    return scale


def _axes(split: Split, modality: str) -> str:
    """The kind of a modality, where it is known."""
    try:
        return split.layout(modality).kind
    except ValueError:
        return "array"


class Corrupted(Split):
    """A part of a data set in which one modality is worse, for evaluation; nothing else is changed.

    What is drawn belongs to (seed, position, modality, corruption): the same for all models, and for all levels, which
    differ in strength alone; who lacks a modality at a share of 0.25 lacks it at 0.5. It is done to what was recorded:
    to waveforms before their spectrogram, to the pixels of pictures before they are resized and normalised, to words
    before the tokeniser, to other numbers as the encoder would get them.

    Args:
        whole: the part.
        modality: the one that gets worse.
        name: of ``CORRUPTIONS``, or "absent".
        level: how much; of "absent" the share, in [0, 1], of the samples that have it. The clean level changes nothing.
        seed: of what is drawn.
        scale: of ``noise``: what it is relative to, ``deviations(train, modality)``.

    Raises:
        ValueError: a corruption that there is not or that does not fit, a level out of range; ``noise`` without scale.
    """

    def __init__(
        self, whole: Split, modality: str, name: str, level: float, *, seed: int = 0, scale: Tensor | None = None
    ):
        if name != ABSENT or modality not in whole.modalities:
            refuse_misfit(whole, modality, name)
        self.whole, self.modality, self.name, self.level = whole, modality, name, float(level)
        self.seed, self.scale = seed, scale
        self.modalities, self.task, self.ids = whole.modalities, whole.task, whole.ids
        self.target, self.weight, self.present = whole.target, whole.weight, whole.present
        self.readers, self.collate = whole.readers, whole.collate
        if name == ABSENT:
            number("level", level, low=0, high=1)
            self.present = lacking({**(whole.present or {}), modality: self._left()})
            return
        if name == "noise" and scale is None:
            raise ValueError("noise needs scale=deviations(train, modality), which it is relative to.")
        if level != CORRUPTIONS[name].clean:
            levels_of(name, [level], "level")

    def _left(self) -> Tensor:
        """(n,) bool: who still has the modality."""
        left = who_has(self.modality, self.whole.present, len(self.whole)).clone()
        rows = left.nonzero().flatten().tolist()
        rows.sort(key=lambda row: sample_seed(self.seed, row, f"{self.modality} {ABSENT}"))
        left[rows[: round(self.level * len(rows))]] = False
        return left

    def recording(self, modality: str) -> str:
        return self.whole.recording(modality)

    def layout(self, modality: str) -> Any:
        return self.whole.layout(modality)

    def batch(self, indices: Sequence[int], modality: str, seed: int | None) -> Tensor:
        if modality != self.modality or self.name == ABSENT or self.level == CORRUPTIONS[self.name].clean:
            return self.whole.batch(indices, modality, seed)
        there = who_has(modality, self.present, len(self))
        worse = {i: self._worse(i) for i in map(int, indices) if there[i]}
        if not worse:
            return self.whole.batch(indices, modality, seed)
        empty = torch.zeros_like(next(iter(worse.values())))
        rows = [worse.get(int(i), empty) for i in indices]
        return self.collate[modality](rows) if modality in self.collate else torch.stack(rows)

    def _worse(self, index: int) -> Tensor:
        kind = CORRUPTIONS[self.name]
        draw = torch.Generator().manual_seed(sample_seed(self.seed, index, f"{self.modality} {self.name}"))
        return self.whole.altered(index, self.modality, lambda x: kind.apply(x, self.level, draw, self.scale))

    def fingerprint(self) -> str:
        return digest(self.whole.fingerprint(), f"{self.modality} {self.name} {self.level} {self.seed}")
