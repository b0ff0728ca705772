"""What the benchmark scripts share: timing in turn, ratios within a round, peak memory, the page they write to."""

from __future__ import annotations

import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def in_turn(cases: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Wall seconds of each case, A B C C B A A B C ...: what slows the machine for a while slows all of them.

    Every other round runs backwards, so no case is always late in its round. A case that returns a float has timed a
    part of itself, and that part counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + rounds):
        for name, case in [*cases.items()][:: -1 if turn % 2 else 1]:
            started = time.perf_counter()
            part = case()
            if turn >= warmup:
                seconds[name].append(part if isinstance(part, float) else time.perf_counter() - started)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], case: str, to: str) -> list[float]:
    """Seconds of ``case`` divided by those of ``to``, round by round."""
    return [a / b for a, b in zip(seconds[case], seconds[to], strict=True)]


def spread(numbers: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """``median (least to most)``."""
    low, middle, high = (f"{n:.{digits}f}" for n in (min(numbers), statistics.median(numbers), max(numbers)))
    return f"{middle}{unit} ({low} to {high})"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def child(arguments: Sequence[str], **environment: str) -> tuple[dict[str, Any], float]:
    """Run a Python command; the JSON on its last line of output, and its peak memory in MiB."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with exit status {process.returncode}")
    return json.loads(output.strip().splitlines()[-1]), mebibytes(usage.ru_maxrss)


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return mebibytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def mebibytes(maxrss: int) -> float:
    return maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def private(pid: int | str = "self") -> float:
    """Memory that a process shares with no other and that no file backs, in MiB (Linux)."""
    found = re.search(r"Private_Dirty:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text())
    return int(found[1]) / 2**10 if found else math.nan


class Anonymous:
    """The most memory that no file backed while this context was open (Linux): `peak` counts mapped files too.

    Looked at every few milliseconds, so a shorter moment may be missed.
    """

    def __enter__(self) -> Anonymous:
        self.most, self._done = self._now(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.most = max(self.most, self._now())

    def _watch(self) -> None:
        while not self._done.wait(0.003):
            self.most = max(self.most, self._now())

    def _now(self) -> float:
        lines = Path("/proc/self/status").read_text()
        return sum(int(kib) for kib in re.findall(r"Rss(?:Anon|Shmem):\s+(\d+)", lines)) / 2**10


def cpu() -> float:
    """Processor seconds of this process so far, user and system, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine() -> str:
    """Processor, cores in use, versions."""
    import torch

    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        flags = "AVX512-BF16" if "avx512_bf16" in Path("/proc/cpuinfo").read_text() else ""
        cpu = " ".join(filter(None, [found[1] if found else cpu, flags]))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cpu}, {cores} cores{gpu}; Python {platform.python_version()}, PyTorch {torch.__version__}"


def publish(name: str, title: str, body: str) -> None:
    """Print a section and put it into ``docs/performance.md`` between its marks, which must be there.

    The command, the machine and the date of the run stand below it, so no number is without them.
    """
    command = " ".join(["python", *sys.argv])
    text = f"## {title}\n\n{body}\n\n`{command}` on {time.strftime('%Y-%m-%d')}: {machine()}."
    print(text)
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in page or end not in page:
        raise SystemExit(f"{PAGE}: no marks {start} ... {end}")
    before, rest = page.split(start)
    PAGE.write_text(f"{before}{start}\n{text}\n{end}{rest.split(end)[1]}", encoding="utf-8")
