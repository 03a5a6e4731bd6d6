import keras
import numpy as np
import pytest
from slow_similarity import redundant_filters

import kprune
from cifar_resnet import build_resnet, load_npz
from kprune.criteria.similarity import find_neighbours, guarded, pairwise_distances

Similarity = kprune.criteria.Similarity


def clusters(sizes, seed=0, spread=0.01, weights=36):
    """A kernel whose filters lie in tight clusters."""
    rng = np.random.default_rng(seed)
    rows = [
        centre + spread * rng.normal(size=(n, weights))
        for n, centre in zip(sizes, rng.normal(size=(len(sizes), 1, weights)), strict=True)
    ]
    return np.concatenate(rows).T.reshape(3, 3, -1, sum(sizes))


def test_distances_agree_with_the_definition():
    filters = np.random.default_rng(0).normal(size=(7, 12))
    expected = np.linalg.norm(filters[:, None] - filters[None], axis=-1)
    np.testing.assert_allclose(pairwise_distances(filters), expected, atol=1e-12)


def test_cosine_distance_does_not_see_scale():
    filters = np.random.default_rng(0).normal(size=(5, 12))
    scaled = filters * np.array([[1], [2], [3], [4], [50]])
    np.testing.assert_allclose(pairwise_distances(filters, "cosine"), pairwise_distances(scaled, "cosine"), atol=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0, 1.3])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4])
def test_literal_rule_equals_the_slow_transcription_on_random_kernels(alpha, ratio):
    kernel = np.random.default_rng(3).normal(size=(3, 3, 4, 24))
    got = Similarity(alpha=alpha, ratio=ratio, guard=False).redundant(kernel)
    assert got.tolist() == redundant_filters(kernel, alpha, ratio)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_literal_rule_equals_the_slow_transcription_on_trained_networks(shared, depth):
    model = build_resnet(depth)
    load_npz(model, shared / "models" / f"resnet{depth}_cifar10.npz")
    rule = Similarity(ratio=0.3, guard=False)
    kernels = [
        keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    ]
    assert len(kernels) == depth - 1
    for kernel in kernels:
        assert rule.redundant(kernel).tolist() == redundant_filters(kernel, 1.0, 0.3)


def test_larger_alpha_prunes_less():
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 40))
    removed = [Similarity(alpha=a, ratio=0.2, guard=False).redundant(kernel).sum() for a in (0.0, 0.5, 1.0, 2.0)]
    assert removed == sorted(removed, reverse=True) and removed[0] > removed[-1]


def test_literal_rule_can_wipe_out_a_cluster_and_the_guard_keeps_one_of_it():
    kernel = clusters([28] + [1] * 36)
    cluster = np.arange(64) < 28
    assert Similarity(guard=False).redundant(kernel)[cluster].all()
    assert (~Similarity().redundant(kernel))[cluster].sum() == 1


def test_every_removed_filter_leaves_a_kept_one_within_the_threshold():
    kernel = np.random.default_rng(5).normal(size=(3, 3, 3, 48))
    rule = Similarity(alpha=0.3, ratio=0.2)
    removed = rule.redundant(kernel)
    similar = find_neighbours(pairwise_distances(kernel.reshape(-1, 48).T), 0.3).similar.full()
    assert removed.any() and similar[removed][:, ~removed].any(axis=1).all()


def test_guard_takes_the_filter_of_highest_frequency_first():
    neighbours = find_neighbours(np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 9.0], [1.0, 9.0, 0.0]]), 0.0)
    assert guarded(np.array([0, 1, 2]), [(np.arange(3), neighbours)], 3).tolist() == [0]


def test_equal_filters_have_no_threshold_below_their_distance():
    assert not Similarity().redundant(np.ones((1, 1, 2, 5))).any()


@pytest.mark.parametrize(
    "options",
    [{"alpha": -1}, {"alpha": float("nan")}, {"ratio": 0}, {"ratio": 2}, {"metric": "manhattan"}, {"coupling": "x"}],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(kprune.OptionError, match="Expected.*Fix"):
        Similarity(**options)
