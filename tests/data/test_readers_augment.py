from __future__ import annotations

import math

import pytest
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from counterpoise.data import Image, ReadError, Text
from counterpoise.data.readers.augment import _operation, augmented, draws


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.randint(40, 200, (1, 3, height, width), dtype=torch.uint8, generator=seeded(0))


def test_operations_and_their_strength():
    from torchvision.transforms.v2 import functional as V

    x = picture()
    pil = V.to_pil_image(x[0])
    assert torch.equal(_operation(x, 0, 7, 1), x)
    assert torch.equal(_operation(x, 2, 7, 1), V.pil_to_tensor(ImageOps.equalize(pil))[None])
    assert (_operation(x, 1, 7, 1).int() - V.pil_to_tensor(ImageOps.autocontrast(pil))[None].int()).abs().max() <= 1
    assert torch.allclose(_operation(x, 3, 7, 1).float(), (x * 1.36).floor().clamp(max=255), atol=1)
    right = _operation(x, 7, 7, 1)
    assert torch.equal(right[..., 7:], x[..., :-7])
    assert torch.equal(right[..., :7], torch.full_like(x[..., :7], 128))
    assert torch.equal(_operation(x, 8, 7, -1)[..., :-7, :], x[..., 7:, :])
    assert torch.equal(_operation(x, 9, 7, -1), V.rotate(x, 21, fill=[128.0] * 3))
    # Shear moves the outermost rows by 0.21 of their distance from the middle.
    line = torch.zeros(1, 1, 41, 81, dtype=torch.uint8)
    line[..., 40] = 255
    at = _operation(line, 5, 7, 1)[0, 0].eq(255).int().argmax(-1) - 40
    assert abs(abs(int(at[0])) - 0.21 * 20) <= 1
    assert int(at[0]) == -int(at[-1])
    assert int(at[20]) == 0


def test_each_operation_comes_as_often_and_half_of_them_apply(monkeypatch):
    from counterpoise.data.readers import augment

    seen: list[int] = []
    monkeypatch.setattr(augment, "_operation", lambda x, which, *_: seen.append(which) or x)
    count, x, generator = 2000, picture(), seeded(3)
    for _ in range(count):
        augmented(x, torch.tensor([draws(2, generator)]), 7)
    assert abs(len(seen) - count) < 5 * math.sqrt(count / 2)
    assert all(abs(seen.count(i) - len(seen) / 10) < 5 * math.sqrt(len(seen) / 10) for i in range(10))


def test_only_training_and_only_the_generator(tmp_path):
    Pillow.fromarray(picture(64, 64)[0].movedim(0, -1).numpy()).save(tmp_path / "a.png")
    cell = str(tmp_path / "a.png")
    reader, plain = Image(size=32, randaugment=[2, 7]), Image(size=32)
    assert torch.equal(reader.read(cell), plain.read(cell))
    before = torch.get_rng_state()
    samples = [reader.read(cell, seeded(s)) for s in range(12)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(x, reader.read(cell, seeded(s))) for s, x in enumerate(samples))
    assert sum(not torch.equal(x, plain.read(cell, seeded(s))) for s, x in enumerate(samples)) >= 6
    assert not torch.equal(Image(size=32, normalize="clip").read(cell), plain.read(cell))
    assert Image(augment=False, size=32, randaugment=[2, 7]).read(cell, seeded(0)).equal(plain.read(cell))


@pytest.mark.parametrize("wrong", [[2], [0, 7], [2, 11], [2.5, 7]])
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match="randaugment"):
        Image(randaugment=wrong)


@pytest.mark.parametrize(
    ("cleaning", "text", "words"),
    [
        ("none", "Can't stop !", ["can't", "stop"]),
        (
            "caption",
            "Can't stop - it/that  #Now : ( well-known )",
            ["cant", "stop", "it", "that", "now", "well", "known"],
        ),
        ("letters", "Can't stop, iPhone6 $T$ (at 5pm) café", ["can", "t", "stop", "t", "at"]),
    ],
)
def test_cleaning(cleaning, text, words):
    reader, plain = Text(length=12, cleaning=cleaning), Text(length=12)
    assert torch.equal(reader.read(text), plain.read(" ".join(words)))


def test_cleaning_counts_words_and_says_what_it_left():
    assert torch.equal(Text(length=9, cleaning="caption", words=2).read("a. b-c d"), Text(length=9).read("a b"))
    with pytest.raises(ReadError, match="after cleaning='letters'"):
        Text(cleaning="letters").decode("123 456!")
    assert Text(cleaning="letters").decode_fingerprint() != Text().decode_fingerprint()
    with pytest.raises(ValueError, match="cleaning"):
        Text(cleaning="letter")  # pyright: ignore[reportArgumentType]


def test_what_readers_gave_before_they_changed_is_not_read_again(monkeypatch):
    now = (Text().decode_fingerprint(), Text().fingerprint())
    monkeypatch.setattr("counterpoise.data.readers.base.DECODING", 1)
    before = (Text().decode_fingerprint(), Text().fingerprint())
    assert not set(now) & set(before)
