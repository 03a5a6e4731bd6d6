"""What export_tflite can do beyond one float signature: integers at the ports, 16x8, signatures, batches, metadata."""

import keras
import numpy as np
import pytest
from keras import layers

from kprune.deploy.export import export_tflite, read_metadata
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.timing import run_tflite
from kprune.utils.errors import OptionError

IMAGES = np.random.default_rng(0).uniform(0, 4, size=(20, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.GlobalAveragePooling2D(name="pool")(x)), name="net")


def raw_dtypes(path):
    details = open_tflite(path)._interpreter
    return [details.get_input_details()[0]["dtype"].__name__, details.get_output_details()[0]["dtype"].__name__]


@pytest.mark.parametrize(
    "quantize, io_dtype, most",
    [("int8", "int8", 0.03), ("int8", "uint8", 0.03), ("int16x8", "float32", 0.01), ("int16x8", "int16", 0.01)],
)
def test_integers_at_the_ports(net, tmp_path, quantize, io_dtype, most):
    export = export_tflite(
        net, tmp_path / "net.tflite", quantize=quantize, io_dtype=io_dtype, representative_data=IMAGES
    )
    assert export.error < most and export.io_dtype == io_dtype
    assert raw_dtypes(export.path) == [io_dtype] * 2


def test_int8_ports_leave_no_float_in_the_file(net, tmp_path):
    path = export_tflite(
        net, tmp_path / "net.tflite", quantize="int8", io_dtype="int8", representative_data=IMAGES
    ).path
    dtypes = {detail["dtype"].__name__ for detail in open_tflite(path)._interpreter.get_tensor_details()}
    assert dtypes <= {"int8", "int32", "void"}, dtypes


@pytest.mark.parametrize(
    "options, words",
    [
        ({"io_dtype": "int8"}, "io_dtype is 'int8' with quantize=None"),
        ({"quantize": "int8", "io_dtype": "int16"}, "io_dtype is 'int16'"),
        ({"quantize": "int16x8"}, "without representative_data"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(net, tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        export_tflite(net, tmp_path / "net.tflite", **options)


def test_the_batch_can_be_fixed(net, tmp_path):
    path = export_tflite(net, tmp_path / "net.tflite", batch_size=3).path
    assert open_tflite(path)._interpreter.get_input_details()[0]["shape_signature"].tolist() == [3, 8, 8, 3]
    assert run_tflite(path, IMAGES[:4]).shape == (4, 5)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_signatures_share_weights_and_are_run_by_name(net, tmp_path, quantize):
    features = keras.Model(net.input, net.get_layer("pool").output)
    options = {"quantize": quantize, "representative_data": IMAGES}
    both = export_tflite(net, tmp_path / "both.tflite", signatures={"features": features}, **options)
    assert both.error < (1e-5 if quantize is None else 0.05)
    got = run_tflite(both.path, IMAGES, signature="features")
    np.testing.assert_allclose(got, features(IMAGES), atol=1e-5 if quantize is None else 0.1)
    np.testing.assert_allclose(run_tflite(both.path, IMAGES), net(IMAGES), atol=1e-5 if quantize is None else 0.1)
    with pytest.raises(OptionError, match="no signature 'other'"):
        run_tflite(both.path, IMAGES, signature="other")


@pytest.mark.parametrize("name", ["serving_default", "two words", ""])
def test_names_that_cannot_be_signatures_are_refused(net, tmp_path, name):
    with pytest.raises(OptionError, match="signatures has the name"):
        export_tflite(net, tmp_path / "net.tflite", signatures={name: net})


def test_signatures_have_the_inputs_of_the_model(net, tmp_path):
    inputs = keras.Input((4,))
    with pytest.raises(OptionError, match="has the inputs"):
        export_tflite(net, tmp_path / "net.tflite", signatures={"other": keras.Model(inputs, inputs + 1)})


def test_grouped_convolutions_are_converted(tmp_path):
    inputs = keras.Input((8, 8, 8))
    model = keras.Model(inputs, layers.Conv2D(8, 3, groups=4)(inputs))
    assert export_tflite(model, tmp_path / "net.tflite").error < 1e-5


def test_the_file_says_what_it_was_made_from(net, tmp_path):
    path = export_tflite(net, tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES).path
    facts = read_metadata(path)
    assert facts["quantize"] == "int8" and facts["calibration_samples"] == 20 and facts["model"] == "net"
    assert facts["inputs"] == {"image": [None, 8, 8, 3]}
    first = path.read_bytes()
    export_tflite(net, path, quantize="int8", representative_data=IMAGES)
    assert path.read_bytes() == first  # no date, no random name
