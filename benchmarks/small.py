"""Small models: what the engine adds to their step, and what a comparison of many runs takes."""

from __future__ import annotations

import argparse
import cProfile
import importlib
import json
import os
import pstats
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from measure import child, in_turn, publish, ratio, spread, table
from overhead import TINY, Work

import counterpoise as cp
from counterpoise import cli as command_line
from counterpoise.benchmark.plan import PRELOAD

STEPS = 50
PARTS = {
    "reading a batch": ("loader.py", "_read_here"),
    "to the device": ("replicas.py", "on_device"),
    "encoders": ("passes.py", "encode"),
    "fusion": ("passes.py", "fuse"),
    "loss": ("method.py", "loss"),
    "backward pass": ("step.py", "backward"),
    "update": ("run.py", "update"),
    "averages of the epoch": ("run.py", "log"),
}
METHODS = ("Joint", "OGM", "AGM", "MSES")


def step(rounds: int) -> str:
    """A step of two small MLPs by hand and through the engine, and where the engine's goes."""
    work = Work(TINY, STEPS, "cpu", time.process_time)
    engine = work.engine(cp.methods.Joint())
    seconds = in_turn({"by hand": work.by_hand(tuple(TINY)), "engine": engine}, rounds)
    each = {name: spread([s / STEPS * 1e6 for s in values], 0, " µs") for name, values in seconds.items()}
    profile = cProfile.Profile()
    profile.runcall(engine)
    shares = profiled(profile)
    return (
        f"Two small MLPs, batches of 16 from memory, SGD: a step by hand takes {each['by hand']}, through the engine "
        f"{each['engine']}, which is {spread(ratio(seconds, 'engine', 'by hand'))} times as long; wanted is at most "
        f"1.25. {STEPS} steps a round, {rounds} rounds in turn, processor time. The engine also checks shapes, counts "
        "passes, asks observers, averages what is logged, and keeps one block of weights and one rate per modality. "
        "Where its step goes, of a profile that slows all of it:\n\n"
        f"{table(('part of a step', 'share'), [(part, f'{share:.0%}') for part, share in shares.items()])}"
    )


def profiled(profile: cProfile.Profile) -> dict[str, float]:
    """Part -> its share of all steps; the rest is what lies between the parts."""
    cumulative: dict[tuple[str, str], float] = {}
    rows: Mapping[Any, Any] = pstats.Stats(profile).stats  # pyright: ignore[reportAttributeAccessIssue]
    for (file, _, function), (_, _, _, total, _) in rows.items():
        if "counterpoise" in file:
            name = Path(file).name, function
            cumulative[name] = max(total, cumulative.get(name, 0.0))
    whole = cumulative["loop.py", "_epoch"] - cumulative["loop.py", "_end_epoch"]
    shares = {part: cumulative[name] / whole for part, name in PARTS.items()}
    return {**shares, "the rest": 1 - sum(shares.values())}


def forked(arguments: list[str], directory: Path) -> float:
    """Processor seconds of a run in a fork of this process, as a comparison starts it."""
    pid = os.fork()
    if pid == 0:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            status = 1
            try:
                torch.set_num_threads(1)
                command_line.main(["fit", *arguments, "--run_dir", str(directory)])
                status = 0
            except SystemExit as end:
                status = 0 if end.code in (None, 0) else 1
            finally:
                os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"fit {' '.join(arguments)} failed.")
    return usage.ru_utime + usage.ru_stime


def each_run(options: list[str]) -> dict[str, Any]:
    """Method -> processor seconds and scores of its run, the modules of a comparison being imported before."""
    for module in PRELOAD:
        importlib.import_module(module)
    runs: dict[str, Any] = {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as directory:
            seconds = forked([*options, "--method", method], Path(directory))
            result = json.loads((Path(directory) / "result.json").read_text())
        runs[method] = [seconds, [result["val"], result["test"]]]
    return runs


def runs(before: Path, options: list[str], rounds: int) -> str:
    """The runs of a comparison by an earlier checkout and by this one, in turn."""
    sources = {"before": before, "now": Path(cp.__file__).parents[1]}
    seconds: dict[str, list[float]] = {f"{method} {name}": [] for method in METHODS for name in sources}
    scores: dict[str, dict[str, Any]] = {}
    for turn in range(rounds):
        for name in [*sources][:: -1 if turn % 2 else 1]:
            found, _ = child([__file__, "--child", *options], PYTHONPATH=str(sources[name]))
            scores[name] = {method: values for method, (_, values) in found.items()}
            for method, (used, _) in found.items():
                seconds[f"{method} {name}"].append(used)
    lines = [
        (
            m,
            *(spread(seconds[f"{m} {name}"], 2, " s") for name in sources),
            spread(ratio(seconds, f"{m} now", f"{m} before")),
        )
        for m in METHODS
    ]
    same = "the same to the last bit" if scores["before"] == scores["now"] else "NOT the same"
    return (
        "A run of a comparison on a small set of features, from the fork on, reading, training, checkpoints and scores "
        f"included, one thread, {rounds} rounds in turn, processor seconds; wanted was half:\n\n"
        f"{table(('run', 'before', 'now', 'of before'), lines)}\n\nThe scores are {same}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--before", type=Path, help="folder `src` of an earlier checkout, to compare runs with")
    parser.add_argument("--turns", type=int, default=2, help="rounds of the comparison of runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    own, options = parser.parse_known_args()
    if own.child:
        print(json.dumps(each_run(options)))
        return
    text = step(own.rounds)
    if own.before is not None:
        text += "\n\n" + runs(own.before.resolve(), options, own.turns)
    publish("small", "Small models and many runs", text)


if __name__ == "__main__":
    main()
