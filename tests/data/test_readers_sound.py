"""All of the sound that a file holds is read, and what is missing at its end is missed."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from sounds import VARIABLE, bare_mp3, chirps, encoded, piped_flac, rf64

from counterpoise.data.readers import Audio, ReadError
from counterpoise.data.readers.sound import blocks


def read(path: Path) -> np.ndarray:
    """(samples, channels) of a file at one rate, as the reader gets it."""
    return np.concatenate([block for _, block in blocks(str(path))])


def ffmpeg(path: Path) -> np.ndarray:
    """The same by FFmpeg's own demultiplexer, (samples, channels)."""
    as_float = av.AudioResampler("fltp")
    with av.open(str(path)) as container:
        parts = [part for frame in container.decode(audio=0) for part in as_float.resample(frame)]
    return np.concatenate([part.to_ndarray() for part in parts], 1).T


@pytest.mark.parametrize(("rate", "options"), [(44100, {"b": "128k"}), (22050, {"b": "40k"}), (8000, {"b": "16k"})])
def test_an_mp3_without_header_of_constant_rate_is_read(tmp_path, rate, options):
    path = bare_mp3(tmp_path / "a.mp3", chirps(4, rate), rate, options)
    assert len(read(path)) >= 4 * rate
    np.testing.assert_allclose(read(path), ffmpeg(path), atol=1e-6)
    assert Audio().problems(str(path)) is None


@pytest.mark.parametrize(("rate", "channels", "seconds"), [(44100, 1, 9), (48000, 2, 12), (16000, 2, 6)])
def test_an_mp3_without_header_of_variable_rate_is_read_to_its_end(tmp_path, rate, channels, seconds):
    path = bare_mp3(tmp_path / "a.mp3", chirps(seconds, rate, channels), rate, VARIABLE)
    assert 0 <= len(read(path)) - seconds * rate < 0.2 * rate
    np.testing.assert_allclose(read(path), ffmpeg(path), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mp2", "mp2", 44100, 2),
        ("b.mp2", "mp2", 16000, 1),
        ("a.wav", "libmp3lame", 44100, 1),
        ("b.wav", "mp2", 48000, 2),
    ],
)
def test_layer_two_and_mpeg_in_wav_are_read(tmp_path, name, codec, rate, channels):
    path = encoded(tmp_path / name, codec, chirps(4, rate, channels), rate)
    assert len(read(path)) >= 4 * rate
    # FFmpeg decodes layer II to 16 bits.
    np.testing.assert_allclose(read(path), ffmpeg(path), atol=4e-5)


@pytest.mark.parametrize(
    ("rate", "channels", "mode"), [(44100, 1, "CONSTANT"), (44100, 2, "VARIABLE"), (16000, 1, "AVERAGE")]
)
def test_an_mp3_with_header_is_as_long_as_what_was_encoded(tmp_path, rate, channels, mode):
    path = tmp_path / "a.mp3"
    soundfile.write(path, chirps(3, rate, channels), rate, bitrate_mode=mode, compression_level=0.3)
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    assert len(read(path)) == len(expected) == 3 * rate
    np.testing.assert_allclose(read(path), expected, atol=1e-4)


@pytest.mark.parametrize(("subtype", "channels", "seconds"), [("PCM_16", 1, 2), ("PCM_24", 2, 3), ("PCM_S8", 1, 5)])
def test_a_flac_of_unknown_length_is_read_and_its_truncation_seen(tmp_path, subtype, channels, seconds):
    path = piped_flac(tmp_path / "a.flac", chirps(seconds, 22050, channels), 22050, subtype)
    soundfile.write(tmp_path / "b.flac", chirps(seconds, 22050, channels), 22050, subtype)
    np.testing.assert_array_equal(read(path), read(tmp_path / "b.flac"))
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ReadError, match=r"a.flac: truncated or damaged"):
        read(path)


@pytest.mark.parametrize("announced", [11000, 22049, 40000])
def test_a_flac_with_another_length_than_its_header_says_is_refused(tmp_path, announced):
    path = tmp_path / "a.flac"
    soundfile.write(path, chirps(1, 22050), 22050)
    content = bytearray(path.read_bytes())
    content[22:26] = announced.to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"truncated or damaged: .* samples"):
        read(path)


@pytest.mark.parametrize("seconds", [1, 2, 7])
def test_gsm_is_read(tmp_path, seconds):
    path = tmp_path / "a.wav"
    soundfile.write(path, chirps(seconds, 8000), 8000, "GSM610")
    assert len(read(path)) >= 8000 * seconds
    assert Audio().problems(str(path)) is None


def test_a_codec_that_nothing_reads_is_refused_with_its_name(tmp_path):
    path = encoded(tmp_path / "a.wav", "ac3", chirps(1, 48000), 48000)
    with pytest.raises(ReadError, match=r"a.wav: no readable sound"):
        Audio().decode(str(path))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
@pytest.mark.parametrize("kind", ["RIFF", "RIFX", "RF64", "BW64", "W64", "AU", "AIFF", "CAF"])
def test_a_container_that_ends_too_early_is_refused(tmp_path, kind, share):
    path, wave = tmp_path / "a.wav", chirps(4, 22050)
    if kind in ("RF64", "BW64"):
        rf64(path, wave, 22050, kind.encode())
    else:
        layout = "WAV" if kind.startswith("RIF") else kind
        soundfile.write(path, wave, 22050, "PCM_16", "BIG" if kind == "RIFX" else None, layout)
    assert path.read_bytes()[:4].upper() in (kind.encode(), b"FORM", b".SND", b"CAFF", b"RIFF")
    if kind != "BW64":  # which libsndfile may not know
        assert len(read(path)) == len(wave)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ReadError, match="truncated: the header announces"):
        Audio().decode(str(path))


@pytest.mark.parametrize("rates", [(22050, 22050), (44100, 16000), (8000, 48000, 22050)])
@pytest.mark.parametrize("kind", ["mp3", "bare.mp3", "ogg", "opus", "mixed.mp3"])
def test_joined_files_are_read_to_the_end_of_the_last(tmp_path, kind, rates):
    if kind == "opus":
        rates = [48000 if rate in (44100, 22050) else rate for rate in rates]
    parts = []
    for i, rate in enumerate(rates):
        path, wave = tmp_path / f"{i}.{kind}", chirps(2, rate, 1 + i % 2, seed=i)
        if kind == "bare.mp3" or (kind == "mixed.mp3" and i % 2):
            bare_mp3(path, wave, rate)
        elif kind == "opus":
            soundfile.write(path, wave, rate, "OPUS", format="OGG")
        else:
            soundfile.write(path, wave, rate)
        parts.append(path)
    joined = tmp_path / f"joined.{kind}"
    joined.write_bytes(b"".join(path.read_bytes() for path in parts))
    seconds = 2 * len(rates)
    assert len(Audio(16000, 1, crop="random").decode(str(joined))) >= 16000 * seconds
    arrived = [(rate, block.mean(1)) for rate, block in blocks(str(joined))]
    alone = [(rate, block.mean(1)) for path in parts for rate, block in blocks(str(path))]
    for rate in set(rates):
        whole, parted = (np.concatenate([block for r, block in found if r == rate]) for found in (arrived, alone))
        np.testing.assert_allclose(whole, parted, atol=1e-4)


def test_joined_recordings_of_one_stream_number_are_read(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, chirps(2, 16000), 16000)
    expected = read(path)
    path.write_bytes(path.read_bytes() * 3)
    np.testing.assert_array_equal(read(path), np.concatenate([expected] * 3))


@pytest.mark.parametrize(
    "damage", ["cut", "cut in a frame", "middle gone", "bytes before", "bytes between", "zeros between"]
)
def test_damaged_mp3_is_refused(tmp_path, damage):
    path = bare_mp3(tmp_path / "a.mp3", chirps(3, 44100), 44100, {"b": "128k"})
    whole = path.read_bytes()
    second = whole.index(whole[:2], 4)
    if damage == "cut":
        path = encoded(tmp_path / "a.mp3", "libmp3lame", chirps(3, 44100), 44100)
        whole = path.read_bytes()
    changed, message = {
        "cut": (whole[: -(len(whole) // 3)], "truncated"),
        "cut in a frame": (whole[:-100], "ends within a frame"),
        "middle gone": (whole[:20000] + whole[20100:], r"neither sound nor a tag: .*ffmpeg -i OLD|damaged at byte"),
        "bytes before": (b"noise" + whole, "neither sound nor a tag|no readable sound"),
        "zeros between": (whole[:second] + bytes(200) + whole[second:], f"the bytes from {second} on are neither"),
        "bytes between": (whole[:second] + b"noise" + whole[second:], f"the bytes from {second} on are neither"),
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(ReadError, match=message):
        Audio().decode(str(path))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"ID3\x04\x00\x00\x00\x00\x01\x05" + bytes(133), b""),
        (b"", b"TAG" + bytes(125)),
        (b"", b"APETAGEX" + b"\xd0\x07\0\0" + (60).to_bytes(4, "little") + bytes(76)),
        (b"", b"LYRICSBEGININD0000200000017LYRICS200" + b"TAG" + bytes(125)),
        (bytes(700), bytes(9000)),
    ],
)
def test_tags_and_padding_are_no_sound(tmp_path, before, after):
    path = bare_mp3(tmp_path / "a.mp3", chirps(3, 44100), 44100)
    expected = read(path)
    path.write_bytes(before + path.read_bytes() + after)
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("damage", ["bit", "page", "cut"])
def test_damaged_ogg_is_refused(tmp_path, subtype, damage):
    path = tmp_path / "a.ogg"
    soundfile.write(path, chirps(9, 48000), 48000, subtype, format="OGG")
    whole = bytearray(path.read_bytes())
    pages = [at for at in range(len(whole)) if whole[at : at + 5] == b"OggS\0"]
    assert len(pages) > 6
    if damage == "bit":
        whole[pages[4] + 400] ^= 4
    elif damage == "page":
        del whole[pages[4] : pages[5]]
    else:
        del whole[pages[-1] :]
    path.write_bytes(whole)
    with pytest.raises(ReadError, match=r"not as it was written|pages are missing|has no end"):
        Audio(seconds=9).decode(str(path))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_no_more_is_decoded_than_is_needed(tmp_path, ending):
    path, asked = tmp_path / f"a.{ending}", 0
    soundfile.write(path, chirps(60, 22050), 22050)
    for _, block in blocks(str(path)):
        asked += len(block)
        if asked > 3 * 22050:
            break
    assert asked <= 3 * 22050 + (1 << 16)
    start = Audio(16000).decode(str(path))
    whole = Audio(16000, crop="random")
    assert torch.equal(start, whole.transform(whole.decode(str(path)), None))


@pytest.mark.parametrize("channels", [[1, -1], [0.3, -0.3], [1, 0, -1]])
def test_channels_that_cancel_are_refused(tmp_path, channels):
    path = tmp_path / "a.wav"
    wave = chirps(1, 16000) * np.array(channels, np.float32)
    soundfile.write(path, wave, 16000)
    with pytest.raises(ReadError, match=r"opposite phase .*ffmpeg"):
        Audio().decode(str(path))
    soundfile.write(path, wave * np.array([1] + [0.9] * (len(channels) - 1), np.float32), 16000)
    assert Audio().problems(str(path)) is None
    soundfile.write(path, 0 * wave, 16000)  # silence is silence
    assert Audio().problems(str(path)) is None
