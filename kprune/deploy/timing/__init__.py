"""How long models take: files timed side by side, and each kind of layer over its widths."""

from kprune.deploy.timing.benchmark import benchmark, benchmark_tflite, run_tflite
from kprune.deploy.timing.profile import profile_latency
from kprune.deploy.timing.results import Benchmark, Ratio, Timing
from kprune.deploy.timing.stopwatch import CommandStopwatch, Stopwatch

__all__ = [
    "Benchmark",
    "CommandStopwatch",
    "Ratio",
    "Stopwatch",
    "Timing",
    "benchmark",
    "benchmark_tflite",
    "profile_latency",
    "run_tflite",
]
