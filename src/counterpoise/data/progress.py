"""A bar for what may take long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def bar_after_two_seconds(total: int, title: str) -> Iterator[Callable[[], None]]:
    """Gives what to call after each of ``total`` steps; a bar on the terminal of standard error from two seconds on."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True)
    task = bar.add_task(escape(title), total=total)
    start, shown = time.monotonic(), False

    def advance() -> None:
        nonlocal shown
        if not shown and console.is_terminal and time.monotonic() - start > 2:
            shown = True
            bar.start()
        bar.advance(task)

    try:
        yield advance
    finally:
        if shown:
            bar.stop()


def after_two_seconds(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with such a bar."""
    with bar_after_two_seconds(total, title) as advance:
        for item in items:
            advance()
            yield item
