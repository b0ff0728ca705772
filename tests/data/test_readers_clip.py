from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from counterpoise.data import Clip, Flow, ReadError, Table, Video
from counterpoise.data.cache import DecodeCache
from counterpoise.data.check import check
from counterpoise.data.readers import guess


def film(path: Path, frames: int = 30, size: tuple[int, int] = (40, 32)) -> str:
    """A lossless video: frame i is the same noise, brighter by 5 i."""
    noise = np.random.default_rng(1).integers(0, 60, size[::-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "bgr0"
        for i in range(frames):
            picture = np.repeat((noise + 5 * i + 40)[..., None], 3, 2).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    return str(path)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_window_is_that_part_of_the_video(tmp_path):
    path = film(tmp_path / "a.avi")
    whole = Video(count=30, pick="window", bound=None).decode(path)
    part = Video(count=6, pick="window", bound=None).decode(f"{path}#10:20")
    assert torch.equal(part, whole[10:20])
    middles = Video(count=2, bound=None).decode(f"{path}#10:20")
    assert torch.equal(middles, whole[[12, 17]])
    for wrong in ("25:31", "7:7", "9:8"):
        with pytest.raises(ReadError, match=f"holds 30 frames, {wrong.replace(':', ' to ')} are asked for"):
            Video(count=1).decode(f"{path}#{wrong}")
    with pytest.raises(ReadError, match="holds 5 frames, count=6"):
        Video(count=6).decode(f"{path}#3:8")
    with pytest.raises(ReadError, match="no such file"):
        Video(count=6).decode(f"{tmp_path}/none.avi#3:8")


def test_two_windows_of_one_file_are_two_entries_of_the_cache(tmp_path):
    path = film(tmp_path / "a.avi")
    reader = Video(count=3, bound=None)
    cache = DecodeCache(tmp_path / "cache", reader)
    for _ in range(2):
        for cell in (f"{path}#0:9", f"{path}#12:21", path):
            assert torch.equal(cache.decode(cell), reader.decode(cell))


def test_clip_lengths_and_places(tmp_path):
    cell = film(tmp_path / "a.avi") + "#5:25"
    reader = Clip(count=8, test_count=20, resize=32, size=24, normalize="none")
    decoded = reader.decode(cell)
    assert decoded.shape == (20, 3, 32, 32)
    assert torch.equal(reader.transform(decoded, None), (decoded[:, :, 4:28, 4:28] / 255).movedim(0, 1))
    assert reader.shape == (3, 8, 24, 24)
    places = set()
    for seed in range(20):
        sample = reader.transform(decoded, seeded(seed))
        assert sample.shape == reader.shape
        found = [
            (start, top, left)
            for start in range(13)
            for top in range(9)
            for left in range(9)
            if torch.equal(
                sample, (decoded[start : start + 8, :, top : top + 24, left : left + 24] / 255).movedim(0, 1)
            )
        ]
        assert len(found) == 1
        places.add(found[0])
    assert all(len({place[i] for place in places}) > 3 for i in range(3))
    with pytest.raises(ReadError, match="holds 20 frames, test_count=21"):
        Clip(count=8, test_count=21, resize=32, size=24).decode(cell)


def test_i3d_range_and_depth(tmp_path):
    cell = film(tmp_path / "a.avi")
    rgb = Clip(count=4, test_count=8, resize=24, size=16, normalize="none")
    ours = Clip(count=4, test_count=8, resize=24, size=16, normalize="i3d")
    assert torch.allclose(ours.read(cell), rgb.read(cell) * 2 - 1, atol=1e-6)
    depth = Clip(count=4, test_count=8, resize=24, size=16, channels=1, normalize="none")
    assert depth.read(cell).shape == (1, 8, 16, 16)
    assert torch.allclose(depth.read(cell)[0], rgb.read(cell)[0], atol=1.5 / 255)


def stored(path: Path, frames: int = 20, edge: int = 32) -> np.ndarray:
    flow = np.random.default_rng(0).normal(0, 15, (edge, edge, 2, frames)).astype(np.float32)
    np.save(path, flow)
    return flow


def test_flow_is_cut_like_the_clip(tmp_path):
    flow = torch.from_numpy(stored(tmp_path / "f.npy"))
    film(tmp_path / "a.avi", frames=20)
    rows = "id,label,split,rgb,flow\n" + "".join(
        f"s{i},{'ab'[i % 2]},{part},a.avi#0:20,f.npy\n" for i, part in enumerate(["train"] * 4 + ["val"] * 2)
    )
    (tmp_path / "t.csv").write_text(rows)
    rgb = Clip(count=8, test_count=20, resize=32, size=24, normalize="none")
    table = Table(tmp_path / "t.csv", {"rgb": rgb, "flow": Flow(count=8, size=24)})
    train = table.splits().train
    whole = rgb.decode(str(tmp_path / "a.avi#0:20"))
    for seed in range(5):
        seen, moved = (train.batch([1], m, seed)[0] for m in ("rgb", "flow"))
        found = [
            (start, top, left)
            for start in range(13)
            for top in range(9)
            for left in range(9)
            if torch.equal(seen, (whole[start : start + 8, :, top : top + 24, left : left + 24] / 255).movedim(0, 1))
        ]
        assert len(found) == 1
        start, top, left = found[0]
        wanted = flow[top : top + 24, left : left + 24, :, start : start + 8].permute(2, 3, 0, 1)
        assert torch.equal(moved, wanted)
    assert torch.equal(train.batch([0], "flow", None)[0], flow[4:28, 4:28].permute(2, 3, 0, 1))
    assert check(table).ok


def test_flow_as_i3d_wants_it_and_mirrored(tmp_path):
    flow = torch.from_numpy(stored(tmp_path / "f.npy"))
    cell = str(tmp_path / "f.npy")
    limited = Flow(size=32, limit=20).read(cell)
    assert torch.allclose(limited, (flow.clamp(-20, 20) / 20).permute(2, 3, 0, 1))
    mirrored = Flow(size=32, flip=1.0).read(cell, seeded(0))
    assert torch.equal(mirrored[0], -flow.flip(1)[:, :, 0].permute(2, 0, 1))
    assert torch.equal(mirrored[1], flow.flip(1)[:, :, 1].permute(2, 0, 1))
    reader = Flow(size=24)
    assert reader.shape is None
    reader.bind(cell)
    assert reader.shape == (2, 20, 24, 24)


def test_bad_flow(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((32, 32, 3, 5), np.float32))
    with pytest.raises(ReadError, match=r"flow is stored as \(height, width, 2, frames\)"):
        Flow(size=24).decode(str(tmp_path / "a.npy"))
    stored(tmp_path / "f.npy", frames=5)
    with pytest.raises(ReadError, match="holds 5 frames of flow, 8 are asked for"):
        Flow(count=8, size=24).decode(str(tmp_path / "f.npy"))
    with pytest.raises(ReadError, match="is 32 x 32 pixels, size=33"):
        Flow(size=33).decode(str(tmp_path / "f.npy"))


def test_a_window_is_guessed_as_video(tmp_path):
    assert guess(["v/a.avi#138:218", "v/b.avi#1:81"], tmp_path) == "video"
