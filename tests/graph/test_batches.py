"""Whatever holds the images, the same batches come out."""

import keras
import numpy as np
import pytest

import kprune
from kprune.graph import trace
from kprune.graph.batches import batches_of, check_inputs, take
from kprune.graph.interpreter import execute

X = np.arange(10 * 4 * 4 * 3, dtype="float32").reshape(10, 4, 4, 3)
Y = np.arange(10)


class Parts(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(4 * index, 4 * index + 4)
        return X[part], Y[part]


class Lists(Parts):
    """Gives (x, y) as lists, which `fit` takes as well."""

    def __getitem__(self, index):
        return list(super().__getitem__(index))


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def torch_loader():
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=4)


SOURCES = {
    "arrays": lambda: (X, Y),
    "arrays with weights": lambda: (X, Y, np.ones(10)),
    "list of batches": lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])],
    "lists of a PyDataset": Lists,
    "generator": lambda: (batch for batch in [(X[:4], Y[:4]), (X[4:], Y[4:])]),
    "tf.data": tf_dataset,
    "PyDataset": Parts,
    "torch": torch_loader,
}


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_gives_all_images_with_their_labels(source):
    batches = list(batches_of(SOURCES[source](), 4, labels=True))
    np.testing.assert_array_equal(np.concatenate([b.inputs[0] for b in batches]), X)
    np.testing.assert_array_equal(np.concatenate([b.targets[0] for b in batches]), Y)


def test_several_inputs_stay_apart():
    (batch,) = batches_of([X, 2 * X])
    np.testing.assert_array_equal(batch.inputs[1], 2 * batch.inputs[0])
    assert batch.targets == ()


@pytest.mark.parametrize("source", ["generator", "tf.data", "list of batches"])
def test_take_reads_the_first_of_a_stream(source):
    (images,) = take(SOURCES[source](), 5)
    np.testing.assert_array_equal(images, X[:5])


def test_take_spreads_over_arrays_for_they_may_be_sorted_by_class():
    np.testing.assert_array_equal(take((X, Y), 4)[0], X[[0, 3, 6, 9]])
    np.testing.assert_array_equal(take(X, 100)[0], X)


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (X[:0], False, "data is empty"),
        ([], False, "data is empty"),
        (X, True, "no labels"),
        ((X, Y[:3]), False, "examples"),
        (3, False, "data is a int"),
    ],
)
def test_bad_data_is_refused(data, labels, message):
    with pytest.raises(kprune.OptionError, match=message):
        list(batches_of(data, labels=labels))


def nested_model():
    inner_in = keras.Input((4, 4, 5))
    inner = keras.Model(inner_in, keras.layers.Conv2D(3, 3, name="inside")(inner_in), name="inner")
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(5, 3, padding="same", name="first")(inputs)
    return keras.Model(inputs, keras.layers.ReLU(name="last")(inner(x) + 1.0))


def test_an_axis_of_one_is_added_or_left_out_as_fit_does():
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()])
    graph, images = trace(model), np.arange(160.0, dtype="float32").reshape(10, 4, 4)
    for data in (images, images[..., None]):
        np.testing.assert_array_equal(take(data, 10, graph)[0], images[..., None])
    flat = keras.Sequential([keras.Input((4, 4)), keras.layers.Dense(2)])
    np.testing.assert_array_equal(take(images[..., None], 10, trace(flat))[0], images)


def test_images_of_several_sizes_cannot_be_put_together():
    batches = [(np.zeros((4, 8, 8, 3)), np.zeros(4)), (np.zeros((4, 12, 12, 3)), np.zeros(4))]
    with pytest.raises(kprune.OptionError, match=r"several sizes.*\(8, 8, 3\).*Expected: One size"):
        take(batches, 8)


def test_images_of_another_shape_are_refused():
    with pytest.raises(kprune.OptionError, match=r"\(4, 4, 3\)"):
        check_inputs(trace(nested_model()), (X[:, :3],))


class Subclassed(keras.Model):
    """A model whose graph is found by calling it on symbols."""

    def __init__(self):
        super().__init__(name="subclassed")
        self.one = keras.layers.Conv2D(6, 3, activation="relu", name="one")
        self.two = keras.layers.Conv2D(4, 2, name="two")

    def call(self, x):
        return self.two(self.one(x))


USES_OF_DATA = {
    "repair": lambda model, data: kprune.prune_model(model, 0.3, data=data),
    "a criterion": lambda model, data: kprune.prune_model(model, 0.3, criterion="apoz", data=data),
    "recalibration": kprune.recalibrate_batchnorm,
}


@pytest.mark.parametrize("use", USES_OF_DATA)
def test_a_subclassed_model_takes_data_and_refuses_another_shape(use):
    model = Subclassed()
    model(X)
    small = USES_OF_DATA[use](model, X)
    assert (kprune.model_cost(small).flops < kprune.model_cost(model).flops) == (use != "recalibration")
    with pytest.raises(kprune.OptionError, match=r"What 'subclassed' takes: \[\(4, 4, 3\)\]"):
        USES_OF_DATA[use](model, X[..., :2])


def test_execute_computes_what_the_model_does_and_shows_every_call():
    model, seen = nested_model(), []
    graph = trace(model)

    def apply(call, operation, args, kwargs):
        seen.append(call.path)
        return operation(*args, **kwargs)

    result = execute(graph, (X,), apply)
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (result, model(X))), rtol=1e-6)
    assert seen == [call.path for call in graph.calls]
    assert "inner/inside" in seen


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "generator"])
def test_a_network_is_pruned_and_repaired_with_every_source(source):
    small = kprune.prune_model(nested_model(), target_flops=0.2, data=SOURCES[source]())
    assert kprune.model_cost(small).flops <= 0.8 * kprune.model_cost(nested_model()).flops


class Endless(keras.utils.PyDataset):
    num_batches = None

    def __getitem__(self, index):
        return X[:4], Y[:4]


def endless_tf_dataset():
    return tf_dataset().repeat()


@pytest.mark.parametrize("source", [Endless, endless_tf_dataset])
def test_of_data_without_end_the_first_images_are_taken(source):
    assert len(take(source(), 10)[0]) == 10


@pytest.mark.parametrize("source", [Endless, endless_tf_dataset])
@pytest.mark.parametrize("criterion", ["relevance", "taylor", "apoz", "activation_density"])
def test_data_without_end_are_refused_where_all_images_count(criterion, source):
    model = nested_model()
    with pytest.raises(kprune.OptionError, match="never ends"):
        kprune.plan_pruning(model, 0.2, criterion=criterion, data=source())
    with pytest.raises(kprune.OptionError, match="never ends"):
        kprune.recalibrate_batchnorm(model, source())


class OnDisk(np.memmap):
    """An array on disk that counts the images that are read."""

    read = 0

    def __getitem__(self, index):
        part = super().__getitem__(index)
        OnDisk.read += len(part)
        return np.array(part)


def test_only_the_images_that_are_wanted_are_read(tmp_path):
    on_disk = OnDisk(tmp_path / "images", "float32", "w+", shape=(500, 4, 4, 3))
    labels = np.arange(500)
    OnDisk.read = 0
    (images,) = take((on_disk, labels), 6)
    assert images.shape == (6, 4, 4, 3) and OnDisk.read <= 12
    assert take((on_disk, None), 6)[0].shape == images.shape
    with pytest.raises(kprune.OptionError, match="As many in each"):
        take((on_disk, labels[:-1]), 6)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="only PyTorch keeps what gradients need unless told not to"
)
def test_a_run_over_data_keeps_nothing_for_gradients():
    seen = []

    def apply(call, operation, args, kwargs):
        seen.append(operation(*args, **kwargs))
        return seen[-1]

    execute(trace(nested_model()), (X,), apply)
    assert not any(y.requires_grad for y in seen)


def two_inputs(names, outputs=lambda a, b: [a, b]):
    """A model that tells its inputs apart; `outputs` says in what its outputs are held."""
    one, other = (keras.Input((4, 4, 3), name=name) for name in names)
    first = keras.layers.Conv2D(6, 3, name="first")(one)
    second = keras.layers.Conv2D(6, 3, name="second")(other)
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in (first, second)]
    z, a = (keras.layers.Dense(2, name=name)(x) for name, x in zip("za", pooled, strict=True))
    return keras.Model([one, other], outputs(z, a))


@pytest.mark.parametrize("names", [("left", "right"), ("right", "left")])
def test_a_dict_is_read_by_the_names_of_the_inputs(names):
    model = two_inputs(names)
    given = {"left": X, "right": 2 * X, "unused": Y}
    expected = [given[name] for name in names]
    for data in (given, (given, None), [(given, None)]):
        for found, image in zip(take(data, 10, trace(model)), expected, strict=True):
            np.testing.assert_array_equal(found, image)
    by_name, by_place = (kprune.prune_model(model, 0.3, data=data) for data in (given, expected))
    for one, other in zip(by_name.get_weights(), by_place.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(kprune.OptionError, match=r"model's inputs: \['(left|right)', '(left|right)'\]"):
        kprune.prune_model(model, 0.3, data={"left": X, "middle": X})


@pytest.mark.parametrize("keys", [None, ("z", "a"), ("y", "b")])
def test_labels_losses_and_their_weights_are_read_by_the_names_of_the_outputs(keys):
    """Outputs as a list, or as a dict with the names of the layers or with others; only the first has a weight."""
    model = two_inputs(("one", "other"), lambda *outputs: dict(zip(keys, outputs, strict=True)) if keys else outputs)
    first, second = keys or ("z", "a")
    labels = {first: np.ones((10, 2)), second: np.zeros((10, 2))}
    model.compile(loss={first: "mse", second: "mae"}, loss_weights={first: 1.0, second: 0.0})
    graph, taylor = trace(model), kprune.criteria.get_criterion("taylor")
    found = kprune.criteria.collect(graph, ([X, X], labels), taylor.needs, verbose=0)
    sums = {w.layer.name: np.abs(found.of(taylor.needs[0], w)["sum"]).sum() for w in graph.writers if len(w.shape) > 2}
    assert sums["first"] > 0 and sums["second"] == 0
    with pytest.raises(kprune.OptionError, match="the keys \\['other'\\]"):
        kprune.criteria.collect(graph, ([X, X], {"other": Y}), taylor.needs, verbose=0)
    with pytest.raises(kprune.OptionError, match="loss has the keys"):
        wrong = kprune.criteria.Taylor(loss={first: "mse", "other": "mse"})
        kprune.criteria.collect(graph, ([X, X], labels), wrong.needs, verbose=0)
