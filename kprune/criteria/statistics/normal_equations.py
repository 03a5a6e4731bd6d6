"""Least squares from moments: what rows and targets have in common is added up, over calls and over images."""

from dataclasses import dataclass, field

import numpy as np

RIDGE = 1e-3  # of the mean power of a feature


def to_unit(rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The root mean square as a power of two, the values in it, and the mean square of each feature (the last axis).

    In float32 the products of small values would vanish, and are slow before they do.
    """
    power = np.einsum("...rf,...rf->...f", rows, rows, dtype=np.float64) / rows.shape[-2]
    square = power.mean()
    unit = float(np.exp2(np.round(np.log2(square) / 2))) if square else 1.0
    return unit, rows / np.float32(unit), power / unit**2


@dataclass(frozen=True)
class Fit:
    """A change of weights and the shift of the mean that goes with it.

    Attributes:
      change: float64 `[groups, features, filters]`.
      shift: float64 `[groups, filters]`, what is to be added to the bias.
    """

    change: np.ndarray = field(repr=False)
    shift: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Moments:
    """Sums over rows `x` and what they fail to give, `e`: enough to fit `e` by `x`, and to tell the error of any fit.

    Attributes:
      count: number of rows.
      mean_x, mean_e: float64 `[groups, features]` and `[groups, filters]`.
      gram, cross: float64 `[groups, features, features]` and `[groups, features, filters]`, sums of products about the
        means.
      power: float64 `[groups, filters]`, sums of squares of `e` about its mean.
    """

    count: int
    mean_x: np.ndarray = field(repr=False)
    mean_e: np.ndarray = field(repr=False)
    gram: np.ndarray = field(repr=False)
    cross: np.ndarray = field(repr=False)
    power: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, rows: np.ndarray, errors: np.ndarray) -> "Moments":
        """The moments of float32 rows `[groups, rows, features]` and errors `[groups, rows, filters]`."""
        mean_x, mean_e = (x.mean(axis=1, keepdims=True, dtype=np.float64) for x in (rows, errors))
        x, e = (a - m.astype(np.float32) for a, m in ((rows, mean_x), (errors, mean_e)))
        unit, x, _ = to_unit(x)
        turned = np.swapaxes(x, 1, 2)
        gram, cross = (turned @ x).astype(np.float64) * unit**2, (turned @ e).astype(np.float64) * unit
        power = np.einsum("gro,gro->go", e, e, dtype=np.float64)
        return cls(rows.shape[1], mean_x[:, 0], mean_e[:, 0], gram, cross, power)

    def __add__(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows."""
        count = self.count + other.count
        share, weight = other.count / count, self.count * other.count / count
        dx, de = other.mean_x - self.mean_x, other.mean_e - self.mean_e
        return Moments(
            count,
            self.mean_x + share * dx,
            self.mean_e + share * de,
            self.gram + other.gram + weight * dx[:, :, None] * dx[:, None, :],
            self.cross + other.cross + weight * dx[:, :, None] * de[:, None, :],
            self.power + other.power + weight * de**2,
        )

    def about_zero(self) -> "Moments":
        """The same as if the means were zero: for a layer that has nothing to shift."""
        x, e, n = self.mean_x, self.mean_e, self.count
        gram, cross = self.gram + n * x[:, :, None] * x[:, None, :], self.cross + n * x[:, :, None] * e[:, None, :]
        return Moments(n, 0 * x, 0 * e, gram, cross, self.power + n * e**2)

    def fit(self, ridge: float = RIDGE) -> Fit:
        """`argmin_V ||e - x V||^2 + ridge ||V||^2` about the means; the ridge counts in the mean power of a feature,
        per row.
        """
        features = self.gram.shape[-1]
        ridge = ridge * (np.trace(self.gram, axis1=1, axis2=2) / features + np.finfo(np.float32).tiny)
        change = np.linalg.solve(self.gram + ridge[:, None, None] * np.eye(features), self.cross)
        return self.shifted(change)

    def shifted(self, change: np.ndarray) -> Fit:
        return Fit(change, self.mean_e - np.einsum("gf,gfo->go", self.mean_x, change))

    def error(self, fit: Fit | None) -> float:
        """The mean square per row that is left of `e` after a fit; None: without one."""
        if fit is None:
            return float((self.power / self.count + self.mean_e**2).sum())
        v = fit.change
        left = self.power + np.einsum("gfo,gfo->go", v, self.gram @ v - 2 * self.cross)
        missed = self.mean_e - np.einsum("gf,gfo->go", self.mean_x, v) - fit.shift
        return float((np.maximum(left, 0.0) / self.count + missed**2).sum())


@dataclass(frozen=True)
class Rows:
    """The rows themselves, where there are fewer than features: the dual form of the same fits.

    Attributes:
      x: float32 `[groups, rows, features]`.
      e: float32 `[groups, rows, filters]`.
      centred: whether means are fitted apart.
    """

    x: np.ndarray = field(repr=False)
    e: np.ndarray = field(repr=False)
    centred: bool = True

    @property
    def count(self) -> int:
        return self.x.shape[1]

    def __add__(self, other: "Rows") -> "Rows":
        return Rows(*(np.concatenate(pair, axis=1) for pair in ((self.x, other.x), (self.e, other.e))), self.centred)

    def about_zero(self) -> "Rows":
        return Rows(self.x, self.e, centred=False)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(a.mean(axis=1) if self.centred else np.zeros_like(a[:, 0]) for a in (self.x, self.e))

    def fit(self, ridge: float = RIDGE) -> Fit:
        mean_x, mean_e = self.means()
        unit, x, power = to_unit(self.x - mean_x[:, None])
        e = (self.e - mean_e[:, None]) / np.float32(unit)
        ridge = ridge * x.shape[1] * (power.mean(axis=-1) + np.finfo(np.float32).tiny)
        gram = (x @ np.swapaxes(x, 1, 2)).astype(np.float64) + ridge[:, None, None] * np.eye(x.shape[1])
        change = np.swapaxes(x, 1, 2).astype(np.float64) @ np.linalg.solve(gram, e.astype(np.float64))
        return Fit(change, mean_e - np.einsum("gf,gfo->go", mean_x, change))

    def error(self, fit: Fit | None) -> float:
        left = self.e if fit is None else self.e - self.x @ fit.change.astype(np.float32) - fit.shift[:, None]
        return float(np.square(left, dtype=np.float64).sum() / left.shape[1])


def summarize(rows: np.ndarray, errors: np.ndarray) -> Moments | Rows:
    """Rows `[groups, rows, features]` and errors `[groups, rows, filters]` in the smaller of the two forms."""
    return Moments.of(rows, errors) if rows.shape[2] <= rows.shape[1] else Rows(rows, errors)


def pool(parts: list) -> Moments | Rows:
    """All rows of several parts together."""
    if len({type(part) for part in parts}) > 1:
        parts = [Moments.of(part.x, part.e) if isinstance(part, Rows) else part for part in parts]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
