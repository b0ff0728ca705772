from __future__ import annotations

import builtins
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from torchvision.transforms import v2

from counterpoise.data.readers import Frames, Image, ReadError
from counterpoise.data.readers.pictures import uniform
from counterpoise.data.readers.resampling import random_part


def picture(path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB", seed: int = 0) -> str:
    """A smooth random picture of (width, height)."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 256, (6, 6, 4), dtype=np.uint8)
    image = Pillow.fromarray(array, "RGBA" if mode == "RGBA" else None).convert(mode)
    image.resize(size, Pillow.Resampling.BICUBIC).save(path)
    return str(path)


def grey(path: Path, level: int) -> None:
    Pillow.new("RGB", (12, 10), (level,) * 3).save(path)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif"])
def test_evaluation_equals_torchvision(tmp_path, ending):
    path = picture(tmp_path / f"a.{ending}")
    reader = Image(size=32)
    expected = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((32, 32), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )(Pillow.open(path).convert("RGB"))
    sample = reader.read(path)
    assert sample.shape == reader.shape == (3, 32, 32)
    torch.testing.assert_close(sample, expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_the_channels_asked_for(tmp_path, mode, channels):
    path = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    reader = Image(size=16, channels=channels, normalize="none")
    sample = reader.read(path, seeded(0))
    assert sample.shape == reader.shape == (channels, 16, 16)
    assert 0 <= sample.min() < sample.max() <= 1


def test_16_bit_pictures_keep_their_scale(tmp_path):
    Pillow.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(tmp_path / "depth.png")
    sample = Image(size=8, channels=1, normalize="none").read(str(tmp_path / "depth.png"))
    torch.testing.assert_close(sample, torch.full((1, 8, 8), 128 / 255))


@pytest.mark.parametrize("largest", [1, 255, 1023, 4095])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_12_bits_in_a_file_of_16_are_refused(tmp_path, largest, ending):
    path = tmp_path / f"a.{ending}"
    Pillow.fromarray(np.linspace(0, largest, 64).round().astype(np.uint16).reshape(8, 8)).save(path)
    with pytest.raises(ReadError, match=r"12 of them at most, .* with 8 bits, .* `array`"):
        Image(size=8).decode(str(path))


@pytest.mark.parametrize("largest", [0, 4096, 65535])
def test_other_pictures_of_16_bits_are_read(tmp_path, largest):
    Pillow.fromarray(np.full((8, 8), largest, np.uint16)).save(tmp_path / "a.png")
    assert int(Image(size=8).decode(str(tmp_path / "a.png")).max()) == largest >> 8


def png(path: Path, size: tuple[int, int], colour: int, depth: int, raw: bytes) -> str:
    """A PNG of raw scan lines."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw, 9)),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return str(path)


@pytest.mark.parametrize(("colour", "values"), [(2, 3), (6, 4), (4, 2)])
def test_12_bits_of_colour_in_a_file_of_16_are_refused(tmp_path, colour, values):
    def lines(level: int) -> bytes:
        pixel = [level] * (values - (colour != 2)) + [65535] * (colour != 2)  # opaque
        return (b"\0" + struct.pack(f">{values}H", *pixel) * 4) * 4

    with pytest.raises(ReadError, match="12 of them at most"):
        Image().decode(png(tmp_path / "a.png", (4, 4), colour, 16, lines(4000)))
    assert int(Image().decode(png(tmp_path / "b.png", (4, 4), colour, 16, lines(40000))).max()) == 40000 >> 8
    assert int(Image().decode(png(tmp_path / "c.png", (4, 4), colour, 16, lines(0))).max()) == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_lies_on_white(tmp_path, mode, channels):
    """The colours under full transparency are left there by programs and seen by nobody."""
    pixels = np.full((8, 8, 4), (200, 200, 200, 255), np.uint8)
    pixels[:4] = (10, 10, 10, 0)
    path = tmp_path / "a.png"
    options: dict[str, Any] = {}
    picture = Pillow.fromarray(pixels)
    if mode in ("P", "RGB"):
        picture = picture.convert("RGB").quantize(4) if mode == "P" else picture.convert("RGB")
        options = {"transparency": picture.getpixel((0, 0))}
    else:
        picture = picture.convert(mode)
    picture.save(path, **options)
    decoded = Image(channels=channels).decode(str(path))
    assert decoded.shape == (channels, 8, 8)
    assert (decoded[:, :4] == 255).all()
    assert (decoded[:, 4:] == 200).all()


def test_half_transparent_and_opaque_pictures(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Pillow.fromarray(pixels).save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(Image().decode(str(tmp_path / "opaque.png")).movedim(0, -1).numpy(), pixels[..., :3])
    pixels[..., 3] = 102
    Pillow.fromarray(pixels).save(tmp_path / "half.webp", lossless=True, exact=True)
    expected = 0.4 * pixels[..., :3] + 0.6 * 255
    half = Image().decode(str(tmp_path / "half.webp")).movedim(0, -1).numpy()
    np.testing.assert_allclose(half, expected, atol=1.01)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_flipped_bit_of_a_png_is_found(tmp_path, at):
    path = Path(picture(tmp_path / "a.png", size=(200, 200)))
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"the PNG chunk at byte .* is not as it was written"):
        Image().decode(str(path))


@pytest.mark.parametrize("size", [(30000, 30000), (2**31 - 1, 1000), (2, 2**30)])
def test_a_picture_that_asks_for_gigabytes_is_refused_before_it_is_decoded(tmp_path, size):
    with pytest.raises(ReadError, match=r"a.png: .*exceeds limit|a.png: .*too large"):
        Image().decode(png(tmp_path / "a.png", size, 0, 1, bytes(4000)))


def test_training_is_random_reproducible_and_leaves_the_global_state_alone(tmp_path):
    path, reader = picture(tmp_path / "a.png"), Image(size=24)
    state = torch.get_rng_state(), random.getstate()
    first, again, other = (reader.read(path, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state[0], torch.get_rng_state())
    assert state[1] == random.getstate()
    assert torch.equal(Image(size=24, augment=False).read(path, seeded(3)), reader.read(path))


def test_mirror_and_whole_picture(tmp_path):
    path = picture(tmp_path / "a.png", size=(32, 32))
    reader = Image(size=32, scale=(1.0, 1.0), flip=1.0, normalize="none")
    # Only a square of the full area fits; some draws of the aspect ratio fall back to it.
    torch.testing.assert_close(reader.read(path, seeded(0)), reader.read(path).flip(-1))


def test_crops_have_the_asked_area_and_aspect():
    parts = [random_part(200, 300, (0.2, 0.5), seeded(s)) for s in range(300)]
    areas = torch.tensor([h * w / 60000 for *_, h, w in parts])
    aspects = torch.tensor([w / h for *_, h, w in parts])
    assert all(t >= 0 and left >= 0 and t + h <= 200 and left + w <= 300 for t, left, h, w in parts)
    assert 0.19 < areas.min() < 0.23
    assert 0.47 < areas.max() < 0.51
    assert abs(areas.mean() - 0.35) < 0.02
    assert 0.74 < aspects.min() < 0.8
    assert 1.25 < aspects.max() < 1.35
    assert random_part(1, 5000, (0.9, 1.0), seeded(0)) == (0, 2499, 1, 1)


def test_normalisation():
    path_free = torch.full((1, 3, 4, 4), 255, dtype=torch.uint8)
    clip = Image(size=4, normalize="clip").pixels(path_free, None)[0, :, 0, 0]
    torch.testing.assert_close(
        clip,
        (1 - torch.tensor([0.48145466, 0.4578275, 0.40821073])) / torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    one = Image(size=4, channels=1).pixels(path_free[:, :1], None)[0, 0, 0, 0]
    torch.testing.assert_close(one, torch.tensor((1 - 0.449) / 0.226), rtol=1e-4, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_order_in_memory_changes_nothing(tmp_path, channels):
    """Decoders write the colours of a pixel side by side, and so they are kept; what is read is the same."""
    reader, path = Image(size=24, channels=channels), picture(tmp_path / "a.png", size=(90, 70))
    decoded = reader.decode(path)
    assert decoded.movedim(0, -1).is_contiguous()
    for generator in (None, 1, 2):
        first, second = (
            reader.transform(d, None if generator is None else seeded(generator))
            for d in (decoded, decoded.contiguous())
        )
        assert torch.equal(first, second)
        assert first.is_contiguous()


def test_bound_shrinks_what_is_cached(tmp_path):
    path = picture(tmp_path / "a.jpg", size=(400, 200))
    assert Image(bound=50).decode(path).shape == (3, 50, 100)
    assert Image(bound=500).decode(path).shape == (3, 200, 400)
    close = Image(size=32, bound=64).read(path) - Image(size=32).read(path)
    assert close.abs().mean() < 0.05
    fingerprints = {Image(bound=b).decode_fingerprint() for b in (None, 50, 64)}
    assert len(fingerprints) == 3
    assert Image(flip=0).decode_fingerprint() == Image().decode_fingerprint()
    assert Image(flip=0).fingerprint() != Image().fingerprint()


def test_exif_orientation_is_applied(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (30, 10)).save(tmp_path / "phone.jpg", exif=exif)
    assert Image().decode(str(tmp_path / "phone.jpg")).shape == (3, 30, 10)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_and_corrupt_pictures_raise(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    whole = Path(picture(path, size=(200, 200))).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match=f"a.{ending}: .*truncated"):
        Image().decode(str(path))
    path.write_bytes(whole[:4] + bytes(200))
    with pytest.raises(ReadError, match=f"a.{ending}"):
        Image().decode(str(path))


def test_wrong_ending_and_32_bits(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(ReadError, match=r"no image that can be read \(image expects .jpg .* this is .wav"):
        Image().decode(str(tmp_path / "a.wav"))
    Pillow.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ReadError, match="32 bits per pixel"):
        Image().decode(str(tmp_path / "a.tif"))


def test_paths_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(ReadError, match=r"none.jpg: no such file$"):
        Image().decode(str(tmp_path / "none.jpg"))
    with pytest.raises(ReadError, match="is a folder, not a file"):
        Image().decode(str(tmp_path))
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    with pytest.raises(ReadError, match="loop of symbolic links"):
        Image().decode(str(tmp_path / "a.jpg"))

    (tmp_path / "c.jpg").write_bytes(b"a picture")

    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)  # root may read everything, so a mode would not do
    with pytest.raises(ReadError, match="permission denied"):
        Image().decode(str(tmp_path / "c.jpg"))


def clip(folder: Path, names: list[str]) -> str:
    folder.mkdir()
    for name in names:
        grey(folder / name, int("".join(c for c in name if c.isdigit())) * 10)
    return str(folder)


def levels(sample: torch.Tensor) -> list[int]:
    """Which frame is where, from (3, T, H, W)."""
    return [round(float(level)) for level in sample[0].mean((1, 2)) * 25.5]


def test_frames_are_sorted_by_number_whatever_the_listing(tmp_path, monkeypatch):
    cell = clip(tmp_path / "clip", [f"frame{i}.png" for i in (10, 2, 1, 21, 3)])
    reader = Frames(count=5, size=8, normalize="none", augment=False)
    first = reader.read(cell)
    assert first.shape == reader.shape == (3, 5, 8, 8)
    assert levels(first) == [1, 2, 3, 10, 21]
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(listing(self))))
    assert torch.equal(reader.read(cell), first)


def test_frames_pick(tmp_path):
    cell = clip(tmp_path / "clip", [f"{i:05d}.png" for i in range(1, 10)])
    (tmp_path / "clip" / "notes.txt").write_text("not a frame")
    (tmp_path / "clip" / "._00001.png").write_text("left by a Mac")
    make = {pick: Frames(count=3, pick=pick, size=8, normalize="none") for pick in ("first", "uniform", "random")}
    assert levels(make["first"].read(cell)) == [1, 2, 3]
    assert levels(make["uniform"].read(cell)) == [2, 5, 8]
    assert levels(make["random"].read(cell)) == [2, 5, 8]
    drawn = [tuple(levels(make["random"].read(cell, seeded(s)))) for s in range(20)]
    assert len(set(drawn)) > 10
    assert all(list(d) == sorted(set(d)) for d in drawn)
    assert make["first"].decode(cell).shape[0] == 3
    assert make["random"].decode(cell).shape[0] == 9
    assert uniform(1, 4) == [2]


def test_frames_read_opens_only_what_it_picks_and_equals_the_two_steps(tmp_path, monkeypatch):
    cell = clip(tmp_path / "clip", [f"{i}.png" for i in range(1, 9)])
    reader = Frames(count=2, pick="random", size=8)
    whole = [reader.transform(reader.decode(cell), seeded(s)) for s in range(5)]
    opened = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self) or read(self))
    assert all(torch.equal(reader.read(cell, seeded(s)), whole[s]) for s in range(5))
    assert len(opened) == 10


def test_crop_per_clip_or_per_frame(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(3):
        picture(folder / f"{i}.png", seed=1)
    shared = Frames(size=16).read(str(folder), seeded(0))
    single = Frames(size=16, crops="frame").read(str(folder), seeded(0))
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert not torch.equal(single[:, 0], single[:, 1])


def test_bad_folders(tmp_path):
    reader = Frames(count=3)
    with pytest.raises(ReadError, match="no such folder of frames"):
        reader.decode(str(tmp_path / "none"))
    cell = clip(tmp_path / "clip", ["1.png", "2.png"])
    with pytest.raises(ReadError, match="holds 2 frames, count=3"):
        reader.decode(cell)
    with pytest.raises(ReadError, match="is a file, not a folder"):
        reader.decode(cell + "/1.png")
    Pillow.new("RGB", (5, 5)).save(tmp_path / "clip" / "3.png")
    with pytest.raises(ReadError, match=r"differ in size: 1.png and 3.png"):
        reader.decode(cell)
    (tmp_path / "clip" / "3.png").write_bytes(b"\x89PNG")
    with pytest.raises(ReadError, match=r"3.png: is no image"):
        reader.decode(cell)
    assert "3.png" in (reader.problems(cell) or "")
    assert Frames(count=2, pick="first").problems(cell) is None
    (tmp_path / "clip" / "3.png").unlink()
    (tmp_path / "clip" / "3.png").symlink_to("3.png")
    with pytest.raises(ReadError, match=r"3.png: a loop of symbolic links"):
        reader.decode(cell)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be"),
        ({"channels": 2}, "channels must be 1"),
        ({"augment": 1}, "augment must be True or False"),
        ({"scale": (0, 1)}, "scale must be two shares"),
        ({"scale": (0.5,)}, "scale must be two shares"),
        ({"flip": 1.5}, "flip must be"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"normalize": "imagnet"}, "Did you mean 'imagenet'"),
        ({"bound": 0}, "bound must be"),
        ({"count": 0}, "count must be"),
        ({"pick": "last"}, "pick 'last'"),
        ({"crops": "frames"}, "Did you mean 'frame'"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Frames(**options)


def test_a_missing_library_is_not_a_bad_file(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    real = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError("No module named 'PIL'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(ImportError, match="PIL"):
        Image().decode(path)
