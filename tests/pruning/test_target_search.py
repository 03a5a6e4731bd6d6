"""The search for the largest reduction: few networks, the right one, and never the same twice."""

import keras
import numpy as np
import pytest
from models import run
from training_runs import build

import kprune

WHOLE = kprune.model_cost(build()).flops


class AcceptUpTo:
    """Accepts networks with at most this share of the FLOPs removed; remembers what it was shown."""

    def __init__(self, share, fails_in=None):
        self.share, self.fails_in, self.shown = share, fails_in, []

    def __call__(self, small):
        if len(self.shown) + 1 == self.fails_in:
            raise KeyboardInterrupt
        self.shown.append(1 - kprune.model_cost(small).flops / WHOLE)
        return self.shown[-1] <= self.share


def search(accept, **options):
    return kprune.find_target(build(), accept, **{"verbose": False, **options})


@pytest.mark.parametrize("share", [0.15, 0.5, 0.72, 1.0])
def test_the_largest_share_accepted_is_found_with_few_networks(share):
    accept = AcceptUpTo(share)
    found = search(accept, criterion="l1", tolerance=0.05)
    removed = 1 - kprune.model_cost(found.model).flops / WHOLE
    better = kprune.plan_pruning(build(), min(found.target + 0.05, 0.9), criterion="l1")
    assert removed <= share and (share == 1 or 1 - better.flops[1] / WHOLE > share)
    assert len(accept.shown) <= 6
    assert found.plan == kprune.plan_pruning(build(), found.target, criterion="l1")
    assert [entry.removed for entry in found.evaluations] == pytest.approx(accept.shown)


def test_the_model_is_the_one_that_was_accepted_with_its_fine_tuning():
    def accept(small):
        small.get_layer("logits").bias.assign([7.0, 8.0, 9.0])
        return kprune.model_cost(small).flops > 0.6 * WHOLE

    found = search(accept, tolerance=0.1)
    np.testing.assert_array_equal(found.model.get_layer("logits").bias, [7, 8, 9])


def test_parameters_can_be_what_the_target_is_of():
    whole = build().count_params()
    found = search(lambda small: small.count_params() >= 0.6 * whole, quantity="params", tolerance=0.05)
    assert 0.6 <= found.model.count_params() / whole <= 0.7 and found.plan.target == {"params": found.target}


def test_a_killed_search_goes_on_and_tries_nothing_twice(tmp_path):
    unbroken = AcceptUpTo(0.4)
    whole = search(unbroken)
    with pytest.raises(KeyboardInterrupt):
        search(AcceptUpTo(0.4, fails_in=4), directory=tmp_path)
    accept = AcceptUpTo(0.4)
    resumed = search(accept, directory=tmp_path)
    assert accept.shown == unbroken.shown[3:] and accept.shown
    assert resumed.evaluations == whole.evaluations and resumed.plan == whole.plan
    nobody = AcceptUpTo(0.4)
    again = search(nobody, directory=tmp_path)
    x = np.ones((2, 8, 8, 3), "float32")
    assert not nobody.shown
    np.testing.assert_array_equal(run(again.model, x), run(resumed.model, x))


def test_a_folder_of_another_search_is_refused(tmp_path):
    search(AcceptUpTo(0.4), directory=tmp_path, tolerance=0.2)
    with pytest.raises(kprune.OptionError, match="tolerance"):
        search(AcceptUpTo(0.4), directory=tmp_path, tolerance=0.1)


def test_a_network_that_is_never_accepted_is_an_error_that_says_how_little_was_tried():
    with pytest.raises(kprune.TargetError, match=r"refused every network, even that with \d\.\d\d%"):
        search(lambda small: False, tolerance=0.1)


def test_each_network_is_repaired_where_there_are_images():
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    expected = run(build(), images)
    errors = {}
    for repair in (True, False):
        found = search(AcceptUpTo(0.4), criterion="l1", data=images, repair=repair, tolerance=0.3)
        errors[repair] = np.square(run(found.model, images) - expected).mean()
    assert errors[True] < 0.7 * errors[False]


def test_limits_bound_the_search():
    limits = kprune.Limits(exclude="middle", max_rate=0.5)
    found = search(AcceptUpTo(1.0), limits=limits, tolerance=0.05)
    assert all(entry.rate <= 0.5 for entry in found.plan.layers)


@pytest.mark.parametrize(
    "accept, options, message",
    [
        (3, {}, "accept is 3"),
        (lambda small: None, {}, "accept returned None"),
        (lambda small: 0.93, {}, "accept returned 0.93"),
        (AcceptUpTo(1), {"quantity": "latency"}, "quantity is 'latency'"),
        (AcceptUpTo(1), {"tolerance": 0}, "tolerance is 0"),
        (AcceptUpTo(1), {"criterion": "l7"}, "l7"),
    ],
)
def test_wrong_options_are_refused(accept, options, message):
    with pytest.raises(kprune.OptionError, match=f"{message}.*Fix"):
        search(accept, **options)


def test_something_is_tried_however_little_can_go():
    limits = kprune.Limits(include="middle", min_channels=15)
    found = search(AcceptUpTo(1.0), limits=limits, tolerance=0.2)
    assert len(found.evaluations) >= 1 and len(next(e for e in found.plan.layers if e.path == "middle").keep) == 15


def test_the_model_given_is_not_changed():
    model = build()
    before = [np.copy(w) for w in model.get_weights()]

    def accept(small):
        small.set_weights([0 * w for w in small.get_weights()])
        return True

    kprune.find_target(model, accept, tolerance=0.4, verbose=False)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert isinstance(model, keras.Model)
