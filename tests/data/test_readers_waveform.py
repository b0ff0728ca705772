"""The waveform reader: mono, one rate, one length, zeros behind what was recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

from counterpoise.data import Audio, Waveform
from counterpoise.data.readers import guess


def test_a_recording_is_mono_resampled_and_as_long_as_it_is(tmp_path: Path):
    stereo = 0.5 * np.sin(np.arange(8000)[:, None] * np.array([0.05, 0.11]))
    soundfile.write(tmp_path / "a.wav", stereo, 8000, subtype="FLOAT")
    reader = Waveform(16000, 1.5)
    x = reader.read(str(tmp_path / "a.wav"))
    assert x.shape == reader.shape == (24000,)
    expected = soxr.resample(stereo.mean(1).astype("float32"), 8000, 16000)
    assert np.allclose(x[: len(expected)].numpy(), expected, atol=1e-5)
    assert not x[len(expected) :].any()
    assert x[15990:16000].any()
    assert torch.equal(reader.read((stereo.astype("float32"), 8000)), x)
    tiled = Waveform(8000, 2.5, tile=True).read(str(tmp_path / "a.wav"))
    assert torch.equal(tiled[8000:16000], tiled[:8000])


def test_crops_are_the_start_or_drawn_in_training(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.9, 0.9, 8000), 8000, subtype="FLOAT")
    start, drawn = Waveform(8000, 0.25), Waveform(8000, 0.25, crop="random")
    whole = Waveform(8000, 1.0).read(str(tmp_path / "a.wav"))
    assert torch.equal(start.read(str(tmp_path / "a.wav")), whole[:2000])
    assert torch.equal(drawn.read(str(tmp_path / "a.wav")), whole[:2000])
    cut = drawn.read(str(tmp_path / "a.wav"), torch.Generator().manual_seed(1))
    at = int((whole == cut[0]).nonzero()[0])
    assert at > 0
    assert torch.equal(cut, whole[at : at + 2000])
    sound = Audio(8000, 0.25, n_fft=64, hop=50)
    assert torch.equal(sound.spectrogram(whole[:2000]), sound.read(str(tmp_path / "a.wav")))


def test_columns_of_sound_are_still_spectrograms_by_default_and_settings_are_checked():
    assert guess(["a.wav", "b.flac"]) == "audio"
    for arguments in ({"sample_rate": 0}, {"seconds": 0}, {"seconds": 1e-6}, {"crop": "end"}, {"tile": 1}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Waveform(**arguments)  # pyright: ignore[reportArgumentType]
