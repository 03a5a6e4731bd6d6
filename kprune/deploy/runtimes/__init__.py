"""What runs exported files here: one module a runtime, and `open_file` for all of them."""

from kprune.deploy.runtimes.base import Runtime
from kprune.deploy.runtimes.open import kind_of, open_file
from kprune.deploy.runtimes.tflite_micro import MicroMemory, micro_memory

__all__ = ["MicroMemory", "Runtime", "kind_of", "micro_memory", "open_file"]
