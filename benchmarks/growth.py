"""Time and memory against rows, modalities, classes and the width of the head; what a checkpoint takes.

    python benchmarks/growth.py [--rows 10000 100000 1000000] [--widths 256 512 1024 2048 4096 8192]

Each case of rows, modalities or classes is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch

import counterpoise as cp
from counterpoise.data import check, from_arrays
from counterpoise.engine.checkpoint import save
from counterpoise.engine.loader import Loader
from counterpoise.functional import flat_directions, project_inputs, rls_update, thin_flat_directions

FILES, VECTOR = 500, 16  # files that the rows share; numbers in each
METHODS = {"Joint": cp.methods.Joint, "IGM": cp.methods.IGM, "MMPareto": cp.methods.MMPareto, "AGM": cp.methods.AGM}


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return function(), time.perf_counter() - started


def _grouped(n: int) -> str:
    return f"{n:,}".replace(",", " ")


# -- rows --------------------------------------------------------------------------------------------------
def _write(folder: Path, n: int) -> Path:
    for name in ("audio", "video"):
        (folder / name).mkdir(exist_ok=True)
        for i in range(FILES):
            np.save(folder / name / f"{i:06d}.npy", np.full(VECTOR, i % 5, np.float32))
    path = folder / f"{n}.csv"
    with path.open("w") as file:
        file.write("id,label,group,audio,video\n")
        for i in range(n):
            name = f"{i % FILES:06d}.npy"
            file.write(f"sample-{i:08d},class{i % 5},speaker{i // 5 % (n // 50):06d},audio/{name},video/{name}\n")
    return path


def rows_case(path: str) -> dict[str, float]:
    """What a run does before its first batch, batches by workers, and predictions batch by batch."""
    readers = {"audio": "array", "video": "array"}
    warm = Path(path).with_name("warm.csv")
    model = cp.build_model({m: cp.encoders.MLP(VECTOR, (), 8) for m in readers}, "Late", num_classes=5)
    trainer = cp.Trainer(model, cp.methods.Joint(), batch_size=64, progress=False, accelerator="cpu")
    next(Loader(cp.Table(warm, readers).splits().train, 64).batches(("audio",)))  # imports, and so the next two lines
    check(cp.Table(warm, readers), read=False)
    next(trainer.stream(cp.Table(warm, readers).samples()))
    before, cpu = measure.peak(), measure.cpu()
    found: dict[str, float] = {}
    with measure.Anonymous() as anonymous:
        without = anonymous.most
        table, found["read"] = _timed(lambda: cp.Table(path, readers))
        found["read, cpu"] = measure.cpu() - cpu
        splits, found["split"] = _timed(table.splits)
        _, found["fingerprint"] = _timed(splits.train.fingerprint)
        batches = Loader(splits.train, 64).batches(tuple(readers), order_seed=0, drop_last=True)
        _, found["first batch"] = _timed(batches.__next__)
        found["start-up, cpu"] = measure.cpu() - cpu
    found["start-up MiB"], found["start-up anonymous MiB"] = measure.peak() - before, anonymous.most - without
    with measure.Anonymous() as anonymous:
        found["kept MiB"] = anonymous.most - without
        epoch = Loader(splits.train, 64, num_workers=2).batches(tuple(readers), order_seed=0, augment_seed=0)
        some = list(itertools.islice(epoch, 100))
        found["worker MiB"] = max(measure.private(worker.pid or 0) for worker in multiprocessing.active_children())
        epoch.close()  # pyright: ignore[reportAttributeAccessIssue]
        del some, epoch
    found["epoch anonymous MiB"] = anonymous.most - without
    with measure.Anonymous() as anonymous:
        _, found["check"] = _timed(lambda: check(table, read=False))
    found["check anonymous MiB"] = anonymous.most - without
    every = table.samples()
    with measure.Anonymous() as anonymous:
        stream = trainer.stream(every)
        count = min(10_000, len(table))
        _, found["predict 10 000"] = _timed(lambda: _take(stream, count))
    found["predict anonymous MiB"] = anonymous.most - without
    found["all MiB"] = measure.peak() - before
    found["rows"], found["file MiB"] = len(table), Path(path).stat().st_size / 2**20
    return found


def _take(stream: Iterator[Any], count: int) -> None:
    while count > 0:
        count -= len(next(stream).target)


def rows(sizes: Sequence[int]) -> str:
    times, memory = [], []
    with tempfile.TemporaryDirectory() as directory:
        _write(Path(directory), 500).rename(Path(directory) / "warm.csv")
        for n in sizes:
            path = _write(Path(directory), n)
            f, _ = measure.child([__file__, "--case", "rows_case", str(path)])
            name = _grouped(n)
            cells = ("read", "read, cpu", "split", "fingerprint", "first batch", "start-up, cpu", "check")
            times.append([name, f"{f['file MiB']:.0f}", *(f"{f[k]:.2f}" for k in (*cells, "predict 10 000"))])
            kept, start = f["kept MiB"], f["start-up anonymous MiB"]
            parts = [f"{f[k]:.0f}" for k in ("epoch anonymous MiB", "worker MiB", "check anonymous MiB")]
            parts += [f"{f['predict anonymous MiB']:.0f}", f"{f['all MiB']:.0f}"]
            memory.append([name, f"{kept:.0f} ({kept * 2**20 / n:.0f})", f"{start:.0f} ({start * 2**20 / n:.0f})",
                           f"{f['start-up MiB']:.0f}", *parts])  # fmt: skip
            path.unlink()
    header = ["rows", "file, MiB", "read, s", "of it processor, s", "split, s", "fingerprint, s", "first batch, s"]
    header += ["processor until then, s", "check, s", "predict 10 000, s"]
    headings = ["rows", "kept (bytes a row)", "most until the first batch (bytes a row)", "the same with mapped files"]
    headings += ["most in an epoch", "each of two workers", "most in the check", "most in predicting"]
    headings += ["most of all with mapped files"]
    return (
        "### Rows of a table\n\nA CSV with a name, a label, a group and two paths, splits made by group. The checker "
        "looks at the table alone; an epoch is 100 batches of 64 by two workers.\n\n"
        + measure.table(header, times)
        + "\n\nMiB above a process that has read, checked and predicted a table of 500 rows (workers: of their own). "
        "Memory is anonymous, which no file backs; what is mapped from files, the system takes back when it is needed "
        "elsewhere.\n\n"
        + measure.table(headings, memory)
        + "\n\nThe text of a large table lies in a temporary file. What grows in memory are numbers: a row's label "
        "(4 bytes), its place in a split and the label there (16), and its turn in an epoch (8); more for a moment "
        "while rows are divided. Batches, predictions and the checker's files stream. Validation keeps the features "
        "of its split, 4 × width bytes a row and modality, and evaluation those of the split that it scores."
    )


# -- modalities --------------------------------------------------------------------------------------------
def modalities_case(count: str) -> dict[str, float]:
    """Seconds of two passes over the data by each method."""
    names, n = [f"m{i}" for i in range(int(count))], 512
    generator = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(n, 512, generator=generator) for m in names}
    data = from_arrays(inputs, torch.arange(n) % 5, val=0.1, test=0.0)
    found: dict[str, float] = {}
    for name, make in METHODS.items():
        for epochs in (2, 4):  # the first warms up
            method = make()
            model = cp.build_model(
                {m: cp.encoders.MLP(512, (1024, 1024), 512) for m in names},
                method.default_fusion,
                num_classes=5,
                heads=method.own_heads,
                example=data.train,
            )
            trainer = cp.Trainer(model, method, epochs=epochs, batch_size=64, progress=False, accelerator="cpu")
            _, seconds = _timed(lambda trainer=trainer: trainer.fit(data.train, data.val))
        found[name] = seconds / epochs
        if name in ("Joint", "IGM"):
            found[f"{name} MiB"] = measure.peak()
    return found


def modalities(counts: Sequence[int]) -> str:
    found = {m: measure.child([__file__, "--case", "modalities_case", str(m)])[0] for m in counts}
    lines = [
        [m, *(f"{f[name]:.2f} ({f[name] / m / (found[counts[0]][name] / counts[0]):.2f})" for name in METHODS),
         f"{f['Joint MiB']:.0f}", f"{f['IGM MiB'] - f['Joint MiB']:.0f}"]
        for m, f in found.items()
    ]  # fmt: skip
    header = ["M", *(f"{name}, s" for name in METHODS), "peak of joint, MiB", "more for IGM, MiB"]
    return (
        "### Modalities\n\nSeconds of one pass over 461 samples of M vectors (multilayer perceptrons of 2.1 million "
        "weights), validation included; in brackets the time per modality relative to the fewest, 1.00 being linear. "
        "IGM's passes have two gradients each. AGM evaluates its fusion for each of the 2^M - 1 subsets while M <= 6, "
        "for 2M - 1 of them beyond, which shows here because the encoders are small.\n\n" + measure.table(header, lines)
    )


# -- classes -----------------------------------------------------------------------------------------------
def classes_case(count: str, n: str) -> dict[str, float]:
    """Processor seconds and peak memory of one epoch, of the scores and of predictions by batches."""
    classes, samples = int(count), int(n)
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(samples) % classes
    means = torch.randn(classes, 16, generator=generator)
    inputs = {m: means[target] + torch.randn(samples, 16, generator=generator) for m in ("a", "b")}
    data = from_arrays(inputs, target, val=0.25, test=0.25)

    def made() -> cp.Trainer:
        encoders = {m: cp.encoders.MLP(16, (64,), 64) for m in inputs}
        model = cp.build_model(encoders, "Concat", num_classes=classes, example=data.train)
        return cp.Trainer(model, cp.methods.Joint(), epochs=1, batch_size=256, progress=False, accelerator="cpu")

    made().fit(data.train, data.val)  # imports
    trainer, measured = made(), dict[str, float]()
    for name, work in {
        "fit": lambda: trainer.fit(data.train, data.val),
        "scores": lambda: trainer.evaluate(data.test),
        "predict": lambda: [one.fused.argmax(1) for one in trainer.stream(data.test)],
    }.items():
        cpu = measure.cpu()
        with measure.Anonymous() as anonymous:
            before = anonymous.most
            work()
        measured |= {name: measure.cpu() - cpu, f"{name} MiB": anonymous.most - before}
    return measured


def classes(counts: Sequence[int], samples: int = 40_000) -> str:
    works = ("fit", "scores", "predict")
    lines = []
    for count in counts:
        case = measure.child([__file__, "--case", "classes_case", str(count), str(samples)])[0]
        lines.append([_grouped(count), *(f"{case[w]:.1f}" for w in works), *(f"{case[f'{w} MiB']:.0f}" for w in works)])
    header = ["classes", *(f"{w}, processor s" for w in ("an epoch", "all scores", "predictions by batches"))]
    header += [f"{w}, MiB" for w in ("an epoch", "all scores", "predictions by batches")]
    quarter = _grouped(samples // 4)
    return (
        f"### Classes\n\n{_grouped(samples // 2)} training samples of two modalities, {quarter} for validation and "
        f"{quarter} for test; memory above what the process had. Scores keep the logits of all samples, 4 × classes "
        "bytes for each sample and prediction (of each modality and the fused one), and several times as much, in "
        "float64, of one prediction at a time. So 30 000 test samples of 5 000 classes take 0.6 GB a prediction: with "
        "40 modalities that is more than many machines have, while training and predictions by batches do not grow "
        "with the samples. Mean average precision is what takes the time: it sorts the samples once for each class."
        "\n\n" + measure.table(header, lines)
    )


# -- width of the head -------------------------------------------------------------------------------------
def widths(sizes: Sequence[int], batches: int = 64) -> str:
    lines = []
    generator = torch.Generator().manual_seed(0)
    for d in sizes:
        R = torch.randn(min(batches, d // 2), d, dtype=torch.float64, generator=generator).abs()
        repeat = range(5 if d <= 1024 else 1)
        thin = [_timed(lambda R=R: thin_flat_directions(R, 0.4)) for _ in repeat]
        T = thin[0][0]
        Y = R.mT @ R
        runs = [_timed(lambda Y=Y: flat_directions(Y, 0.4)) for _ in repeat]
        dense = measure.spread([s for _, s in runs], 3)
        error = f"{float((runs[0][0] - T).abs().max()):.0e}"
        del Y, runs
        G = torch.randn(10, d, generator=generator)
        T = T.float()
        project = measure.in_turn({"": lambda G=G, T=T: project_inputs(G, T)}, 5)[""]
        P = torch.eye(d, dtype=torch.float64)
        mla = measure.in_turn({"": lambda P=P, R=R: rls_update(P, R[0], 0.1)}, 3)[""]
        cells = [measure.spread([s for _, s in thin], 3), dense, error, f"{8 * d * d / 2**20:.0f}"]
        lines.append([d, *cells, *(measure.spread([1000 * s for s in times], 1) for times in (project, mla))])
    header = ["d", "T from 64 batch means, s", "T by eigenvectors of Y, s", "largest difference", "T in float64, MiB"]
    header += ["a gradient times T, ms", "MLA's update of P, ms"]
    return (
        "### Width of the head\n\nIGM's matrix T for a linear head of d inputs after 64 batches, from the batch means "
        "themselves (n³ + n d², used while n ≤ d / 2) and from the eigenvectors of the d × d second moment (d³). "
        "Every step multiplies a gradient of 10 classes by T; MLA's P changes in every "
        "turn (d², float64). Nothing is approximated.\n\n" + measure.table(header, lines)
    )


def checkpoints() -> str:
    model = cp.build_model({m: cp.encoders.ResNet18(channels=3) for m in ("a", "b")}, "Concat", num_classes=6)
    state = {"model": model.state_dict(), "optimizer": {k: torch.zeros_like(v) for k, v in model.named_parameters()}}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "last.ckpt"
        seconds = measure.in_turn({"save": lambda: save(path, state)}, 5)["save"]
        size = path.stat().st_size / 2**20
    return (
        f"### Checkpoints\n\nTwo ResNet-18 with SGD's momentum: `last.ckpt` has {size:.0f} MiB and takes "
        f"{measure.spread(seconds, 2)} s to write and flush, once an epoch. A better epoch also writes `best.ckpt`, "
        "half of it, and keeps a copy of the weights in memory."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 4, 6, 8, 40])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096, 8192])
    options = parser.parse_args()
    parts = [
        rows(options.rows),
        modalities(options.modalities),
        classes(options.classes),
        widths(options.widths),
        checkpoints(),
    ]
    measure.publish("growth", "Growth", "\n\n".join(parts))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--case"]:
        print(json.dumps(globals()[sys.argv[2]](*sys.argv[3:])))
    else:
        main()
