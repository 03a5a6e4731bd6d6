"""Criteria that look at data, each against a slow transcription of its formula."""

import itertools
import math

import keras
import numpy as np
import pytest
from random_models import randomize

import kprune
from kprune.cost import CostModel
from kprune.criteria.statistics import collect as statistics_module
from kprune.criteria.statistics.probe_points import observe
from kprune.criteria.trace_ratio import best_ratio, scatters
from kprune.graph import trace
from kprune.selection import ChannelCount, bind, select_by_score
from kprune.utils import progress

layers, criteria = keras.layers, kprune.criteria
to_numpy = keras.ops.convert_to_numpy
SEEN = {"a": "a_relu", "b": "b", "hidden": "hidden"}  # the layer after whose activation each writer is looked at


def build():
    inputs = keras.Input((6, 6, 2))
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(5, 3, padding="same", name="a")(inputs))
    x = layers.MaxPooling2D(2)(layers.ReLU(name="a_relu")(x))
    x = layers.Flatten()(layers.Conv2D(4, 2, activation="relu", name="b")(x))
    x = layers.Dense(6, activation="relu", name="hidden")(x)
    return randomize(keras.Model(inputs, layers.Dense(3, activation="softmax", name="logits")(x)), seed=2)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(10, 6, 6, 2)).astype("float32"), np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 0])


def maps_of(model, images):
    """Maps after the activations, as `[n, places, channels]`, per writer."""
    outputs = keras.Model(model.input, [model.get_layer(name).output for name in SEEN.values()])(images)
    return {
        name: to_numpy(y).astype(float).reshape(len(images), -1, y.shape[-1])
        for name, y in zip(SEEN, outputs, strict=True)
    }


def slow_zeros(model, images, labels):
    """Hu 2016: the share of zeros over examples and places; the score is what is not zero."""
    return {
        name: [1 - sum(v == 0 for row in z[..., c] for v in row) / (z.shape[0] * z.shape[1]) for c in range(z.shape[2])]
        for name, z in maps_of(model, images).items()
    }


def slow_ranks(model, images, labels):
    """Lin 2020: the mean over images of the rank of the map, one map after the other."""
    sizes = {"a": 6, "b": 2, "hidden": 1}

    def rank(matrix):
        values = np.linalg.svd(matrix)[1]
        return sum(value > values.max() * len(matrix) * np.finfo("float32").eps for value in values)

    return {
        name: [np.mean([rank(one[:, c].reshape(sizes[name], -1)) for one in z]) for c in range(z.shape[2])]
        for name, z in maps_of(model, images).items()
    }


def gradient(function, x):
    """By the framework's own means."""
    if keras.backend.backend() == "jax":
        return pytest.importorskip("jax").grad(function)(x)
    if keras.backend.backend() == "torch":
        x = x.detach().requires_grad_(True)
        function(x).backward()
        return x.grad
    with pytest.importorskip("tensorflow").GradientTape() as tape:
        tape.watch(x)
        loss = function(x)
    return tape.gradient(loss, x)


def slow_taylor(model, images, labels):
    """Molchanov 2016: gradients of the rest of the network, one example after the other."""
    found = {}
    for name, seen in SEEN.items():
        at = [layer.name for layer in model.layers].index(seen)
        head, tail = keras.Model(model.input, model.layers[at].output), model.layers[at + 1 :]
        scores = []
        for image, label in zip(images, labels, strict=True):

            def loss(x, label=int(label), tail=tail):
                for layer in tail:
                    x = layer(x)
                return -keras.ops.log(x[0, label])

            z = head(image[None])
            product = (to_numpy(gradient(loss, z)) * to_numpy(z)).reshape(-1, z.shape[-1])
            scores.append([abs(sum(product[:, c]) / len(product)) for c in range(z.shape[-1])])
        found[name] = np.mean(scores, axis=0)
    return found


def slow_scatter(model, images, labels):
    """Hu 2021: traces over classes; the best half of the channels by trying every subset."""
    found = {}
    for name, z in maps_of(model, images).items():
        features, channels = z.mean(axis=1), z.shape[2]
        between, within = np.zeros(channels), np.zeros(channels)
        for c in set(labels.tolist()):
            own = [f for f, k in zip(features, labels, strict=True) if k == c]
            mean = sum(own) / len(own)
            between += len(own) * (mean - features.mean(axis=0)) ** 2 / len(features)
            for f in own:
                within += (f - mean) ** 2 / len(features)
        subsets = itertools.combinations(range(channels), max(1, round(channels / 2)))
        ratio = max(sum(between[list(s)]) / sum(within[list(s)]) for s in subsets)
        found[name] = between - ratio * within
    return found


def by_mean(scores):
    return np.abs(scores).mean()


CASES = {
    "apoz": (slow_zeros, by_mean),
    "activation_density": (slow_zeros, lambda scores: 1.0),
    "hrank": (slow_ranks, by_mean),
    "taylor": (slow_taylor, lambda scores: np.sqrt(np.sum(scores**2))),
    "trace_ratio": (slow_scatter, by_mean),
}


@pytest.mark.parametrize("name", CASES)
def test_scores_equal_the_slow_transcription(name, model, data):
    slow, scale = CASES[name]
    graph, criterion = trace(model), criteria.get_criterion(name)
    batches = [(data[0][:7], data[1][:7]), (data[0][7:], data[1][7:])]
    found = criteria.collect(graph, batches, criterion.needs, verbose=0)
    scores = criterion.scores(graph, np.ones(len(graph.sets), dtype=bool), found)
    expected = {key: np.asarray(value) for key, value in slow(model, *data).items()}
    for weight in graph.writers:
        if weight.path in expected:
            own = expected[weight.path]
            np.testing.assert_allclose(scores[weight.axes[-1]], own / scale(own), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("loss", ["mse", None])
def test_taylor_takes_the_compiled_loss_or_one_given(loss, data):
    """Mean squared error against one-hot labels, by hand: the gradient is twice the difference."""
    model, targets = build(), np.eye(3)[data[1]].astype("float32")
    if loss is None:
        model.compile("sgd", keras.losses.MeanSquaredError())
    criterion = criteria.Taylor(loss)
    graph = trace(model)
    found = criteria.collect(graph, (data[0], targets), criterion.needs, verbose=0)
    weight = next(w for w in graph.writers if w.path == "hidden")
    sums = found.of(criterion.needs[0], weight)
    kernel = to_numpy(model.get_layer("logits").kernel)
    z, p = maps_of(model, data[0])["hidden"][:, 0], to_numpy(model(data[0]))
    back = 2 / 3 * (p - targets)
    back = p * (back - (p * back).sum(axis=1, keepdims=True))  # through the softmax
    np.testing.assert_allclose(sums["sum"], np.abs(z * (back @ kernel.T)).sum(axis=0), rtol=1e-3, atol=1e-6)
    assert sums["count"] == 10


@pytest.mark.parametrize("size", [1, 3, 6])
def test_the_trace_ratio_is_the_best_of_all_subsets(size):
    between, within = np.random.default_rng(size).uniform(0.1, 1, (2, 8))
    subsets = [list(s) for s in itertools.combinations(range(8), size)]
    assert best_ratio(between, within, size) == pytest.approx(max(between[s].sum() / within[s].sum() for s in subsets))


def test_all_measures_come_from_one_pass_in_parts_of_bounded_size(model, data, monkeypatch):
    asking = [criteria.get_criterion(name) for name in (*CASES, "relevance")]
    needs = [measure for criterion in asking for measure in criterion.needs]
    graph = trace(model)
    whole = criteria.collect(graph, iter([data]), needs, verbose=0)  # an iterator: it can be read only once
    assert whole.examples == 10 and len(whole.sums) == len(set(needs)) == 5
    parts, seen = statistics_module.parts_of, []
    monkeypatch.setattr(statistics_module, "BATCH_BYTES", 4000)
    monkeypatch.setattr(statistics_module, "parts_of", lambda b, n: (seen.append(n), parts(b, n))[1])
    apart = criteria.collect(graph, data, needs, verbose=0)
    assert seen[0] < 5
    for measure in needs:
        for weight in graph.writers[:3]:
            one, other = whole.of(measure, weight), apart.of(measure, weight)
            for key in one:
                np.testing.assert_allclose(one[key], other[key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("activation", "even"), [("sigmoid", 0.5), (None, 0.0)])
def test_a_single_output_unit_names_two_classes(activation, even, data):
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3, activation="relu")(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(1, activation=activation)(x)), seed=3)
    model.layers[-1].bias.assign(-to_numpy(model(data[0])).mean(axis=0) if activation is None else [-1.0])
    labels = data[1] % 2
    need = criteria.FeatureRelevance().needs[0]
    sums = criteria.collect(trace(model), (data[0], labels), [need], verbose=0).of(need, trace(model).writers[0])
    right = (to_numpy(model(data[0]))[:, 0] > even) == labels
    assert sums["correct"].tolist() == [right[labels == 0].sum(), right[labels == 1].sum()]
    assert (sums["relevance"].sum(axis=1) != 0).all()


def test_hrank_stops_when_it_has_seen_enough(model, data):
    criterion = criteria.HRank(images=6)
    read = []
    batches = ((read.append(i), data[0][i : i + 4])[1] for i in (0, 4, 8))
    found = criteria.collect(trace(model), batches, criterion.needs, verbose=0)
    assert read == [0, 4]
    assert found.of(criterion.needs[0], trace(model).writers[0])["count"] == 6


def test_hrank_looks_at_evenly_spaced_images_of_arrays(model, data):
    """Arrays may be sorted by class."""
    criterion, graph = criteria.HRank(images=3), trace(model)
    images = data[0][np.linspace(0, len(data[0]) - 1, 3).astype(int)]
    found, expected = (
        criteria.collect(graph, given, criterion.needs, verbose=0).of(criterion.needs[0], graph.writers[0])
        for given in (data, images)
    )
    assert found["count"] == expected["count"] == 3
    np.testing.assert_array_equal(found["sum"], expected["sum"])


OF_WEIGHTS = ["l1", "l2", "geometric_median", "random", "batchnorm_scale", "channel_active_probability"]


@pytest.mark.parametrize("name", [*CASES, "relevance", *OF_WEIGHTS])
@pytest.mark.parametrize("ranking", ["layer", "global"])
def test_every_criterion_ranks_by_layer_and_over_the_network(name, ranking, model, data):
    """By layer each loses its lowest, all the same share to one filter; over the network the lowest of all go."""
    criterion, graph = type(criteria.get_criterion(name))(ranking=ranking), trace(model)
    informed = criteria.inform(criterion, data, verbose=0)
    keep = select_by_score(graph, informed, ChannelCount(6, CostModel(graph)), bind(None, graph))
    scores = informed.scores(graph, np.ones(len(graph.sets), dtype=bool))
    layers_of = [weight.axes[weight.writes] for weight in graph.writers[:-1]]
    assert (~keep).sum() == 6 and sum(len(sets) for sets in layers_of) == 15
    for sets in layers_of if ranking == "layer" else [np.concatenate(layers_of)]:
        gone = ~keep[sets]
        assert abs(gone.sum() - 0.4 * len(sets)) <= 1
        np.testing.assert_array_equal(np.sort(scores[sets][gone]), np.sort(scores[sets])[: gone.sum()])


def test_the_subset_of_the_trace_ratio_is_of_the_channels_that_are_kept(model, data):
    """A masked channel has no scatter, and takes no place in the subset."""
    criterion, graph = criteria.TraceRatio(), trace(model)
    found = criteria.collect(graph, data, criterion.needs, verbose=0)
    weight = graph.writers[0]
    own = weight.axes[weight.writes]
    keep = np.ones(len(graph.sets), dtype=bool)
    keep[own[:3]] = False
    between, within = (scatter[3:] for scatter in scatters(found.of(criterion.needs[0], weight)))
    ratio = max(b / w for b, w in zip(between, within, strict=True))  # half of two channels is one
    expected = between - ratio * within
    scores = criterion.scores(graph, keep, found)[own[3:]]
    np.testing.assert_allclose(scores, expected / np.abs(expected).mean(), rtol=1e-6, atol=1e-9)


def dense_block(x):
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = layers.Activation("relu", name="first")(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.Conv2D(3, 3, padding="same", name="grown")(y), x])
    return layers.Conv2D(3, 3, name="last")(layers.ReLU(name="second")(layers.BatchNormalization()(x)))


def test_channels_are_seen_after_the_next_activation_wherever_they_lie_in_it():
    inputs = keras.Input((5, 5, 2))
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(dense_block(inputs)))
    graph = trace(model)
    at = {place: call.path for call in graph.calls for place in call.outputs}
    views = {key[0]: view[0] for key, view in observe(graph).items()}
    assert (at[views["stem"].place], views["stem"].index) == ("first", None)
    assert at[views["grown"].place] == "second"
    assert len(views["grown"].index) == 3 and views["grown"].index.tolist() == [0, 1, 2]


def test_a_channels_first_map_is_turned():
    inputs = keras.Input((2, 5, 5))
    conv = layers.Conv2D(3, 3, data_format="channels_first", name="c")
    model = keras.Model(
        inputs, layers.Dense(2)(layers.GlobalMaxPooling2D("channels_first")(layers.ReLU()(conv(inputs))))
    )
    assert [view.axis for views in observe(trace(model)).values() for view in views] == [1]


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("relevance", None, "looks at data"),
        ("apoz", None, "looks at data"),
        ("taylor", lambda x, y: x, "no labels"),
        ("relevance", lambda x, y: (x, y + 1), "values such as"),
        ("trace_ratio", lambda x, y: (x, np.zeros((10, 2))), "labels of shape"),
        ("apoz", lambda x, y: x[:, :4], "examples of shape"),
        ("hrank", lambda x, y: x * np.nan, "NaN"),
        ("taylor", lambda x, y: (x * np.nan, y), "NaN"),
    ],
)
def test_bad_data_are_refused(name, given, message, model, data):
    with pytest.raises(kprune.OptionError, match=f"({message}).*Expected"):
        kprune.plan_pruning(model, 0.4, criterion=name, data=given and given(*data))


def test_data_that_can_be_read_once_are_refused_where_the_repair_reads_them_too(model, data):
    with pytest.raises(kprune.OptionError, match="read only once"):
        kprune.prune_model(model, 0.4, criterion="apoz", data=iter([data]))
    small = kprune.prune_model(model, 0.4, criterion="apoz", data=iter([data]), repair=False)
    assert small.count_params() < model.count_params()


def test_a_progress_bar_appears_only_for_what_takes_long(model, data, monkeypatch, capsys):
    needs = criteria.APoZ.needs
    criteria.collect(trace(model), data, needs)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    criteria.collect(trace(model), data, needs, verbose=0)
    assert capsys.readouterr().out == ""
    criteria.collect(trace(model), data, needs)
    assert "10/10" in capsys.readouterr().out


def test_a_users_criterion_that_needs_nothing_goes_on_working(model):
    class Last(kprune.Criterion):
        def scores(self, graph, keep):
            return -np.arange(len(graph.sets), dtype=float)

    plan = kprune.plan_pruning(model, 0.3, criterion=Last("global"), data=None)
    assert plan.flops[1] < plan.flops[0]


def two_norms():
    """A conv with BatchNorm, one without, and two that meet in an addition before a common BatchNorm."""
    inputs = keras.Input((5, 5, 2))
    x = layers.ReLU()(layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="with")(inputs)))
    x = layers.Conv2D(6, 1, activation="relu", name="without")(x)
    x = layers.Add()([layers.Conv2D(3, 1, name="left")(x), layers.Conv2D(3, 1, name="right")(x)])
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="common")(x))
    return randomize(keras.Model(inputs, layers.Dense(2)(x)), seed=5)


@pytest.mark.parametrize("name", ["batchnorm_scale", "channel_active_probability"])
def test_batchnorm_criteria_equal_the_slow_transcription(name):
    model = two_norms()
    gamma, beta, *rest = model.get_layer("bn").get_weights()
    gamma[0] = beta[0] = 0.0
    model.get_layer("bn").set_weights([gamma, beta, *rest])

    def slow(gamma, beta):
        if name == "batchnorm_scale":
            return abs(gamma)
        return 0.5 * (1 + math.erf(beta / (math.sqrt(2) * abs(gamma)))) if gamma else 0.0

    expected = {}
    for bn, writers in (("bn", ["with"]), ("common", ["left", "right"])):
        gammas, betas = model.get_layer(bn).get_weights()[:2]
        expected.update({w: [slow(g, b) for g, b in zip(gammas, betas, strict=True)] for w in writers})
    usual = np.mean(expected["with"] + expected["left"])
    norms = [np.abs(f).sum() for f in np.moveaxis(to_numpy(model.get_layer("without").kernel), -1, 0)]
    expected["without"] = [usual * n / np.mean(norms) for n in norms]
    graph = trace(model)
    scores = criteria.get_criterion(name).scores(graph, np.ones(len(graph.sets), dtype=bool))
    for weight in graph.writers:
        if weight.path in expected:
            np.testing.assert_allclose(scores[weight.axes[-1]], expected[weight.path], rtol=1e-5)


@pytest.mark.parametrize("labels", [lambda y: y, lambda y: y[:, None], lambda y: y.astype("float32")])
def test_taylor_takes_labels_as_fit_does(data, labels):
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, activation="relu", name="a")(inputs))
    model = randomize(keras.Model(inputs, layers.Dense(1, activation="sigmoid", name="logits")(x)))
    y = data[1] % 2
    plain = kprune.plan_pruning(model, 0.4, criterion="taylor", data=(data[0], y))
    model.compile("sgd", "binary_crossentropy")
    model.fit(data[0], labels(y), verbose=0, epochs=0)
    plan = kprune.plan_pruning(model, 0.4, criterion="taylor", data=(data[0], labels(y)))
    assert [entry.keep for entry in plan.layers] == [entry.keep for entry in plain.layers]


def test_taylor_weighs_losses_as_the_model_is_compiled(data):
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", name="a")(inputs))
    model = randomize(keras.Model(inputs, [layers.Dense(2, name="one")(x), layers.Dense(2, name="two")(x)]))
    targets = [np.ones((10, 2), "float32"), -np.ones((10, 2), "float32")]
    keep = {}
    for weights in (None, [1.0, 0.0], [0.0, 1.0], {"one": 0.0, "two": 1.0}):
        model.compile("sgd", ["mse", "mse"], loss_weights=weights)
        plan = kprune.plan_pruning(model, 0.5, criterion="taylor", data=(data[0], targets))
        keep[str(weights)] = plan.layers[0].keep
    single = keras.Model(inputs, model.outputs[1])
    single.compile("sgd", "mse")
    alone = kprune.plan_pruning(single, 0.5, criterion="taylor", data=(data[0], targets[1])).layers[0].keep
    assert keep["[0.0, 1.0]"] == keep["{'one': 0.0, 'two': 1.0}"] == alone
    assert len(set(keep.values())) > 1


def test_a_batchnorm_without_a_scale_has_a_scale_of_one():
    inputs = keras.Input((6, 6, 2))
    norm = layers.BatchNormalization(scale=False, name="norm")
    x = layers.GlobalAveragePooling2D()(norm(layers.Conv2D(6, 3, name="a")(inputs)))
    model = randomize(keras.Model(inputs, layers.Dense(2, name="logits")(x)))
    beta = np.array([-3.0, 3, -2, 2, -1, 1])
    norm.set_weights([beta, *norm.get_weights()[1:]])
    scores = criteria.ChannelActiveProbability().scores(graph := trace(model), np.ones(len(graph.sets), dtype=bool))
    writer = graph.writers[0]
    wanted = [0.5 * (1 + math.erf(b / math.sqrt(2))) for b in beta]
    np.testing.assert_allclose(scores[writer.axes[writer.writes]], wanted, atol=1e-6)


@pytest.mark.parametrize("name", ["batchnorm_scale", "channel_active_probability"])
def test_batchnorm_criteria_want_a_batchnorm(name):
    inputs = keras.Input((6, 6, 2))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, name="a")(inputs))
    with pytest.raises(kprune.ModelError, match="has no BatchNorm"):
        kprune.plan_pruning(keras.Model(inputs, layers.Dense(2)(x)), 0.4, criterion=name)


def compared():
    """A network in which only a comparison listens to some channels: no gradient comes back to them."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="seen")(inputs)
    hidden = layers.Conv2D(6, 1, activation="relu", name="hidden")(x)
    mask = keras.ops.greater(layers.Conv2D(1, 1, name="gate")(hidden), 0.1)
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(keras.ops.where(mask, x, 0.5 * x))
    return randomize(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))


@pytest.mark.parametrize("criterion", ["taylor", "relevance"])
def test_not_to_know_is_no_reason_to_remove(criterion, caplog):
    model, rng = compared(), np.random.default_rng(0)
    data = rng.normal(size=(32, 8, 8, 3)).astype("float32"), rng.integers(0, 3, 32)
    with caplog.at_level("WARNING", "kprune"):
        plan = kprune.plan_pruning(model, 0.3, criterion=criterion, data=data)
    kept = {entry.path: len(entry.keep) / entry.filters for entry in plan.layers}
    silent = plan.criterion.get("unjudged", [])
    assert kept["hidden"] > 0.3
    if criterion == "taylor":
        assert "hidden" in silent and "seen" not in silent
        assert "says nothing of hidden" in caplog.text and "says nothing of hidden" in plan.summary()
