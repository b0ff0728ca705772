from __future__ import annotations

import os
import pickle
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from counterpoise.data.readers import Audio, ReadError
from counterpoise.datasets import get

DATA = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[2].parent / "shared" / "data"))

# librosa looks for a backend that Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning")


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Two chirping tones and some noise, (samples, channels)."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal((len(t), channels)) * 0.02
    wave = 0.5 * np.sin(2 * np.pi * (220 + 90 * t) * t) + 0.3 * np.sin(2 * np.pi * 1500 * t)
    return (wave[:, None] * np.linspace(1, 0.5, channels) + noise).astype(np.float32)


def published(path: Path, rate: int, seconds: int) -> np.ndarray:
    """The preprocessing of the released code, with librosa: load, tile, cut, clip, STFT, logarithm."""
    wave, _ = librosa.load(path, sr=rate)
    wave = np.clip(np.tile(wave, -(-rate * seconds // len(wave)))[: rate * seconds], -1, 1)
    return np.log(np.abs(librosa.stft(wave.astype(np.float64), n_fft=512, hop_length=353)) + 1e-7)


@pytest.mark.parametrize(
    ("dataset", "rate", "seconds", "frames"), [("cremad", 22050, 3, 188), ("kinetics_sounds", 35400, 10, 1003)]
)
@pytest.mark.parametrize(("length", "file_rate", "channels"), [(2.3, 16000, 1), (10.7, 44100, 2)])
@pytest.mark.slow
def test_equals_librosa(tmp_path, dataset, rate, seconds, frames, length, file_rate, channels):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(length, file_rate, channels), file_rate)
    reader = get(dataset).readers()["audio"]
    sample = reader.read(str(path))
    assert sample.dtype == torch.float32
    assert sample.shape == reader.shape == (1, 257, frames)
    np.testing.assert_allclose(sample[0].numpy(), published(path, rate, seconds), atol=1e-4)


def spectrum(wave: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    window = torch.hann_window(512, dtype=dtype)
    stft = torch.stft(wave.to(dtype), 512, 353, window=window, pad_mode="constant", return_complex=True)
    return (stft.abs() + 1e-7).log()[None]


@pytest.mark.parametrize("loudness", [1.0, 1e-2, 1e-5, 1e-9, 0.0])
@pytest.mark.parametrize("kind", ["noise", "tone", "burst"])
def test_rounds_like_float32_and_no_worse(kind, loudness):
    """All but the last digits are those of a transform in double precision, which one in single precision misses."""
    t = torch.arange(66150) / 22050
    wave = torch.randn(66150, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    if kind != "noise":
        wave = torch.sin(2 * torch.pi * 440 * t) * (1.0 if kind == "tone" else (t > 1) & (t < 1.001))
    exact = spectrum(loudness * wave, torch.float64)
    sample = Audio().spectrogram(loudness * wave)
    assert sample.is_contiguous()
    assert float((sample - exact).abs().max()) < 2e-6  # float32 has steps of 1e-6 where the logarithm is -16
    if kind == "tone" and loudness == 1:
        assert float((spectrum(wave, torch.float32) - exact).abs().max()) > 0.1


def test_loud_files_are_clipped(tmp_path):
    wave = 3 * tone(3.5, 22050)
    soundfile.write(tmp_path / "loud.wav", wave, 22050, subtype="FLOAT")
    soundfile.write(tmp_path / "clipped.wav", wave.clip(-1, 1), 22050, subtype="FLOAT")
    loud, clipped = (Audio().read(str(tmp_path / name)) for name in ("loud.wav", "clipped.wav"))
    assert torch.equal(loud, clipped)


@pytest.mark.slow  # librosa takes its time to start
def test_reflected_ends_equal_librosa(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3, 22050), 22050, subtype="FLOAT")
    wave = tone(3, 22050)[:, 0].clip(-1, 1).astype(np.float64)
    expected = np.log(np.abs(librosa.stft(wave, n_fft=512, hop_length=353, pad_mode="reflect")) + 1e-7)
    sample = Audio(padding="reflect").read(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(sample[0].numpy(), expected, atol=1e-4)
    assert not torch.allclose(sample, Audio().read(str(tmp_path / "a.wav")), atol=1e-2)


def test_mixed_rates_give_the_same_sound(tmp_path):
    t = {rate: np.arange(3 * rate) / rate for rate in (8000, 22050, 48000)}
    spectra = []
    for rate, times in t.items():
        soundfile.write(tmp_path / f"{rate}.wav", 0.5 * np.sin(2 * np.pi * 1000 * times), rate)
        spectra.append(Audio().read(str(tmp_path / f"{rate}.wav")))
    loudest = [int(s[0].mean(1).argmax()) for s in spectra]
    assert len({s.shape for s in spectra}) == 1
    assert loudest == [round(1000 * 512 / 22050)] * 3


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "aiff"])
def test_compressed_formats_are_read(tmp_path, ending):
    soundfile.write(tmp_path / f"a.{ending}", tone(3, 22050), 22050)
    soundfile.write(tmp_path / "a.wav", tone(3, 22050), 22050)
    close = Audio().read(str(tmp_path / f"a.{ending}")) - Audio().read(str(tmp_path / "a.wav"))
    assert close[:, 4:40].abs().median() < 0.5  # where the tones are; lossy codecs change the rest


def test_short_recordings_are_tiled_or_followed_by_silence(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1, 22050), 22050)
    tiled, silent = Audio().read(str(tmp_path / "a.wav")), Audio(tile=False).read(str(tmp_path / "a.wav"))
    assert tiled[0, :, 100:].max() > -1
    torch.testing.assert_close(silent[0, :, 70:], torch.full((257, 118), float(np.log(1e-7))))
    assert torch.equal(tiled[..., :60], silent[..., :60])


def test_random_crop_is_drawn_from_the_generator_only(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, tone(3, 8000), 8000)
    reader = Audio(sample_rate=8000, seconds=1, crop="random")
    first, again, other = (reader.read(path, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == reader.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(reader.read(path), Audio(sample_rate=8000, seconds=1).read(path))


def test_transform_returns_memory_of_its_own(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(3, 22050), 22050)
    reader = Audio()
    decoded = reader.decode(str(tmp_path / "a.wav"))
    reader.transform(decoded, None).zero_()
    assert decoded.abs().sum() > 0


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_truncated_files_raise(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(3, 22050), 22050)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(ReadError, match=f"a.{ending}: (truncated|no readable sound)"):
        Audio().decode(str(path))


def test_a_wav_of_unknown_length_is_read(tmp_path):
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(3, 22050), 22050)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    expected = Audio().read(str(path))
    content[4:8] = content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert torch.equal(Audio().read(str(path)), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"RIFF\x00\x00\x00\x00WAVEnothing here at all", "truncated: a WAV header without sound"),
        (b"not a sound, just some text " * 20, "no readable sound: .*recogni"),
    ],
)
def test_corrupt_wav_raises_in_one_line(tmp_path, content, reason):
    path = tmp_path / "bad.wav"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=reason) as caught:
        Audio().decode(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert Audio().problems(str(path)) == caught.value.reason


def test_no_samples_and_nan_raise(tmp_path):
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), 22050)
    soundfile.write(tmp_path / "nan.wav", np.full((9000, 1), np.nan, np.float32), 22050, subtype="FLOAT")
    with pytest.raises(ReadError, match="0 samples"):
        Audio().decode(str(tmp_path / "none.wav"))
    with pytest.raises(ReadError, match="NaN"):
        Audio().decode(str(tmp_path / "nan.wav"))


def test_a_wrong_ending_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ReadError, match=r"audio expects .wav .* this is .txt"):
        Audio().decode(str(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate must be"),
        ({"sample_rate": 22050.5}, "sample_rate must be a whole number"),
        ({"seconds": 0}, "seconds must be"),
        ({"seconds": float("nan")}, "seconds must be"),
        ({"n_fft": 1}, "n_fft must be"),
        ({"hop": 0}, "hop must be"),
        ({"offset": 0}, "offset must be"),
        ({"tile": "no"}, "tile must be True or False"),
        ({"crop": "middle"}, "crop 'middle'"),
        ({"padding": "zeros"}, "Did you mean 'zero'"),
        ({"seconds": 0.01, "padding": "reflect"}, "too few"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Audio(**options)


def test_fingerprints():
    assert Audio().fingerprint() == Audio().fingerprint()
    assert Audio().fingerprint() != Audio(hop=128).fingerprint()
    assert Audio().decode_fingerprint() != Audio(hop=128).decode_fingerprint()
    # With a random crop the waveform is decoded, whatever the spectrogram will be.
    assert Audio(crop="random").decode_fingerprint() == Audio(crop="random", hop=128).decode_fingerprint()


def test_an_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ReadError("a.wav", "is\n  empty")))
    assert (error.cell, error.reason, str(error)) == ("a.wav", "is empty", "a.wav: is empty")


@pytest.mark.skipif(not (DATA / "av_mnist_fsdd").is_dir(), reason=f"real recordings are not in {DATA}")
@pytest.mark.slow  # librosa takes its time to start
def test_real_recording():
    path = DATA / "av_mnist_fsdd" / "fsdd_wav" / "0_george_0.wav"
    sample = Audio().read(str(path))
    np.testing.assert_allclose(sample[0].numpy(), published(path, 22050, 3), atol=1e-4)
