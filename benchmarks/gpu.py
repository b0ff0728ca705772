"""Everything about a GPU in one command: whether runs are right there, how fast they are, what a step is made of.

    python benchmarks/gpu.py                          on the first GPU, a budget of 440 s
    python benchmarks/gpu.py --device cpu --quick     the same on the CPU, small, to see that it runs
    python benchmarks/gpu.py --released PATH          IGM's released code beside, from a checkout

It needs no data. Every section is written to ``--out`` (JSON) as soon as it is there; one with no time left for it says
so; ``--publish`` puts what is there into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_checks import checked
from gpu_work import Work
from measure import child, in_turn, machine, publish, ratio, spread, table

from counterpoise import methods
from counterpoise.functional import flat_directions, thin_flat_directions

METHODS: dict[str, tuple[Callable[[], Any], int]] = {
    "Joint": (methods.Joint, 1),
    "OGM": (methods.OGM, 1),
    "MMPareto": (methods.MMPareto, 1),
    "AGM": (methods.AGM, 1),
    "SMV": (methods.SMV, 1),
    "MLA": (methods.MLA, 1),
    "IGM": (partial(methods.IGM, sam="off", stages=[1, 1]), 2),
}
"""Method -> what makes it, and the phases of which the last is timed."""
PRECISIONS = {"float32": "32-true", "bf16": "bf16-mixed"}
HAND = "joint, by hand"


class Budget:
    """Seconds that are left."""

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    def left(self) -> float:
        return self.end - time.monotonic()


# -- sections: each returns what goes into the JSON -----------------------------------------------------------------
def correct(args: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """Method -> check -> what came of it."""
    return checked(args.device, args.methods)


def steps(args: argparse.Namespace, budget: Budget, *, compiled: bool = False) -> dict[str, Any]:
    """Milliseconds a step of each method, of the loop by hand, and peak memory, per batch size and precision."""
    sizes = (8,) if args.quick else (256, 64)
    results: dict[str, Any] = {}
    for batch in sizes:
        for name, precision in PRECISIONS.items():
            if compiled and name != "bf16":
                continue
            if budget.left() < 60:
                results[f"{name}, {batch}"] = "no time was left"
                continue
            results[f"{name}, {batch}"] = _steps(args, batch, precision, compiled)
    return results


def _steps(args: argparse.Namespace, batch: int, precision: str, compiled: bool) -> dict[str, Any]:
    work = Work(args.device, batch, 4 if args.quick else 16, small=args.quick)
    chosen = {"Joint": METHODS["Joint"]} if compiled else METHODS
    cases: dict[str, Callable[[], float]] = {HAND: work.by_hand(precision, compiled=compiled)}
    for name, (make, phases) in chosen.items():
        if args.methods is None or name in args.methods:
            cases[name] = work.engine(make(), phases, precision, compiled=compiled)
    peaks: dict[str, float] = {}
    for name, case in cases.items():  # also the warm-up
        work.forget_peak()
        case()
        peaks[name] = work.peak()
    seconds = in_turn(cases, 2 if args.quick else 5, warmup=0)
    rate = {name: batch * work.steps / statistics.median(values) for name, values in seconds.items()}
    return {"steps": work.steps, "batch": batch, "seconds": seconds, "MiB": peaks, "samples/s": rate}


def matrices(args: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """Seconds for T of a layer by its width, from the second moment and from 64 batch means."""
    device, results = torch.device(args.device), {}
    for d in (128, 256) if args.quick else (512, 1024, 2048, 4096, 8192):
        if budget.left() < 45:
            results[d] = "no time was left"
            continue
        R = torch.randn(64, d, device=device, dtype=torch.float64)
        whole = R.mT @ R
        results[d] = {
            "eigenvectors": _seconds(partial(flat_directions, whole, 0.4), device, 1 if d > 4096 else 3),
            "thin": _seconds(partial(thin_flat_directions, R, 0.4), device, 3),
            "difference": float((flat_directions(whole, 0.4) - thin_flat_directions(R, 0.4)).abs().max()),
        }
    return results


def _seconds(function: Callable[[], object], device: torch.device, rounds: int) -> list[float]:
    taken = []
    for turn in range(rounds + 1):
        _wait(device)
        started = time.perf_counter()
        function()
        _wait(device)
        taken.append(time.perf_counter() - started)
        if turn == 0 and rounds == 1:
            break
    return taken[1:] or taken


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def profile(args: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """What steps of joint training and of IGM's second stage are made of, and how much of the time the device works."""
    return {
        name: Work(args.device, 8 if args.quick else 256, 4, small=args.quick).profile(make(), phases, "bf16-mixed")
        for name, (make, phases) in METHODS.items()
        if name in ("Joint", "IGM")
    }


def released(args: argparse.Namespace, budget: Budget) -> dict[str, Any]:
    """Seconds a step of the authors' code and of ours, each in a process of its own."""
    script = Path(__file__).with_name("released.py")
    command = [str(script), str(args.released), "--device", args.device, "--json", "--rounds", "2", "--steps", "8"]
    return child(command, PYTHONWARNINGS="ignore")[0]


# -- the page -------------------------------------------------------------------------------------------------------
def page(results: dict[str, Any], args: argparse.Namespace) -> str:
    """The section of docs/performance.md."""
    writers = {
        "checks": _checks_text, "steps": _steps_text, "compiled": _steps_text, "matrices": _matrices_text,
        "profile": _profile_text, "released": _released_text,
    }  # fmt: skip
    parts = []
    for name, write in writers.items():
        value = results.get(name)
        if isinstance(value, dict):
            parts.append(write(value))
        else:
            parts.append(f"{name}: {value or 'not measured'}")
    return "\n\n".join(parts)


def _checks_text(results: dict[str, dict[str, str]]) -> str:
    wrong = [
        f"{name}, {check}: {outcome}"
        for name, outcomes in results.items()
        for check, outcome in outcomes.items()
        if outcome != "ok" and not (check == "step" and outcome[0].isdigit() and ":" not in outcome)
    ]
    count = sum(map(len, results.values()))
    farthest = max((o["step"] for o in results.values() if o["step"][0].isdigit()), key=float, default="–")
    said = "\n".join(f"- {line}" for line in wrong) or "All passed."
    return (
        f"{len(results)} methods, {count} checks: four steps against the CPU's in float64 (largest difference "
        f"{farthest} of the largest change of a weight), the contract suite, no wait for the device inside a step "
        f"(but SMV's). {said}"
    )


def _steps_text(results: dict[str, Any]) -> str:
    rows = []
    for setting, found in results.items():
        if isinstance(found, str):
            rows.append((setting, found, "", "", ""))
            continue
        for name, seconds in found["seconds"].items():
            step = [s / found["steps"] * 1e3 for s in seconds]
            against = "" if name == HAND else spread(ratio(found["seconds"], name, HAND), 3)
            rate, peak = f"{found['samples/s'][name]:,.0f}", f"{found['MiB'][name]:,.0f} MiB"
            rows.append((setting, name, spread(step, 2, " ms"), against, rate, peak))
    return table(("precision, batch", "", "step", "ratio to the loop by hand", "samples/s", "peak memory"), rows)


def _matrices_text(results: dict[str, Any]) -> str:
    rows = [
        (d, found, "", "")
        if isinstance(found, str)
        else (d, spread(found["thin"], 4), spread(found["eigenvectors"], 4), f"{found['difference']:.0e}")
        for d, found in results.items()
    ]
    return table(("d", "T from 64 batch means, s", "T by eigenvectors, s", "largest difference"), rows)


def _profile_text(results: dict[str, Any]) -> str:
    texts = []
    for name, found in results.items():
        kernels = [(k["name"][:80], k["calls"], f"{k['ms']:.2f}") for k in found["kernels"]]
        busy = "" if found["busy"] is None else f", the device at work in {found['busy']:.0%} of the time"
        texts.append(f"{name}, {found['steps']} steps{busy}:\n\n{table(('', 'calls', 'ms'), kernels)}")
    return "\n\n".join(texts)


def _released_text(results: dict[str, Any]) -> str:
    return table(("", "step"), [(name, spread(seconds, 4, " s")) for name, seconds in results.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small networks, few steps")
    parser.add_argument("--seconds", type=float, default=440, help="no case is begun that is likely to end later")
    parser.add_argument("--methods", type=lambda text: text.split(","), help="only these, separated by commas")
    parser.add_argument("--released", type=Path, help="a checkout of github.com/njustkmg/IJCAI25-IGM")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--publish", action="store_true", help="write the section of docs/performance.md")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU; --device cpu --quick shows that the script runs.")
    sections: dict[str, Callable[[argparse.Namespace, Budget], dict[str, Any]]] = {
        "checks": correct, "steps": steps, "matrices": matrices, "profile": profile,
    }  # fmt: skip
    if args.released is not None:
        sections["released"] = released
    if not args.quick:  # last: the compiler takes a minute or more before anything runs
        sections["compiled"] = partial(steps, compiled=True)
    budget, results = Budget(math.inf if args.quick else args.seconds), {"machine": machine()}
    for name, section in sections.items():
        started = time.perf_counter()
        try:
            results[name] = section(args, budget) if budget.left() > 0 else "no time was left"
        except Exception as failure:  # the other sections are still worth having
            traceback.print_exc()
            results[name] = f"failed: {type(failure).__name__}: {failure}"
        print(f"{name}: {time.perf_counter() - started:.0f} s, {budget.left():.0f} s left", file=sys.stderr)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(results, indent=1))
    text = page(results, args)
    if args.publish:
        publish("gpu", "On a GPU", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
