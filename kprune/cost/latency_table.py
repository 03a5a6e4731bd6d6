"""How long one kind of layer takes over its widths, between the widths that were measured."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from kprune.rules import OperatorConfig


@dataclass(frozen=True)
class Grid:
    """The milliseconds of one kind of layer at some widths; linear in between.

    Attributes:
      kind: the kind.
      widths_in: ascending numbers of input channels; one where the kind has no width of its own there.
      widths_out: ascending numbers of output channels.
      ms: float `[len(widths_in), len(widths_out)]`.
    """

    kind: OperatorConfig
    widths_in: tuple[int, ...]
    widths_out: tuple[int, ...]
    ms: np.ndarray = field(repr=False, compare=False)

    def at(self, width_in, width_out) -> np.ndarray:
        """Milliseconds at widths, which broadcast; bilinear. Below the smallest width, those of the smallest."""
        row, above = place(self.widths_in, width_in)
        column, right = place(self.widths_out, width_out)
        next_row, next_column = (
            np.minimum(index + 1, len(widths) - 1)
            for index, widths in ((row, self.widths_in), (column, self.widths_out))
        )
        low = self.ms[row, column] * (1 - right) + self.ms[row, next_column] * right
        high = self.ms[next_row, column] * (1 - right) + self.ms[next_row, next_column] * right
        return low * (1 - above) + high * above

    def covers(self, width_in: int, width_out: int) -> bool:
        """Whether it was measured up to these widths."""
        return (len(self.widths_in) == 1 or width_in <= self.widths_in[-1]) and width_out <= self.widths_out[-1]

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {"ms": [[round(float(x), 6) for x in row] for row in self.ms]}

    @classmethod
    def from_json(cls, data: dict) -> "Grid":
        ms, kind = np.array(data["ms"], dtype=float), OperatorConfig.from_json(data["kind"])
        widths_in, widths_out = tuple(data["widths_in"]), tuple(data["widths_out"])
        rising = all(widths and list(widths) == sorted(set(widths)) for widths in (widths_in, widths_out))
        if not rising or ms.shape != (len(widths_in), len(widths_out)) or not np.isfinite(ms).all():
            raise ValueError(f"{kind} has no finite number for each pair of rising widths")
        return cls(kind, widths_in, widths_out, ms)


def place(widths: tuple[int, ...], wanted) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted width the index of the knot at or below it, and how far it is to the next, 0..1."""
    knots = np.asarray(widths, dtype=float)
    wanted = np.clip(np.asarray(wanted, dtype=float), knots[0], knots[-1])
    index = np.clip(np.searchsorted(knots, wanted, side="right") - 1, 0, max(len(knots) - 2, 0))
    gap = knots[np.minimum(index + 1, len(knots) - 1)] - knots[index]
    return index, np.where(gap > 0, (wanted - knots[index]) / np.where(gap > 0, gap, 1), 0.0)
