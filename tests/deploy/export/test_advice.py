"""What an export's error advises is done here, and works; a crash of the converter is an error like any other."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.utils.errors import ExportError, KpruneError, ModelError, OptionError

RNG = np.random.default_rng(0)
WAVES = RNG.normal(size=(12, 6, 4)).astype("float32")
IMAGES = RNG.normal(size=(12, 8, 8, 3)).astype("float32")
RECURRENT = {
    "lstm": lambda x, **options: layers.LSTM(5, **options)(x),
    "gru and simple": lambda x, **options: layers.SimpleRNN(4, **options)(
        layers.GRU(5, return_sequences=True, **options)(x)
    ),
    "bidirectional": lambda x, **options: layers.Bidirectional(layers.LSTM(5, **options))(x),
}


def recurrent(kind, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    return keras.Model(inputs, layers.Dense(3)(RECURRENT[kind](inputs, **options)), name="net")


def unrolled(kind, trained):
    model = recurrent(kind, unroll=True)
    model.set_weights(trained.get_weights())
    return model


def images_net(last=None):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, x if last is None else last(x), name="net")


@pytest.mark.parametrize("kind", RECURRENT)
def test_loops_in_float_want_a_fixed_batch_or_no_loop(kind, tmp_path):
    model, path = recurrent(kind), tmp_path / "net.tflite"
    with pytest.raises(ExportError, match="batch_size=1.*unroll=True"):
        kprune.export_tflite(model, path)
    assert kprune.export_tflite(model, path, batch_size=1, check_data=WAVES).error < 1e-5
    kprune.export_tflite(unrolled(kind, model), path)
    np.testing.assert_allclose(kprune.run_tflite(path, WAVES), model(WAVES), atol=1e-5)


@pytest.mark.parametrize("quantize, kind", [("int8", "lstm"), ("int8", "gru and simple"), ("int16x8", "bidirectional")])
def test_a_crash_of_the_converter_is_an_error_whose_advice_works(quantize, kind, tmp_path):
    model, path = recurrent(kind), tmp_path / "net.tflite"
    options = {"quantize": quantize, "representative_data": WAVES}
    with pytest.raises(ExportError, match='unroll=True.*quantize="dynamic" and batch_size=1') as caught:
        kprune.export_tflite(model, path, batch_size=1, **options)
    assert "exit code" in caught.value.what and not list(tmp_path.iterdir())
    with pytest.raises(ExportError, match='unroll=True.*quantize="dynamic" and batch_size=1'):
        kprune.export_tflite(model, path, **options)
    assert kprune.export_tflite(unrolled(kind, model), path, **options).error < 0.1
    dynamic = kprune.export_tflite(model, path, **options | {"quantize": "dynamic"}, batch_size=1)
    assert dynamic.error < 0.1


def test_other_models_are_converted_in_this_process(tmp_path, monkeypatch):
    monkeypatch.setattr("kprune.deploy.export.conversion.convert_apart", None)
    kprune.export_tflite(images_net(), tmp_path / "net.tflite", quantize="int8", representative_data=IMAGES)


class Advice(NamedTuple):
    """A wrong call, its error and what it must say, and the call that does as it says."""

    wrong: Callable
    error: type[KpruneError]
    match: str
    followed: Callable


def tflite(**options):
    return lambda at: kprune.export_tflite(images_net(), at / "net.tflite", **options)


def other_inputs(at):
    inputs = keras.Input((4,))
    kprune.export_tflite(images_net(), at / "net.tflite", signatures={"features": keras.Model(inputs, inputs + 1)})


def same_inputs(at):
    model = images_net()
    features = {"features": keras.Model(model.input, model.layers[1].output)}
    kprune.export_tflite(model, at / "net.tflite", signatures=features)


def erfinv(export, name):
    return lambda at: export(images_net(ops.erfinv), at / name, check_data=IMAGES * 0.0)


def untold(at):
    kprune.export_tflite(keras.Sequential([layers.Dense(2)]), at / "net.tflite")


def told(at):
    inputs = keras.Input((3,))
    model = keras.Sequential([layers.Dense(2)])
    kprune.export_tflite(keras.Model(inputs, model(inputs)), at / "net.tflite")


def broken(read, name):
    def call(at):
        (at / name).write_text("no model")
        read(at / name)

    return call


def exported(read, export, name):
    def call(at):
        export(images_net(), at / name)
        read(at / name)

    return call


def micro_of(**options):
    def call(at):
        pytest.importorskip("tflite_micro")
        kprune.export_tflite(images_net(), at / "net.tflite", batch_size=1, representative_data=IMAGES, **options)
        kprune.micro_memory(at / "net.tflite")

    return call


DATA = {"quantize": "int8", "representative_data": IMAGES}
ADVICE = {
    "a quantization": Advice(tflite(quantize="int4"), OptionError, "one of these", tflite(quantize="dynamic")),
    "a dtype": Advice(tflite(io_dtype="int8"), OptionError, 'quantize="int8"', tflite(io_dtype="int8", **DATA)),
    "float ports": Advice(tflite(io_dtype="int16", **DATA), OptionError, 'io_dtype="float32"', tflite(**DATA)),
    "data": Advice(tflite(quantize="int8"), OptionError, "representative_data=", tflite(**DATA)),
    "no data": Advice(tflite(quantize="int8"), OptionError, 'quantize="dynamic"', tflite(quantize="dynamic")),
    "a batch": Advice(tflite(batch_size=0), OptionError, "batch_size=1", tflite(batch_size=1)),
    "a signature's name": Advice(tflite(signatures={"a b": images_net()}), OptionError, "'features'", same_inputs),
    "a signature's inputs": Advice(other_inputs, OptionError, r"keras.Model\(model.input", same_inputs),
    "an operation": Advice(
        erfinv(kprune.export_tflite, "net.tflite"),
        ExportError,
        "export_saved_model",
        erfinv(kprune.export_saved_model, "s"),
    ),
    "an operation of ONNX": Advice(
        erfinv(kprune.export_onnx, "net.onnx"),
        ExportError,
        "export_saved_model",
        erfinv(kprune.export_saved_model, "s"),
    ),
    "inputs": Advice(untold, ModelError, r"keras.Model\(x, model\(x\)\)", told),
    "samples": Advice(tflite(check_data=IMAGES[:0]), OptionError, "with some inputs", tflite(check_data=IMAGES)),
    "shapes": Advice(tflite(check_data=IMAGES[:, :4]), OptionError, "as the model takes", tflite(check_data=IMAGES)),
    "forms": Advice(tflite(check_data="x"), OptionError, "Pass an array", tflite(check_data=IMAGES)),
    "names": Advice(tflite(check_data={"a": IMAGES}), OptionError, "by its name", tflite(check_data=IMAGES)),
    "finite": Advice(tflite(check_data=IMAGES * np.nan), OptionError, "Clean", tflite(check_data=IMAGES)),
    "an opset": Advice(
        lambda at: kprune.export_onnx(images_net(), at / "net.onnx", opset=9),
        OptionError,
        "opset=17",
        lambda at: kprune.export_onnx(images_net(), at / "net.onnx", opset=17),
    ),
    "a broken file": Advice(
        broken(lambda path: kprune.run_tflite(path, IMAGES), "net.tflite"),
        ModelError,
        "export_tflite",
        exported(lambda path: kprune.run_tflite(path, IMAGES), kprune.export_tflite, "net.tflite"),
    ),
    "no metadata": Advice(
        broken(kprune.read_metadata, "net.onnx"),
        ModelError,
        "Export the model again",
        exported(kprune.read_metadata, kprune.export_onnx, "net.onnx"),
    ),
    "float16 on a microcontroller": Advice(micro_of(quantize="float16"), ModelError, "without quantize", micro_of()),
    "integers on one": Advice(
        micro_of(quantize="float16"), ModelError, 'quantize="int8"', micro_of(quantize="int8", io_dtype="int8")
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_what_an_error_advises_works(case, tmp_path):
    advice = ADVICE[case]
    with pytest.raises(advice.error, match=f"Fix:.*{advice.match}"):
        advice.wrong(tmp_path)
    advice.followed(tmp_path)
