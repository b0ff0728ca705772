"""Comparisons: which runs, running them, and the table that comes out."""

from counterpoise.benchmark.runner import Failure, Outcome, run
from counterpoise.benchmark.summary import Summary, summarize

__all__ = ["Failure", "Outcome", "Summary", "run", "summarize"]
