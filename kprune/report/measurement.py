"""What is known of one model or file, and how it is written."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from kprune.utils.checks import check_amount, check_share, is_number
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class Measurement:
    """What is known of one model or file; what was not measured is None.

    Attributes:
      name: the row's name.
      accuracy: share of test images, 0..1.
      flops: multiply-accumulates of conv and dense layers, batch 1.
      params: weights.
      size_bytes: of the file.
      median_ms, p10_ms, p90_ms: milliseconds per image; a tenth of the runs was faster than `p10_ms`, a tenth slower
        than `p90_ms`.
      activation_bytes: the largest sum of tensors that are alive at one moment, as `Cost.activation_bytes` counts it:
        float32, batch 1; a runtime may need more or less.
      memory_bytes: the memory that the process took to open and run it, as `Timing.memory_bytes` measures it.

    Raises:
      OptionError: a value that nothing could have been measured as.

    Example:
      >>> cost = kprune.model_cost(model)
      >>> kprune.Measurement("before", 0.9203, cost.flops, cost.params, activation_bytes=cost.activation_bytes)
    """

    name: str
    accuracy: float | None = None
    flops: float | None = None
    params: int | None = None
    size_bytes: int | None = None
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    activation_bytes: float | None = None
    memory_bytes: float | None = None

    def __post_init__(self):
        if not isinstance(self.name, str):
            raise OptionError(f"name is {self.name!r}.", "The name of a row.", 'Pass "before".')
        if self.accuracy is not None and not (is_number(self.accuracy) and math.isnan(self.accuracy)):
            check_share("accuracy", self.accuracy)
        for entry in fields(self)[2:]:
            value = getattr(self, entry.name)
            if value is not None:
                check_amount(entry.name, value, above_zero=False, unknown=True)
        if (self.p10_ms is None) != (self.p90_ms is None) or (self.p10_ms is not None and self.median_ms is None):
            raise OptionError(
                f"p10_ms is {self.p10_ms}, median_ms is {self.median_ms} and p90_ms is {self.p90_ms}.",
                "Both ends of the spread and the median, or the median alone.",
                "Pass all three.",
            )


class Column(NamedTuple):
    """One column of the table: its head, and a cell's text, or None where nothing was measured."""

    head: str
    text: Callable[[Measurement], str | None]


def kibibytes(value: float | None) -> str | None:
    return None if value is None else f"{value / 1024:.1f} KiB"


def percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2%}"


def millions(value: float | None) -> str | None:
    return None if value is None else f"{value / 1e6:.2f} M"


def count(value: float | None) -> str | None:
    return None if value is None else f"{value:,}"


def milliseconds(row: Measurement) -> str | None:
    if row.median_ms is None:
        return None
    spread = "" if row.p10_ms is None else f" ({row.p10_ms:.3f}-{row.p90_ms:.3f})"
    return f"{row.median_ms:.3f}{spread}"


COLUMNS = (
    Column("accuracy", lambda row: percent(row.accuracy)),
    Column("FLOPs (multiply-accumulates)", lambda row: millions(row.flops)),
    Column("parameters", lambda row: count(row.params)),
    Column("file size", lambda row: kibibytes(row.size_bytes)),
    Column("activations at the peak", lambda row: kibibytes(row.activation_bytes)),
    Column("ms per image (p10-p90)", milliseconds),
    Column("memory of the process", lambda row: kibibytes(row.memory_bytes)),
)


def table_of(rows: Sequence[Measurement]) -> list[list[str]]:
    """Head and rows as text; columns in which nothing was measured are left out, other gaps are a dash."""
    known = [column for column in COLUMNS if any(column.text(row) is not None for row in rows)]
    head = ["", *(column.head for column in known)]
    return [head, *([row.name, *(column.text(row) or "-" for column in known)] for row in rows)]


class Change(NamedTuple):
    """One quantity before and after: the headline, and the two values."""

    name: str
    change: str
    values: str


def changes(before: Measurement, after: Measurement) -> list[Change]:
    """What pruning changed, for all that is known of both. Times are given as they are: a ratio would want a spread."""
    found = []
    if None not in (before.accuracy, after.accuracy):
        points = 100 * (after.accuracy - before.accuracy)
        values = f"{percent(before.accuracy)} → {percent(after.accuracy)}"
        found.append(Change("accuracy", f"{signed(points, 2)} points", values))
    for name, attribute, text in (
        ("FLOPs", "flops", millions),
        ("parameters", "params", count),
        ("file size", "size_bytes", kibibytes),
        ("activations at the peak", "activation_bytes", kibibytes),
    ):
        old, new = getattr(before, attribute), getattr(after, attribute)
        if old and new is not None:
            found.append(Change(name, f"{signed(100 * (new / old - 1), 1)} %", f"{text(old)} → {text(new)}"))
    if None not in (before.median_ms, after.median_ms):
        values = f"{milliseconds(before)} → {milliseconds(after)}"
        found.append(Change("time per image", f"{after.median_ms:.3f} ms", values))
    return found


def signed(value: float, digits: int) -> str:
    """A number with its sign; nothing is ±0."""
    text = f"{value:+.{digits}f}"
    return text[1:].join(("±", "")) if float(text) == 0 else text.replace("-", "−")
