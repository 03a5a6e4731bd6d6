"""How the ratio of Algorithm 1 goes on from round to round: relaxed by ten percent where a round found little."""

import keras
import numpy as np
import pytest
from random_models import randomize

import kprune
from kprune.criteria import Similarity

layers = keras.layers


@pytest.fixture
def model():
    x = inputs = keras.Input((4, 4, 16))
    for filters in (64, 96, 64):
        x = layers.Conv2D(filters, 1)(x)
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))


def assert_goes_on(ratios, shares, relaxed, first, target):
    """A round that removed less than a tenth of what was missing is followed by one with nine tenths of its ratio."""
    before, expected, little = 0.0, first, 0
    for ratio, share, words in zip(ratios, shares, relaxed, strict=True):
        steps = np.log(ratio / expected) / np.log(0.9)  # within the round, where nothing at all was found
        assert steps == pytest.approx(round(steps), abs=1e-9) and (round(steps) == 0) == (words is None)
        found_little = share - before < 0.1 * (target - before)
        expected, before, little = ratio * (0.9 if found_little else 1.0), share, little + found_little
    assert 0 < little < len(ratios)


def test_at_once(model):
    rounds = kprune.plan_pruning(model, 0.48, criterion=Similarity(ratio=0.5)).rounds
    columns = ([entry[name] for entry in rounds] for name in ("ratio", "removed_share", "relaxed"))
    assert_goes_on(*columns, 0.5, 0.48)


def test_with_training_between_the_rounds(model):
    criterion = Similarity(ratio=0.5)
    run = kprune.prune_iteratively(model, lambda small: None, 0.48, criterion=criterion, verbose=False)
    columns = (run.record.history[name] for name in ("ratio", "pruned_flops", "relaxed"))
    assert_goes_on(*columns, 0.5, 0.48)


def test_in_a_callback_each_step_of_a_round_relaxes_until_the_round_has_what_is_due(model):
    model.compile("sgd", "mse")
    pruning = kprune.SimilarityPruning(0.6, ratio=0.35)
    model.fit(np.zeros((8, 4, 4, 16)), np.zeros((8, 3)), epochs=3, verbose=0, callbacks=[pruning])
    steps = [(entry.ratio, entry.removed_share) for entry in pruning.rounds]
    first = [index for index, (ratio, _) in enumerate(steps) if ratio == 0.35]
    assert len(first) == 2 and first[0] == 0  # two rounds, the second one anew from the ratio that was given
    for begin, end, due in zip(first, [*first[1:], len(steps)], (0.3, 0.6), strict=True):
        ratios, shares = zip(*steps[begin:end], strict=True)
        assert ratios == pytest.approx([0.35 * 0.9**index for index in range(end - begin)])
        assert all(share < due for share in shares[:-1]) and shares[-1] >= due
