"""Run directories on disk become one HTML page; nothing here trains or needs the code that did."""

from counterpoise.report.collect import StoredRun, collect
from counterpoise.report.page import write_report

__all__ = ["StoredRun", "collect", "write_report"]
