"""Reading clips: the per-item path of released code, against this library's table without and with its cache.

Generated files of CREMA-D's layout: 16 kHz WAV of 2 to 3 seconds, three JPEG frames of 480 x 360 pixels. The
per-item path is written here from what released scripts for CREMA-D do: librosa loads and resamples to 22,050 Hz,
the sound is repeated to 3 s, STFT 512/353, logarithm; PIL opens one JPEG, torchvision crops to 224, mirrors,
normalises. Both read in one process with one thread, as a worker of a loader does.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import in_turn, publish, ratio, spread, table
from PIL import Image

from counterpoise import Trainer, build_model
from counterpoise.data.table import TableSplit
from counterpoise.datasets import get
from counterpoise.encoders import ResNet18
from counterpoise.engine import Run, loader
from counterpoise.engine.step import Step
from counterpoise.methods import Joint

BATCH = 12
PARTS = ("train", "val")


def write_raw(root: Path, count: int) -> None:
    """So many clips of each part, with official names."""
    rows = get("cremad").rows(None, "ogm")
    random = np.random.default_rng(0)
    for part in PARTS:
        for row in [r for r in rows if r.part == part][:count]:
            sound = random.normal(0, 3000, int(16000 * random.uniform(2, 3))).astype("<i2")
            (root / "AudioWAV").mkdir(parents=True, exist_ok=True)
            with wave.open(str(root / "AudioWAV" / f"{row.id}.wav"), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(sound.tobytes())
            folder = root / "Image-01-FPS" / row.id
            folder.mkdir(parents=True)
            for i in range(3):
                coarse = random.integers(0, 255, (9, 12, 3), np.uint8)
                Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC).save(folder / f"{30 * i:05d}.jpg")


def per_item_sound(path: Path) -> torch.Tensor:
    import librosa

    sound, _ = librosa.load(path, sr=22050)
    sound = np.clip(np.tile(sound, 3)[: 22050 * 3], -1, 1)
    return torch.from_numpy(np.log(np.abs(librosa.stft(sound, n_fft=512, hop_length=353)) + 1e-7))


def per_item_picture() -> Callable[[Path], torch.Tensor]:
    from torchvision import transforms

    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def read(folder: Path) -> torch.Tensor:
        image = change(Image.open(min(folder.iterdir())).convert("RGB"))
        assert isinstance(image, torch.Tensor)
        return image

    return read


class Reading:
    """One pass over the training part, in each of the ways that are compared."""

    def __init__(self, out: Path, modality: str, per_item: Callable[[Path], torch.Tensor]):
        self.out, self.modality, self.read = out, modality, per_item
        self.train = self.cached = self._split()
        self.files = [Path(self.train.table.source(row, modality) or "") for row in self.train.rows.tolist()]
        rows = list(range(len(self.files)))
        self.chunks = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]

    def per_item(self) -> None:
        for chunk in self.chunks:
            torch.stack([self.read(self.files[i]) for i in chunk])

    def no_cache(self) -> None:
        self._pass(self.train)

    def first_epoch(self) -> float:
        shutil.rmtree(self.out / "cache", ignore_errors=True)
        started = time.perf_counter()  # an epoch deletes nothing
        self._open()
        return time.perf_counter() - started

    def second_epoch(self) -> None:
        self._pass(self.cached)

    def next_run(self) -> None:
        self._open()

    def _open(self) -> None:
        self.cached = self._split(cache=self.out / "cache")
        self._pass(self.cached)

    def _split(self, **options: Path) -> TableSplit:
        train = get("cremad").table(self.out, **options).splits().train
        assert isinstance(train, TableSplit)
        return train

    def _pass(self, split: TableSplit) -> None:
        for chunk in self.chunks:
            split.batch(chunk, self.modality, 1)

    def seconds(self, rounds: int) -> dict[str, list[float]]:
        cases = (self.per_item, self.no_cache, self.first_epoch, self.second_epoch, self.next_run)
        return in_turn({case.__name__.replace("_", " "): case for case in cases}, rounds)


class Clock(Joint):
    """Joint training that takes the time of its epochs."""

    def __init__(self, waited: list[float]):
        super().__init__()
        self.waited, self.epochs = waited, []

    def on_epoch_start(self, run: Run) -> None:
        self.waited.clear()
        self.started = time.perf_counter()

    def step(self, step: Step) -> torch.Tensor:
        loss = super().step(step)
        if step.index == step.num_batches - 1:
            self.epochs.append((time.perf_counter() - self.started, sum(self.waited)))
        return loss


def training(out: Path, workers: int, steps: int) -> tuple[float, float, float]:
    """Samples per second of joint training, of its loader alone, and the share of an epoch spent waiting for data."""
    splits = get("cremad").table(out, cache=out / "cache").splits()
    train, val = splits.train.subset(range(steps * BATCH)), splits.val.subset(range(BATCH))
    waited: list[float] = []
    read = loader.Loader._read

    def timed(self: loader.Loader, *wanted: Any) -> Iterator[object]:
        batches = iter(read(self, *wanted))
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            waited.append(time.perf_counter() - started)
            if batch is None:
                return
            yield batch

    torch.manual_seed(0)
    model = build_model({"audio": ResNet18(1), "visual": ResNet18(3)}, "Concat", num_classes=6)
    method = Clock(waited)
    trainer = Trainer(model, method, epochs=3, batch_size=BATCH, num_workers=workers, accelerator="cpu", progress=False)
    loader.Loader._read = timed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        trainer.fit(train, val)
    finally:
        loader.Loader._read = read
    seconds, wait = method.epochs[-1]  # everything is cached, and workers are up and running
    alone = loader.Loader(splits.train, BATCH, num_workers=workers, persistent=True)
    speeds = []
    for seed in (1, 2):
        started = time.perf_counter()
        count = sum(len(batch.target) for batch in alone.batches(train.modalities, order_seed=seed, augment_seed=seed))
        speeds.append(count / (time.perf_counter() - started))
    return len(train) / seconds, speeds[-1], wait / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=240, help="of the training part")
    parser.add_argument("--steps", type=int, default=6, help="of an epoch of training")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.clips < BATCH * options.steps:
        parser.error(f"--clips must be at least {BATCH} times --steps")
    warnings.filterwarnings("ignore", module="audioread|librosa")
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        write_raw(Path(folder) / "raw", options.clips)
        out = get("cremad").prepare(Path(folder) / "raw", Path(folder) / "out", progress=False).out
        torch.set_num_threads(1)  # as in a worker
        sound, picture = Reading(out, "audio", per_item_sound), Reading(out, "visual", per_item_picture())
        read = {"sound": sound.seconds(options.rounds), "picture": picture.seconds(options.rounds)}
        torch.set_num_threads(threads)
        trained: dict[int, list[tuple[float, float, float]]] = {0: [], 1: [], 2: []}
        for _ in range(options.rounds):
            for workers, runs in trained.items():
                runs.append(training(out, workers, options.steps))
    reads = [
        [name, case, spread([1000 * s / options.clips for s in seconds[case]], 2, " ms"),
         spread(ratio(seconds, "per item", case), 1, "x")]
        for name, seconds in read.items() for case in seconds
    ]  # fmt: skip
    trains = []
    for workers, runs in trained.items():
        speed, alone, waits = zip(*runs, strict=True)
        trains.append([workers, spread(speed, 1), spread(alone, 0), spread([100 * w for w in waits], 1, " %")])
    publish(
        "loading",
        "Reading data",
        f"""\
Generated clips of CREMA-D's layout ({options.clips} for training), read in one process with one thread as in a worker;
time per sample. "Per item" is the way of released scripts: librosa reads, resamples and transforms the sound, PIL
and torchvision read and augment the picture, every time. "First epoch" fills the cache (`--data.cache`), "second epoch"
reads it, "next run" is the first epoch of another run, which verifies every entry.

{table(["input", "case", "per sample", "speed against per item"], reads)}

Joint training of two ResNet-18 on these clips in batches of {BATCH}, all cores, cached data, and the loader alone:

{table(["workers", "training, samples/s", "loader alone, samples/s", "of an epoch spent waiting for data"], trains)}""",
    )


if __name__ == "__main__":
    main()
