"""SavedModel, ONNX and TF-TRT: what the files compute, how they are named, what is refused."""

import importlib.util
import sys
import time

import keras
import numpy as np
import pytest
from keras import layers, ops

from kprune.deploy.export import export_onnx, export_saved_model, export_tftrt, read_metadata, tensorrt
from kprune.deploy.export.check import reason
from kprune.deploy.export.metadata import SAVED_MODEL_FILE
from kprune.deploy.export.source import Source
from kprune.deploy.runtimes.open import kind_of, open_file
from kprune.utils.errors import ExportError, MissingPackageError, ModelError, OptionError

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 8, 8, 8)).astype("float32")
onnx_installed = all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not onnx_installed, reason="needs tf2onnx, onnx and onnxruntime")
FORMATS = [
    pytest.param(export_saved_model, "net", id="saved_model"),
    pytest.param(export_onnx, "net.onnx", id="onnx", marks=needs_onnx),
]
every_format = pytest.mark.parametrize("export, name", FORMATS)


def normalized(x):
    return layers.Conv2D(4, 3)(layers.Normalization(mean=[0.5] * 8, variance=[2.0] * 8)(x))


STRUCTURES = {
    "normalization": normalized,
    "grouped convolution": lambda x: layers.Conv2D(8, 3, strides=2, groups=4, padding="same")(x),
    "exact gelu": lambda x: ops.gelu(layers.Conv2D(4, 3)(x), approximate=False),
    "gelu twice": lambda x: layers.Conv2D(4, 1, activation="gelu")(layers.Conv2D(4, 1, activation="gelu")(x)),
    "layer normalization": lambda x: layers.LayerNormalization()(x),
    "depthwise and resize": lambda x: layers.UpSampling2D(2, interpolation="bilinear")(layers.DepthwiseConv2D(3)(x)),
    "transposed": lambda x: layers.Conv2DTranspose(4, 3, strides=2, padding="same")(x),
    "slice and pad": lambda x: ops.pad(x[:, ::2, ::2, :], [(0, 0), (0, 0), (0, 0), (2, 2)]),
    "the input itself": lambda x: x,
}


def build_net(structure="normalization", **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 8), name="image", **options)
    return keras.Model(inputs, STRUCTURES[structure](inputs), name="net")


def build_two_ports(outputs_as):
    """Two inputs that do different things, and two outputs of one shape; no order here is alphabetical."""
    keras.utils.set_random_seed(0)
    first, second = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha in")
    x = layers.Dense(4, activation="relu")(first) - 3 * second
    outputs = {"right": layers.Dense(3, name="z")(x), "left": layers.Dense(3, name="a")(x)}
    return keras.Model([first, second], outputs if outputs_as is dict else list(outputs.values()))


@pytest.fixture(scope="module")
def net():
    return build_net()


@every_format
@pytest.mark.parametrize("structure", STRUCTURES)
def test_files_compute_what_the_model_computes(tmp_path, export, name, structure):
    result = export(build_net(structure), tmp_path / name, check_data=IMAGES)
    assert result.error < 1e-5 and result.samples == len(IMAGES)


@every_format
def test_the_reported_error_is_that_of_the_file(net, tmp_path, export, name):
    result = export(net, tmp_path / name, check_data=IMAGES)
    got = open_file(result.path).run({"image": IMAGES})["output_0"]
    wanted = net.predict(IMAGES, verbose=0)
    assert np.abs(got - wanted).max() / np.abs(wanted).max() == pytest.approx(result.error, abs=1e-6)
    assert "largest difference" in str(result)


@every_format
@pytest.mark.parametrize("outputs_as", [list, dict])
def test_several_inputs_and_outputs_keep_their_names(tmp_path, export, name, outputs_as):
    model = build_two_ports(outputs_as)
    data = [RNG.normal(size=(6, 4)).astype("float32") for _ in range(2)]
    path = export(model, tmp_path / name, check_data=data).path
    got = open_file(path).run({"zeta": data[0], "alpha_in": data[1]})
    wanted = model(data)
    wanted = wanted if outputs_as is dict else {f"output_{i}": value for i, value in enumerate(wanted)}
    assert set(got) == set(wanted)
    for key, value in wanted.items():
        np.testing.assert_allclose(got[key], value, atol=1e-5)


@every_format
@pytest.mark.parametrize("batch_size, sizes", [(None, (1, 3)), (2, (2,))])
def test_the_batch_is_free_or_fixed(net, tmp_path, export, name, batch_size, sizes):
    model = open_file(export(net, tmp_path / name, batch_size=batch_size).path)
    assert model.batch == (batch_size or 1)
    for size in sizes:
        model.feed({"image": IMAGES[:size]})
        model.invoke()
        assert model.fetch()["output_0"].shape == (size, 6, 6, 4)


@every_format
def test_another_batch_than_the_models_own_is_refused(tmp_path, export, name):
    with pytest.raises(OptionError, match="fixed to"):
        export(build_net(batch_size=4), tmp_path / name, batch_size=2)


@every_format
def test_mixed_precision_is_exported_in_float32(tmp_path, export, name):
    inputs = keras.Input((8, 8, 8))
    model = keras.Model(inputs, layers.Conv2D(4, 3, dtype="mixed_float16")(inputs))
    assert export(model, tmp_path / name).error < 1e-5
    assert model.layers[-1].compute_dtype == "float16"


@every_format
def test_files_say_what_they_were_made_from(net, tmp_path, export, name):
    first = read_metadata(export(net, tmp_path / name).path)
    assert first["model"] == "net" and first["params"] == net.count_params() and "keras" in first["versions"]
    other = build_net()
    other.layers[-1].bias.assign_add([1.0, 0, 0, 0])
    assert read_metadata(export(other, tmp_path / name).path)["weights_sha256"] != first["weights_sha256"]


@every_format
def test_a_damaged_file_is_told_as_that(net, tmp_path, export, name):
    path = export(net, tmp_path / name).path
    file = path / SAVED_MODEL_FILE if path.is_dir() else path
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ModelError, match="is damaged.*Fix"):
        read_metadata(path)


def test_a_folder_without_metadata_is_refused(tmp_path):
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(ModelError, match="no metadata"):
        read_metadata(tmp_path)


@every_format
def test_a_file_that_differs_leaves_nothing(net, tmp_path, export, name, monkeypatch):
    reference = Source.outputs
    monkeypatch.setattr(
        Source, "outputs", lambda *args: {name: 1.01 * array for name, array in reference(*args).items()}
    )
    with pytest.raises(ExportError, match="differs by 0.0099"):
        export(net, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_saved_model_is_replaced_and_nothing_else_is(net, tmp_path):
    path = tmp_path / "net"
    export_saved_model(net, path)
    export_saved_model(net, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]
    with pytest.raises(ExportError, match="already there"):
        export_saved_model(net, path, overwrite=False)
    (path / "saved_model.pb").unlink()
    with pytest.raises(ExportError, match="without the saved_model.pb"):
        export_saved_model(net, path)


@pytest.mark.parametrize("content", ["", "no model"])
def test_what_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "saved_model.pb").write_text(content)
    with pytest.raises(ModelError, match="could not be opened"):
        open_file(tmp_path)
    (tmp_path / "net.bin").write_text(content)
    with pytest.raises(ModelError, match="no model that can be run"):
        kind_of(tmp_path / "net.bin")
    with pytest.raises(OptionError, match="There is no file"):
        kind_of(tmp_path / "missing")


@needs_onnx
def test_a_broken_onnx_file_is_refused(tmp_path):
    (tmp_path / "net.onnx").write_text("no model")
    with pytest.raises(ModelError, match="could not be opened"):
        open_file(tmp_path / "net.onnx")


@needs_onnx
@pytest.mark.parametrize("opset", [13, 18])
def test_the_opset_is_the_files(net, tmp_path, opset):
    import onnx

    path = export_onnx(net, tmp_path / "net.onnx", opset=opset).path
    assert next(entry.version for entry in onnx.load(str(path)).opset_import if not entry.domain) == opset


def test_an_unknown_opset_is_refused(net, tmp_path):
    with pytest.raises(OptionError, match="opset is 9"):
        export_onnx(net, tmp_path / "net.onnx", opset=9)


@needs_onnx
def test_onnxruntime_rests_between_runs(tmp_path):
    """Its threads would go on spinning, and slow the model whose turn is next."""
    inputs = keras.Input((32, 32, 16))
    export_onnx(keras.Model(inputs, layers.Conv2D(64, 3)(inputs)), tmp_path / "net.onnx", batch_size=1)
    model = open_file(tmp_path / "net.onnx", threads=4)
    model.feed({model.inputs[0].name: np.zeros((1, 32, 32, 16), "float32")})
    for _ in range(5):
        model.invoke()
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.02


@needs_onnx
def test_without_onnxruntime_the_file_is_written_unchecked(net, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    result = export_onnx(net, tmp_path / "net.onnx")
    assert result.error is None and result.samples == 0 and "not compared" in str(result)


def test_without_tf2onnx_the_error_says_what_to_install(net, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tf2onnx" else find(name))
    with pytest.raises(MissingPackageError, match="pip install") as caught:
        export_onnx(net, tmp_path / "net.onnx")
    assert isinstance(caught.value, ImportError)


def test_tftrt_says_what_is_missing_and_what_to_run(net, tmp_path):
    if tensorrt.missing_for_tensorrt() is None:
        pytest.skip("this TensorFlow has TensorRT and a GPU")
    with pytest.raises(ExportError, match="jetson_benchmark.py FOLDER --tftrt=FP32"):
        export_tftrt(net, tmp_path / "trt", precision="FP32")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("built, gpus, words", [(False, ["GPU"], "without TensorRT"), (True, [], "no GPU")])
def test_the_capability_is_asked_for_not_the_import(monkeypatch, built, gpus, words):
    import tensorflow as tf

    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_tensorrt_build": built})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    assert words in tensorrt.missing_for_tensorrt()


@pytest.mark.parametrize("precision", ["FP16", "INT8"])
def test_tftrt_converts_builds_and_checks(net, tmp_path, monkeypatch, precision):
    """With a converter that leaves the graph as it is, in the place of TensorRT's."""
    import shutil

    steps = []

    class Converter:
        def __init__(self, input_saved_model_dir, precision_mode, **options):
            self.source = input_saved_model_dir
            steps.append(precision_mode)

        def convert(self, calibration_input_fn=None):
            steps.append(len(list(calibration_input_fn())) if calibration_input_fn else 0)

        def build(self, input_fn):
            steps.append(next(input_fn())[0].shape)

        def save(self, folder):
            shutil.copytree(self.source, folder, dirs_exist_ok=True)

    monkeypatch.setattr(tensorrt, "missing_for_tensorrt", lambda: None)
    fake = type(sys)("trt_convert")
    fake.TrtGraphConverterV2 = Converter
    package = importlib.import_module("tensorflow.python.compiler.tensorrt")
    monkeypatch.setattr(package, "trt_convert", fake, raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow.python.compiler.tensorrt.trt_convert", fake)
    result = export_tftrt(net, tmp_path / "trt", precision=precision, representative_data=IMAGES)
    assert steps == [precision, 5 if precision == "INT8" else 0, (1, 8, 8, 8)]
    assert result.error < 1e-5 and read_metadata(result.path)["precision"] == precision


@pytest.mark.parametrize(
    "options, words", [({"precision": "fp16"}, "precision is"), ({"precision": "INT8"}, "without representative_data")]
)
def test_tftrt_options_are_checked(net, tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        export_tftrt(net, tmp_path / "trt", **options)


def test_reasons_are_one_line():
    assert reason(ValueError("first. \nsecond")) == "first" and reason(KeyError()) == "KeyError"
