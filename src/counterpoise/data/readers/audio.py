"""Recordings to log-magnitude spectrograms."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import lru_cache
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


class Audio(Reader):
    r"""A recording as a log-magnitude spectrogram (1, n_fft / 2 + 1, frames).

    The channels are averaged, the result is resampled to one rate whatever the file has, brought to
    ``seconds``, clipped to [-1, 1] and transformed:

    .. math:: S = \log(|\mathrm{STFT}(x)| + \text{offset}), \quad
              \text{frames} = 1 + \lfloor \text{seconds} \cdot \text{sample\_rate} / \text{hop} \rfloor

    with a periodic Hann window on centred frames, as librosa does by default. The defaults are the
    published settings for CREMA-D (257 x 188); Kinetics-Sounds has ``sample_rate=35400, seconds=10``
    (257 x 1003).

    A file is read block by block, to the end of its sound and, with ``crop="start"``, no further than
    ``seconds``; joined files count as one. A file that ends before its header says so is an error, for WAV (RIFF,
    RIFX, RF64, W64), AIFF, AU, CAF, FLAC and Ogg, and for MP3 with a frame count in its header as far as it is read;
    so is an MP3 that ends within a frame, a recording whose channels cancel each other (opposite phase), and one of
    less than 100 or more than 10 million samples a second.

    Args:
        sample_rate: in Hz; files at another rate are resampled (soxr, high quality).
        seconds: length of what the encoder sees.
        n_fft: samples per frame.
        hop: samples from one frame to the next.
        offset: added to the magnitude before the logarithm.
        tile: repeat a recording that is shorter than ``seconds``; False appends silence.
        crop: where a longer one is cut: its ``start``, or in training a ``random`` place (then the
            waveform is what is cached, and the spectrogram is computed for each sample).
        padding: what the frames at both ends see beyond the recording, ``zero`` or ``reflect``
            (the default of librosa before 0.10).
    """

    kind = "spectrogram"
    recording = "waveform"
    takes = "a pair of a waveform and its rate, or the name or the bytes of a file"
    extensions = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")

    def __init__(
        self,
        sample_rate: int = 22050,
        seconds: float = 3.0,
        n_fft: int = 512,
        hop: int = 353,
        offset: float = 1e-7,
        tile: bool = True,
        crop: Literal["start", "random"] = "start",
        padding: Literal["zero", "reflect"] = "zero",
    ):
        require("The reader Audio", "av", "soundfile", "soxr")
        self.sample_rate = whole("sample_rate", sample_rate, low=1)
        self.seconds = float(_checks.number("seconds", seconds, above=0))
        self.n_fft = whole("n_fft", n_fft, low=2)
        self.hop = whole("hop", hop, low=1)
        self.offset = float(_checks.number("offset", offset, above=0))
        self.tile = flag("tile", tile)
        self.crop = _checks.choice("crop", crop, ("start", "random"))
        self.padding = _checks.choice("padding", padding, ("zero", "reflect"))
        # With a random crop only the waveform is cached, which the settings of the spectrogram do not touch.
        self.decoded_by = ("crop", "sample_rate", "seconds", "tile")
        if self.crop == "start":
            self.decoded_by += ("n_fft", "hop", "offset", "padding")
        self.samples = round(self.seconds * self.sample_rate)
        if self.samples < 1 or (self.padding == "reflect" and self.samples <= self.n_fft // 2):
            raise ValueError(
                f"seconds={seconds} at sample_rate={sample_rate} is {self.samples} samples, too few for n_fft={n_fft}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.n_fft // 2 + 1, 1 + self.samples // self.hop)

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
        return wave if self.crop == "random" else self.spectrogram(wave[: self.samples])

    def altered(self, cell: Any, alter: Callable[[Any], Any]) -> Tensor:
        return self.spectrogram(alter(_Waveform(**_checks.settings(self)).decode(cell)))

    def transform(self, decoded: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.crop == "start":
            return decoded.clone()
        start, spare = 0, len(decoded) - self.samples
        if generator is not None and spare > 0:
            start = int(torch.randint(spare + 1, (), generator=generator))
        return self.spectrogram(decoded[start : start + self.samples])

    def spectrogram(self, wave: Tensor) -> Tensor:
        """(samples,) in [-1, 1] to (1, n_fft / 2 + 1, frames) float32."""
        # In double precision up to the power: near silence the logarithm turns float32 noise of the FFT into large
        # differences. What follows has relative errors alone, so that float32 is right to its last digits.
        stft = torch.stft(
            wave.double(),
            self.n_fft,
            self.hop,
            window=_window(self.n_fft),
            center=True,
            pad_mode="constant" if self.padding == "zero" else "reflect",
            return_complex=True,
        )
        power = torch.view_as_real(stft).square_()
        power = (power[..., 0] + power[..., 1]).float().contiguous()
        return power.sqrt_().add_(self.offset).log_()[None]

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


class _Waveform(Audio):
    """What `Audio` hears of a recording in evaluation, before it becomes a spectrogram: (samples,)."""

    def _kept(self, wave: Tensor) -> Tensor:
        return wave[: self.samples]


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


@lru_cache(8)
def _window(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64)
