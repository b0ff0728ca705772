"""``python -m counterpoise.benchmark.leashed FD MODULE ...``: ``python -m MODULE ...`` that dies with who started it.

FD is the reading end of a pipe whose writing end only the starter has open: when that process is gone, however it
went, the pipe ends. Without this a run would outlive a killed Ray worker, and stand in the way of its own retry.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading


def _watch(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)  # with the processes that it started; it leads a session of its own


def main() -> None:
    """Watch the pipe, run the module."""
    _, pipe, module, *rest = sys.argv
    # Ray blocks SIGINT in its workers, and what they start inherits that; it is how a run is asked to stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    threading.Thread(target=_watch, args=(int(pipe),), daemon=True).start()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
