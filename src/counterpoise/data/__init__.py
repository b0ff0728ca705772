"""Data: tables of files, arrays in memory, the embedded digits, and the checker."""

from .arrays import ArraySplit, from_arrays
from .split import Split, Splits

__all__ = ["ArraySplit", "Split", "Splits", "from_arrays"]
