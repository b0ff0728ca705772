from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from counterpoise.data.readers import ReadError, Video


def film(path: Path, frames: int = 20, size: tuple[int, int] = (64, 48), noise: int = 0, **options: str) -> str:
    """A video whose frame i is grey of level 10 i, with noise."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        container.start_encoding()
        for i in range(frames):
            level = np.full((size[1], size[0], 3), 10 * i + 20) + rng.integers(0, noise + 1, (size[1], size[0], 3))
            for packet in stream.encode(av.VideoFrame.from_ndarray(level.clip(0, 255).astype(np.uint8), "rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return str(path)


def positions(sample: torch.Tensor) -> list[int]:
    """Which frame is where, from (3, T, H, W) without normalisation."""
    return [round(float(level)) for level in (sample.mean((0, 2, 3)) * 255 - 20) / 10]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv", "flv", "mov"])
def test_uniform_frames(tmp_path, ending):
    path = film(tmp_path / f"a.{ending}") if ending != "flv" else film_flv(tmp_path / "a.flv")
    reader = Video(count=4, size=16, normalize="none")
    sample = reader.read(path)
    assert sample.shape == reader.shape == (3, 4, 16, 16)
    assert sample.dtype == torch.float32
    assert positions(sample) == [2, 7, 12, 17]


def film_flv(path: Path) -> str:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flv", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * i + 20, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def test_window(tmp_path):
    path = film(tmp_path / "a.mp4")
    reader = Video(count=5, pick="window", size=16, normalize="none")
    assert positions(reader.read(path)) == [7, 8, 9, 10, 11]
    drawn = [positions(reader.read(path, seeded(s))) for s in range(12)]
    assert len({d[0] for d in drawn}) > 4
    assert all(d == list(range(d[0], d[0] + 5)) for d in drawn)
    assert torch.equal(reader.read(path, seeded(1)), reader.read(path, seeded(1)))
    assert reader.decode(path).shape == (20, 3, 48, 64)


def test_grey_and_bound(tmp_path):
    path = film(tmp_path / "a.mp4")
    assert Video(channels=1, count=2).decode(path).shape == (2, 1, 48, 64)
    assert Video(count=2, bound=24).decode(path).shape == (2, 3, 24, 32)
    assert Video(count=2, channels=1, size=16).read(path).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("ending", "options"), [("mp4", {}), ("mp4", {"movflags": "faststart"}), ("avi", {}), ("mkv", {}), ("mov", {})]
)
@pytest.mark.parametrize("share", [0.35, 0.6, 0.99])
def test_truncated_videos_raise(tmp_path, ending, options, share):
    path = Path(film(tmp_path / f"a.{ending}", noise=60, **options))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ReadError, match=f"a.{ending}: (truncated|no readable video|is a video of length zero)"):
        Video().decode(str(path))


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize(
    "trailer",
    [
        b"Some trailer that an app appended",
        b"\0\0\0\x20SEFT" + bytes(8),
        b"\xff" * 40,
        b"\0\0\x10\0free" + bytes(30),
        b"\0\0\0\x10udta" + bytes(8) + b"tail",
        bytes(3),
    ],
)
@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov"}])
def test_what_comes_after_the_media_of_an_mp4_is_no_truncation(tmp_path, ending, trailer, options):
    path = Path(film(tmp_path / f"a.{ending}", **options))
    expected = Video().decode(str(path))
    path.write_bytes(path.read_bytes() + trailer)
    assert torch.equal(Video().decode(str(path)), expected)


_TURNS = {  # degrees counterclockwise -> the matrix of a track header, without its last column
    90: (0, -1, 1, 0),
    180: (-1, 0, 0, -1),
    -90: (0, 1, -1, 0),
}


def turned(path: Path, degrees: int) -> None:
    """Have the track header say that players turn the frames."""
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in _TURNS[degrees])
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(content)


@pytest.mark.parametrize("degrees", [90, 180, -90])
@pytest.mark.parametrize("bound", [None, 24])
def test_frames_are_turned_as_players_turn_them(tmp_path, degrees, bound):
    path, picture = tmp_path / "a.mp4", np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 250  # bright at the top left
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    upright = Video(bound=bound).decode(str(path)).float()
    turned(path, degrees)
    frames = Video(bound=bound).decode(str(path)).float()
    assert frames.shape == upright.rot90(degrees // 90, (2, 3)).shape
    assert (frames - upright.rot90(degrees // 90, (2, 3))).abs().mean() < 1
    row, column = {90: (-1, 0), 180: (-1, -1), -90: (0, -1)}[degrees]  # the corner where the bright part then is
    assert frames[0, 0, row, column] > 200
    assert Video(size=16).read(str(path)).shape == (3, 3, 16, 16)


def test_a_damaged_stream_raises(tmp_path):
    path = Path(film(tmp_path / "a.mp4", noise=60))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 300] = bytes(300)
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"a.mp4: (no readable video|frame \d+ is damaged)"):
        Video().decode(str(path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "is empty"), (b"a text, not a video " * 30, "no readable video: Invalid data")],
)
def test_no_video_at_all(tmp_path, content, reason):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=reason) as caught:
        Video().decode(str(path))
    assert "\n" not in str(caught.value)
    assert Video().problems(str(path)) == caught.value.reason


def test_zero_length_short_and_silent_videos(tmp_path):
    with pytest.raises(ReadError, match=r"length zero|no video stream"):
        Video().decode(film(tmp_path / "zero.mp4", frames=0))
    with pytest.raises(ReadError, match=r"length zero|no readable video"):
        Video().decode(film(tmp_path / "zero.avi", frames=0))
    with pytest.raises(ReadError, match="holds 2 frames, count=3"):
        Video().decode(film(tmp_path / "short.mp4", frames=2))
    with pytest.raises(ReadError, match="no such file"):
        Video().decode(str(tmp_path / "none.mp4"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ReadError, match="no video stream"):
        Video().decode(str(tmp_path / "sound.mp4"))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="pick 'random'"):
        Video(pick="random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="count must be"):
        Video(count=0)
