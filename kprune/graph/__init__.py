"""The traced model, and what can be asked of it: its channel sets, patterns, dead channels; how it is run."""

from kprune.graph.graph import Graph, SlicedWeight, calls_by_operation
from kprune.graph.tracer import trace

__all__ = ["Graph", "SlicedWeight", "calls_by_operation", "trace"]
