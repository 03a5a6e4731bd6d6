"""Properties of any model: masked equals removed, the target is met, the cost is what the weights say."""

import os

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from independent_cost import count_flops
from random_models import random_model

import kprune
from kprune.cost import CostModel
from kprune.graph import trace

EXAMPLES = int(os.environ.get("KPRUNE_FUZZ_EXAMPLES", 25))
CRITERIA = {
    "similarity": kprune.criteria.Similarity(),
    "literal": kprune.criteria.Similarity(guard=False, alpha=0.5),
    "stage": kprune.criteria.Similarity(coupling="stage"),
    "merged": kprune.criteria.Similarity(compensate=True, metric="cosine", fold_bn=True),
    "l1": "l1",
    "random": "random",
}


def outputs(model, images):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(images))]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        scale = np.abs(one).max() + 1e-3
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-5)


def target_is_met(plan, model):
    """Within 0.01 above the target, or nothing that went can come back without missing it."""
    cost = CostModel(trace(model))
    keep, target = plan.mask(cost.graph), plan.target["flops"]
    whole = cost.flops(cost.everything())
    removed = 1 - cost.flops(keep) / whole
    if removed < target - 1e-9 or removed <= target + 0.01 + 1e-9:
        return removed >= target - 1e-9
    for channel_set in np.flatnonzero(~keep):
        back = keep.copy()
        back[channel_set] = True
        if 1 - cost.flops(back) / whole >= target:
            return False
    return True


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 25, suppress_health_check=list(HealthCheck))
@given(data=st.data(), target=st.floats(0.05, 0.9), name=st.sampled_from(sorted(CRITERIA)))
def test_random_graph(data, target, name):
    keras.backend.clear_session()  # else names and graphs of all examples pile up
    model = random_model(data.draw)
    images = np.random.default_rng(1).normal(size=(2, *model.input_shape[1:])).astype("float32")
    before = outputs(model, images)
    assert kprune.model_cost(model).flops == count_flops(model)
    try:
        plan = kprune.plan_pruning(model, target, criterion=CRITERIA[name])
    except kprune.TargetError as error:
        assert error.reachable < target
        return
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    assert_equal(outputs(soft, images), outputs(hard, images))
    assert target_is_met(plan, model)
    assert kprune.model_cost(hard).flops == count_flops(hard) == plan.flops[1]
    assert hard.count_params() == plan.params[1]
    assert_equal(outputs(kprune.strip(soft), images), outputs(hard, images))
    assert_equal(before, outputs(model, images))
