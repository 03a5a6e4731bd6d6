"""What timing models gives: times with their spread, and ratios with theirs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long one run of a model takes.

    Attributes:
      path: the file, folder or name of the model.
      median_ms: the median over all timed runs, in milliseconds.
      p10_ms: a tenth of the runs were faster.
      p90_ms: a tenth of the runs were slower.
      threads: CPU threads that each run could use.
      runs: the number of timed runs.
      samples_ms: the time of each run, in order.
      kind: "tflite", "onnx", "saved_model" or "keras".
      size_bytes: the size of the file or folder.
      memory_bytes: by how much opening and running the model raised the memory of its process at the peak; None where
        it was not measured.
    """

    path: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    threads: int
    runs: int
    samples_ms: tuple[float, ...] = dataclasses.field(repr=False)
    kind: str = "tflite"
    size_bytes: int | None = None
    memory_bytes: int | None = None

    @classmethod
    def of(cls, path, times_ms: np.ndarray, threads: int) -> "Timing":
        """The timing of a model from the milliseconds of each run."""
        p10, median, p90 = (float(value) for value in np.percentile(times_ms, [10, 50, 90]))
        return cls(str(path), median, p10, p90, threads, len(times_ms), tuple(times_ms.tolist()))

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        memory = "" if self.memory_bytes is None else f", {self.memory_bytes / 1e6:.1f} MB of memory"
        return (
            f"{self.path}: median {self.median_ms:.3g} ms, 10 % below {self.p10_ms:.3g} ms, "
            f"10 % above {self.p90_ms:.3g} ms ({self.runs} runs, {threads}{memory})"
        )


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as fast one model is as another, over the rounds in which both ran one after the other.

    Attributes:
      median: the median.
      p10: a tenth of the rounds gave less.
      p90: a tenth of the rounds gave more.
    """

    median: float
    p10: float
    p90: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.p10:.2f} to {self.p90:.2f})"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Models that were timed together. Iterates over its timings.

    Attributes:
      timings: one for each model, in the order in which they were passed.
      machine: processor, cores, clock governor, load and versions, as far as the system tells.
    """

    timings: tuple[Timing, ...]
    machine: dict

    def __iter__(self):
        return iter(self.timings)

    def __getitem__(self, index) -> Timing:
        return self.timings[index]

    def __len__(self) -> int:
        return len(self.timings)

    def speedup(self, model: int, reference: int = 0) -> Ratio:
        """How many times as fast the model at one index is as that at another, with its spread.

        Example:
          >>> print(kprune.benchmark("full.tflite", "small.tflite").speedup(1))
          1.51 (1.44 to 1.58)
        """
        ratios = np.array(self.timings[reference].samples_ms) / np.array(self.timings[model].samples_ms)
        p10, median, p90 = (float(value) for value in np.percentile(ratios, [10, 50, 90]))
        return Ratio(median, p10, p90)

    def to_json(self) -> dict:
        """Everything as plain numbers, texts, lists and dicts."""
        rows = [
            dataclasses.asdict(timing) | {"speedup": dataclasses.asdict(self.speedup(index))}
            for index, timing in enumerate(self.timings)
        ]
        return {"machine": self.machine, "models": rows}

    @classmethod
    def from_json(cls, data: dict) -> "Benchmark":
        """The benchmark that `to_json` gave.

        Raises:
          KeyError, TypeError: it is none.
        """
        known = {entry.name for entry in dataclasses.fields(Timing)}
        rows = ({name: value for name, value in row.items() if name in known} for row in data["models"])
        timings = tuple(Timing(**row | {"samples_ms": tuple(row["samples_ms"])}) for row in rows)
        return cls(timings, dict(data["machine"]))

    def __str__(self) -> str:
        head = ("model", "ms", "10 % to 90 %", "times as fast as the first", "memory MB", "size kB")
        rows = [head, *(self._row(index) for index in range(len(self.timings)))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        threads, runs = self.timings[0].threads, self.timings[0].runs
        lines.append(f"median of {runs} runs, in turn; threads: {threads}; {self.machine.get('processor', '')}")
        return "\n".join(line.rstrip() for line in lines)

    def _row(self, index: int) -> tuple:
        timing = self.timings[index]
        memory = "" if timing.memory_bytes is None else f"{timing.memory_bytes / 1e6:.1f}"
        size = "" if timing.size_bytes is None else f"{timing.size_bytes / 1000:.1f}"
        spread = f"{timing.p10_ms:.3g} to {timing.p90_ms:.3g}"
        return (timing.path, f"{timing.median_ms:.3g}", spread, str(self.speedup(index)), memory, size)
