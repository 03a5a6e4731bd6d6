"""Symmetric matrices over all pairs of filters, each pair kept once: what distances are worked out in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

BLOCK = 128  # rows that are worked on together: they fit the cache, and their number fits 8 bits
CHUNK = 4 * BLOCK  # rows of one matrix product: few enough to skip most of the other half, enough to be worth a call


@dataclass(frozen=True)
class Pairs:
    """A symmetric matrix `[N, N]` by blocks of rows, each from the diagonal to the right.

    Attributes:
      count: `N`.
      blocks: arrays `[rows, N - start]`, `rows` at most `BLOCK`, `start` the number of rows in the blocks before.
    """

    count: int
    blocks: tuple[np.ndarray, ...] = field(repr=False)

    @classmethod
    def of(cls, matrix: np.ndarray) -> "Pairs":
        """The pairs of a whole matrix, which is not copied."""
        starts = range(0, len(matrix), BLOCK)
        return cls(len(matrix), tuple(matrix[start : start + BLOCK, start:] for start in starts))

    def __iter__(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Which rows each block holds, and the block."""
        start = 0
        for block in self.blocks:
            yield slice(start, start + len(block)), block
            start += len(block)

    def map(self, function: Callable[[slice, np.ndarray], np.ndarray]) -> "Pairs":
        """A function of each block and its rows."""
        return Pairs(self.count, tuple(function(rows, block) for rows, block in self))

    def full(self) -> np.ndarray:
        """The whole matrix."""
        return self.rows(np.arange(self.count))

    def rows(self, places: np.ndarray) -> np.ndarray:
        """Whole rows of the matrix.

        Args:
          places: int `[n]`, which, in rising order.

        Returns:
          `[n, N]`.
        """
        found = np.empty((len(places), self.count), self.blocks[0].dtype)
        for rows, block in self:
            first, last = np.searchsorted(places, (rows.start, rows.stop))
            found[first:last, rows.start :] = block[places[first:last] - rows.start]
            found[last:, rows] = block[:, places[last:] - rows.start].T
        return found

    def diagonal(self) -> np.ndarray:
        return np.concatenate([block.diagonal() for block in self.blocks])

    def without_diagonal(self, block: np.ndarray, value) -> np.ndarray:
        """A block, changed in place, with a value in the place of the pairs of a filter with itself."""
        np.fill_diagonal(block[:, : len(block)], value)
        return block

    def select(self, stay: np.ndarray) -> "Pairs":
        """The pairs among some of the filters.

        Args:
          stay: bool `[N]`, which.
        """
        blocks = []
        for rows, block in self:
            own, others = np.flatnonzero(stay[rows]), np.flatnonzero(stay[rows.start :])
            if len(own):
                block = block if len(own) == len(block) else block[own]
                blocks.append(np.take(block, others, axis=1, mode="clip"))
        return Pairs(int(np.count_nonzero(stay)), tuple(blocks))


def cross_terms(columns: np.ndarray) -> Pairs:
    """`2 F_i.F_j` for all pairs of filters, from one matrix product.

    Args:
      columns: `[weights, N]`, each column a filter.
    """
    return Pairs.of(columns.T @ columns).map(lambda rows, block: 2 * block)


def less(terms: Pairs, columns: np.ndarray) -> Pairs:
    """`cross_terms` without the share of some of the weights; takes over its memory.

    Args:
      terms: over all weights.
      columns: `[weights that go, N]`.
    """
    start, stop, share = 0, 0, None
    for rows, block in terms:
        if rows.stop > stop:
            start, stop = rows.start, rows.start + CHUNK
            share = (2 * columns[:, start:stop]).T @ columns[:, start:]
        block -= share[rows.start - start : rows.stop - start, rows.start - start :]
    return terms


def count_rows(truths: Pairs) -> np.ndarray:
    """How many are true in each row of a matrix of booleans, int `[N]`."""
    counts = np.zeros(truths.count, dtype=np.int64)
    for rows, block in truths:
        bits = block.view(np.uint8)
        counts[rows] += np.add.reduce(bits, axis=1, dtype=np.uint32)
        counts[rows.stop :] += np.add.reduce(bits[:, len(bits) :], axis=0, dtype=np.uint8)
    return counts
