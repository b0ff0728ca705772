"""Comparisons: which runs, running them, and the table that comes out."""

from counterpoise.benchmark.grid import RunConfig, finished, grid, missing
from counterpoise.benchmark.runner import Failure, Outcome, run
from counterpoise.benchmark.summary import Summary, summarize

__all__ = ["Failure", "Outcome", "RunConfig", "Summary", "finished", "grid", "missing", "run", "summarize"]
