"""To the device: files that other runtimes load, each checked, and how long they take there."""

from kprune.deploy.export import (
    Export,
    TFLiteExport,
    export_onnx,
    export_saved_model,
    export_tflite,
    export_tftrt,
    quantize_aware,
    read_metadata,
)
from kprune.deploy.runtimes import MicroMemory, micro_memory
from kprune.deploy.timing import (
    Benchmark,
    CommandStopwatch,
    Ratio,
    Stopwatch,
    Timing,
    benchmark,
    benchmark_tflite,
    profile_latency,
    run_tflite,
)

__all__ = [
    "Benchmark",
    "CommandStopwatch",
    "Export",
    "MicroMemory",
    "Ratio",
    "Stopwatch",
    "TFLiteExport",
    "Timing",
    "benchmark",
    "benchmark_tflite",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "export_tftrt",
    "micro_memory",
    "profile_latency",
    "quantize_aware",
    "read_metadata",
    "run_tflite",
]
