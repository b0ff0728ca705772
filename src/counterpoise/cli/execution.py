"""Options that say where and how many at a time the runs of a command are executed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from counterpoise._checks import did_you_mean
from counterpoise.benchmark.backends import Backend, Local
from counterpoise.recipe.messages import Options, UsageError

BACKENDS = ("local", "ray")


def add_execution(parser: Options) -> None:
    """``--jobs``, ``--threads``, ``--backend``, ``--address``, ``--gpus``."""
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument(
        "--threads",
        type=int,
        help="of each run; by default OMP_NUM_THREADS, else the cores of this machine / jobs. Results are the same bit "
        "for bit only with the same number",
    )
    parser.add_argument("--backend", default="local", help="local: processes on this machine; ray: tasks of Ray")
    parser.add_argument(
        "--address", help="of a Ray cluster: auto, host:port or ray://host:port; left out, Ray on this machine"
    )
    parser.add_argument("--gpus", type=float, help="that Ray reserves for each run, possibly a fraction; 0 by default")


def execution_of(own: argparse.Namespace) -> dict[str, Any]:
    """The arguments ``jobs``, ``threads`` and ``backend`` of ``run``.

    Raises:
        UsageError: for values out of range, and options of Ray without it.
    """
    if own.jobs < 1:
        raise UsageError(f"--jobs must be at least 1; got {own.jobs}.")
    if own.threads is not None and own.threads < 1:
        raise UsageError(f"--threads must be at least 1; got {own.threads}.")
    return {"jobs": own.jobs, "threads": own.threads, "backend": _backend(own)}


def folder_of(out: str) -> Path:
    """The folder that ``--out`` names; UsageError when a file is in the way."""
    for path in (Path(out), *Path(out).parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"--out {out} must be a folder, and {path} is a file. Choose another name.")
    return Path(out)


def _backend(own: argparse.Namespace) -> Backend:
    if own.backend not in BACKENDS:
        raise UsageError("--backend: " + did_you_mean("backend", own.backend, BACKENDS))
    if own.backend == "local":
        for name in ("address", "gpus"):
            if getattr(own, name) is not None:
                raise UsageError(f"--{name} is for Ray; add --backend ray.")
        return Local()
    if own.gpus is not None and not 0 <= own.gpus < float("inf"):
        raise UsageError(f"--gpus must be at least 0; got {own.gpus}.")
    from counterpoise.benchmark.on_ray import Ray

    return Ray(own.address, own.gpus or 0.0)
