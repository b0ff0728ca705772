"""One IGM stage and its matrices, against the authors' released CREMA-D code, on generated files of CREMA-D's layout.

``python benchmarks/released.py PATH`` with a checkout of github.com/njustkmg/IJCAI25-IGM, which is run as it is: what
is not here (a GPU, packages it imports and does not use on this path) is replaced from outside, in its own process.
``--device cuda`` runs both on a GPU.
Both sides get the same files, networks, batch size and threads, and read in the training process.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from measure import child, publish, ratio, spread, table

BATCH = 12
EMOTIONS = ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
OURS = {
    "Counterpoise, float32": {},
    "Counterpoise, bf16": {"precision": "bf16-mixed"},
    "Counterpoise, float32, decoded files cached": {"cache": True},
    "Counterpoise, float32, the released rule": {"sam": "released"},
    "Counterpoise, float32, sharpness-aware (rho 0.05)": {"sam": "paper"},
}
THEIRS, FIRST = "released code, float32", "Counterpoise, float32"


def write_clips(root: Path, steps: int) -> None:
    """Clips of 2.5 s at 16 kHz with three pictures of 480 x 360, the published lists, and a table of the same files."""
    import numpy as np
    import soundfile
    from PIL import Image

    rng = np.random.default_rng(0)
    (root / "AudioWAV").mkdir(parents=True)
    (root / "annotations").mkdir()
    rows = []
    for i in range(BATCH * steps + 2):
        name, label = f"clip{i:04d}", EMOTIONS[i % len(EMOTIONS)]
        rows.append((name, label))
        pitch = 120 + 40 * (i % len(EMOTIONS))
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(40_000) / 16_000) + 0.05 * rng.normal(size=40_000)
        soundfile.write(root / "AudioWAV" / f"{name}.wav", wave, 16_000, subtype="PCM_16")
        folder = root / "Image-01-FPS" / name
        folder.mkdir(parents=True)
        for frame in range(3):
            coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((480, 360), Image.Resampling.BICUBIC).save(folder / f"{frame:05d}.jpg")
    with (root / "annotations" / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with (root / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "split", "audio", "visual"))
        for i, (name, label) in enumerate(rows):
            part = "train" if i < BATCH * steps else "val"
            writer.writerow((name, label, part, f"AudioWAV/{name}.wav", f"Image-01-FPS/{name}"))


# -- what runs in processes of their own ---------------------------------------------------------------------------
def theirs(checkout: Path, root: Path, steps: int, matrices: bool, device: str) -> dict[str, float]:
    """Seconds per step of their first stage; and, with ``matrices``, of building them and of the second stage."""
    import torch
    from torch.utils.data import DataLoader, Subset

    if device == "cpu":
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
        torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    sys.path.insert(0, str(checkout))
    stand_ins: list[str] = []
    while True:
        try:
            code: Any = importlib.import_module("train_CREMA")
            break
        except ModuleNotFoundError as missing:
            if missing.name is None or missing.name.partition(".")[0] in {"train_CREMA", "datasets", "models", "utils"}:
                raise
            stand_ins.append(missing.name)
            sys.modules[missing.name] = MagicMock()
    for name in stand_ins:  # other packages look whether they are there
        del sys.modules[name]
    settings = json.loads((checkout / "configs" / "crema.json").read_text())
    settings["dataset"]["data_root"] = str(root)
    code.cfg = code.deep_update_dict(settings, code.config)
    torch.manual_seed(0)
    data = code.CramedDataset(code.config, mode="train")
    model = code.create_model(code.cfg).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9, weight_decay=1e-4)

    def loader(batches: int) -> DataLoader[Any]:
        return DataLoader(Subset(data, range(BATCH * batches)), batch_size=BATCH, shuffle=True, drop_last=True)

    def seconds(train: Any, state: str) -> float:
        train(0, loader(1), model, optimizer, MagicMock(), state)
        started = time.perf_counter()
        train(0, loader(steps), model, optimizer, MagicMock(), state)
        return (time.perf_counter() - started) / steps

    found = {"step": seconds(code.train_withoutP, "train_audio")}
    if matrices:
        started = time.perf_counter()
        with torch.no_grad():
            code.compute_P_matrix(model, loader(steps), code.config, "train_audio")
        found["matrices"] = time.perf_counter() - started
        found["second"] = seconds(code.train_withP, "train_video")
    return found


def ours(root: Path, matrices: bool, device: str, options: dict[str, Any]) -> dict[str, float]:
    """The same of this library."""
    import torch

    import counterpoise as cp
    from counterpoise.data import Audio, Frames, Table
    from counterpoise.engine import Run

    class Stages(cp.methods.IGM):
        """IGM that says how long its matrices take."""

        taken = 0.0

        def phase(self, index: int, run: Run) -> Any:
            return super().phase(index, run) if matrices or index == 0 else None

        def _measure(self, *arguments: Any) -> None:
            started = time.perf_counter()
            super()._measure(*arguments)
            self.taken = time.perf_counter() - started

    class Clock(cp.engine.Observer):
        """When each batch ended, by phase."""

        def __init__(self) -> None:
            self.ends: list[list[float]] = []

        def on_batch_end(self, run: Run) -> None:
            if run.state.batch_in_epoch == 1:
                self.ends.append([])
            self.ends[-1].append(time.perf_counter())

    torch.manual_seed(0)
    cached = options.pop("cache", False)
    readers = {"audio": Audio(), "visual": Frames(count=1, pick="first")}
    data = Table(root / "clips.csv", readers, cache=root / "cache" if cached else None).splits()
    encoders = {"audio": cp.encoders.ResNet18(1), "visual": cp.encoders.ResNet18(3)}
    model = cp.build_model(encoders, "Late", num_classes=len(EMOTIONS))
    method = Stages(sam=options.pop("sam", "off"), mixup=1.0, stages=[2, 1] if cached else [1, 1])
    clock = Clock()
    trainer = cp.Trainer(
        model, method, batch_size=BATCH, accelerator="gpu" if device == "cuda" else "cpu", progress=False,
        observers=[clock], **options,
    )  # fmt: skip
    trainer.fit(data.train, data.val)
    step = [(ends[-1] - ends[0]) / (len(ends) - 1) for ends in clock.ends]
    found = {"step": step[1 if cached else 0]}
    return {**found, "matrices": method.taken, "second": step[-1]} if matrices else found


# -- side by side ----------------------------------------------------------------------------------------------------
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="batches of each stage, and of the pass for the matrices")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print the seconds a step of each case, and nothing else")
    parser.add_argument("--child", nargs=3, metavar=("FOLDER", "MATRICES", "OPTIONS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not (args.checkout / "train_CREMA.py").is_file():
        raise SystemExit(
            f"{args.checkout} holds no train_CREMA.py: give the folder of a checkout of the released code."
        )
    if args.child:
        root, matrices, options = Path(args.child[0]), args.child[1] == "1", json.loads(args.child[2])
        checkout = args.checkout.resolve()
        if options is None:
            found = theirs(checkout, root, args.steps, matrices, args.device)
        else:
            found = ours(root, matrices, args.device, options)
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder) / "crema", args.steps)
        steps, peaks, whole = measured(args, Path(folder) / "crema")
    if args.json:
        print(json.dumps(steps))
        return
    publish("released", "Against the released code", body(args.steps, steps, peaks, whole))


def measured(
    args: argparse.Namespace, root: Path
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, list[tuple[dict[str, float], float]]]]:
    """Seconds a step and peak memory of every case, in turn; and of two of them with matrices and a second stage."""

    def run(options: dict[str, Any] | None, matrices: bool) -> tuple[dict[str, float], float]:
        arguments = [str(args.checkout), f"--steps={args.steps}", f"--device={args.device}", "--child", str(root)]
        arguments.append(str(int(matrices)))
        return child([__file__, *arguments, json.dumps(options)], PYTHONWARNINGS="ignore")

    cases: dict[str, dict[str, Any] | None] = {THEIRS: None, **OURS}
    steps: dict[str, list[float]] = {name: [] for name in cases}
    peaks: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(args.rounds):
        for name, options in cases.items():
            found, peak = run(options, False)
            steps[name].append(found["step"])
            peaks[name].append(peak)
            print(f"{name}: {found['step']:.3f} s a step, {peak:.0f} MiB", file=sys.stderr)
    if args.json:
        return steps, peaks, {}
    whole = {name: [run(cases[name], True)] for name in (THEIRS, FIRST)}
    for _ in range(1, args.rounds):
        for name, found in whole.items():
            found.append(run(cases[name], True))
    return steps, peaks, whole


def body(
    count: int,
    steps: dict[str, list[float]],
    peaks: dict[str, list[float]],
    whole: dict[str, list[tuple[dict[str, float], float]]],
) -> str:
    """The section."""
    rows = [
        (
            name,
            spread(seconds, 3, " s"),
            spread(ratio(steps, THEIRS, name), 2, "x"),
            f"{statistics.median(peaks[name]):.0f} MiB",
        )
        for name, seconds in steps.items()
    ]
    taken = {name: [found["matrices"] for found, _ in runs] for name, runs in whole.items()}
    built = [
        (
            name,
            spread(taken[name], 2, " s"),
            spread(ratio(taken, THEIRS, name), 1, "x"),
            spread([found["second"] for found, _ in runs], 3, " s"),
            f"{statistics.median(peak for _, peak in runs):.0f} MiB",
        )
        for name, runs in whole.items()
    ]
    return (
        f"The authors' CREMA-D script, its functions run unmodified on the CPU, and this library: generated files of "
        f"CREMA-D's layout, a ResNet-18 and a head of three layers per modality, batches of {BATCH}, mixup, no worker "
        f"processes. One step of the first stage (sound), reading included, mean of {count} steps, each case in a "
        f"process of its own:\n\n{table(('', 'step', 'faster', 'peak memory'), rows)}\n\nTheir script reads sound and "
        "picture in every stage, goes backward twice for every update, and transforms a network of which the head "
        f"alone is projected. The matrices of the default scope after {count} batches, the pass over the data "
        "included, a step of the second stage (picture), and the peak memory of both stages and the matrices:"
        f"\n\n{table(('', 'matrices', 'faster', 'step of the second stage', 'peak memory'), built)}"
    )


if __name__ == "__main__":
    main()
