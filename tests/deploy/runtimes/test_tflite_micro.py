"""The arena of TFLite Micro: against sizes counted by hand, and against TFLite Micro running in it."""

import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers

import kprune
from kprune.deploy.export import Export, export_tflite
from kprune.deploy.runtimes import micro_memory
from kprune.utils.errors import ModelError, OptionError

IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype("float32")
RUN = """
import sys, numpy
from tflite_micro import runtime
interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
interpreter.set_input(numpy.zeros((1, 16, 16, 3), "int8"), 0)
interpreter.invoke()
"""

needs_micro = pytest.mark.skipif(not importlib.util.find_spec("tflite_micro"), reason="needs tflite-micro")


def conv(x, filters):
    return layers.Conv2D(filters, 3, padding="same", activation="relu")(x)


def chain():
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, conv(conv(conv(inputs, 24), 32), 4))


def residual():
    inputs = keras.Input((16, 16, 3))
    x = conv(inputs, 16)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Add()([x, conv(conv(x, 32), 16)]))))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    keras.utils.set_random_seed(0)
    folder, found = tmp_path_factory.mktemp("micro"), {}
    for name, model in (("chain", chain()), ("residual", residual())):
        found[name] = model, folder / f"{name}.tflite"
        options = {"quantize": "int8", "io_dtype": "int8", "representative_data": IMAGES, "batch_size": 1}
        export_tflite(model, found[name][1], **options)
    return found


@pytest.fixture(scope="module")
def needed(files):
    return {name: micro_memory(path) for name, (_, path) in files.items()}


@needs_micro
def test_activations_are_those_alive_at_once(needed):
    """Largest where the second conv reads 24 and writes 32 channels; or where its output stands beside x and itself."""
    assert needed["chain"].activation_bytes == 16 * 16 * (24 + 32)
    assert needed["residual"].activation_bytes == 16 * 16 * (16 + 32 + 16)


@needs_micro
@pytest.mark.parametrize("name", ["chain", "residual"])
def test_the_estimate_of_the_model_is_what_the_planner_takes(files, needed, name):
    assert kprune.model_cost(files[name][0]).activation_bytes / 4 == needed[name].activation_bytes


@needs_micro
def test_the_file_runs_in_the_arena_and_in_none_that_is_smaller(files, needed):
    path, least = files["residual"][1], needed["residual"].arena_bytes
    command = [sys.executable, "-c", RUN, str(path), str(least)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with pytest.raises(OptionError, match="needs more than"):
        micro_memory(path, least - 64)


def encoder_decoder(x):
    deep = layers.UpSampling2D()(conv(layers.MaxPooling2D()(conv(x, 6)), 6))
    return layers.Concatenate()([deep, conv(x, 4)])


# Whatever repeats values, by whole numbers, along axes of known size.
REPEATS = {
    "encoder-decoder": encoder_decoder,
    "unequal factors": lambda x: layers.UpSampling2D((3, 2))(x),
    "over time": lambda x: layers.UpSampling1D(5)(layers.Reshape((64, 12))(x)),
    "in volumes": lambda x: layers.UpSampling3D((1, 2, 3))(layers.Reshape((4, 4, 8, 6))(x)),
    "an operation on channels": lambda x: keras.ops.repeat(conv(x, 5), 3, axis=-1),
    "an operation on rows": lambda x: keras.ops.repeat(conv(x, 5), 3, axis=1),
    "in a nested model": lambda x: keras.Sequential([keras.Input((16, 16, 3)), layers.UpSampling2D(7)])(x),
}


@pytest.mark.parametrize("repeat", REPEATS)
def test_repeated_values_are_the_same_and_run_on_microcontrollers(repeat, tmp_path):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, REPEATS[repeat](inputs))
    exact = export_tflite(model, tmp_path / "float.tflite", check_data=IMAGES)
    assert exact.error < 1e-6
    if repeat != "encoder-decoder" and "operation" not in repeat:
        assert exact.error == 0
    options = {"quantize": "int8", "io_dtype": "int8", "representative_data": IMAGES}
    export = export_tflite(model, tmp_path / "net.tflite", **options)
    assert export.error < 0.05 and not export.float_operations
    if importlib.util.find_spec("tflite_micro"):
        assert micro_memory(export.path).arena_bytes > 0


@pytest.mark.parametrize("io_dtype", ["float32", "int8"])
def test_the_approximate_gelu_is_the_same_in_operations_of_microcontrollers(io_dtype, tmp_path):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.ops.gelu(conv(inputs, 6) - 3 * inputs[..., :1], approximate=True))
    integers = {"quantize": "int8", "io_dtype": "int8", "representative_data": IMAGES} if io_dtype == "int8" else {}
    export = export_tflite(model, tmp_path / "net.tflite", batch_size=1, micro=True, **integers)
    assert export.error < (0.03 if integers else 1e-6) and not export.float_operations
    if importlib.util.find_spec("tflite_micro"):
        assert micro_memory(export.path).arena_bytes > 0
    export_tflite(model, tmp_path / "phone.tflite", batch_size=1, **integers)
    assert "GELU" in operators(tmp_path / "phone.tflite") and "GELU" not in operators(export.path)


def operators(path):
    from tensorflow.lite.tools import flatbuffer_utils

    codes = flatbuffer_utils.read_model(str(path)).operatorCodes
    return {flatbuffer_utils.opcode_to_name(flatbuffer_utils.read_model(str(path)), i) for i in range(len(codes))}


NEGATIONS = {
    "an operator": lambda x: -conv(x, 4),
    "an operation": lambda x: keras.ops.negative(conv(x, 4)),
    "beside an exact gelu": lambda x: layers.Activation("gelu")(keras.ops.negative(conv(x, 4))),
    "groups": lambda x: layers.GroupNormalization(4)(conv(x, 16)),
    "a layer normalization": lambda x: layers.LayerNormalization()(conv(x, 16)),
    "of integers": lambda x: keras.ops.cast(-keras.ops.cast(10 * x, "int32"), "float32"),
}


@pytest.mark.parametrize("negation", NEGATIONS)
def test_negation_is_the_same_and_in_integers(negation, tmp_path):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, NEGATIONS[negation](inputs))
    assert export_tflite(model, tmp_path / "float.tflite", check_data=IMAGES).error < 1e-5
    if negation != "of integers":
        export = export_tflite(model, tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES)
        assert "NEG" not in {found.operator for found in export.float_operations}


def test_sizes_that_are_not_known_stay_as_keras_writes_them(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.UpSampling2D()(inputs))
    assert export_tflite(model, tmp_path / "net.tflite", check_data=IMAGES).error == 0


@needs_micro
def test_what_cannot_run_says_why(tmp_path):
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(4)(keras.ops.top_k(inputs, 3)[0]))
    export_tflite(model, tmp_path / "top.tflite")
    with pytest.raises(ModelError, match="TOPK"):
        micro_memory(tmp_path / "top.tflite")
    (tmp_path / "broken.tflite").write_text("no model")
    with pytest.raises(ModelError, match="cannot run"):
        micro_memory(tmp_path / "broken.tflite")


@pytest.mark.parametrize("arena", ["big", -5, True, 2.5])
def test_an_arena_is_a_number_of_bytes(files, arena):
    with pytest.raises(OptionError, match=f"arena_bytes is {arena!r}"):
        micro_memory(files["chain"][1], arena)


def test_other_files_and_a_missing_package_are_refused(tmp_path, files, monkeypatch):
    with pytest.raises(OptionError, match="no file"):
        micro_memory(tmp_path / "missing.tflite")
    (tmp_path / "net.onnx").write_text("")
    with pytest.raises(ModelError, match="no TFLite file"):
        micro_memory(tmp_path / "net.onnx")
    monkeypatch.setattr(kprune.deploy.runtimes.tflite_micro, "PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"pip install 'kprune\[micro\]'"):
        micro_memory(files["chain"][1])


def test_an_export_carries_its_arena_and_older_records_have_none(files):
    export = Export(files["chain"][1], "int8 TFLite file", 4096, 0.01, 0.99, 8, arena_bytes=20480)
    assert Export.from_json(export.to_json()) == export and "20.5 kB of arena" in str(export)
    old = {name: value for name, value in export.to_json().items() if name != "arena_bytes"}
    assert Export.from_json(old).arena_bytes is None
