"""Recordings to log-magnitude spectrograms."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from counterpoise import _checks
from counterpoise._checks import whole
from counterpoise.data.readers.waveform import Waveform
from counterpoise.functional.precision import widest


class Audio(Waveform):
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
        super().__init__(sample_rate, seconds, tile, crop)
        self.n_fft = whole("n_fft", n_fft, low=2)
        self.hop = whole("hop", hop, low=1)
        self.offset = float(_checks.number("offset", offset, above=0))
        self.padding = _checks.choice("padding", padding, ("zero", "reflect"))
        if self.crop == "start":  # else only the waveform is cached, which the settings of the spectrogram do not touch
            self.decoded_by += ("n_fft", "hop", "offset", "padding")
        if self.padding == "reflect" and self.samples <= self.n_fft // 2:
            raise ValueError(
                f"seconds={seconds} at sample_rate={sample_rate} is {self.samples} samples, too few for n_fft={n_fft}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.n_fft // 2 + 1, 1 + self.samples // self.hop)

    def _made(self, wave: Tensor) -> Tensor:
        return self.spectrogram(wave)

    def transform_batch(self, parts: Tensor, drawn: Tensor) -> Tensor:
        return parts if self.plain else self.spectrogram(parts).movedim(0, 1)

    def spectrogram(self, wave: Tensor) -> Tensor:
        """(..., samples) in [-1, 1] to (1, ..., n_fft / 2 + 1, frames) float32."""
        # In double precision up to the power: near silence the logarithm turns float32 noise of the FFT into large
        # differences. What follows has relative errors alone, so that float32 is right to its last digits.
        stft = torch.stft(
            wave.to(widest(wave.device)),
            self.n_fft,
            self.hop,
            window=_window(self.n_fft, wave.device),
            center=True,
            pad_mode="constant" if self.padding == "zero" else "reflect",
            return_complex=True,
        )
        power = torch.view_as_real(stft).square_()
        power = (power[..., 0] + power[..., 1]).float().contiguous()
        return power.sqrt_().add_(self.offset).log_()[None]


@lru_cache(8)
def _window(size: int, device: torch.device) -> Tensor:
    return torch.hann_window(size, dtype=torch.float64).to(device, widest(device))
