"""What the runtimes have in common: a file that is open for running."""

import contextlib
import logging
import os
import sys
import warnings

from kprune.deploy.runtimes.samples import InputSpec, Samples, map_batches

SIGNATURE = "serving_default"


class Runtime:
    """An open file. Subclasses set the attributes and say how to `feed`, `invoke` and `fetch`.

    Attributes:
      inputs: what the file takes.
      outputs: the names of what it gives, in the order of the model that it was made from.
      batch: samples that one run takes; 1 where the file takes any number.
    """

    inputs: list[InputSpec]
    outputs: list[str]
    batch: int = 1

    def feed(self, samples: Samples) -> None:
        """Sets the inputs of the next run."""
        raise NotImplementedError

    def invoke(self) -> None:
        """Runs the file once on the inputs that were fed; this alone is timed."""
        raise NotImplementedError

    def fetch(self) -> Samples:
        """The outputs of the last run, by name."""
        raise NotImplementedError

    def run(self, samples: Samples) -> Samples:
        """Runs the file on all samples, `batch` at a time, and gives the outputs of all of them."""
        return map_batches(self._run_once, samples, self.batch)

    def _run_once(self, samples: Samples) -> Samples:
        self.feed(samples)
        self.invoke()
        return self.fetch()


@contextlib.contextmanager
def quiet():
    """Keeps warnings, INFO logs and what native libraries write to stderr off the screen. Errors still raise."""
    loggers = [logging.getLogger(name) for name in ("absl", "tensorflow", "tf2onnx")]
    levels = [logger.level for logger in loggers]
    if sys.stderr is not None:
        sys.stderr.flush()
    stderr, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(sink)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
