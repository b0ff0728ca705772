"""How many decoded samples a second reach a device, and what the device then has to do.

The clips are those of `loading.py`: a picture of 480 x 360 pixels, decoded 518 kB, and a spectrogram of 193 kB. All is
in the cache, whose files are in memory. "One by one" is how training on a CPU reads: a worker transforms each sample.
"Handed over" is how training on a GPU reads: batches of what was decoded, up to the copy to the device. Their
transforms on the device are timed apart, on this CPU where there is no GPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loading import write_raw
from measure import cpu, in_turn, publish, ratio, spread, table

from counterpoise.data import Audio, Image, Reader
from counterpoise.data.table import TableSplit
from counterpoise.datasets import get
from counterpoise.engine.loader import Loader, Read
from counterpoise.types import Batch

HERE = torch.device("cpu")
TICKS = os.sysconf("SC_CLK_TCK")


class HandedOver(Loader):
    """Gives batches as they are before they go to the device."""

    def _finished(self, read: Read) -> Batch:
        return read.batch

    def _arrived(self, read: Any) -> Batch:
        assert isinstance(read, Read), read
        return read.batch


class Epochs:
    """Epochs of one loader, and the processor time that they take, in all of its processes."""

    def __init__(self, loader: Loader):
        before = {child.pid for child in multiprocessing.active_children()}
        self.loader, self.seed, self.spent = loader, 0, []
        self()
        self.workers = [c.pid for c in multiprocessing.active_children() if c.pid not in before]
        for _ in range(2):  # every worker has verified every entry it reads, nearly all
            self()
        self.spent.clear()

    def __call__(self) -> None:
        self.seed += 1
        before = self._cpu()
        names = self.loader.split.modalities
        count = sum(len(b.target) for b in self.loader.batches(names, order_seed=self.seed, augment_seed=self.seed))
        self.spent.append((self._cpu() - before) / count)

    def _cpu(self) -> float:
        fields = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in getattr(self, "workers", [])
        ]
        return cpu() + sum(int(f[11]) + int(f[12]) for f in fields) / TICKS


class Copied:
    """The bytes of all entries, read into the same memory again and again: what no loader can be faster than."""

    def __init__(self, cache: Path):
        self.files = [path for path in cache.rglob("*") if path.is_file() and path.name != "contents.log"]
        self.memory = [torch.zeros(64, 1 << 20, dtype=torch.uint8).numpy()[i].data for i in range(64)]
        self.spent: list[float] = []

    def __call__(self) -> None:
        before = cpu()
        for i, path in enumerate(self.files):
            file = os.open(path, os.O_RDONLY)
            os.readv(file, [self.memory[i % 64]])
            os.close(file)
        self.spent.append(2 * (cpu() - before) / len(self.files))  # two entries a sample


def handing_over(out: Path, clips: int, batch: int, rounds: int) -> str:
    """A table of the ways to read."""
    train = get("cremad").table(out, cache=out / "cache").splits().train
    assert isinstance(train, TableSplit)
    cases: dict[str, Any] = {}
    for workers in (0, 1, 2):
        how: dict[str, Any] = {"num_workers": workers, "persistent": True}
        cases[f"one by one, {workers} workers"] = Epochs(Loader(train, batch, **how))
        cases[f"handed over, {workers} workers"] = Epochs(HandedOver(train, batch, device=HERE, **how))
    cases["copy of the bytes, one process"] = Copied(out / "cache")
    copied = cases["copy of the bytes, one process"] = Copied(out / "cache")
    seconds = in_turn(cases, rounds)
    rows = []
    for name, case in cases.items():
        count = len(copied.files) / 2 if case is copied else clips
        against = name.replace("handed over", "one by one")
        faster = spread(ratio(seconds, against, name), 1, "x") if against != name else ""
        busy = spread([1 / spent for spent in case.spent[-rounds:]], 0)
        rows.append([name, spread([count / s for s in seconds[name]], 0), faster, busy])
    return table(["way", "samples/s", "against one by one", "samples per second of processor time"], rows)


def transforms(batch: int, rounds: int) -> str:
    """A table of what the device does."""
    random = torch.Generator().manual_seed(0)
    picture = torch.randint(0, 256, (360, 480, 3), dtype=torch.uint8, generator=random).movedim(-1, 0)
    wave = torch.rand(4 * 22050, generator=random) - 0.5
    readers: dict[str, tuple[Reader, torch.Tensor]] = {
        "picture, 480 x 360 to 224 x 224": (Image(), picture),
        "spectrogram of 3 s, `crop=random`": (Audio(crop="random"), wave),
    }
    rows = []
    for name, (reader, decoded) in readers.items():
        each, together = one_by_one(reader, decoded, batch), at_once(reader, decoded, batch)
        seconds = in_turn({"each": each, "together": together}, rounds)
        speeds = [spread([batch / s for s in seconds[case]], 0) for case in ("each", "together")]
        rows.append([name, *speeds, spread(ratio(seconds, "each", "together"), 2, "x")])
    return table(["input", "one by one, samples/s", "a batch at a time, samples/s", "ratio"], rows)


def one_by_one(reader: Reader, decoded: torch.Tensor, batch: int) -> Callable[[], object]:
    def read() -> object:
        return torch.stack([reader.transform(decoded, torch.Generator().manual_seed(i)) for i in range(batch)])

    return read


def at_once(reader: Reader, decoded: torch.Tensor, batch: int) -> Callable[[], object]:
    cuts = [reader.cut(decoded, torch.Generator().manual_seed(i)) for i in range(batch)]
    parts, drawn = torch.stack([part for part, _ in cuts]), torch.tensor([n for _, n in cuts], dtype=torch.float64)
    return lambda: reader.transform_batch(parts, drawn)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=768, help="of the training part")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_raw(Path(folder) / "raw", options.clips)
        out = get("cremad").prepare(Path(folder) / "raw", Path(folder) / "out", progress=False).out
        time.sleep(3)  # files that have just changed are hashed again
        handed = handing_over(out, options.clips, options.batch, options.rounds)
        load = os.getloadavg()[0]
        done = transforms(options.batch, options.rounds)
    publish(
        "feeding",
        "Feeding a GPU",
        f"""\
Clips as in [Reading data](#reading-data), {options.clips} of them, in batches of {options.batch}, from a cache in
memory: 711 kB a sample. "One by one" is how training on a CPU reads, "handed over" how training on a GPU reads, up to
the copy to the device. A copy of the same bytes into the same memory again and again is what no loader can be faster
than. The load of the machine was {load:.0f} on its {os.cpu_count()} cores when this had run, itself included. The last
column counts the processor time of all processes of the loader.

{handed}

What is then done on the device, here on the CPU with {torch.get_num_threads()} threads:

{done}

On a GPU nothing of this has been measured: neither the copy through pinned memory nor the transforms. A CPU is slower
with a batch at a time, so training on one does not do it.""",
    )


if __name__ == "__main__":
    main()
