"""A progress bar for what takes more than a few seconds."""

import time

import keras

PATIENCE = 3.0  # seconds without a bar


class Progress:
    """Shows how far some work is, once it has taken a few seconds.

    Args:
      target: how many units there are, or None where nobody knows.
      unit: what a unit is called.
      verbose: 0 for no bar; None: as `keras.config` has it.
    """

    def __init__(self, target: int | None, unit: str, verbose=None):
        self.verbose = keras.config.is_interactive_logging_enabled() if verbose is None else verbose
        self.target, self.unit, self.begun, self.bar = target, unit, time.monotonic(), None

    def show(self, count: int):
        if self.verbose and self.bar is None and time.monotonic() - self.begun > PATIENCE:
            self.bar = keras.utils.Progbar(self.target, unit_name=self.unit, interval=1.0)
        if self.bar is not None:
            self.bar.update(count, finalize=False)

    def finish(self, count: int):
        if self.bar is not None:
            self.bar.update(count, finalize=True)
