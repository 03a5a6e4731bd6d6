"""The only room that touches private Keras, a backend, or Keras 2; `kprune.compat.keras2` reads and writes the last."""

from kprune.compat.multiworker import fix_multiworker_fit

__all__ = ["fix_multiworker_fit"]
