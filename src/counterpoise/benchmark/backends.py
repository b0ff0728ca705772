"""Where runs are executed: the interface that the runner needs, and processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

from counterpoise._files import lock
from counterpoise.benchmark.forked import Fork, ForkServerContext, server

Kind = Literal["failed", "killed", "busy"]
"""How a run came to its end: by itself; from outside, so that it may well succeed when it is started again; or it was
not started beside itself."""


@dataclass(frozen=True)
class End:
    """How a run ended, as the reason of a failure if it left no result."""

    reason: str
    kind: Kind = "failed"


@dataclass(frozen=True)
class Order:
    """A run to be started.

    Attributes:
        arguments: its command line.
        log: file that its output is appended to.
        threads: that it may compute with.
    """

    arguments: Sequence[str]
    log: Path
    threads: int

    def environment(self) -> dict[str, str]:
        """What is set for the run besides what it inherits."""
        return {"OMP_NUM_THREADS": str(self.threads), "PYTHONUNBUFFERED": "1"}


class NotStarted(Exception):  # noqa: N818 - it is an answer to an order, not an error
    """A run could not be started."""

    def __init__(self, reason: str, kind: Kind = "failed"):
        super().__init__(reason)
        self.end = End(reason, kind)


class Running(Protocol):
    """A run that was started."""

    def poll(self) -> End | None:
        """None while it runs; afterwards how it ended."""
        ...

    def interrupt(self) -> None:
        """Ask it to write a checkpoint and end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class Backend(Protocol):
    """Starts runs somewhere.

    The same order gives the same result on every backend: each run is a process of its own with the
    same command line and the same number of threads.
    """

    def open(self, runs: Path, jobs: int, threads: int, preload: Sequence[str]) -> contextlib.AbstractContextManager:
        """Get ready for ``jobs`` runs at a time, of ``threads`` threads each; the context ends after the last.

        Args:
            runs: the folder that holds the runs and their logs.
            jobs: how many at the same time.
            threads: of each run.
            preload: modules that take long to import.
        """
        ...

    def start(self, order: Order) -> Running:
        """Start a run.

        Raises:
            NotStarted: when that is not possible.
        """
        ...


def ended(code: int) -> End:
    """What an exit status says of a process without a result; it is minus the signal that killed it."""
    if code < 0:
        return End(f"was killed by {signal.Signals(-code).name}", "killed")
    return End(f"failed with exit status {code}" if code else "ended without result.json")


@contextlib.contextmanager
def noted(*names: str) -> Iterator[list[int]]:
    """The list that these signals are noted in, instead of interrupting at any point or being ignored.

    Outside the main thread signals stay as they are.

    Args:
        names: of signals; those that this system lacks are passed over.
    """
    noticed: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        for which in (signal.Signals[name] for name in names if hasattr(signal, name)):
            handlers[which] = signal.signal(which, lambda number, frame: noticed.append(number))
    try:
        yield noticed
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)


class Local:
    """Processes on this machine; where the system can, forks of one that has imported everything."""

    def __init__(self) -> None:
        self._context: ForkServerContext | None = None

    def open(self, runs: Path, jobs: int, threads: int, preload: Sequence[str]) -> contextlib.AbstractContextManager:
        self._context = server(preload) if preload else None
        return contextlib.nullcontext()

    def start(self, order: Order) -> Running:
        arguments, log = list(order.arguments), opened(order)
        environment = {**os.environ, **order.environment()}
        try:
            if self._context is not None and Fork.fits(arguments):
                return Child(Fork(self._context, arguments, log, environment), log)
            return Child(spawned(arguments, log, environment), log)
        except OSError as error:
            log.close()
            raise NotStarted(f"could not be started: {error}") from error


class Child:
    """A run as a process of this machine.

    Args:
        process: leader of a session of its own.
        log: what it writes to; closed when it has ended.
    """

    def __init__(self, process: subprocess.Popen[bytes] | Fork, log: IO[bytes]):
        self.process, self._log = process, log

    def poll(self) -> End | None:
        code = self.process.poll()
        if code is None:
            return None
        self._log.close()
        return ended(code)

    def interrupt(self) -> None:
        # To the run alone: its loader workers end with it, and a signal to them would be an error in it.
        self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def opened(order: Order, patience: float = 0.0) -> IO[bytes]:
    """The log of a run, locked for it and for everything it starts, with a line that says what starts.

    The run inherits the open file and with it the lock. So a run that outlives a benchmark killed
    with SIGKILL is not started a second time beside itself.

    Args:
        order: the run.
        patience: seconds to wait for the lock.

    Raises:
        NotStarted: when another run holds it, or the file cannot be written.
    """
    try:
        log = order.log.open("ab")
    except OSError as error:
        raise NotStarted(f"could not be started: {error}") from error
    deadline = time.monotonic() + patience
    while lock(log) is False:
        if time.monotonic() >= deadline:
            log.close()
            raise NotStarted("is being run by another process", "busy")
        time.sleep(0.05)
    log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(order.arguments)}\n".encode())
    log.flush()
    return log


def spawned(
    arguments: Sequence[str],
    log: IO[bytes],
    environment: dict[str, str],
    folder: str | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """A process in a session of its own: Ctrl-C in the terminal reaches a run once, through us, and not twice."""
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
        start_new_session=True,
        pass_fds=pass_fds,
    )
