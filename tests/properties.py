"""What must hold of any model, whatever it is made of; used by the tests and by tools/fuzz.py."""

import itertools
import json

import keras
import numpy as np
from hypothesis import strategies as st
from independent_cost import count_flops
from loader import outputs_elsewhere
from random_models import random_model

import kprune
from kprune.cost.model import CostModel, uncounted
from kprune.graph import trace

CRITERIA = {
    "similarity": kprune.criteria.Similarity(),
    "literal": kprune.criteria.Similarity(guard=False, alpha=0.5),
    "stage": kprune.criteria.Similarity(coupling="stage"),
    "merged": kprune.criteria.Similarity(compensate=True, metric="cosine", fold_bn=True),
    "l1": "l1",
    "random": "random",
}
TOLERANCES = {"float32": 1e-5, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}  # of the largest output
EXAMPLES = itertools.count()
POLICIES = ["float32"] * 4 + ["mixed_bfloat16", "mixed_float16"]


def outputs(model, images):
    return [np.asarray(keras.ops.convert_to_numpy(y), dtype="float64") for y in keras.tree.flatten(model(images))]


def assert_equal(first, second, tolerance=1e-5):
    for one, other in zip(first, second, strict=True):
        finite = np.isfinite(one) & np.isfinite(other)  # float16 runs over
        scale = np.abs(one[finite]).max(initial=0.0) + 1e-3
        np.testing.assert_allclose(one[finite] / scale, other[finite] / scale, atol=tolerance)


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


def random_images(model, count=2, seed=1):
    """Examples for each input, in the structure in which the model takes them."""
    rng = np.random.default_rng(seed)
    return keras.tree.map_structure(lambda x: rng.normal(size=(count, *x.shape[1:])).astype("float32"), model.input)


def check(model, target, criterion, tolerance=1e-5):
    """All properties of one model, one target and one criterion."""
    images = random_images(model)
    before = outputs(model, images)
    if uncounted(trace(model)):  # told; a layer of one's own that is called with other options each time
        return
    assert kprune.model_cost(model).flops == count_flops(model)
    stripped = kprune.strip(model)
    whole = stripped.count_params() == model.count_params()
    assert_equal(before, outputs(stripped, images), 1e-6 if whole else tolerance)
    try:
        plan = kprune.plan_pruning(model, target, criterion=criterion)
    except kprune.TargetError as error:
        assert error.reachable < target
        return
    assert kprune.Plan.from_dict(json.loads(plan.to_json())) == plan
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    expected = outputs(hard, images)
    assert_equal(expected, outputs(soft, images), tolerance)
    assert target_is_met(plan, model)
    assert kprune.model_cost(hard).flops == count_flops(hard) == plan.flops[1]
    assert hard.count_params() == plan.params[1]
    assert_equal(expected, outputs(kprune.strip(soft), images), tolerance)
    assert_equal(expected, outputs_elsewhere(hard, images), tolerance)
    check_twice(hard, images, target, tolerance)
    check_limits(model, target, criterion)
    if tolerance == TOLERANCES["float32"]:
        check_with_images(model, plan, min(target, 0.4))
    assert_equal(before, outputs(model, images), 0.0)


def relative_error(found, wanted):
    return sum(float(np.square(a - b).mean() / (b.var() + 1e-12)) for a, b in zip(found, wanted, strict=True))


def check_with_images(model, plan, target):
    """The repair does not make outputs worse on images that it did not see, and the default criterion with images
    leaves them finite and alive.
    """
    images, others = random_images(model, 128), random_images(model, 128, seed=2)
    wanted = outputs(model, others)
    if not all(np.isfinite(y).all() and (y.std(axis=0) > 1e-4 * np.abs(y).max()).all() for y in wanted):
        return  # a network that says nothing, or runs over
    data = keras.tree.map_structure(np.asarray, images)
    plain, repaired = (outputs(kprune.apply_plan(model, plan, data=d), others) for d in (None, data))
    errors = [relative_error(found, wanted) for found in (plain, repaired)]
    assert errors[1] <= 1.2 * errors[0] + 1e-3, f"the repair makes it worse: {errors}"
    try:
        small = outputs(kprune.prune_model(model, target, data=data), others)
    except kprune.TargetError:
        return
    for found, before in zip(small, wanted, strict=True):
        assert np.isfinite(found).all()
        assert found.std(axis=0).max() > 1e-3 * before.std(axis=0).max(), "the outputs are constant"


def check_limits(model, target, criterion):
    """Widths are multiples of what was asked for, and the target is met, or the search space says that it cannot be."""
    limits = kprune.Limits(round_to=1 + int(7 * target) % 4, max_rate=0.9)
    reachable = kprune.search_space(model, limits).reachable_flops
    for share in {min(target, reachable), reachable} - {0.0}:
        plan = kprune.plan_pruning(model, share, criterion=criterion, limits=limits)
        assert plan.flops[1] <= (1 - share) * plan.flops[0] * (1 + 1e-9)
        widths = [(len(entry.keep), entry.filters) for entry in plan.layers]
        assert all(kept == all_ or (kept % limits.round_to == 0 and kept >= 0.1 * all_) for kept, all_ in widths)


def check_twice(small, images, target, tolerance):
    """A pruned model can be pruned again, or says how far."""
    try:
        plan = kprune.plan_pruning(small, target / 2, criterion="l1")
    except kprune.TargetError:
        return
    hard, soft = kprune.apply_plan(small, plan), kprune.apply_plan(small, plan, mode="soft")
    assert_equal(outputs(hard, images), outputs(soft, images), tolerance)
    assert count_flops(hard) == plan.flops[1] <= (1 - target / 2) * count_flops(small)


def check_random(data, remember=lambda model: None):
    """Draws a model and checks it; `remember` is shown the model first."""
    if next(EXAMPLES) % 20 == 0:
        keras.backend.clear_session()  # else names and graphs of all examples pile up
    target, name = data.draw(st.floats(0.05, 0.9)), data.draw(st.sampled_from(sorted(CRITERIA)))
    policy = data.draw(st.sampled_from(POLICIES))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = random_model(data.draw)
        remember(model)
        check(model, target, CRITERIA[name], TOLERANCES[policy])
    finally:
        keras.config.set_dtype_policy(before)
