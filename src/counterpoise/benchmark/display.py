"""How a comparison shows what its runs are doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from counterpoise._checks import shown

if TYPE_CHECKING:
    from counterpoise.benchmark.runner import Feed, Outcome, Runnable


class Display:
    """A bar with the time left on a terminal, a line per finished run elsewhere."""

    def __init__(self, console: Console, feed: Feed, jobs: int) -> None:
        self.console, self.feed, self.jobs = console, feed, jobs
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
        self.task = self.bar.add_task("runs", total=feed.total, left="")

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, skipped: int) -> None:
        """Say how many runs were finished before."""
        if skipped:
            self.say(f"{skipped} run(s) already done, {self.feed.total} to go.")

    def say(self, text: str) -> None:
        """A line of its own."""
        self.console.print(shown(text), markup=False, highlight=False)

    def show(self, running: Sequence[Runnable]) -> None:
        """What runs now."""
        names = ", ".join(run.title for run in running[:4])
        self.bar.update(self.task, description=escape(names + ("…" if len(running) > 4 else "")))

    def ended(self, run: Runnable, seconds: float | None, outcome: Outcome) -> None:
        """A run has ended; ``seconds`` is None for one that was not started."""
        self.done += 1
        if seconds is not None:
            self.seconds.append(seconds)
        failure, left = outcome.failed.get(run.id), self._left()
        self.bar.update(self.task, completed=self.done, total=self.feed.total, left=left)
        how = "ended early after" if run.id in outcome.ended_early else "finished in"
        state = f"{failure.reason}; log: {failure.log}" if failure else f"{how} {clock(seconds or 0)}"
        self.say(f"[{self.done}/{self.feed.total}] {run.title} {state}" + (f" ({left})" if left else ""))

    def _left(self) -> str:
        remaining = self.feed.total - self.done
        if remaining <= 0 or not self.seconds:
            return ""
        return f"about {clock(sum(self.seconds) / len(self.seconds) * remaining / self.jobs)} left"


def clock(seconds: float) -> str:
    """``"42 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
