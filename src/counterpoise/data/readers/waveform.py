"""Recordings to waveforms of one rate and length."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise._extras import require
from counterpoise.data.readers.base import Reader, ReadError, all_finite, flag, regular
from counterpoise.data.readers.sound import BLOCK, blocks

if TYPE_CHECKING:
    import numpy as np

    from counterpoise.data.readers.sound import Blocks

_PIECE = 1 << 16  # samples that are resampled at a time
_SPARE, _RATIO = 1 << 26, 256  # samples that any recording may have, and more of them for each byte of its file
_LOWEST, _HIGHEST = 100, 10_000_000  # Hz: above seismometers' 100 and hydrophones' 200, below what a converter reaches
_LOUD = 16  # above what overdriven floats reach, below whole numbers
_CANCELLED = 1e-4  # share of the power of its channels that the mean of a recording keeps at least


class Waveform(Reader):
    """A recording as its waveform (samples,) in [-1, 1], for encoders that take sound itself.

    The channels are averaged, the result is resampled to one rate whatever the file has, brought to ``seconds`` and
    clipped to [-1, 1]. What is shorter gets zeros at its end, by which encoders know how long it was.

    Files are read, and refused, as by `Audio`.

    Args:
        sample_rate: in Hz, the one that the encoder asks for; files at another are resampled (soxr, high quality).
        seconds: length of what the encoder sees.
        tile: repeat a recording that is shorter than ``seconds``; False appends zeros.
        crop: where a longer one is cut: its ``start``, or in training a ``random`` place.
    """

    kind = "waveform"
    recording = "waveform"
    takes = "a pair of a waveform and its rate, or the name or the bytes of a file"
    extensions = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
    decoded_by = ("crop", "sample_rate", "seconds", "tile")

    def __init__(
        self,
        sample_rate: int = 16000,
        seconds: float = 10.0,
        tile: bool = False,
        crop: Literal["start", "random"] = "start",
    ):
        require(f"The reader {type(self).__name__}", "av", "soundfile", "soxr")
        self.sample_rate = whole("sample_rate", sample_rate, low=1)
        self.seconds = float(_checks.number("seconds", seconds, above=0))
        self.tile = flag("tile", tile)
        self.crop = _checks.choice("crop", crop, ("start", "random"))
        self.samples = round(self.seconds * self.sample_rate)
        if self.samples < 1:
            raise ValueError(f"seconds={seconds} at sample_rate={sample_rate} is no sample at all.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.samples,)

    @property
    def plain(self) -> bool:
        return self.crop == "start"

    def load(self, cell: str) -> Tensor:
        import soundfile

        try:
            wave = self._waveform(cell, blocks(cell), _SPARE + _RATIO * regular(cell))
        except soundfile.LibsndfileError as error:
            reason = f"no readable sound: {error.error_string} `ffmpeg -i OLD NEW.wav` converts what FFmpeg reads"
            raise ReadError(cell, reason + self._hint(cell)) from error
        return self._kept(wave)

    def load_value(self, value: Any) -> Tensor:
        if hasattr(value, "get_all_samples"):  # a decoder of torchcodec
            heard = value.get_all_samples()
            value = heard.data, heard.sample_rate
        elif isinstance(value, Mapping) and {"array", "sampling_rate"} <= value.keys():
            value = value["array"], value["sampling_rate"]
        if not isinstance(value, tuple) or len(value) != 2:
            return super().load_value(value)
        rate, channels = whole("the sampling rate", value[1], low=1), _channels(value[0])
        size = max(1, BLOCK // channels.shape[1])  # as files are read
        pieces = ((rate, channels[at : at + size]) for at in range(0, len(channels), size))
        return self._kept(self._waveform("the waveform", pieces, math.inf))

    def _kept(self, wave: Tensor) -> Tensor:
        """What is decoded, and cached, of a waveform."""
        return wave if self.crop == "random" else self._made(wave[: self.samples])

    def _made(self, wave: Tensor) -> Tensor:
        """What the encoder gets of (samples,) in [-1, 1]."""
        return wave.clone()

    def altered(self, cell: Any, alter: Callable[[Any], Any]) -> Tensor:
        return self._made(alter(Waveform(self.sample_rate, self.seconds, self.tile).decode(cell)))

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        return decoded.clone() if self.crop == "start" else self._made(self.cut(decoded, generator)[0])

    def cut(self, decoded: Tensor, generator: torch.Generator | None) -> tuple[Tensor, tuple[float, ...]]:
        if self.crop == "start":
            return decoded, ()
        start, spare = 0, len(decoded) - self.samples
        if generator is not None and spare > 0:
            start = int(torch.randint(spare + 1, (), generator=generator))
        return decoded[start : start + self.samples], ()

    def _waveform(self, cell: str, source: Blocks, limit: float) -> Tensor:
        """The recording, mono, resampled, clipped, at least ``samples`` long; no more of it with ``crop="start"``.

        Args:
            cell: how messages call it.
            source: (rate, (samples, channels)) piece by piece.
            limit: how many samples it may have.
        """
        pieces: list[Tensor] = []
        there, mix = 0, _Mix()
        with closing(self._pieces(cell, source, mix)) as arriving:
            for piece in arriving:
                pieces.append(torch.from_numpy(piece))
                there += len(piece)
                if self.crop == "start" and there >= self.samples:
                    break
                if there > limit:
                    raise ReadError(
                        cell, f"holds more than {limit} samples at {self.sample_rate} Hz, too many for its size"
                    )
        if not there:
            raise ReadError(cell, f"holds no sound (0 samples at {self.sample_rate} Hz)")
        wave = torch.cat(pieces)
        if not all_finite(wave):
            raise ReadError(cell, "holds NaN or infinity")
        if mix.heard < _CANCELLED * mix.loud:
            raise ReadError(
                cell,
                "its channels are in opposite phase and their mean is silent; keep one of them, as "
                "`ffmpeg -i OLD -af 'pan=mono|c0=c0' NEW.wav` does",
            )
        if there < self.samples:
            if self.tile:
                times, rest = divmod(self.samples, there)
                wave = torch.cat([*[wave] * times, wave[:rest]])
            else:
                wave = torch.nn.functional.pad(wave, (0, self.samples - there))
        return wave.clamp_(-1, 1)

    def _pieces(self, cell: str, source: Blocks, mix: _Mix) -> Generator[np.ndarray]:
        """The recording, mono and resampled, piece by piece."""
        import numpy as np
        import soxr

        before, resampler = 0, None
        for rate, channels in source:
            mono = mix(channels)
            if rate != before:
                if not _LOWEST <= rate <= _HIGHEST:
                    raise ReadError(
                        cell,
                        f"its header says {rate} samples a second, and sound has {_LOWEST} to {_HIGHEST}; "
                        "`ffmpeg -i OLD -af asetrate=16000 NEW.wav` writes another rate (here 16000) into a wrong "
                        "header, and slow measurements are read as arrays, from a column of .npy files",
                    )
                if resampler is not None:
                    yield resampler.resample_chunk(mono[:0], last=True)
                resampler = (
                    None if rate == self.sample_rate else soxr.ResampleStream(rate, self.sample_rate, 1, "float32")
                )
                before = rate
            if resampler is None:
                yield mono
                continue
            step = max(1, _PIECE * rate // self.sample_rate)  # so that what comes out is short, too
            for at in range(0, len(mono), step):
                yield resampler.resample_chunk(mono[at : at + step])
        if resampler is not None:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _channels(values: Any) -> np.ndarray:
    """(samples, channels) float32 of a waveform (samples,), or with its channels on the shorter of two axes."""
    import numpy as np

    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim not in (1, 2) or array.dtype.kind not in "fi" or not array.size:
        raise ReadError("the waveform", f"must be numbers (samples,) or (channels, samples); got {array.dtype} of "
                        f"{array.shape}")  # fmt: skip
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    elif (loudest := np.abs(array).max()) > _LOUD:
        raise ReadError("the waveform", f"reaches {loudest:g}, and sound lies in [-1, 1]; divide it by its full scale, "
                        "as x / 32768 for 16 bits")  # fmt: skip
    array = array.reshape(len(array), -1)
    return np.ascontiguousarray(array.T if array.shape[1] > len(array) else array, np.float32)


class _Mix:
    """The mean of channels, with the power of the channels (``loud``) and of their mean (``heard``) so far."""

    def __init__(self):
        self.loud = self.heard = 0.0

    def __call__(self, channels: np.ndarray) -> np.ndarray:
        """(samples, channels) to (samples,)."""
        if channels.shape[1] == 1:
            return channels[:, 0]
        mono = channels.mean(1)
        self.loud += float((channels.astype("float64") ** 2).sum()) / channels.shape[1]
        self.heard += float((mono.astype("float64") ** 2).sum())
        return mono
