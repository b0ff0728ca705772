"""Runs the missing runs of a comparison in parallel processes; started again, it goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console

from counterpoise._checks import whole
from counterpoise.benchmark.backends import Backend, End, Kind, Local, NotStarted, Order, Running, noted
from counterpoise.benchmark.display import Display
from counterpoise.metrics.result import finished

PAUSE = 0.05
"""Seconds between two looks at the runs."""
INTERRUPTIONS = ("SIGINT", "SIGTERM", "SIGHUP")
"""What stops a benchmark. SIGINT also where it was ignored (a job in the background): a run would inherit that and
could not be asked to stop."""


class Runnable(Protocol):
    """A run that was asked for, such as a ``Recipe``."""

    @property
    def id(self) -> str:
        """Name of its folder: the same for the same run, another for any other."""
        ...

    @property
    def title(self) -> str:
        """What its progress is shown under."""
        ...


Done = Callable[[Any, Path], bool]
"""Whether what was asked for is in its directory already."""
Command = Callable[[Any, Path], Sequence[str]]
"""The command line of a run, given what was asked for and its directory; it resumes when started again."""


@dataclass(frozen=True)
class Failure:
    """A run that ended without a result: why, the end of its log, where the rest is, and what kind of end it was."""

    reason: str
    tail: str
    log: Path
    kind: Kind = "failed"


@dataclass
class Outcome:
    """What became of each run, by id.

    Attributes:
        skipped: were finished before.
        finished: ended now, with a result.
        ended_early: without one, because the feed had seen enough of them.
        failed: ended without one.
        stopped: were running when the benchmark was interrupted; they resume next time.
        waiting: were never started because of the interruption.
    """

    skipped: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    ended_early: list[str] = field(default_factory=list)
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
            f"{len(members)} {word}"
            for word, members in (
                ("finished", self.finished),
                ("ended early", self.ended_early),
                ("already done", self.skipped),
                ("failed", self.failed),
                ("stopped", self.stopped),
                ("not started", self.waiting),
            )
            if members
        ]
        lines = [f"Runs: {', '.join(counts) or 'none'}."]
        for name, failure in self.failed.items():
            lines += [f"{name} {failure.reason}; log: {failure.log}", *_indented(failure.tail)]
        if self.exit_code:
            lines.append("The same command again skips what is done and goes on with the rest.")
        return "\n".join(lines)


class Feed(Protocol):
    """Where the runs of ``drive`` come from, one by one; what it hears of them may decide what comes next."""

    @property
    def total(self) -> int:
        """How many runs there will be, as far as it is known."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether more may come although nothing runs here."""
        ...

    def next(self) -> Runnable | None:
        """The run to start next; None when there is none now."""
        ...

    def done(self, run: Any, directory: Path) -> bool:
        """Whether what was asked for is in its directory."""
        ...

    def enough(self, run: Any) -> bool:
        """Asked again and again while it runs; True ends it early."""
        ...

    def ended(self, run: Any, failure: Failure | None) -> None:
        """What became of a run: None when it has a result. Not told of runs that an interruption stopped."""
        ...

    def rest(self) -> list[str]:
        """Ids of the runs that an interruption left unstarted."""
        ...


class _Listed:
    """These runs, in order."""

    def __init__(self, runs: Sequence[Runnable], done: Done):
        self.total, self.waiting, self._done, self._queue = len(runs), False, done, list(runs)

    def done(self, run: Any, directory: Path) -> bool:
        return self._done(run, directory)

    def next(self) -> Runnable | None:
        return self._queue.pop(0) if self._queue else None

    def enough(self, run: Any) -> bool:
        return False

    def ended(self, run: Any, failure: Failure | None) -> None:
        pass

    def rest(self) -> list[str]:
        return [run.id for run in self._queue]


@dataclass
class _Started:
    config: Runnable
    run: Running
    log: Path
    began: float
    deadline: float | None = None
    """When it is killed: set once it was told to end."""


def run(
    configs: Sequence[Runnable],
    command: Command,
    runs: Path | str,
    *,
    jobs: int = 1,
    threads: int | None = None,
    backend: Backend | None = None,
    console: Console | None = None,
    patience: float = 60.0,
    preload: Sequence[str] = (),
    done: Done = lambda asked, directory: finished(directory),
) -> Outcome:
    """Run every configuration that has no result yet, ``jobs`` at a time.

    A run that fails does not stop the others. Each run writes to ``runs/logs/<id>.log``. Ctrl-C, SIGTERM and SIGHUP
    pass SIGINT on to the runs, so that they write a checkpoint, and wait for them; a second one kills them.

    Args:
        configs: what was asked for.
        command: gives the command line of a run.
        runs: the runs go to ``runs/<id>``.
        jobs: how many at the same time.
        threads: of each run; see ``threads_per_run`` for the default. Sums of floats depend on it in their last bits.
        backend: where the runs are executed; processes on this machine by default.
        console: where the progress is shown; plain lines when it is no terminal.
        patience: seconds that a run has to stop after an interruption, before it is killed.
        preload: modules that take long to import. Where the system can, local runs whose command line is
            ``[sys.executable, "-m", module, ...]`` are then forks of one process that has them, each
            otherwise a process like any other.
        done: whether a run needs no more; it has a result, by default.

    Returns:
        What became of each run; ``exit_code`` and ``message()`` say it in short.
    """
    todo = [config for config in configs if not done(config, Path(runs) / config.id)]
    ids = {config.id for config in todo}
    skipped = [config.id for config in configs if config.id not in ids]
    return drive(
        _Listed(todo, done),
        command,
        Path(runs),
        jobs=jobs,
        threads=threads,
        backend=backend,
        console=console,
        patience=patience,
        preload=preload,
        skipped=skipped,
    )


def drive(
    feed: Feed,
    command: Command,
    runs: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    backend: Backend | None = None,
    console: Console | None = None,
    patience: float = 60.0,
    preload: Sequence[str] = (),
    skipped: Sequence[str] = (),
) -> Outcome:
    """Run what the feed gives; everything else is as in ``run``.

    Args:
        feed: the runs.
        command: as in ``run``.
        runs: as in ``run``.
        jobs: as in ``run``.
        threads: as in ``run``.
        backend: as in ``run``.
        console: as in ``run``.
        patience: as in ``run``; also of a run that the feed ends early.
        preload: as in ``run``.
        skipped: ids of runs that were finished before, to be counted.
    """
    threads = threads_per_run(whole("jobs", jobs, low=1), threads)
    outcome, running, backend = Outcome(skipped=list(skipped)), list[_Started](), backend or Local()
    (runs / "logs").mkdir(parents=True, exist_ok=True)
    opened = backend.open(runs, jobs, threads, preload) if feed.total else contextlib.nullcontext()
    with opened, noted(*INTERRUPTIONS) as interrupts, Display(console or Console(stderr=True), feed, jobs) as display:
        display.begin(len(skipped))
        while not interrupts:
            while len(running) < jobs and (config := feed.next()) is not None:
                outcome.failed.pop(config.id, None)  # a feed may give a run again
                started = _start(config, command, runs, threads, backend)
                if isinstance(started, _Started):
                    running.append(started)
                    continue
                outcome.failed[config.id] = started
                feed.ended(config, started)
                display.ended(config, None, outcome)
            if not running and not feed.waiting:
                break
            for started, end in _ended(running):
                running.remove(started)
                _enter(started, end, runs, outcome, feed)
                display.ended(started.config, time.monotonic() - started.began, outcome)
            for started in running:
                _end_early(started, feed, patience)
            display.show([started.config for started in running])
            time.sleep(PAUSE)
        if interrupts:
            outcome.waiting = feed.rest()
            display.say(f"Stopping {len(running)} run(s); they write a checkpoint. Once more to kill them.")
            _stop(running, patience, interrupts)
        for started in running:  # none, unless they were stopped
            _enter(started, None, runs, outcome, feed)
    return outcome


def _start(config: Runnable, command: Command, runs: Path, threads: int, backend: Backend) -> _Started | Failure:
    """Start a run, or say why that was not possible."""
    log = runs / "logs" / f"{config.id}.log"
    order = Order([str(part) for part in command(config, runs / config.id)], log, threads)
    try:
        return _Started(config, backend.start(order), log, time.monotonic())
    except NotStarted as why:
        return Failure(why.end.reason, "", log, why.end.kind)


def threads_per_run(jobs: int, asked: int | None = None) -> int:
    """Threads of a run: as asked, else OMP_NUM_THREADS, else cores of this process / runs at a time, at least 1."""
    if asked is not None:
        return whole("threads", asked, low=1)
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdigit() and int(said) > 0:
        return int(said)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // jobs)


def _ended(running: Sequence[_Started]) -> list[tuple[_Started, End]]:
    polled = [(started, started.run.poll()) for started in running]
    return [(started, end) for started, end in polled if end is not None]


def _end_early(started: _Started, feed: Feed, patience: float) -> None:
    """Ask the feed; kill what was told to end and does not."""
    if started.deadline is None:
        if feed.enough(started.config):
            started.run.interrupt()
            started.deadline = time.monotonic() + patience
    elif time.monotonic() > started.deadline:
        started.run.kill()


def _enter(started: _Started, end: End | None, runs: Path, outcome: Outcome, feed: Feed) -> None:
    """Enter an ended run into the outcome, and tell the feed; without ``end`` it was interrupted."""
    name = started.config.id
    if feed.done(started.config, runs / name):
        outcome.finished.append(name)
    elif end is None:
        outcome.stopped.append(name)
    elif started.deadline is not None:
        outcome.ended_early.append(name)
    else:
        outcome.failed[name] = Failure(end.reason, _tail(started.log), started.log, end.kind)
    if name not in outcome.stopped:
        feed.ended(started.config, outcome.failed.get(name))


def _tail(path: Path, lines: int = 15, size: int = 8192) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - size))
        return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def _stop(running: Sequence[_Started], patience: float, interrupts: Sequence[int]) -> None:
    """Interrupt every run; wait; kill what is still there when time is up or on a second interruption."""
    for started in running:
        started.run.interrupt()
    deadline = time.monotonic() + patience
    while left := [started for started in running if started.run.poll() is None]:
        if time.monotonic() > deadline or len(interrupts) > 1:
            for started in left:
                started.run.kill()
        time.sleep(PAUSE)


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]
