"""Raw data of a set -> what ``counterpoise --data`` takes: one .npz of arrays, or a table and small images.

    python benchmarks/real/prepare.py mosi_bclstm --source DIR --out data/mosi_bclstm.npz
    python benchmarks/real/prepare.py propaganda_memes --source DIR --out data/propaganda_memes.csv

DIR holds the raw files of the set (named below at each set). The data stay with you: none of their licences lets
this repository pass them on. A file of arrays has one per modality, ``y`` and ``split``; the images of a table lie in a
folder beside it. The test rows are the set's official ones, and so are the validation rows where there are some; else
they are taken from the training rows as each function says.
"""

from __future__ import annotations

import argparse
import csv
import math
import wave
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

Arrays = dict[str, Any]
Rows = list[dict[str, str]]
SIDE = 24
"""Width and height of the images of a table."""


def av_mnist_fsdd(source: Path) -> Arrays:
    """Spoken digits (audio) with handwritten ones (image), the image made weak.

    Reads ``fsdd.csv`` and ``fsdd_wav/`` (Free Spoken Digit Dataset), ``mnist.npz`` and ``pairs.csv``.

    audio: log-spectrogram (1, 33, 12) of at most 0.8 s at 8 kHz, windows of 64 samples, the power averaged over 512,
    zero-padded.
    image: (1, 28, 28) in [0, 1] less its leading 26 principal components (75 % of the energy), as in AV-MNIST.

    One of the five images paired with each training recording is used. Validation: takes 5 to 12 of every speaker
    and digit; training: takes 13 to 49. So no recording and no image is on two sides; speakers are, as in the official
    test split (takes 0 to 4).
    """
    recordings = read_rows(source / "fsdd.csv")
    spectrograms = np.stack([_spectrogram(_samples(source / "fsdd_wav" / row["file"])) for row in recordings])
    with np.load(source / "mnist.npz") as mnist:
        images = {part: mnist[f"x_{part}"].reshape(-1, 784).astype(np.float32) / 255 for part in ("train", "test")}
    mean, components = _components(images["train"], 26)
    uses: Counter[int] = Counter()
    pairs: list[tuple[str, int, int, int]] = []
    for pair in read_rows(source / "pairs.csv"):
        row, part = int(pair["wav_row"]), pair["split"]
        uses[row] += 1
        if part == "test" or uses[row] <= 1:
            part = "val" if part == "train" and int(recordings[row]["index"]) <= 12 else part
            pairs.append((part, row, int(pair["mnist_index"]), int(pair["label"])))
    seen = {side: {image for part, _, image, _ in pairs if part == side} for side in ("train", "val")}
    assert not seen["train"] & seen["val"], "an image is in training and in validation"
    kept: dict[str, list[Any]] = {"audio": [], "image": [], "y": [], "split": []}
    for part, row, index, label in pairs:
        image = images["test" if part == "test" else "train"][index] - mean
        kept["audio"].append(spectrograms[row])
        kept["image"].append((image - components.T @ (components @ image)).reshape(1, 28, 28))
        kept["y"].append(label)
        kept["split"].append(part)
    return {name: np.array(values) for name, values in kept.items()}


def mosi_bclstm(source: Path) -> Arrays:
    """CMU-MOSI utterances: text, audio and video features, positive or negative.

    Reads ``mosi.npz``. Features as they come, (100,), (73,) and (100,).

    Training: the 62 official training videos. Validation: every third of the 31 official test videos, in the order
    of their names; test: the other test videos. No video is on two sides. Validation is not taken from the training
    videos because their features know the labels: classifiers trained on four fifths of these videos are right for
    98 % (text) and 95 % (video) of the utterances in the rest, and for 75 % and 55 % in the test videos, as if the
    published feature extractors had been trained on the labels of all of them. Numbers on this test part are not
    those of the full official test split.
    """
    with np.load(source / "mosi.npz") as file:
        data = {name: file[name] for name in file.files}
    videos = np.array([name.rsplit("_", 1)[0] for name in data["id_test"]])
    held = sorted(set(videos))[::3]
    split = [*["train"] * len(data["y_train"]), *np.where(np.isin(videos, held), "val", "test")]
    joined = {m: np.concatenate([data[f"{m}_train"], data[f"{m}_test"]]) for m in ("text", "audio", "video", "y")}
    return {**joined, "split": np.array(split)}


def sarcasm_text_attr(source: Path) -> Arrays:
    """Tweets: the text and five words that describe the image, sarcastic or not.

    Reads ``sarcasm.csv``. text: 40 token numbers, the 6000 most frequent words of the training rows by rank, the
    rest one number; image: the five words, by rank. Training: every third of the 19816 rows; validation and test
    as published.
    """
    rows = read_rows(source / "sarcasm.csv")
    seen: Counter[str] = Counter()
    kept = []
    for row in rows:
        seen[row["split"]] += 1
        if row["split"] != "train" or seen["train"] % 3 == 0:
            kept.append(row)
    y = np.array([int(row["label"]) for row in kept])
    split = np.array([{"valid": "val"}.get(row["split"], row["split"]) for row in kept])
    columns = {"text": ("text", 40, 6000), "image": ("image_attributes", 5, 1000)}
    tokens = {
        m: _numbered([row[column].lower().split() for row in kept], split == "train", length, size)
        for m, (column, length, size) in columns.items()
    }
    return {**tokens, "y": y, "split": split}


def pie(source: Path) -> Arrays:
    """Faces of 68 people, three feature vectors of each picture: (484,), (256,) and (279,).

    Reads ``pie.npz`` (CMU PIE). The first of the set's five splits; a quarter of its training samples of every class
    validates.
    """
    return _views(source / "pie.npz")


def handwritten(source: Path) -> Arrays:
    """Handwritten digits, six feature vectors of each: pixels, profiles, Fourier, Zernike, Karhunen-Loeve, morphology.

    Reads ``handwritten.npz`` (UCI Multiple Features). Parts as in ``pie``.
    """
    return _views(source / "handwritten.npz")


def flipkart_products(source: Path) -> Arrays:
    """Products of a shop in 7 categories: name and description, and a photo of 24 x 24 pixels.

    Reads ``products.csv`` and ``images/``. text: 60 token numbers, the 4000 most frequent words of the training rows.
    The parts are those of the set; three products without a photo are left out.
    """
    table = [row for row in read_rows(source / "products.csv") if row["image"]]
    split = np.array([row["split"] for row in table])
    return {
        "text": tokens([f"{row['name']} {row['description']}" for row in table], split),
        "image": np.stack([pixels(source / row["image"]) for row in table]),
        "y": np.array([int(row["label"]) for row in table]),
        "split": split,
    }


def mvsa_single(source: Path) -> Arrays:
    """Tweets of three kinds of sentiment: text, and an image of 24 x 24 pixels.

    Reads ``labels.csv`` and ``images.zip``. text: 30 token numbers, as in ``flipkart_products``. The parts are those of
    QMF (1555, 518, 519).
    """
    table = [row for row in read_rows(source / "labels.csv") if row["qmf_split"]]
    split = np.array([{"dev": "val"}.get(row["qmf_split"], row["qmf_split"]) for row in table])
    with zipfile.ZipFile(source / "images.zip") as images:
        names = {Path(name).name: name for name in images.namelist()}
        photos = []
        for row in table:
            with images.open(names[f"{row['id']}.jpg"]) as file:
                photos.append(pixels(file))
    return {
        "text": tokens([row["text"] for row in table], split, 30),
        "image": np.stack(photos),
        "y": np.unique([row["label"] for row in table], return_inverse=True)[1],
        "split": split,
    }


def ravdess_fold0(source: Path) -> Arrays:
    """Spoken sentences in 8 emotions: the sound, and how far the face moved.

    Reads ``clips.csv`` and ``audio/`` (RAVDESS). sound: log-spectrogram (1, 65, 12) of the whole clip, windows of 128
    samples at 16 kHz, the power averaged over twelve equal pieces; face: the means of 35 action units. No actor is in
    two parts: fold 0 of the set's five tests, fold 1 validates.
    """
    import soundfile

    table = read_rows(source / "clips.csv")
    sounds = []
    for row in table:
        x = soundfile.read(source / row["audio"], dtype="float32")[0]
        hop = len(x) // 12 // 128 * 128
        sounds.append(_spectrogram(x, 128, hop, 12))
    units = [name for name in table[0] if name.startswith("AU")]
    return {
        "sound": np.stack(sounds),
        "face": np.array([[float(row[name]) for name in units] for row in table], np.float32),
        "y": np.array([int(row["label"]) for row in table]),
        "split": np.array([row["split"] for row in table]),
    }


def propaganda_memes(source: Path) -> Rows:
    """Political memes: the text on them and the picture; which of 22 persuasion techniques they use, 0 to 8 each.

    Reads ``memes.csv`` and ``images/``. The parts are the official ones: 687 for training, 63 for validation, 200 for
    test. 36 memes use no technique and stay. Three labels have no sample in validation and are left out of the scores
    there. Political content: a test of software, nothing else.
    """
    rows = read_rows(source / "memes.csv")
    return [
        {"id": r["id"], "split": r["split"], "labels": r["labels"] or "|", "text": r["text"], "image": r["image"]}
        for r in rows
    ]


def flipkart_prices(source: Path) -> Rows:
    """Products of a shop: name and photo; the natural logarithm of the price in rupees.

    Reads ``products.csv`` and ``images/`` of flipkart_products. The parts are those of the set: 735 for training, 105
    for validation, 210 for test, drawn by category, so that near variants of a product may be on two sides. The one
    product without a price is left out; three have no photo, and so lack a modality. ``description`` states the price
    and is no modality.
    """
    rows = [r for r in read_rows(source / "products.csv") if r["price"]]
    return [
        {
            "id": r["id"],
            "split": r["split"],
            "log_price": f"{math.log(float(r['price'])):.6f}",
            "name": r["name"],
            "image": r["image"],
        }
        for r in rows
    ]


ARRAYS = {
    function.__name__: function
    for function in (
        av_mnist_fsdd,
        mosi_bclstm,
        sarcasm_text_attr,
        pie,
        handwritten,
        flipkart_products,
        mvsa_single,
        ravdess_fold0,
    )
}
TABLES = {function.__name__: function for function in (propaganda_memes, flipkart_prices)}
SETS = {**ARRAYS, **TABLES}
FOLDERS = {
    "flipkart_prices": "flipkart_products",
    "handwritten": "multiview",
    "pie": "multiview",
    "ravdess_fold0": "ravdess_av",
}
"""Set -> folder of its raw data, where that has another name."""


def write_rows(rows: Rows, path: Path) -> None:
    """A table of these rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_table(rows: Rows, source: Path, path: Path) -> None:
    """The table, and its images in ``SIDE`` x ``SIDE`` pixels in a folder of its name beside it."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        if row["image"]:
            small = folder / f"{Path(row['image']).stem}.png"
            with Image.open(source / row["image"]) as image:
                image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX).save(small)
            row["image"] = f"{folder.name}/{small.name}"
    write_rows(rows, path)


def read_rows(path: Path) -> Rows:
    """The rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels(file: Path | IO[bytes], size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """(3, height, width) in [0, 1]."""
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize(size), np.float32).transpose(2, 0, 1) / 255


def tokens(texts: Iterable[str], split: np.ndarray, length: int = 60, size: int = 4000) -> np.ndarray:
    """(n, length) numbers of the most frequent words of the training rows; 0 is padding."""
    return _numbered([text.lower().split() for text in texts], split == "train", length, size)


def quarter(labels: np.ndarray) -> np.ndarray:
    """(n,) bool: a quarter of the samples of every class, drawn by seed 0."""
    rng, chosen = np.random.default_rng(0), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        chosen[rng.permutation(own)[: len(own) // 4]] = True
    return chosen


def _views(path: Path) -> Arrays:
    """The first of the given splits, a quarter of its training samples for validation."""
    with np.load(path) as file:
        data = {key: file[key] for key in file.files}
    y, test = data["label"].astype(np.int64), data["split"][0] == 1
    split = np.where(test, "test", "train").astype("<U5")
    train = np.flatnonzero(~test)
    split[train[quarter(y[train])]] = "val"
    return {**{str(view): data[str(view)] for view in data["views"]}, "y": y, "split": split}


def _samples(path: Path, length: int = 6144) -> np.ndarray:
    """At most ``length`` samples in [-1, 1], zeros behind them."""
    with wave.open(str(path)) as file:
        x = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)[:length] / 32768
    return np.pad(x, (0, length - len(x)))


def _spectrogram(x: np.ndarray, window: int = 64, hop: int = 512, frames: int = 12) -> np.ndarray:
    """(1, window / 2 + 1, frames) log power, averaged over the windows of a hop."""
    pieces = x[: frames * hop].reshape(frames, hop // window, window) * np.hanning(window).astype(np.float32)
    power = (np.abs(np.fft.rfft(pieces)) ** 2).mean(1)
    return np.log(power.T[None] + 1e-4).astype(np.float32)


def _components(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and leading principal components (count, d)."""
    mean = x.mean(0)
    _, vectors = np.linalg.eigh(np.cov(x, rowvar=False))
    return mean, vectors[:, ::-1][:, :count].T.astype(np.float32)


def _numbered(texts: list[list[str]], train: np.ndarray, length: int, size: int) -> np.ndarray:
    """(n, length) int64: 0 padding, 1 every other word, 2 and up the most frequent words of the training rows."""
    counts = Counter(word for words, known in zip(texts, train, strict=True) if known for word in words)
    rank = {word: 2 + i for i, (word, _) in enumerate(counts.most_common(size - 2))}
    numbers = np.zeros((len(texts), length), np.int64)
    for row, words in zip(numbers, texts, strict=True):
        found = [rank.get(word, 1) for word in words[:length]]
        row[: len(found)] = found
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SETS)
    parser.add_argument("--source", type=Path, required=True, help="folder with the raw files")
    parser.add_argument("--out", type=Path, required=True, help="the .npz or .csv to write")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.name in TABLES:
        rows = TABLES[given.name](given.source)
        write_table(rows, given.source, given.out)
        print(f"{given.out}: {dict(Counter(row['split'] for row in rows))}")
        return
    arrays = ARRAYS[given.name](given.source)
    np.savez(given.out, **arrays)
    counts = Counter(arrays["split"].tolist())
    shapes = {m: values.shape[1:] for m, values in arrays.items() if m not in ("y", "split")}
    print(f"{given.out}: {dict(counts)}, {shapes}")


if __name__ == "__main__":
    main()
