"""The main job on real recordings: spoken digits from WAV files, paired with handwritten ones."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from counterpoise.cli import main
from real_data import real

TRAIN, TEST = 1500, 400


def write_table(source: Path, out: Path) -> Path:
    """A CSV of WAV and PNG files: a share of the official pairs, the test part untouched by training."""
    with (source / "pairs.csv").open() as file:
        pairs = list(csv.DictReader(file))
    pictures = np.load(source / "mnist.npz")
    random.Random(0).shuffle(pairs)
    chosen = [p for p in pairs if p["split"] == "train"][:TRAIN] + [p for p in pairs if p["split"] == "test"][:TEST]
    (out / "png").mkdir()
    with (out / "digits.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", "split", "audio", "image"])
        for i, p in enumerate(chosen):
            Image.fromarray(pictures[f"x_{p['split']}"][int(p["mnist_index"])]).save(out / "png" / f"{i}.png")
            wav = next(x for x in (source / p["wav"], source / "fsdd_wav" / p["wav"]) if x.is_file())
            # a fifth of the training part selects the weights
            part = "val" if p["split"] == "train" and i % 5 == 0 else p["split"]
            table.writerow([f"pair{i}", p["label"], part, wav.resolve(), f"png/{i}.png"])
    return out / "digits.csv"


@pytest.mark.slow
def test_igm_and_joint_learn_from_wav_files_and_images(tmp_path: Path):
    table = write_table(real("av_mnist_fsdd"), tmp_path)
    results = {}
    for method in ("Joint", "IGM"):
        arguments = [
            "fit", "--data", str(table), "--method", method, "--run_dir", str(tmp_path / method), "--epochs", "24",
            "--batch_size", "16",
            "--data.modalities.audio", "Audio", "--data.modalities.audio.sample_rate", "8000",
            "--data.modalities.audio.seconds", "0.5", "--data.modalities.audio.n_fft", "128",
            "--data.modalities.audio.hop", "128", "--data.modalities.image", "Image",
            "--data.modalities.image.size", "28", "--data.modalities.image.channels", "1",
            "--data.modalities.image.flip", "0", "--data.modalities.image.augment", "false",
            "--data.modalities.image.normalize", "none", "--data.cache", str(tmp_path / "cache"),
            "--encoders.audio", "CNN", "--encoders.audio.dim", "32", "--encoders.image", "CNN",
            "--encoders.image.dim", "32", "--optimizer.lr", "0.05", "--progress", "false",
        ]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 0
        results[method] = json.loads((tmp_path / method / "result.json").read_text())["test"]
    with table.open() as file:
        labels = [row["label"] for row in csv.DictReader(file) if row["split"] == "test"]
    majority = max(labels.count(label) for label in set(labels)) / len(labels)
    for method, scores in results.items():
        assert scores["fused/accuracy"] > majority + 0.5, (method, scores, majority)
    assert results["IGM"]["audio/accuracy"] > majority + 0.3
    assert results["IGM"]["image/accuracy"] > majority + 0.3
