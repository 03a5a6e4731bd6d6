"""What is worked out on each pair once, in blocks, equals what whole matrices give."""

import numpy as np
import pytest

from kprune.criteria.similarity import distances, find_neighbours, guarded
from kprune.criteria.statistics.pairwise import BLOCK, Pairs, count_rows, cross_terms, less

SIZES = [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 37]


def filters(count, weights=30, seed=0):
    """As float32 columns."""
    return np.random.default_rng(seed).normal(size=(weights, count)).astype(np.float32)


def slow_distances(columns, metric):
    rows = columns.T.astype(np.float64)
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return 1 - rows @ rows.T
    return np.sqrt(np.maximum(((rows[:, None] - rows[None]) ** 2).sum(axis=-1), 0))


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_in_blocks_are_those_of_the_definition(count, metric):
    found = distances(cross_terms(filters(count)), metric).full()
    np.testing.assert_allclose(found, slow_distances(filters(count), metric), atol=2e-5)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("count", SIZES)
def test_products_brought_up_to_date_are_those_of_what_is_left(count):
    rng, columns = np.random.default_rng(1), filters(count)
    stay, gone = rng.random(count) < 0.6, rng.random(len(columns)) < 0.5
    stay[0] = True
    found = less(cross_terms(columns).select(stay), columns[gone][:, stay]).full()
    left = columns[~gone][:, stay].astype(np.float64)
    np.testing.assert_allclose(found, 2 * left.T @ left, atol=1e-4)


def test_a_selection_of_a_selection_has_blocks_of_fewer_rows_and_the_same_pairs():
    matrix = np.random.default_rng(2).normal(size=(300, 300))
    matrix += matrix.T
    first, second = np.arange(300) % 3 > 0, np.arange(200) > 150
    found = Pairs.of(matrix).select(first).select(second)
    chosen = np.flatnonzero(first)[second]
    np.testing.assert_array_equal(found.full(), matrix[np.ix_(chosen, chosen)])


@pytest.mark.parametrize("count", SIZES)
def test_counts_and_rows_are_those_of_the_whole_matrix(count):
    truths = np.random.default_rng(3).random((count, count)) < 0.3
    truths |= truths.T
    pairs, places = Pairs.of(truths), np.arange(0, count, 3)
    assert count_rows(pairs).tolist() == truths.sum(axis=1).tolist()
    np.testing.assert_array_equal(pairs.rows(places), truths[places])


@pytest.mark.parametrize("count", SIZES[1:])
def test_the_threshold_in_float32_is_that_of_exact_sums(count):
    """Also where the spread is small beside the mean, as between wide random filters."""
    rows = 1 + 1e-3 * np.random.default_rng(4).normal(size=(count, count))
    matrix = np.triu(rows, 1).astype(np.float32)
    matrix += matrix.T
    exact = matrix[np.triu_indices(count, 1)].astype(np.float64)
    found = find_neighbours(matrix, 1.0)
    assert found.mean == pytest.approx(exact.mean(), rel=1e-12)
    assert found.deviation == pytest.approx(exact.std(), rel=1e-6, abs=1e-15)
    similar = matrix.astype(np.float64) < found.threshold
    np.fill_diagonal(similar, False)
    assert found.counts.tolist() == similar.sum(axis=1).tolist()


def slow_guard(order, layers, count):
    """One candidate after the other, on sets of neighbours in plain Python."""
    near = [[] for _ in range(count)]
    for sets, neighbours in layers:
        for i, row in enumerate(neighbours.similar.full()):
            near[sets[i]] += [sets[j] for j in np.flatnonzero(row)]
    gone = set()
    for candidate in order.tolist():
        trial = gone | {candidate}
        if all(any(other not in trial for other in near[one]) for one in trial if near[one] or one == candidate):
            gone = trial
    return [one for one in order.tolist() if one in gone]


@pytest.mark.parametrize("seed", range(4))
def test_the_guard_over_several_layers_is_that_of_its_definition(seed):
    """Two layers of the same sets (a stream), and one that shares some of them."""
    rng = np.random.default_rng(seed)
    places = [np.arange(40), np.arange(40), np.r_[10:20, 45:60]]
    layers = [
        (sets, find_neighbours(slow_distances(filters(len(sets), 6, seed + 9), "euclidean"), 0.4)) for sets in places
    ]
    order = rng.permutation(np.r_[0:40, 45:60])[:35]
    found = guarded(order, layers, 60)
    assert found.tolist() == slow_guard(order, layers, 60) and 0 < len(found) < len(order)
