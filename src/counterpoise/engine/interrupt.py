"""Ctrl-C as a request: the current batch is finished and a checkpoint written first."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training stopped because it was asked to; the message says how to continue."""


class Interrupt:
    """While active, the first SIGINT or SIGTERM sets ``requested``; the second one stops at once.

    Nested use (a trial run inside a run) shares the outermost one.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}
        self._depth = 0

    def __enter__(self) -> Interrupt:
        self._depth += 1
        if self._depth == 1 and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            for number, handler in self._previous.items():
                if handler is not None:  # None: installed by C code, and out of Python's reach
                    signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
            self._previous.clear()
            self.requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


shared = Interrupt()
