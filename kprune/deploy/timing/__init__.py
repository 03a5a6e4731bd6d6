"""Measures on this device how long each kind of layer of a model takes, by its widths."""

from kprune.profiling.profile import profile_latency

__all__ = ["profile_latency"]
