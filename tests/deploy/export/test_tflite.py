"""TFLite files in every mode: what they hold, how close they are, what is refused."""

import json
import sys

import keras
import numpy as np
import pytest
from keras import layers

from kprune.deploy.export import export_tflite
from kprune.deploy.export.source import Source
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.timing import run_tflite
from kprune.utils.errors import ExportError, ModelError, OptionError

MODES = (None, "float16", "dynamic", "int8")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 8, 8, 3)).astype("float32")


def build_net():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(32, 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)), name="net")


def build_two_ports(inputs_as=list, outputs_as=list):
    """Two inputs that do different things, and two outputs of one shape; no order here is alphabetical."""
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    x = layers.Dense(4, activation="relu")(first) - 3 * second
    outputs = {"right": layers.Dense(3, name="z")(x), "left": layers.Dense(3, name="a")(x)}
    inputs = {"zeta": first, "alpha": second} if inputs_as is dict else [first, second]
    return keras.Model(inputs, outputs if outputs_as is dict else list(outputs.values()))


@pytest.fixture(scope="module")
def net():
    return build_net()


@pytest.fixture(scope="module")
def exports(net, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    return {
        mode: export_tflite(net, folder / f"{mode}.tflite", quantize=mode, representative_data=IMAGES) for mode in MODES
    }


def tensor_dtypes(path):
    details = open_tflite(path)._interpreter.get_tensor_details()
    return [np.dtype(detail["dtype"]).name for detail in details]


@pytest.mark.parametrize("mode, most", [(None, 1e-5), ("float16", 5e-3), ("dynamic", 0.05), ("int8", 0.1)])
def test_every_mode_is_close_to_the_model(exports, mode, most):
    assert exports[mode].error < most


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_agrees_on_most_classes(exports, mode):
    assert exports[mode].agreement >= (1.0 if mode is None else 0.9)


def test_fewer_bits_make_smaller_files(exports):
    sizes = {mode: exports[mode].size_bytes for mode in MODES}
    assert sizes[None] > 1.5 * sizes["float16"] and sizes["float16"] > 1.2 * max(sizes["dynamic"], sizes["int8"])


def test_the_reported_size_is_that_of_the_file(exports):
    assert exports["int8"].size_bytes == exports["int8"].path.stat().st_size


def test_the_reported_error_and_agreement_are_those_of_the_file(net, exports):
    wanted, got = net.predict(IMAGES, verbose=0), run_tflite(exports["int8"].path, IMAGES)
    assert exports["int8"].error == pytest.approx(np.abs(got - wanted).max() / np.abs(wanted).max(), rel=1e-3)
    assert exports["int8"].agreement == np.mean(got.argmax(-1) == wanted.argmax(-1))
    assert exports["int8"].samples == len(IMAGES)


def test_int8_computes_in_integers_and_takes_floats(exports):
    model = open_tflite(exports["int8"].path)
    assert tensor_dtypes(exports["int8"].path).count("float32") == 2  # the input and the output
    assert model.inputs[0].dtype == "float32" and run_tflite(exports["int8"].path, IMAGES[:1]).dtype == "float32"


def test_float32_holds_no_integers_of_eight_bits(exports):
    assert "int8" not in tensor_dtypes(exports[None].path)


def test_the_result_reads_well(exports):
    text = str(exports["int8"])
    assert "int8" in text and "24 samples" in text and "same class" in text and len(text.splitlines()) == 2


def test_the_model_is_untouched(tmp_path):
    model = build_net()
    model.compile("adam", "mse")
    before = json.dumps(model.get_config(), default=str), set(vars(model)), [np.array(w) for w in model.weights]
    export_tflite(model, tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES)
    assert json.dumps(model.get_config(), default=str) == before[0] and set(vars(model)) == before[1]
    assert model.compiled and all(np.array_equal(old, new) for old, new in zip(before[2], model.weights, strict=True))


def test_mixed_precision_is_exported_in_float32_and_kept_in_the_model(tmp_path):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layers.Conv2D(4, 3, dtype="mixed_float16")(inputs))
    assert export_tflite(model, tmp_path / "net.tflite").error < 1e-5
    assert model.layers[-1].compute_dtype == "float16"


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("inputs_as, outputs_as", [(list, list), (dict, dict)])
def test_several_inputs_and_outputs_keep_their_order(tmp_path, quantize, inputs_as, outputs_as):
    model = build_two_ports(inputs_as, outputs_as)
    data = {"zeta": RNG.normal(size=(8, 4)).astype("float32"), "alpha": RNG.normal(size=(8, 4)).astype("float32")}
    export = export_tflite(model, tmp_path / "two.tflite", quantize=quantize, representative_data=data)
    assert export.error < (1e-5 if quantize is None else 0.1)
    got = run_tflite(export.path, data)
    wanted = keras.tree.flatten(model(data if inputs_as is dict else list(data.values())))
    for value, expected in zip(got, wanted, strict=True):
        np.testing.assert_allclose(value, expected, atol=(1e-5 if quantize is None else 0.1) * np.abs(expected).max())


def test_more_than_ten_outputs_are_not_ordered_by_letters(tmp_path):
    inputs = keras.Input((3,))
    outputs = [inputs * float(factor) + 0.5 for factor in range(1, 13)]
    path = export_tflite(keras.Model(inputs, outputs), tmp_path / "many.tflite").path
    np.testing.assert_allclose([value[0, 0] for value in run_tflite(path, np.ones((1, 3)))], np.arange(1.5, 13))


def test_names_that_tensorflow_refuses_are_replaced(tmp_path):
    first, second = keras.Input((3,), name="my in:put"), keras.Input((3,), name="my in.put")
    export = export_tflite(keras.Model([first, second], first - 2 * second), tmp_path / "odd.tflite")
    assert export.error < 1e-5


@pytest.mark.parametrize(
    "inputs, data",
    [
        (lambda: keras.Input((8, 8, 3), batch_size=4), IMAGES[:6]),
        (lambda: keras.Input((None, None, 3)), IMAGES),
        (lambda: keras.Input((8, 8, 3), dtype="uint8"), RNG.integers(0, 256, (6, 8, 8, 3))),
    ],
    ids=["fixed batch", "free size", "uint8"],
)
def test_inputs_of_every_kind(tmp_path, inputs, data):
    inputs = inputs()
    model = keras.Model(inputs, layers.Conv2D(4, 3)(layers.Rescaling(0.1)(inputs)))
    export = export_tflite(model, tmp_path / "net.tflite", quantize="int8", representative_data=data)
    assert export.error < 0.05 and export.samples == len(data)


def batches_of(*parts):
    yield from parts


@pytest.mark.parametrize(
    "data, count",
    [
        (lambda: IMAGES, 24),
        (lambda: (IMAGES, np.zeros(24)), 24),
        (lambda: {"image": IMAGES}, 24),
        (lambda: [IMAGES[:4], IMAGES[4:6]], 6),
        (lambda: batches_of((IMAGES[:4], np.zeros(4)), (IMAGES[4:9], np.zeros(5))), 9),
    ],
    ids=["array", "with labels", "dict", "list of batches", "generator"],
)
def test_data_comes_in_many_forms(net, tmp_path, data, count):
    assert export_tflite(net, tmp_path / "net.tflite", check_data=data()).samples == count


def test_data_may_be_a_tf_dataset(net, tmp_path):
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((IMAGES, np.zeros(24))).batch(7)
    assert export_tflite(net, tmp_path / "net.tflite", check_data=dataset).samples == 24
    with pytest.raises(OptionError, match="never ends"):
        export_tflite(net, tmp_path / "net.tflite", check_data=dataset.repeat())


@pytest.mark.parametrize(
    "data, message",
    [
        (None, "without representative_data"),
        (IMAGES[:, :4], "has shape"),
        (IMAGES[:0], "no samples"),
        ([], "no samples"),
        (np.full_like(IMAGES, np.nan), "NaN or infinity"),
        ({"picture": IMAGES}, "has the keys"),
        ("images.npy", "gives a str"),
        (5, "gives a int"),
    ],
)
def test_calibration_data_that_does_not_fit_is_refused(net, tmp_path, data, message):
    with pytest.raises(OptionError, match=message):
        export_tflite(net, tmp_path / "net.tflite", quantize="int8", representative_data=data)


def test_values_that_an_integer_input_cannot_take_are_refused(tmp_path):
    inputs = keras.Input((2,), dtype="uint8")
    model = keras.Model(inputs, layers.Rescaling(0.1)(inputs))
    with pytest.raises(OptionError, match="cannot take"):
        export_tflite(model, tmp_path / "net.tflite", check_data=np.array([[0.5, 300]]))


def test_unequal_inputs_are_refused(tmp_path):
    with pytest.raises(OptionError, match="unequal counts"):
        export_tflite(build_two_ports(), tmp_path / "net.tflite", check_data=[np.zeros((3, 4)), np.zeros((2, 4))])


def test_an_unknown_mode_is_refused(net, tmp_path):
    with pytest.raises(OptionError, match="int4"):
        export_tflite(net, tmp_path / "net.tflite", quantize="int4")


def test_a_model_without_known_inputs_is_refused(tmp_path):
    with pytest.raises(ModelError, match="no known inputs"):
        export_tflite(keras.Sequential([layers.Dense(2)]), tmp_path / "net.tflite")


def test_another_backend_is_refused(net, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ModelError, match="KERAS_BACKEND=tensorflow"):
        export_tflite(net, tmp_path / "net.tflite")


def test_an_existing_file_stays_where_overwrite_is_false(net, tmp_path):
    path = tmp_path / "net.tflite"
    path.write_text("mine")
    with pytest.raises(ExportError, match="already there"):
        export_tflite(net, path, overwrite=False)
    assert path.read_text() == "mine"


def test_a_missing_folder_is_refused(net, tmp_path):
    with pytest.raises(ExportError, match="does not exist"):
        export_tflite(net, tmp_path / "missing" / "net.tflite")


def test_an_operation_that_tflite_lacks_is_named_and_leaves_no_file(tmp_path):
    inputs = keras.Input((3,))
    with pytest.raises(ExportError, match="Erfinv"):
        export_tflite(keras.Model(inputs, keras.ops.erfinv(inputs)), tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def cancelling():
    """A model of differences between channels, and a function of images whose channels differ by a share."""
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="differences")(inputs), name="net")
    model.layers[-1].set_weights([np.array([[[[1.0] * 3, [-1.0] * 3]]], "float32"), np.zeros(3)])
    return model, lambda share: IMAGES[:, :4, :4, :1] * np.array([1, 1 + share], "float32")


def test_outputs_far_beyond_their_range_are_refused(tmp_path):
    model, images = cancelling()
    with pytest.raises(ExportError, match=r"differences.*' of net would multiply its sums by"):
        export_tflite(model, tmp_path / "net.tflite", quantize="int8", representative_data=images(1e-5))
    assert not list(tmp_path.iterdir())


def test_outputs_that_nearly_cancel_are_not_refused(tmp_path):
    model, images = cancelling()
    assert export_tflite(
        model, tmp_path / "net.tflite", quantize="int8", representative_data=images(1e-3)
    ).path.exists()


def test_a_float32_file_that_differs_leaves_no_file(net, tmp_path, monkeypatch):
    reference = Source.outputs
    monkeypatch.setattr(
        Source, "outputs", lambda *args: {name: 1.01 * array for name, array in reference(*args).items()}
    )
    with pytest.raises(ExportError, match="differs by 0.0099"):
        export_tflite(net, tmp_path / "net.tflite")
    assert not list(tmp_path.iterdir())


def test_a_model_that_gives_infinity_is_refused(tmp_path):
    inputs = keras.Input((3,))
    with pytest.raises(ModelError, match="NaN or infinity"):
        export_tflite(keras.Model(inputs, inputs / 0.0), tmp_path / "net.tflite")


def test_one_number_per_sample_has_no_agreement(tmp_path):
    inputs = keras.Input((3,))
    assert export_tflite(keras.Model(inputs, layers.Dense(1)(inputs)), tmp_path / "net.tflite").agreement is None


def test_the_converter_is_silent(net, tmp_path, capfd):
    export_tflite(net, tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES)
    assert capfd.readouterr() == ("", "")


def test_tensorflow_runs_the_file_where_litert_is_missing(exports, monkeypatch):
    wanted = run_tflite(exports[None].path, IMAGES)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    np.testing.assert_allclose(run_tflite(exports[None].path, IMAGES), wanted, atol=1e-5)
