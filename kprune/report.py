"""Before and after, side by side."""

import json
from dataclasses import dataclass, field

from kprune.errors import OptionError
from kprune.files import write_by_rename
from kprune.plan import Plan


@dataclass(frozen=True)
class Measurement:
    """What is known of one model or file; what was not measured is None.

    Attributes:
      name: the row's name.
      accuracy: share of test images, 0..1.
      flops: multiply-accumulates of conv and dense layers, batch 1.
      params: weights.
      size_bytes: of the file.
      median_ms, p10_ms, p90_ms: milliseconds per image.
    """

    name: str
    accuracy: float | None = None
    flops: float | None = None
    params: int | None = None
    size_bytes: int | None = None
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None

    def cells(self) -> list[str]:
        """The row as text."""
        spread = "" if self.p10_ms is None else f" ({self.p10_ms:.3f}-{self.p90_ms:.3f})"
        return [
            self.name,
            "-" if self.accuracy is None else f"{self.accuracy:.2%}",
            "-" if self.flops is None else f"{self.flops / 1e6:.2f} M",
            "-" if self.params is None else f"{self.params:,}",
            "-" if self.size_bytes is None else f"{self.size_bytes / 1024:.1f} KiB",
            "-" if self.median_ms is None else f"{self.median_ms:.3f}{spread}",
        ]


HEADER = ["", "accuracy", "FLOPs (multiply-accumulates)", "parameters", "file size", "ms per image (p10-p90)"]


@dataclass(frozen=True)
class Report:
    """A table of measurements, the plan, and the course of the training.

    Example:
      >>> report = kprune.Report([before, after], plan, history)
      >>> print(report.table())
      >>> report.save("results/report.md")
    """

    rows: list[Measurement]
    plan: Plan | None = field(default=None, repr=False)
    history: dict | None = field(default=None, repr=False)

    def table(self) -> str:
        """The measurements as a Markdown table with aligned columns."""
        cells = [HEADER, *(row.cells() for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(HEADER))]
        lines = ["| " + " | ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)) + " |" for row in cells]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The table, then the plan layer by layer."""
        plan = "" if self.plan is None else f"\n\n```\n{self.plan.summary()}\n```"
        return f"# Pruning report\n\n{self.table()}{plan}\n"

    def to_json(self) -> str:
        """All of it as JSON.

        Raises:
          OptionError: the history holds what JSON cannot.
        """
        rows = [vars(row) for row in self.rows]
        plan = None if self.plan is None else json.loads(self.plan.to_json())
        try:
            return json.dumps({"rows": rows, "history": self.history, "plan": plan}, indent=1) + "\n"
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"The report holds what JSON cannot: {error}.", "Numbers, texts, lists and dicts.", "Convert it first."
            ) from error

    def save(self, path):
        """Writes Markdown, or JSON where the name ends so.

        Raises:
          ExportError: the file cannot be written.
          OptionError: see `to_json`.
        """
        text = self.to_json() if str(path).endswith(".json") else self.markdown()
        return write_by_rename(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
