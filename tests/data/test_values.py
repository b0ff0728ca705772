"""Texts, pictures and sounds in memory, and integers that may be anything."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import counterpoise as cp
from counterpoise.data import Audio, Image, ReadError, Table, Tabular, Text, from_arrays, from_dataset
from counterpoise.data.values import guessed

N = 24
Y = np.arange(N) % 2
SPLIT = ["train"] * 12 + ["val"] * 12
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 12, 10, 3), np.uint8)
PICTURES = [Pillow.fromarray(x) for x in PIXELS]
TEXTS = [f"sample {'nice' if y else 'bad'} number{i}" for i, y in enumerate(Y)]
WAVES = [(RNG.uniform(-1, 1, 900).astype(np.float32), 8000) for _ in range(N)]
READERS = {"text": Text(length=5), "image": Image(size=8), "sound": Audio(8000, 0.1, n_fft=64, hop=50, crop="random")}
VALUES: dict[str, Any] = {"text": TEXTS, "image": PICTURES, "sound": WAVES}


def test_values_are_read_as_the_files_of_a_table(tmp_path):
    import soundfile

    rows = ["id,label,split,text,image,sound"]
    for i in range(N):
        PICTURES[i].save(tmp_path / f"{i}.png")
        soundfile.write(tmp_path / f"{i}.wav", WAVES[i][0], 8000, subtype="FLOAT")
        image = "" if i == 3 else f"{i}.png"
        rows.append(f"{i},{Y[i]},{SPLIT[i]},{TEXTS[i]},{image},{i}.wav")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    table = Table(tmp_path / "t.csv", READERS).splits()
    pictures = [None if i == 3 else picture for i, picture in enumerate(PICTURES)]
    arrays = from_arrays({**VALUES, "image": pictures}, Y, readers=READERS, split=SPLIT)
    samples = [{**{m: v[i] for m, v in VALUES.items()}, "image": pictures[i], "label": Y[i]} for i in range(N)]
    dataset = from_dataset(samples, readers=READERS, split=SPLIT)
    for data in (arrays, dataset):
        assert data.train.present is not None
        assert data.train.present.keys() == {"image"}
        assert data.train.present["image"].tolist() == [i != 3 for i in range(12)]
        for m in VALUES:
            assert data.train.layout(m) == table.train.layout(m)
            for seed in (None, 5):
                got, expected = (d.train.batch([0, 3, 7], m, seed) for d in (data, table))
                assert torch.equal(got, expected), (m, seed)
        assert data.train.readers == READERS
    assert not arrays.train.batch([3], "image", None).any()


def test_readers_by_name_and_augmentation_by_seed():
    data = from_arrays({"image": PIXELS}, Y, readers={"image": "image"}, split=SPLIT)
    assert data.train.layout("image").shape == (3, 224, 224)
    data = from_arrays({"image": PIXELS}, Y, readers={"image": Image(size=8)}, split=SPLIT)
    one, other = data.train.batch([1], "image", 1), data.train.batch([1], "image", 2)
    assert not torch.equal(one, other)
    assert torch.equal(one, data.train.batch([0, 1], "image", 1)[1:])


def test_what_is_recognised_is_said():
    with pytest.warns(UserWarning, match=r"inputs\['text'\]: its values are read by Text\(\); state it or another"):
        data = from_arrays({"text": TEXTS}, Y, split=SPLIT)
    assert torch.equal(data.train.batch([0], "text", None)[0], Text().read(TEXTS[0]))
    with pytest.warns(UserWarning, match=r"inputs\['image'\]: its values are read by Image\(size=11\); state"):
        data = from_arrays({"image": PICTURES}, Y, split=SPLIT)
    assert data.train.layout("image").shape == (3, 11, 11)
    grey = [picture.convert("L") for picture in PICTURES]
    with pytest.warns(UserWarning, match=r"Image\(size=11, channels=1\)"):
        assert from_arrays({"image": grey}, Y, split=SPLIT).train.layout("image").shape == (1, 11, 11)
    for samples in (np.array(TEXTS), np.array(TEXTS, object), tuple(TEXTS)):
        with pytest.warns(UserWarning, match=r"Text\(\)"):
            assert from_arrays({"text": samples}, Y, split=SPLIT).train.layout("text").kind == "text"
    with pytest.warns(UserWarning, match=r"'text': is read by Text\(\); state it or another: readers="):
        data = from_dataset([{"text": TEXTS[i], "label": Y[i]} for i in range(N)], split=SPLIT)
    assert data.train.layout("text").kind == "text"
    with pytest.warns(UserWarning, match=r"'image': is read by Image\(size=11\)"):
        from_dataset([{"image": PICTURES[i], "label": Y[i]} for i in range(N)], split=SPLIT)


def test_blank_texts_are_absent():
    texts = [*TEXTS[:5], "  ", None, float("nan"), *TEXTS[8:]]
    data = from_arrays({"text": texts, "x": np.ones((N, 2))}, Y, readers={"text": Text(length=3)}, split=SPLIT)
    assert data.train.present is not None
    assert data.train.present["text"].tolist() == [i not in (5, 6, 7) for i in range(12)]
    samples = [{"text": texts[i], "x": 1.0, "label": Y[i]} for i in range(N)]
    again = from_dataset(samples, readers={"text": Text(length=3)}, split=SPLIT)
    assert again.train.present is not None
    assert torch.equal(again.train.present["text"], data.train.present["text"])


@pytest.mark.parametrize("shape", ["last", "first"])
def test_uint8_pictures_become_floats(shape: str):
    pixels = PIXELS if shape == "last" else PIXELS.transpose(0, 3, 1, 2)
    with pytest.warns(UserWarning, match=r"uint8 pictures became floats in \[0, 1\] of shape \(24, 3, 12, 10\)"):
        data = from_arrays({"image": pixels}, Y, split=SPLIT)
    expected = torch.from_numpy(PIXELS.transpose(0, 3, 1, 2)[:2] / 255).float()
    torch.testing.assert_close(data.train.batch([0, 1], "image", None), expected)
    with pytest.warns(UserWarning, match=r"'image': uint8 pictures became floats"):
        again = from_dataset([{"image": pixels[i], "label": Y[i]} for i in range(N)], split=SPLIT)
    assert torch.equal(again.train.batch([0, 1], "image", None), data.train.batch([0, 1], "image", None))


def test_integers():
    tokens = RNG.integers(0, 50, (N, 4), np.int8)
    tokens[0, 0] = 50
    data = from_arrays({"x": tokens}, Y, split=SPLIT)
    assert data.train.batch([0], "x", None).dtype == torch.int64
    assert data.train.layout("x") == cp.data.layout.Layout("text", (4,), {"vocab_size": 51})
    with pytest.warns(UserWarning, match=r"inputs\['x'\]: whole numbers below 0 are no token numbers, and became fl"):
        data = from_arrays({"x": tokens - 20}, Y, split=SPLIT)
    assert data.train.batch([0], "x", None).dtype == torch.float32
    assert data.train.batch([0], "x", None)[0].tolist() == (tokens[0] - 20).tolist()
    assert from_arrays({"x": tokens > 9}, Y, split=SPLIT).train.batch([0], "x", None).dtype == torch.float32


def test_the_users_values_stay_and_the_fingerprint_follows():
    pictures = copy.copy(PICTURES)
    fingerprints = set[str]()
    for size, changed in ((8, False), (9, False), (8, True), (8, False)):
        if changed:
            pictures = [*PICTURES[:-1], Pillow.fromarray(255 - PIXELS[-1])]
        data = from_arrays({"image": pictures}, Y, readers={"image": Image(size=size)}, split=SPLIT)
        fingerprints.add(data.train.fingerprint())
        pictures = PICTURES
    assert len(fingerprints) == 3


def _uint8(*shape: int) -> np.ndarray:
    return np.zeros((N, *shape), np.uint8)


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ({"x": _uint8(4)}, {}, r"'x' holds uint8 of shape \(24, 4\).*x.astype\('float32'\) for measurements"),
        ({"x": _uint8(8, 8)}, {}, r"x\[:, None\] for grey ones"),
        ({"x": _uint8(3, 8, 3)}, {}, "pictures are"),
        ({"x": WAVES}, {}, r"inputs\['x'\] holds values such as a tuple.*readers=\{'x': Audio\(\)\}"),
        ({"x": [b"x"] * N}, {}, "holds values such as a bytes, and nothing says how they are read"),
        ({"x": ["1.5"] * N}, {}, r"inputs\['x'\]: its values are numbers or dates, as '1.5'. Pass numbers, or"),
        ({"x": TEXTS[1:]}, {"readers": {"x": Text()}}, r"inputs\['x'\] must hold 24 values, one per label; got 23"),
        ({"x": ["...", *TEXTS[1:]]}, {"readers": {"x": Text()}}, r"inputs\['x'\], sample 0: empty text"),
        ({"x": [1, *TEXTS[1:]]}, {"readers": {"x": Text()}}, r"inputs\['x'\], sample 0: Text takes a text; got an int"),
        ({"x": [None] * N}, {"readers": {"x": Text()}}, r"inputs\['x'\]: every sample lacks it"),
        (
            {"x": [None, *TEXTS[1:]]},
            {"readers": {"x": Text()}, "present": {"x": np.ones(N, bool)}},
            r"sample 0 holds nothing, and present\['x'\] says otherwise",
        ),
        ({"x": TEXTS}, {"readers": {"y": Text()}}, "readers: Unknown modality 'y'"),
        ({"x": TEXTS}, {"readers": {"x": "txet"}}, "Unknown reader 'txet'. Did you mean 'text'"),
        (
            {"x": TEXTS},
            {"readers": {"x": Tabular(["age"])}},
            r"Tabular learns from the training rows.*Table\(df, \{'x'",
        ),
        ({"x": TEXTS}, {"readers": {"x": Text}}, r"readers\['x'\] must be a reader such as .* got the class Text"),
    ],
)
def test_values_that_say_too_little(inputs: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        from_arrays(inputs, Y, **{"split": SPLIT, **options})


def test_a_text_after_numbers_is_named():
    with pytest.raises(ReadError, match="sample 1, 'x': is a str; say how it is read"):
        from_dataset([{"x": 1, "label": 0}, {"x": "words", "label": 1}])


def test_warnings_name_the_line_that_calls():
    y = np.arange(40) % 2
    pixels, parts = np.zeros((40, 4, 4, 3), np.uint8), ["train"] * 30 + ["dev"] * 10
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        from_arrays({"a": pixels}, y, split=parts)
        from_dataset([{"a": x, "label": i} for x, i in zip(pixels, y, strict=True)], split=parts)
    texts = [str(w.message) for w in caught]
    assert (
        sum("uint8 pictures" in text for text in texts) == sum("'dev' is read as 'val'" in text for text in texts) == 2
    )
    assert {w.filename for w in caught} == {__file__}


@pytest.mark.parametrize(("size", "edge"), [((20, 5), 10), ((100, 49), 72), ((900, 700), 224)])
def test_pictures_in_memory_and_files_get_one_size(tmp_path: Path, size: tuple[int, int], edge: int):
    pictures = [Pillow.new("RGB", size, (i, 0, 0)) for i in range(3)]
    for i, picture in enumerate(pictures):
        picture.save(tmp_path / f"{i}.png")
    for values in (pictures, [str(tmp_path / f"{i}.png") for i in range(3)]):
        reader = guessed(values)
        assert isinstance(reader, Image)
        assert reader.size == edge
