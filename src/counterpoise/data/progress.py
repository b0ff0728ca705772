"""A bar for what may take long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def after_two_seconds(items: Iterable[T], total: int, title: str) -> Iterator[T]:
    """The items, with a bar on the terminal of standard error once two seconds have passed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    console = Console(stderr=True)
    start, bar, task = time.monotonic(), Progress(console=console, transient=True), None
    try:
        for done, item in enumerate(items):
            if task is None and console.is_terminal and time.monotonic() - start > 2:
                task = bar.add_task(escape(title), total=total)
                bar.start()
            if task is not None:
                bar.update(task, completed=done + 1)
            yield item
    finally:
        if task is not None:
            bar.stop()
