"""The only room that touches private Keras, a backend, or Keras 2; `kprune.compat.keras2` reads and writes the last."""

from kprune.compat.multiworker import mend_multiworker_fit

__all__ = ["mend_multiworker_fit"]
