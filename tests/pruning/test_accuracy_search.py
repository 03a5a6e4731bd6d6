"""As much as the accuracy allows: where it ends, what it refuses, how it goes on."""

import keras
import numpy as np
import pytest
from training_runs import build

import kprune
from kprune.pruning import top1_accuracy


def balanced(x):
    """A network whose classes are equally frequent on these images, so that its accuracy falls when it is pruned."""
    model = build()
    bias = model.get_layer("logits").bias
    bias.assign(bias - np.median(model.predict(x, verbose=0), axis=0))
    return model


X = np.random.default_rng(0).normal(size=(300, *build().input_shape[1:])).astype("float32")
NETWORK = balanced(X)
Y = NETWORK.predict(X, verbose=0).argmax(-1)  # as the network itself says, so that it has no errors


def search(max_drop, eval_data=(X, Y), **options):
    options = {"criterion": "l1", "tolerance": 0.05, "verbose": False, **options}
    return kprune.prune_within_accuracy(NETWORK, eval_data, max_drop, **options)


def test_the_accuracy_is_kept_and_a_little_more_would_lose_it():
    found = search(0.2, data=X)
    assert top1_accuracy(found.model, (X, Y)) >= 0.8
    refused = [entry.target for entry in found.evaluations if not entry.accepted]
    assert refused and min(refused) - found.target <= 0.05
    small = kprune.prune_model(NETWORK, min(refused), criterion="l1", data=X)
    assert (small.predict(X, verbose=0).argmax(-1) == Y).mean() < 0.8


def test_the_accuracy_is_the_share_of_labels_that_are_met():
    wrong = np.where(np.arange(len(Y)) < 60, (Y + 1) % 3, Y)
    assert top1_accuracy(NETWORK, (X, wrong)) == pytest.approx(0.8)
    one_hot = keras.utils.to_categorical(wrong, 3)
    assert top1_accuracy(NETWORK, (X, one_hot)) == pytest.approx(0.8)
    assert top1_accuracy(NETWORK, (X, wrong[:, None])) == pytest.approx(0.8)
    batches = [(X[:100], wrong[:100]), (X[100:], wrong[100:])]
    assert top1_accuracy(NETWORK, batches) == pytest.approx(0.8)


def test_a_killed_search_goes_on_and_refuses_the_folder_of_another(tmp_path, capsys):
    first = search(0.5, directory=tmp_path, verbose=True, data=X[:32])
    assert capsys.readouterr().out.count(" removed: ") == len(first.evaluations) > 1
    again = search(0.5, directory=tmp_path, verbose=True, data=X[:32])
    assert not capsys.readouterr().out and again.plan == first.plan
    with pytest.raises(kprune.OptionError, match="max_drop 0.5, and this one has 0.4"):
        search(0.4, directory=tmp_path, data=X[:32])
    with pytest.raises(kprune.OptionError, match="sha256 of eval_data"):
        search(0.5, (X[:200], Y[:200]), directory=tmp_path, data=X[:32])
    with pytest.raises(kprune.OptionError, match="sha256 of data"):
        search(0.5, directory=tmp_path, data=X[:16])


@pytest.mark.parametrize(
    "max_drop, eval_data, words",
    [
        (1, (X, Y), "max_drop is 1"),
        (-0.1, (X, Y), "max_drop is -0.1"),
        ("0.1", (X, Y), "max_drop is '0.1'"),
        (0.1, X, "no labels"),
        (0.1, iter([(X, Y)]), "only once"),
        (0.1, (X[:, :4], Y), "examples of shape"),
        (0.1, (X, np.stack([Y, Y], 1)[:, :, None]), "600 labels|labels for"),
    ],
)
def test_what_cannot_be_judged_is_refused(max_drop, eval_data, words):
    with pytest.raises(kprune.OptionError, match=words):
        search(max_drop, eval_data)


def test_a_network_that_is_no_classifier_is_refused():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3)(keras.layers.Conv2D(4, 3)(inputs)))
    with pytest.raises(kprune.OptionError, match="A classifier"):
        kprune.prune_within_accuracy(model, (np.zeros((4, 8, 8, 3)), np.zeros(4)), 0.1)
