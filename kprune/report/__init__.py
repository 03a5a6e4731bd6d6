"""Before and after, side by side: as a page, as Markdown, as JSON."""

from kprune.report.measurement import Measurement
from kprune.report.report import Report, run_facts

__all__ = ["Measurement", "Report", "run_facts"]
