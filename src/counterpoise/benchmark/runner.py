"""Runs the missing runs of a comparison in parallel processes; started again, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from counterpoise._checks import number
from counterpoise.benchmark.forked import Fork, ForkServerContext, server
from counterpoise.benchmark.grid import RunConfig, finished, missing

PAUSE = 0.05
"""Seconds between two looks at the runs."""

Command = Callable[[RunConfig, Path], Sequence[str]]
"""The command line of a run, given its configuration and directory; it resumes when started again."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result: why, the end of its log, and where the rest is."""

    reason: str
    tail: str
    log: Path


@dataclass
class Outcome:
    """What became of each run, by id.

    Attributes:
        skipped: were finished before.
        finished: ended now, with a result.
        failed: ended without one.
        stopped: were running when the benchmark was interrupted; they resume next time.
        waiting: were never started because of the interruption.
    """

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 when every run has a result, 130 after an interruption, 1 otherwise."""
        return 130 if self.stopped or self.waiting else 1 if self.failed else 0

    def message(self) -> str:
        """One line of counts, then what each failed run said last."""
        counts = [
            f"{len(found)} {word}"
            for word, found in (
                ("finished", self.finished),
                ("already done", self.skipped),
                ("failed", self.failed),
                ("stopped", self.stopped),
                ("not started", self.waiting),
            )
            if found
        ]
        lines = [f"Runs: {', '.join(counts) or 'none'}."]
        for name, failure in self.failed.items():
            lines += [f"{name} {failure.reason}; log: {failure.log}", *_indented(failure.tail)]
        if self.exit_code:
            lines.append("The same command again skips what is done and goes on with the rest.")
        return "\n".join(lines)


@dataclass
class _Child:
    config: RunConfig
    process: subprocess.Popen[bytes] | Fork
    log: IO[bytes]
    path: Path
    started: float


def run(
    configs: Sequence[RunConfig],
    command: Command,
    runs: Path | str,
    *,
    jobs: int = 1,
    console: Console | None = None,
    patience: float = 60.0,
    preload: Sequence[str] = (),
) -> Outcome:
    """Run every configuration that has no result yet, ``jobs`` at a time.

    A run that fails does not stop the others. Each run writes to ``runs/logs/<id>.log`` and gets
    cores / jobs threads (unless OMP_NUM_THREADS is set already). Ctrl-C, SIGTERM and SIGHUP pass
    SIGINT on to the runs, so that they write a checkpoint, and wait for them; a second one kills them.

    Args:
        configs: see ``grid``.
        command: gives the command line of a run.
        runs: the runs go to ``runs/<id>``.
        jobs: how many at the same time.
        console: where the progress is shown; plain lines when it is no terminal.
        patience: seconds that a run has to stop after an interruption, before it is killed.
        preload: modules that take long to import. Where the system can, runs whose command line is
            ``[sys.executable, "-m", module, ...]`` are then forks of one process that has them, each
            otherwise a process like any other.

    Returns:
        What became of each run; ``exit_code`` and ``message()`` say it in short.
    """
    number("jobs", jobs, low=1)
    runs = Path(runs)
    todo = missing(configs, runs)
    ids = {config.id for config in todo}
    outcome = Outcome(skipped=[config.id for config in configs if config.id not in ids])
    (runs / "logs").mkdir(parents=True, exist_ok=True)
    queue, running = list(todo), list[_Child]()
    context = server(preload) if preload and todo else None
    with _interrupts() as interrupts, _Display(console or Console(stderr=True), len(todo), jobs) as display:
        if outcome.skipped:
            display.say(f"{len(outcome.skipped)} run(s) already done, {len(todo)} to go.")
        while (queue or running) and not interrupts:
            while queue and len(running) < jobs:
                config = queue.pop(0)
                child = _start(config, command, runs, jobs, outcome, context)
                if child is not None:
                    running.append(child)
                else:
                    display.ended(config.id, None, outcome)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                _close(child, runs, outcome)
                display.ended(child.config.id, time.monotonic() - child.started, outcome)
            display.show(running)
            if running:
                time.sleep(PAUSE)
        if interrupts:
            outcome.waiting = [config.id for config in queue]
            display.say(f"Stopping {len(running)} run(s); they write a checkpoint. Once more to kill them.")
            _stop(running, patience, interrupts)
            for child in running:
                _close(child, runs, outcome, interrupted=True)
    return outcome


def threads_per_run(jobs: int) -> int:
    """Cores of this process divided by the number of runs at a time, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _start(
    config: RunConfig, command: Command, runs: Path, jobs: int, outcome: Outcome, context: ForkServerContext | None
) -> _Child | None:
    path = runs / "logs" / f"{config.id}.log"
    log = path.open("ab")
    if not _locked(log):
        log.close()
        outcome.failed[config.id] = Failure("is being run by another process", "", path)
        return None
    arguments = [str(part) for part in command(config, runs / config.id)]
    log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(arguments)}\n".encode())
    log.flush()
    environment = {"OMP_NUM_THREADS": str(threads_per_run(jobs)), **os.environ, "PYTHONUNBUFFERED": "1"}
    try:
        process = _spawned(arguments, log, environment, context)
    except OSError as error:
        log.close()
        outcome.failed[config.id] = Failure(f"could not be started: {error}", "", path)
        return None
    return _Child(config, process, log, path, time.monotonic())


def _spawned(
    arguments: list[str], log: IO[bytes], environment: dict[str, str], context: ForkServerContext | None
) -> subprocess.Popen[bytes] | Fork:
    if context is not None and Fork.fits(arguments):
        return Fork(context, arguments, log, environment)
    # A session of its own (a fork has one too): Ctrl-C in the terminal reaches a run once, through us, and not twice.
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _locked(log: IO[bytes]) -> bool:
    """Lock the log for this run and everything it starts; False when another run holds it.

    The run inherits the open file and with it the lock. So a run that outlives a benchmark killed
    with SIGKILL is not started a second time beside itself.
    """
    try:
        import fcntl
    except ImportError:  # no file locks on this system
        return True
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _close(child: _Child, runs: Path, outcome: Outcome, *, interrupted: bool = False) -> None:
    """Enter an ended run into the outcome."""
    child.log.close()
    name, code = child.config.id, child.process.returncode
    assert code is not None
    if finished(runs / name):
        outcome.finished.append(name)
    elif interrupted:
        outcome.stopped.append(name)
    else:
        reason = (
            "ended without result.json"
            if code == 0
            else f"failed with exit status {code}"
            if code > 0
            else f"was killed by {signal.Signals(-code).name}"
        )
        outcome.failed[name] = Failure(reason, _tail(child.path), child.path)


def _tail(path: Path, lines: int = 15, size: int = 8192) -> str:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - size))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def _stop(running: Sequence[_Child], patience: float, interrupts: Sequence[int]) -> None:
    """SIGINT to every run; wait; kill what is still there when time is up or on a second interruption."""
    for child in running:
        # To the run alone: its loader workers end with it, and a signal to them would be an error in it.
        child.process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + patience
    while any(child.process.poll() is None for child in running):
        if time.monotonic() > deadline or len(interrupts) > 1:
            for child in running:
                if child.process.poll() is None:
                    os.killpg(child.process.pid, signal.SIGKILL)
                    child.process.wait()
        time.sleep(PAUSE)


@contextlib.contextmanager
def _interrupts() -> Iterator[list[int]]:
    """The list that SIGINT, SIGTERM and SIGHUP are noted in, instead of interrupting at any point.

    SIGINT is taken over even where it was ignored (a job in the background): a run would inherit
    that and could not be asked to stop. Outside the main thread signals stay as they are.
    """
    noted: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                which = signal.Signals[name]
                handlers[which] = signal.signal(which, lambda number, frame: noted.append(number))
    try:
        yield noted
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)


class _Display:
    """A bar with the time left on a terminal, a line per finished run elsewhere."""

    def __init__(self, console: Console, total: int, jobs: int) -> None:
        self.console, self.total, self.jobs = console, total, jobs
        self.seconds: list[float] = []
        self.done = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self.task = self.bar.add_task("runs", total=total, left="")

    def __enter__(self) -> _Display:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False)

    def show(self, running: Sequence[_Child]) -> None:
        names = ", ".join(f"{child.config.method} s{child.config.seed}" for child in running[:4])
        self.bar.update(self.task, description=names + ("…" if len(running) > 4 else ""))

    def ended(self, name: str, seconds: float | None, outcome: Outcome) -> None:
        self.done += 1
        if seconds is not None:
            self.seconds.append(seconds)
        failure, left = outcome.failed.get(name), self._left()
        self.bar.update(self.task, completed=self.done, left=left)
        state = f"{failure.reason}; log: {failure.log}" if failure else f"finished in {clock(seconds or 0)}"
        self.say(f"[{self.done}/{self.total}] {name} {state}" + (f" ({left})" if left else ""))

    def _left(self) -> str:
        remaining = self.total - self.done
        if not remaining or not self.seconds:
            return ""
        return f"about {clock(sum(self.seconds) / len(self.seconds) * remaining / self.jobs)} left"


def clock(seconds: float) -> str:
    """``"42 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
