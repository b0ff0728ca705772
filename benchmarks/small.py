"""Small models: what the engine adds to their step, and what a comparison of many runs takes."""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import in_turn, publish, ratio, spread, table
from overhead import TINY, Work

import counterpoise as cp

STEPS = 200
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
METHODS = ("Joint", "OGM", "AGM", "MMPareto", "MSES", "Unimodal")


def step(rounds: int) -> str:
    """A step of two small MLPs by hand and through the engine, and where the engine's goes."""
    work = Work(TINY, STEPS, "cpu")
    engine = work.engine(cp.methods.Joint())
    seconds = in_turn({"by hand": work.by_hand(tuple(TINY)), "engine": engine}, rounds)
    each = {name: spread([s / STEPS * 1e6 for s in values], 0, " µs") for name, values in seconds.items()}
    profile = cProfile.Profile()
    profile.runcall(engine)
    shares = profiled(profile)
    return (
        f"Two small MLPs, batches of 16 from memory, SGD: a step by hand takes {each['by hand']}, through the engine "
        f"{each['engine']}, which is {spread(ratio(seconds, 'engine', 'by hand'))} times as long; wanted is at most "
        f"1.25. {STEPS} steps a round, {rounds} rounds in turn, one thread. The engine also checks shapes, counts "
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


def compared(source: Path, options: list[str], seeds: int, out: Path) -> dict[str, Any]:
    """Run a comparison with the package in ``source``; run -> its scores."""
    chosen = ["--methods", ",".join(METHODS), "--seeds", ",".join(map(str, range(seeds))), "--jobs", "2"]
    line = [sys.executable, "-m", "counterpoise", "benchmark", *options, *chosen, "--threads", "1", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    results = {path.parent.name: json.loads(path.read_text()) for path in (out / "runs").glob("*/result.json")}
    return {name: [result["val"], result["test"]] for name, result in results.items()}


def runs(before: Path, options: list[str], seeds: int, rounds: int) -> str:
    """The same comparison by an earlier checkout and by this one, in turn."""
    here = Path(cp.__file__).parents[1]
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    scores: dict[str, dict[str, Any]] = {}
    for turn in range(rounds):
        for name, source in [("before", before), ("now", here)][:: -1 if turn % 2 else 1]:
            with tempfile.TemporaryDirectory() as directory:
                started = time.perf_counter()
                scores[name] = compared(source, options, seeds, Path(directory))
                seconds[name].append(time.perf_counter() - started)
    same = scores["before"] == scores["now"]
    count = len(scores["now"])
    return (
        f"A comparison of {count} runs ({', '.join(METHODS)}, {seeds} seeds), two at a time with one thread each: "
        f"{spread(seconds['before'], 0, ' s')} before, {spread(seconds['now'], 0, ' s')} now, "
        f"{spread(ratio(seconds, 'now', 'before'))} of it; wanted was 0.5. The scores are "
        f"{'the same to the last bit' if same else 'NOT the same'}. {rounds} rounds in turn, start and report included."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--before", type=Path, help="folder `src` of an earlier checkout, to compare many runs with")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--turns", type=int, default=2, help="rounds of the comparison")
    own, options = parser.parse_known_args()
    text = step(own.rounds)
    if own.before is not None:
        text += "\n\n" + runs(own.before.resolve(), options, own.seeds, own.turns)
    publish("small", "Small models and many runs", text)


if __name__ == "__main__":
    main()
