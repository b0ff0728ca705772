"""Runs as forks of one process that has imported everything already: seconds less for each of them."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import IO


def server(preload: Sequence[str]) -> ForkServerContext | None:
    """The process that forks, with these modules imported; None where the system cannot fork.

    It is started once per process; later calls get the same one, with the modules of the first.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return None
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *preload])
    # A closed terminal must stop runs through us, and the server forwards what becomes of them: it has to outlive them.
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGHUP, signal.SIGTERM)} if main else {}
    try:
        forkserver.ensure_running()
    finally:
        for which, handler in before.items():
            signal.signal(which, handler)
    return context


class Fork:
    """A command line ``python -m module ...`` in a fork of the server; the part of ``Popen`` that a runner needs.

    Args:
        context: the server.
        arguments: the command line.
        log: open file that its output goes to; the fork shares the lock on it.
        environment: all of its environment variables.
    """

    def __init__(
        self, context: ForkServerContext, arguments: Sequence[str], log: IO[bytes], environment: Mapping[str, str]
    ):
        # A connection is what multiprocessing can hand to a fork as an open file, with the lock on it.
        handed = Connection(os.dup(log.fileno()), readable=False)
        self._process = context.Process(target=_run, args=(handed, list(arguments[2:]), dict(environment)))
        self._process.start()
        handed.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @staticmethod
    def fits(arguments: Sequence[str]) -> bool:
        """Whether this is a command line of this Python, for a module."""
        return len(arguments) > 2 and arguments[0] == sys.executable and arguments[1] == "-m"

    @property
    def returncode(self) -> int | None:
        """Exit status, or minus the signal that killed it; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same as ``returncode``."""
        return self.returncode

    def wait(self) -> int | None:
        """Until it has ended."""
        self._process.join()
        return self.returncode

    def send_signal(self, which: int) -> None:
        """To this process alone."""
        if self.returncode is None:
            os.kill(self.pid, which)


def _run(log: Connection, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """In the fork: what ``python -m`` does."""
    os.setsid()
    for which in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(which, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    os.environ.clear()
    os.environ.update(environment)
    if "torch" in sys.modules and environment.get("OMP_NUM_THREADS", "").isdigit():
        # The server's libraries have read its own environment, which may be of an earlier comparison.
        import torch

        torch.set_num_threads(max(1, int(environment["OMP_NUM_THREADS"])))
    module, *rest = arguments
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
