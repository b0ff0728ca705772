"""Recordings to log-magnitude spectrograms."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise.data.readers.base import Reader, ReadError, all_finite, flag, read_bytes


class Audio(Reader):
    r"""A recording as a log-magnitude spectrogram (1, n_fft / 2 + 1, frames).

    The channels are averaged, the result is resampled to one rate whatever the file has, brought to
    ``seconds``, clipped to [-1, 1] and transformed:

    .. math:: S = \log(|\mathrm{STFT}(x)| + \text{offset}), \quad
              \text{frames} = 1 + \lfloor \text{seconds} \cdot \text{sample\_rate} / \text{hop} \rfloor

    with a periodic Hann window on centred frames, as librosa does by default. The defaults are the
    published settings for CREMA-D (257 x 188); Kinetics-Sounds has ``sample_rate=35400, seconds=10``
    (257 x 1003).

    A file that ends before its header says so is an error, for WAV, AIFF, FLAC and Ogg, and for MP3
    with a frame count in its header.

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
        wave = self._waveform(cell)
        return wave if self.crop == "random" else self.spectrogram(wave[: self.samples])

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

    def _waveform(self, cell: str) -> Tensor:
        """The whole recording, mono, resampled, clipped, at least ``samples`` long."""
        import soundfile
        import soxr

        content = read_bytes(cell)
        if reason := _truncated(content):
            raise ReadError(cell, reason)
        try:
            with soundfile.SoundFile(io.BytesIO(content)) as file:
                rate, declared = file.samplerate, file.frames
                channels = file.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise ReadError(cell, f"no readable sound: {error.error_string}" + self._hint(cell)) from error
        if len(channels) < declared:
            raise ReadError(cell, f"truncated or damaged: {len(channels)} of {declared} samples can be decoded")
        if not len(channels):
            raise ReadError(cell, "holds no sound (0 samples)")
        mono = channels.mean(1) if channels.shape[1] > 1 else channels[:, 0]
        if rate != self.sample_rate:
            mono = soxr.resample(mono, rate, self.sample_rate)
        wave = torch.from_numpy(mono)
        if not all_finite(wave):
            raise ReadError(cell, "holds NaN or infinity")
        if not len(wave):
            raise ReadError(cell, f"is too short: {len(channels)} samples at {rate} Hz")
        if len(wave) < self.samples:
            if self.tile:
                times, rest = divmod(self.samples, len(wave))
                wave = torch.cat([*[wave] * times, wave[:rest]])
            else:
                wave = torch.nn.functional.pad(wave, (0, self.samples - len(wave)))
        return wave.clamp_(-1, 1)


@lru_cache(8)
def _window(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64)


def _truncated(content: bytes) -> str | None:
    """Why a file ends too early, judged by its container; libsndfile shortens such files silently."""
    size = len(content)
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        at = 12
        while at + 8 <= size:
            name, length = content[at : at + 4], int.from_bytes(content[at + 4 : at + 8], "little")
            if name == b"data":
                # A writer that streamed into a pipe could not know the length and left the largest number.
                streamed = length >= 0x7FFFF000
                if at + 8 + length > size and not streamed:
                    return f"truncated: the header announces {length} bytes of sound, the file holds {size - at - 8}"
                return None
            at += 8 + length + length % 2
        return "truncated: a WAV header without sound"
    if content[:4] == b"FORM" and content[8:11] == b"AIF":
        length = int.from_bytes(content[4:8], "big")
        if 8 + length > size:
            return f"truncated: the header announces {8 + length} bytes, the file holds {size}"
    if content[:4] == b"OggS":
        last = content.rfind(b"OggS")
        if size < last + 6 or not content[last + 5] & 4:
            return "truncated: the Ogg stream has no end"
    return None
