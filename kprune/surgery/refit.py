"""One kernel that is fitted anew: to what, from what, and whether images held back say that it helps."""

from dataclasses import dataclass, field

import numpy as np

from kprune.compat.variables import variables_by_name
from kprune.criteria.statistics.linear_layers import Reader, as_float
from kprune.criteria.statistics.normal_equations import RIDGE, Fit, Moments, Rows, pool, summarize
from kprune.rules.linear_maps import LinearMap, Places

RIDGES = RIDGE, 0.01, 0.1, 1.0  # the images held back choose among them
FEW_ROWS = 8  # rows per feature up to which there is a choice


@dataclass(frozen=True)
class Intercept:
    """What takes a shift of the mean.

    Attributes:
      variable: of the pruned network.
      value: what it was before any fit, float32.
      row: which part of it is shifted, as an index; all of it where it is empty.
      sign: 1 for a bias, -1 for the moving mean of a BatchNorm.
    """

    variable: object = field(repr=False)
    value: np.ndarray = field(repr=False)
    row: tuple[int, ...] = ()
    sign: float = 1.0

    def shift(self, by: np.ndarray):
        value = self.value.copy()
        value[self.row] += (self.sign * by).reshape(value[self.row].shape).astype(np.float32)
        self.variable.assign(value)


@dataclass
class Refit:
    """One kernel to fit, and what its fits start from.

    Attributes:
      reader: the kernel in the original network.
      kept: which of its filters stay, one boolean per column.
      features: which of its features stay, `[groups, features]`.
      start: the kernel of the pruned network as it was, as `[groups, features, filters]`.
      intercept: what takes a shift of the mean, or None: then means are not fitted apart.
      calls: how often its layer is called.
      error: the mean square of its error on the images held back, without a fit and with it; NaN before.
    """

    reader: Reader
    kept: np.ndarray = field(repr=False)
    features: np.ndarray = field(repr=False)
    start: np.ndarray = field(repr=False)
    intercept: Intercept | None = None
    calls: int = 1
    error: tuple[float, float] = (np.nan, np.nan)

    @property
    def left_out(self) -> bool:
        return not self.error[1] <= self.error[0]

    @property
    def linear(self) -> LinearMap:
        return self.reader.linear

    def kept_features(self, rows: np.ndarray) -> np.ndarray:
        """Rows of the original network, `[groups, rows, features]`, without the features that go."""
        return np.stack([own[:, stays] for own, stays in zip(rows, self.features, strict=True)])

    def target(self, layer, x: np.ndarray, output: np.ndarray, places: Places) -> np.ndarray:
        """What the kernel made of its input in the original network, for the filters that stay: `[rows, filters]`.

        Args:
          layer: the layer in the original network.
          x, output: what it saw and gave there.
          places: the output places that are rows.
        """
        linear = self.linear
        if linear.shown(layer):
            return (linear.outputs_at(layer, output, places) - linear.offset(layer, len(self.kept)))[:, self.kept]
        matrix = linear.matrix(layer, as_float(variables_by_name(layer)[linear.weight]))
        made = np.moveaxis(linear.rows(layer, x, places) @ matrix, 0, 1)
        return made.reshape(places.index.size, -1)[:, self.kept]

    def parts(self, rows: np.ndarray, target: np.ndarray, held: np.ndarray) -> list[Moments | Rows]:
        """What is fitted to and what judges: rows with what the kernel as it was fails to give, of all images but those
        held back, and of those; where none is, one part is both.

        Args:
          rows: `[groups, rows, features]`, as many for each image.
          target: `[rows, filters]`.
          held: bool, one per image.
        """
        target = np.moveaxis(target.reshape(len(target), len(rows), -1), 1, 0)
        errors = target - rows @ self.start
        held = np.repeat(held, rows.shape[1] // len(held))
        return [summarize(rows[:, which], errors[:, which]) for which in (~held, held) if which.any()]

    def fit(self, layer, parts: list[list[Moments | Rows]]):
        """Fits the kernel, unless that raises the error on what was held back.

        Args:
          layer: the layer of the pruned network.
          parts: see `parts`, for each call of the layer.
        """
        pools = [pool([part[which] for part in parts]) for which in range(len(parts[0]))]
        seen, judged = (pools[which] if self.intercept else pools[which].about_zero() for which in (0, -1))
        fits = [seen.fit(ridge) for ridge in (RIDGES if seen.count <= FEW_ROWS * self.start.shape[1] else RIDGES[:1])]
        errors = [judged.error(fit) for fit in fits]
        best = int(np.argmin(errors))
        self.error = judged.error(None), errors[best]
        if self.left_out:
            self.undo(layer)
        else:
            self.apply(layer, fits[best])

    def undo(self, layer):
        """Gives a layer of the pruned network back what it had."""
        self.apply(layer, Fit(np.zeros_like(self.start), np.zeros((len(self.start), self.start.shape[2]))))

    def apply(self, layer, fitted: Fit):
        kernel = variables_by_name(layer)[self.linear.weight]
        matrix = (self.start + fitted.change).astype(np.float32)
        kernel.assign(self.linear.kernel(layer, matrix, tuple(kernel.shape)))
        if self.intercept:
            self.intercept.shift(fitted.shift)
