"""Real memes and products go in as a CSV file, as a DataFrame and as a PyTorch Dataset, and train to the same bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import counterpoise as cp
from counterpoise.data import Image, Text, from_arrays
from counterpoise.testing import assert_same, everything
from real_data import real

SETS = {
    "propaganda_memes": ("memes.csv", "image", "text", "labels", "multi-label"),
    "flipkart_products": ("products.csv", "image", "description", "price", "regression"),
}


class Rows(torch.utils.data.Dataset):
    """The rows of a frame as dicts, nothing read."""

    def __init__(self, frame: pd.DataFrame, folder: Path, image: str, text: str, label: Any):
        self.frame, self.folder, self.image, self.text, self.label = frame, folder, image, text, label

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.frame.iloc[index]
        image = None if pd.isna(row[self.image]) else str(self.folder / row[self.image])
        return {"image": image, "words": row[self.text], "label": self.label(row)}


def trained(data: cp.Splits, image: str, words: str) -> dict[str, Any]:
    encoders = {image: lambda: cp.encoders.CNN(3, dim=8), words: lambda: cp.encoders.TextBag(2000, dim=8)}
    model = cp.build_model(encoders, "Late", task=data.task, seed=0)
    trainer = cp.Trainer(model, cp.methods.Joint(), epochs=1, batch_size=64, progress=False, accelerator="cpu")
    trainer.fit(data.train, data.val)
    return {name.replace(image, "image").replace(words, "words"): x for name, x in everything(trainer).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_three_doors_and_one_result(name: str, tmp_path: Path):
    file, image, words, label, task = SETS[name]
    folder, several = real(name), task == "multi-label"
    frame = pd.read_csv(folder / file)
    frame = frame.fillna({label: "|"}) if several else frame.dropna(subset=[label])  # no technique; no price
    frame.to_csv(tmp_path / "table.csv", index=False)
    readers = {image: Image(size=16), words: Text(length=16, vocabulary=2000)}
    options: dict[str, Any] = {"label": label, "task": task, "test": 0.15, "root": folder}
    table = cp.Table(tmp_path / "table.csv", readers, **options).splits()
    framed = cp.Table(frame, readers, **options).splits()
    of_row = (lambda row: set(row[label].split("|")) - {""}) if several else (lambda row: row[label])
    rows = Rows(frame, folder, image, words, of_row)
    own = cp.from_dataset(
        rows, readers={"image": readers[image], "words": readers[words]}, task=task, split=frame["split"].tolist()
    )
    expected = trained(table, image, words)
    assert_same(expected, trained(framed, image, words))
    assert_same(expected, trained(own, "image", "words"))


@pytest.mark.slow
def test_pictures_and_texts_of_memes_in_memory():
    from PIL import Image as Pillow

    folder = real("propaganda_memes")
    frame = pd.read_csv(folder / "memes.csv").iloc[:200]
    pictures = [Pillow.open(folder / name) for name in frame["image"]]
    labels = [set(str(cell).split("|")) for cell in frame["labels"].fillna("")]
    readers = {"image": Image(size=16), "text": Text(length=16, vocabulary=2000)}
    data = from_arrays({"image": pictures, "text": frame["text"]}, labels, readers=readers, task="multi-label", test=0)
    files = from_arrays(
        {"image": [str(folder / name) for name in frame["image"]], "text": frame["text"]},
        labels,
        readers=readers,
        task="multi-label",
        test=0,
    )
    for m in readers:
        assert torch.equal(data.train.batch(range(64), m, 3), files.train.batch(range(64), m, 3))
