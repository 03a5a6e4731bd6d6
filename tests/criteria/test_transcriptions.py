"""Criteria of weights alone, and soft filter pruning, against slow transcriptions of method section 3."""

import math

import keras
import numpy as np
import pytest
from independent_cost import count_flops
from random_models import randomize

import kprune
from kprune.graph import trace
from kprune.graph.dead_channels import masked_sets
from kprune.selection import ChannelCount, bind, select_by_score

layers = keras.layers


def slow_l1(filters, j):
    """Li 2016."""
    return sum(abs(w) for w in filters[j])


def slow_l2(filters, j):
    """He 2018."""
    return math.sqrt(sum(w * w for w in filters[j]))


def slow_geometric_median(filters, j):
    """He 2019, Eq. 4: the filter nearest to the geometric median has the smallest sum of distances to the others."""
    return sum(
        math.sqrt(sum((v - w) ** 2 for v, w in zip(filters[j], other, strict=True)))
        for k, other in filters.items()
        if k != j
    )


SLOW = {"l1": slow_l1, "l2": slow_l2, "geometric_median": slow_geometric_median}
every_criterion = pytest.mark.parametrize("name", SLOW)


def conv(x, filters, name, **options):
    return layers.Conv2D(filters, 3, padding="same", name=name, **options)(x)


def smooth(x):
    """Not ReLU, which lets no gradient through to a filter and a bias that are zero."""
    return layers.Activation("softplus")(x)


class Structure:
    """A network, and what its additions and groups tie, stated by hand.

    Subclasses name in `reads` each conv that makes channels and the one that it reads (None: the image).
    """

    width, fewer = 8, 6

    def label(self, layer, channel):
        """Stands for the channels that can only go together."""
        return layer, channel

    def build(self, width):
        inputs = keras.Input((6, 6, 3))
        x = layers.GlobalAveragePooling2D()(self.body(inputs, width))
        return randomize(keras.Model(inputs, layers.Dense(3, activation="softmax", name="classes")(x)), seed=4)

    def target(self):
        """The share of the FLOPs that goes when every layer falls from `width` to `fewer` channels."""
        before, after = (count_flops(self.build(width)) for width in (self.width, self.fewer))
        return 1 - after / before


class OneConv(Structure):
    reads = {"only": None}

    def body(self, x, width):
        return smooth(conv(x, width, "only"))


class Chain(Structure):
    reads = {"first": None, "second": "first"}

    def __init__(self, activation=smooth):
        self.activation = activation

    def body(self, x, width):
        return self.activation(conv(self.activation(conv(x, width, "first")), width, "second"))


class Residual(Structure):
    """Three convs write the stream."""

    reads = {"stem": None, "middle1": "stem", "end1": "middle1", "middle2": "stem", "end2": "middle2"}

    def label(self, layer, channel):
        return "stream" if layer in ("stem", "end1", "end2") else layer, channel

    def body(self, x, width):
        x = conv(x, width, "stem")
        for block in "12":
            y = conv(smooth(layers.BatchNormalization()(x)), width, f"middle{block}")
            x = layers.Add()([x, conv(smooth(y), width, f"end{block}")])
        return x


class Grouped(Structure):
    """Four groups of three: the same position of every group goes together, in the conv and in what it reads."""

    width, fewer = 12, 8
    reads = {"before": None, "grouped": "before", "after": "grouped"}

    def label(self, layer, channel):
        return layer, channel if layer == "after" else channel % (self.width // 4)

    def body(self, x, width):
        return conv(smooth(conv(conv(x, width, "before"), width, "grouped", groups=4)), width, "after")


class Depthwise(Structure):
    """The depthwise conv makes no channels of its own: they are those of the conv before it."""

    reads = {"stem": None, "expand": "stem", "project": "expand"}

    def label(self, layer, channel):
        return "expand" if layer == "expand" else "stream", channel

    def body(self, x, width):
        x = conv(x, width, "stem")
        y = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(smooth(conv(x, width, "expand")))
        return layers.Add()([x, conv(smooth(y), width, "project")])


STRUCTURES = [OneConv(), Chain(), Residual(), Grouped(), Depthwise()]
every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: type(structure).__name__)


def slow_scores(structure, kernels, score, gone=()):
    """Per label the mean, over all filters that bear it, of their score over the mean score of their layer.

    Filters that are gone, and the input channels that are, are left out.
    """
    shares = {}
    for layer, source in structure.reads.items():
        height, width, depth, count = kernels[layer].shape
        inputs = [i for i in range(depth) if source is None or structure.label(source, i) not in gone]
        filters = {
            j: [float(kernels[layer][y, x, i, j]) for y in range(height) for x in range(width) for i in inputs]
            for j in range(count)
            if structure.label(layer, j) not in gone
        }
        own = {j: score(filters, j) for j in filters}
        mean = sum(own.values()) / len(own)
        for j in own:
            shares.setdefault(structure.label(layer, j), []).append(own[j] / mean)
    return {label: sum(values) / len(values) for label, values in shares.items()}


def slow_lowest(structure, scores):
    """The same share of each layer: what has the lowest scores, as many as `fewer` leaves out."""
    found = set()
    for family in {label[0] for label in scores}:
        labels = sorted((label for label in scores if label[0] == family), key=scores.get)
        found |= set(labels[: len(labels) * (structure.width - structure.fewer) // structure.width])
    return found


def kernels_of(model, structure):
    return {layer: np.array(keras.ops.convert_to_numpy(model.get_layer(layer).kernel)) for layer in structure.reads}


def removed(plan, structure):
    """What a plan removes, as labels; those tied together are gone in all their layers, or in none."""
    gone, kept = set(), set()
    for entry in plan.layers:
        if entry.path in structure.reads:
            for j in range(entry.filters):
                (kept if j in entry.keep else gone).add(structure.label(entry.path, j))
    assert not gone & kept
    return gone


def sets_of(graph, structure):
    """The channel set of each label: one each."""
    found = {}
    for weight in graph.writers:
        for j, channel_set in enumerate(weight.axes[-1]):
            if weight.path in structure.reads:
                assert found.setdefault(structure.label(weight.path, j), int(channel_set)) == channel_set
    assert len(set(found.values())) == len(found)
    return found


@every_criterion
@every_structure
def test_scores_are_the_slow_ones(structure, name):
    model = structure.build(structure.width)
    graph, kernels = trace(model), kernels_of(model, structure)
    sets = sets_of(graph, structure)
    labels = sorted(sets)
    for gone in (set(), set(labels[::3])):  # at first, and in a later round
        keep = np.ones(len(graph.sets), dtype=bool)
        keep[[sets[label] for label in gone]] = False
        scores = kprune.criteria.get_criterion(name).scores(graph, keep)
        slow = slow_scores(structure, kernels, SLOW[name], gone)
        left = [label for label in labels if label not in gone]
        expected = [slow[label] for label in left]
        np.testing.assert_allclose(scores[[sets[label] for label in left]], expected, rtol=1e-6)


@every_criterion
@every_structure
def test_the_lowest_of_each_layer_go(structure, name):
    model = structure.build(structure.width)
    plan = kprune.plan_pruning(model, structure.target(), criterion=name)
    scores = slow_scores(structure, kernels_of(model, structure), SLOW[name])
    assert removed(plan, structure) == slow_lowest(structure, scores)


@every_criterion
def test_the_lowest_of_all_layers_go_where_the_ranking_is_global(name):
    structure = Residual()
    model = structure.build(structure.width)
    criterion = kprune.criteria.get_criterion(name)
    criterion.ranking = "global"
    graph, scores = trace(model), slow_scores(structure, kernels_of(model, structure), SLOW[name])
    sets = sets_of(graph, structure)
    for count in (1, 5, 9):
        budget = ChannelCount(count, kprune.cost.CostModel(graph))
        keep = select_by_score(graph, criterion, budget, bind(None, graph))
        lowest = sorted(scores, key=scores.get)[:count]
        assert set(np.flatnonzero(~keep)) == {sets[label] for label in lowest}


class Watch(keras.callbacks.Callback):
    """The kernels at the beginning of each epoch, after the round that was due, and at its end."""

    def __init__(self, structure):
        super().__init__()
        self.structure, self.begin, self.end = structure, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.begin.append(kernels_of(self.model, self.structure))

    def on_epoch_end(self, epoch, logs=None):
        self.end.append(kernels_of(self.model, self.structure))


class Retrained(keras.callbacks.Callback):
    """Stands for a training: writes other weights at the end of an epoch."""

    def __init__(self, other, epoch):
        super().__init__()
        self.other, self.epoch = other, epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.set_weights(self.other.get_weights())


def soft_filter_pruning(structure, rate, epochs, *others, model=None):
    """Two rounds of He 2018; gives the model, the callback, and what was seen."""
    model, watch = model or structure.build(structure.width), Watch(structure)
    callback = kprune.GradualPruning("l2", structure.target(), regrow=True, until_epoch=2)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", run_eagerly=True)
    images = np.random.default_rng(1).normal(size=(12, 6, 6, 3)).astype("float32")
    model.fit(images, np.arange(12) % 3, epochs=epochs, verbose=0, callbacks=[callback, *others, watch])
    return model, callback, watch


def smallest(structure, kernels):
    """What Algorithm 1 of He 2018 zeroes: of each layer, the filters with the smallest L2 norm."""
    return slow_lowest(structure, slow_scores(structure, kernels, slow_l2))


def zeroed(structure, kernels):
    """The labels of filters that are zero; each in all its layers."""
    zero, other = set(), set()
    for layer, kernel in kernels.items():
        for j in range(kernel.shape[-1]):
            (other if kernel[..., j].any() else zero).add(structure.label(layer, j))
    assert not zero & other
    return zero


def without(structure, kernels, gone, read=False):
    """The kernels with the filters zeroed that are gone, and what reads them too, if `read`."""
    found = {layer: kernel.copy() for layer, kernel in kernels.items()}
    for layer, kernel in found.items():
        source = structure.reads[layer]
        for j in range(kernel.shape[-1]):
            if structure.label(layer, j) in gone:
                kernel[:, :, :, j] = 0
        for i in range(kernel.shape[-2] if read and source else 0):
            if structure.label(source, i) in gone:
                kernel[:, :, i, :] = 0
    return found


def assert_kernels(found, expected):
    for layer in expected:
        np.testing.assert_array_equal(found[layer], expected[layer], err_msg=layer)


@every_structure
def test_soft_filter_pruning_without_learning(structure):
    """Two epochs by hand: the smallest filters are zeroed after the first, nothing else is, and masked at the end."""
    model, callback, watch = soft_filter_pruning(structure, 0.0, 2)
    start = watch.begin[0]
    gone = smallest(structure, start)
    assert_kernels(watch.begin[1], without(structure, start, gone))
    assert_kernels(kernels_of(model, structure), without(structure, start, gone, read=True))
    assert removed(callback.plan, structure) == gone
    assert set(np.flatnonzero(masked_sets(trace(model)))) == {sets_of(trace(model), structure)[g] for g in gone}


@every_structure
def test_soft_filter_pruning_chooses_anew_among_all_filters(structure):
    other = randomize(structure.build(structure.width), seed=9)
    model, callback, watch = soft_filter_pruning(structure, 0.0, 2, Retrained(other, 1))
    first, second = (smallest(structure, kernels) for kernels in (watch.begin[0], kernels_of(other, structure)))
    assert zeroed(structure, watch.begin[1]) == first != second
    assert zeroed(structure, kernels_of(model, structure)) == removed(callback.plan, structure) == second


@every_structure
def test_soft_filter_pruning_lets_filters_grow_back_until_the_last_round(structure):
    model, callback, watch = soft_filter_pruning(structure, 0.1, 3)
    for epoch in (1, 2):
        assert zeroed(structure, watch.begin[epoch]) == smallest(structure, watch.end[epoch - 1])
    assert not zeroed(structure, watch.end[0]) and not zeroed(structure, watch.end[1])
    assert zeroed(structure, watch.end[2]) == zeroed(structure, watch.begin[2]) == removed(callback.plan, structure)


def test_soft_filter_pruning_lets_filters_with_a_bias_grow_back_through_relu():
    """He 2018 zeroes the filter: where its bias is above zero, ReLU lets gradients through."""
    structure = Chain(layers.ReLU())
    model = structure.build(structure.width)
    for layer in structure.reads:
        model.get_layer(layer).bias.assign(np.full(structure.width, 1.0))
    watch = soft_filter_pruning(structure, 0.1, 3, model=model)[2]
    assert zeroed(structure, watch.begin[1]) and not zeroed(structure, watch.end[1])
