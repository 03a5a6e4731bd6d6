"""What an export's error advises is done here, and works; a crash of the converter is an error like any other."""

import ast
import configparser
import contextlib
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops

import kprune
from kprune.deploy.export.tensorrt import missing_for_tensorrt
from kprune.deploy.runtimes.keras_model import open_keras
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.runtimes.onnxruntime import open_onnx
from kprune.deploy.runtimes.saved_model import open_saved_model
from kprune.utils.errors import ExportError, KpruneError, MissingPackageError, ModelError, OptionError

ROOT = pathlib.Path(__file__).resolve().parents[3]
ROOMS = ROOT / "kprune" / "deploy" / "export", ROOT / "kprune" / "deploy" / "runtimes"
RNG = np.random.default_rng(0)
WAVES = RNG.normal(size=(12, 6, 4)).astype("float32")
IMAGES = RNG.normal(size=(12, 8, 8, 3)).astype("float32")
FILMS = RNG.normal(size=(4, 3, 6, 6, 2)).astype("float32")
RECURRENT = {
    "lstm": lambda x, **options: layers.LSTM(5, **options)(x),
    "gru and simple": lambda x, **options: layers.SimpleRNN(4, **options)(
        layers.GRU(5, return_sequences=True, **options)(x)
    ),
    "bidirectional": lambda x, **options: layers.Bidirectional(layers.LSTM(5, **options))(x),
    "films": lambda x, **options: layers.ConvLSTM2D(3, 3, **options)(x),
}


def data_of(kind):
    return FILMS if kind == "films" else WAVES


def recurrent(kind, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(data_of(kind).shape[1:])
    return keras.Model(inputs, layers.Dense(3)(RECURRENT[kind](inputs, **options)), name="net")


def unrolled(kind, trained):
    model = recurrent(kind, unroll=True)
    model.set_weights(trained.get_weights())
    return model


def images_net(last=None):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    return keras.Model(inputs, x if last is None else last(x), name="net")


QUANTIZED_LOOPS = [("int8", "lstm"), ("int8", "gru and simple"), ("int16x8", "bidirectional"), ("int8", "films")]


@pytest.mark.parametrize("kind", RECURRENT)
def test_loops_in_float_want_a_fixed_batch_or_no_loop(kind, tmp_path):
    model, path, data = recurrent(kind), tmp_path / "net.tflite", data_of(kind)
    with pytest.raises(ExportError, match="batch_size=1.*unroll=True"):
        kprune.export_tflite(model, path)
    assert kprune.export_tflite(model, path, batch_size=1, check_data=data).error < 1e-5
    kprune.export_tflite(unrolled(kind, model), path)
    np.testing.assert_allclose(kprune.run_tflite(path, data), model(data), atol=1e-5)


@pytest.mark.parametrize("quantize, kind", QUANTIZED_LOOPS)
def test_a_crash_of_the_converter_is_an_error_whose_advice_works(quantize, kind, tmp_path):
    model, path, data = recurrent(kind), tmp_path / "net.tflite", data_of(kind)
    options = {"quantize": quantize, "representative_data": data}
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
    """A wrong call, its error and what it must say, and the call that does as it says.

    `raised` is where the error stands in the source, "module.function: words of it".
    """

    raised: str
    wrong: Callable
    error: type[KpruneError]
    match: str
    followed: Callable


def tflite(model=None, **options):
    return lambda at: kprune.export_tflite(model or images_net(), at / "net.tflite", **options)


def saved_model(*operations, **options):
    return lambda at: kprune.export_saved_model(images_net(*operations), at / "saved", **options)


def onnx(*operations, **options):
    return lambda at: kprune.export_onnx(images_net(*operations), at / "net.onnx", **options)


def other_inputs(at):
    inputs = keras.Input((4,))
    kprune.export_tflite(images_net(), at / "net.tflite", signatures={"features": keras.Model(inputs, inputs + 1)})


def same_inputs(at):
    model = images_net()
    features = {"features": keras.Model(model.input, model.layers[1].output)}
    kprune.export_tflite(model, at / "net.tflite", signatures=features)


def untold(at):
    kprune.export_tflite(keras.Sequential([layers.Dense(2)]), at / "net.tflite")


def told(at):
    inputs = keras.Input((3,))
    model = keras.Sequential([layers.Dense(2)])
    kprune.export_tflite(keras.Model(inputs, model(inputs)), at / "net.tflite")


def broken(read, name, text="no model"):
    def call(at):
        (at / name).parent.mkdir(exist_ok=True)
        (at / name).write_text(text)
        read(at / name)

    return call


def broken_folder(read):
    return broken(lambda file: read(file.parent), "saved/saved_model.pb")


def exported(read, export, name):
    def call(at):
        export(images_net(), at / name)
        read(at / name)

    return call


def missing(read, name):
    return lambda at: read(at / name)


def micro_of(last=None, arena=(), **options):
    def call(at):
        pytest.importorskip("tflite_micro")
        options.setdefault("representative_data", IMAGES)
        kprune.export_tflite(images_net(last), at / "net.tflite", batch_size=1, **options)
        kprune.micro_memory(at / "net.tflite", *arena)

    return call


def micro_of_onnx(at):
    kprune.export_onnx(images_net(), at / "net.onnx")
    kprune.micro_memory(at / "net.onnx")


class Own(layers.Layer):
    """A layer that only the process that defines it knows."""

    def call(self, x):
        return x + 1.0


class Untraced(layers.Layer):
    """A layer that leaves TensorFlow."""

    def call(self, x):
        return ops.convert_to_tensor(np.asarray(x) * 2)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


class Random(layers.Layer):
    """A layer that never gives the same again."""

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=1)


def own_layer(at):
    images_net(Own()).save(at / "net.keras")
    open_keras(at / "net.keras")


def own_layer_in_a_saved_model(at):
    kprune.export_saved_model(images_net(Own()), at / "saved")
    open_saved_model(at / "saved")


def random_part(at):
    kprune.export_saved_model(images_net(Random()), at / "saved", check_data=IMAGES)


def part_before_it(at):
    model = images_net(Random())
    kprune.export_saved_model(keras.Model(model.input, model.layers[-2].output), at / "saved", check_data=IMAGES)


def root(x):
    """Of some numbers only; the convolution before it is 0 where the image is."""
    return ops.sqrt(x)


def of_any_size(**options):
    inputs = keras.Input((None, None, 3))
    return tflite(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)), **options)


def of_two_inputs(rows):
    first, second = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    data = {"a": np.ones((6, 4), "float32"), "b": np.ones((rows, 4), "float32")}
    return tflite(keras.Model([first, second], first + second), check_data=data)


def of_fixed_batch(**options):
    inputs = keras.Input((8,), batch_size=2)
    return tflite(keras.Model(inputs, layers.Dense(2)(inputs)), **options)


def differences_of(share):
    """A model of differences between channels, learnt from images whose channels differ by a share."""
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.Conv2D(3, 1)(inputs), name="net")
    model.layers[-1].set_weights([np.array([[[[1.0] * 3, [-1.0] * 3]]], "float32"), np.zeros(3)])
    images = IMAGES[:, :4, :4, :1] * np.array([1, 1 + share], "float32")
    return tflite(model, quantize="int8", representative_data=images)


def quantized_aware(at):
    pytest.importorskip("tf_keras")
    pytest.importorskip("tensorflow_model_optimization")
    kprune.quantize_aware(images_net(attention))


def attention(x):
    x = layers.Reshape((36, 4))(x)
    return layers.MultiHeadAttention(2, 4)(x, x)


def tftrt(**options):
    return lambda at: kprune.export_tftrt(images_net(), at / "saved", **options)


def tftrt_past_options(**options):
    """Here TensorRT may be missing; the options are looked at before."""

    def call(at):
        with contextlib.nullcontext() if missing_for_tensorrt() is None else pytest.raises(ExportError, match="here:"):
            tftrt(**options)(at)

    return call


def tftrt_on_the_device(at):
    """Runs the command that the message names on the folder that it names."""
    with pytest.raises(ExportError) as caught:
        tftrt(precision="FP16")(at)
    command = re.search(r"python3 jetson_benchmark.py FOLDER (--tftrt=\w+)", caught.value.fix)
    folder = kprune.export_saved_model(images_net(), at / "saved").path
    program = [sys.executable, ROOT / "tools" / "jetson_benchmark.py", folder, command[1]]
    options = ["--runs=2", "--warmup=1", f"--output={at / 'times.json'}"]
    done = subprocess.run([*program, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "ms" in done.stdout, done.stderr


def full_disk(at):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", refuse)
        tflite()(at)


def twice(at, **options):
    tflite()(at)
    tflite(**options)(at)


def folder_made(at):
    (at / "new").mkdir()
    tflite()(at / "new")


DATA = {"quantize": "int8", "representative_data": IMAGES}
ADVICE = {
    "a quantization": Advice(
        "tflite._check_options: quantize is",
        tflite(quantize="int4"),
        OptionError,
        "one of these",
        tflite(quantize="dynamic"),
    ),
    "a dtype": Advice(
        "tflite._check_options: io_dtype is",
        tflite(io_dtype="int8"),
        OptionError,
        'quantize="int8"',
        tflite(io_dtype="int8", **DATA),
    ),
    "float ports": Advice(
        "tflite._check_options: io_dtype is",
        tflite(io_dtype="int16", **DATA),
        OptionError,
        'io_dtype="float32"',
        tflite(**DATA),
    ),
    "data": Advice(
        "tflite._check_options: came without representative_data",
        tflite(quantize="int8"),
        OptionError,
        "representative_data=",
        tflite(**DATA),
    ),
    "no data": Advice(
        "tflite._check_options: came without representative_data",
        tflite(quantize="int8"),
        OptionError,
        'quantize="dynamic"',
        tflite(quantize="dynamic"),
    ),
    "a batch": Advice(
        "source._batch_size: batch_size is", tflite(batch_size=0), OptionError, "batch_size=1", tflite(batch_size=1)
    ),
    "a fixed batch": Advice(
        "source._batch_size: batch_size is", of_fixed_batch(batch_size=3), OptionError, "Leave it out", of_fixed_batch()
    ),
    "a signature's name": Advice(
        "tflite._sources: signatures has the name",
        tflite(signatures={"a b": images_net()}),
        OptionError,
        "'features'",
        same_inputs,
    ),
    "a signature's inputs": Advice(
        "tflite._sources: has the inputs", other_inputs, OptionError, r"keras.Model\(model.input", same_inputs
    ),
    "an operation": Advice(
        "tflite._convert: could not be converted to TFLite",
        tflite(images_net(ops.erfinv), check_data=IMAGES * 0.0),
        ExportError,
        "export_saved_model",
        saved_model(ops.erfinv, check_data=IMAGES * 0.0),
    ),
    "an operation of ONNX": Advice(
        "onnx._convert: could not be converted to ONNX",
        onnx(ops.erfinv, check_data=IMAGES * 0.0),
        ExportError,
        "export_saved_model",
        saved_model(ops.erfinv, check_data=IMAGES * 0.0),
    ),
    "an operation of TensorFlow": Advice(
        "saved_model.write_checked: could not be saved",
        saved_model(Untraced()),
        ExportError,
        "Replace the operation",
        saved_model(lambda x: x * 2),
    ),
    "an operation of onnxruntime": Advice(
        "check.compare: does not run",
        onnx(layers.Conv2D(4, 3, dtype="float64")),
        ExportError,
        "Replace the operation",
        onnx(layers.Conv2D(4, 3)),
    ),
    "a part": Advice("check.compare: differs by", random_part, ExportError, "export parts", part_before_it),
    "sums": Advice(
        "requantization.check_factors: would multiply its sums",
        differences_of(1e-5),
        ExportError,
        "learn the ranges",
        differences_of(1e-3),
    ),
    "no finite outputs": Advice(
        "source.outputs: gives NaN or infinity",
        saved_model(root, check_data=IMAGES),
        ModelError,
        "check_data that it can",
        saved_model(root, check_data=IMAGES * 0.0),
    ),
    "inputs": Advice(
        "source._check_model: has no known inputs", untold, ModelError, r"keras.Model\(x, model\(x\)\)", told
    ),
    "samples": Advice(
        "samples.gather_samples: holds no samples",
        tflite(check_data=IMAGES[:0]),
        OptionError,
        "with some inputs",
        tflite(check_data=IMAGES),
    ),
    "counts": Advice(
        "samples.gather_samples: has unequal counts", of_two_inputs(5), OptionError, "Align", of_two_inputs(6)
    ),
    "shapes": Advice(
        "samples._fitted: has shape",
        tflite(check_data=IMAGES[:, :4]),
        OptionError,
        "as the model takes",
        tflite(check_data=IMAGES),
    ),
    "dtypes": Advice(
        "samples._fitted: has dtype",
        tflite(check_data=IMAGES.astype("complex64")),
        OptionError,
        "Convert",
        tflite(check_data=IMAGES),
    ),
    "finite": Advice(
        "samples._fitted: holds NaN",
        tflite(check_data=IMAGES * np.nan),
        OptionError,
        "Clean",
        tflite(check_data=IMAGES),
    ),
    "forms": Advice(
        "samples._not_arrays: gives a", tflite(check_data="x"), OptionError, "Pass an array", tflite(check_data=IMAGES)
    ),
    "names": Advice(
        "samples._by_name: has the keys",
        tflite(check_data={"a": IMAGES}),
        OptionError,
        "by its name",
        tflite(check_data=IMAGES),
    ),
    "sizes": Advice(
        "samples.random_samples: so no random sample",
        of_any_size(),
        OptionError,
        "Pass data",
        of_any_size(check_data=IMAGES),
    ),
    "an opset": Advice("onnx.export_onnx: opset is", onnx(opset=9), OptionError, "opset=17", onnx(opset=17)),
    "layers": Advice(
        "quantization_aware.quantize_aware: tfmot cannot wrap",
        quantized_aware,
        ModelError,
        'quantize="int8", representative_data=x',
        tflite(images_net(attention), **DATA),
    ),
    "a precision": Advice(
        "tensorrt.export_tftrt: precision is",
        tftrt(precision="int8"),
        OptionError,
        "one of these",
        tftrt_past_options(precision="FP16"),
    ),
    "ranges of TensorRT": Advice(
        "tensorrt.export_tftrt: came without representative_data",
        tftrt(precision="INT8"),
        OptionError,
        "representative_data=",
        tftrt_past_options(precision="INT8", representative_data=IMAGES),
    ),
    "a broken TFLite file": Advice(
        "litert.open_tflite: could not be opened",
        broken(open_tflite, "net.tflite"),
        ModelError,
        "kprune.export_tflite",
        exported(open_tflite, kprune.export_tflite, "net.tflite"),
    ),
    "no TFLite file": Advice(
        "litert.open_tflite: There is no file",
        missing(open_tflite, "net.tflite"),
        OptionError,
        "export the model first",
        exported(open_tflite, kprune.export_tflite, "net.tflite"),
    ),
    "no signature": Advice(
        "litert.open_tflite: has no signature",
        exported(lambda path: open_tflite(path, signature="b"), kprune.export_tflite, "net.tflite"),
        OptionError,
        "Name one of these",
        exported(lambda path: open_tflite(path, signature="serving_default"), kprune.export_tflite, "net.tflite"),
    ),
    "a broken ONNX file": Advice(
        "onnxruntime.open_onnx: could not be opened",
        broken(open_onnx, "net.onnx"),
        ModelError,
        "kprune.export_onnx",
        exported(open_onnx, kprune.export_onnx, "net.onnx"),
    ),
    "a broken SavedModel": Advice(
        "saved_model.open_saved_model: could not be opened",
        broken_folder(open_saved_model),
        ModelError,
        "kprune.export_saved_model",
        exported(open_saved_model, kprune.export_saved_model, "saved"),
    ),
    "a layer of one's own": Advice(
        "keras_model.open_keras: could not be opened",
        own_layer,
        ModelError,
        "kprune.export_saved_model",
        own_layer_in_a_saved_model,
    ),
    "no file": Advice(
        "open.kind_of: There is no file",
        missing(kprune.read_metadata, "net.onnx"),
        OptionError,
        "export the model first",
        exported(kprune.read_metadata, kprune.export_onnx, "net.onnx"),
    ),
    "no model": Advice(
        "open.kind_of: is no model that can be run",
        broken(kprune.read_metadata, "net.txt"),
        ModelError,
        "export_saved_model",
        exported(kprune.read_metadata, kprune.export_saved_model, "saved"),
    ),
    "no metadata": Advice(
        "metadata.read_metadata: has no metadata",
        broken(kprune.read_metadata, "net.onnx", ""),
        ModelError,
        "Export the model again",
        exported(kprune.read_metadata, kprune.export_onnx, "net.onnx"),
    ),
    "damaged metadata": Advice(
        "metadata.read_metadata: is damaged",
        broken(kprune.read_metadata, "net.onnx"),
        ModelError,
        "Export the model again",
        exported(kprune.read_metadata, kprune.export_onnx, "net.onnx"),
    ),
    "another file on a microcontroller": Advice(
        "tflite_micro.micro_memory: is no TFLite file", micro_of_onnx, ModelError, "kprune.export_tflite", micro_of()
    ),
    "a small arena": Advice(
        "tflite_micro._refuse: bytes of arena",
        micro_of(arena=(64,)),
        OptionError,
        "larger arena_bytes",
        micro_of(arena=(1 << 20,)),
    ),
    "an operation of a microcontroller": Advice(
        "tflite_micro._refuse: TFLite Micro cannot run",
        micro_of(lambda x: ops.top_k(x, 2)[0]),
        ModelError,
        "by others",
        micro_of(lambda x: ops.max(x, axis=-1)),
    ),
    "GELU on a microcontroller": Advice(
        "tflite_micro._refuse: TFLite Micro cannot run",
        micro_of(layers.Activation("gelu")),
        ModelError,
        "micro=True",
        micro_of(lambda x: ops.gelu(x, approximate=True), micro=True),
    ),
    "float16 on a microcontroller": Advice(
        "tflite_micro._refuse: TFLite Micro cannot run",
        micro_of(quantize="float16"),
        ModelError,
        "without quantize",
        micro_of(),
    ),
    "integers on one": Advice(
        "tflite_micro._refuse: TFLite Micro cannot run",
        micro_of(quantize="float16"),
        ModelError,
        'quantize="int8"',
        micro_of(quantize="int8", io_dtype="int8"),
    ),
    "a place that is taken": Advice(
        "files.write_by_rename: is already there",
        lambda at: twice(at, overwrite=False),
        ExportError,
        "Choose another",
        lambda at: tflite()(at),
    ),
    "no folder": Advice(
        "files._need_parent: does not exist",
        lambda at: tflite()(at / "new"),
        ExportError,
        "Create it first",
        folder_made,
    ),
    "a full disk": Advice("files._refused: could not be written", full_disk, ExportError, "Free room", tflite()),
}
if missing_for_tensorrt() is not None:
    ADVICE["TensorRT"] = Advice(
        "tensorrt._need_tensorrt: cannot be converted by TF-TRT here",
        tftrt(),
        ExportError,
        "--tftrt=FP16",
        tftrt_on_the_device,
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tfmot
@pytest.mark.parametrize("case", ADVICE)
def test_what_an_error_advises_works(case, tmp_path):
    advice = ADVICE[case]
    module, _, words = advice.raised.partition(": ")
    with pytest.raises(advice.error, match=f"{re.escape(words)}.*Fix:.*{advice.match}") as caught:
        advice.wrong(tmp_path)
    files = {pathlib.Path(frame.filename) for frame in traceback.extract_tb(caught.tb)}
    assert module.split(".")[0] in {module_of(path) for path in files}
    advice.followed(tmp_path)


class Package(NamedTuple):
    """What is done without a package: where its error stands, the modules that are missing, and the call."""

    raised: str
    modules: tuple[str, ...]
    call: Callable


WITHOUT = {
    "tf2onnx": Package("onnx._need: which writes ONNX files", ("tf2onnx",), onnx()),
    "onnx": Package("onnx._need: which writes ONNX files", ("onnx",), onnx()),
    "onnx to read": Package(
        "metadata._read_onnx: which reads what ONNX", ("onnx",), broken(kprune.read_metadata, "net.onnx")
    ),
    "TensorFlow to read": Package(
        "metadata._read_tflite: which reads what TFLite",
        ("tensorflow", "tensorflow.lite.tools"),
        broken(kprune.read_metadata, "net.tflite"),
    ),
    "TensorFlow": Package("saved_model.open_saved_model: TensorFlow", ("tensorflow",), broken_folder(open_saved_model)),
    "onnxruntime": Package("onnxruntime.open_onnx: onnxruntime", ("onnxruntime",), broken(open_onnx, "net.onnx")),
    "any runtime of TFLite": Package(
        "litert._interpreter_class: No runtime for TFLite files",
        ("ai_edge_litert.interpreter", "tensorflow"),
        broken(open_tflite, "net.tflite"),
    ),
    "tfmot": Package(
        "tfmot.load_tfmot: which trains with quantization",
        ("tensorflow_model_optimization",),
        lambda at: kprune.quantize_aware(images_net()),
    ),
    "tf_keras": Package("", ("tf_keras",), lambda at: kprune.quantize_aware(images_net())),
    "tflite-micro": Package(
        "tflite_micro.micro_memory: which has builds for Linux",
        ("tflite_micro",),
        broken(kprune.micro_memory, "net.tflite"),
    ),
}


def installed_by(line):
    """The packages that a pip command installs: an extra's, or the one that it names."""
    options = configparser.ConfigParser()
    options.read(ROOT / "setup.cfg")
    words = shlex.split(line)
    assert words[:2] == ["pip", "install"] and len(words) == 3
    extra = re.fullmatch(r"kprune\[(\w+)\]", words[2])
    lines = options["options.extras_require"][extra[1]].splitlines() if extra else [words[2]]
    return {re.split(r"[;<>=\s]", line)[0] for line in lines if line and not line.startswith("#")}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tfmot
@pytest.mark.parametrize("case", WITHOUT)
def test_a_missing_package_is_installed_by_what_the_error_says(case, tmp_path, monkeypatch):
    kprune.deploy.export.quantization_aware.load_tfmot.cache_clear()
    for module in WITHOUT[case].modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackageError) as caught:
        WITHOUT[case].call(tmp_path)
    assert WITHOUT[case].raised.partition(": ")[2] in str(caught.value)
    package = WITHOUT[case].modules[0].split(".")[0]
    assert {package, package.replace("_", "-")} & installed_by(caught.value.fix)


# Errors that no row of a table has, and why.
WITHOUT_ADVICE = {
    "base.feed: NotImplementedError": "no runtime leaves it out",
    "base.invoke: NotImplementedError": "no runtime leaves it out",
    "base.fetch: NotImplementedError": "no runtime leaves it out",
    "conversion.convert_apart: ConverterError": "tflite._convert makes an error with advice of it",
    "tensorrt._convert: could not be converted by TF-TRT": "only TensorFlow with TensorRT comes so far",
    "tensorrt._need_tensorrt: cannot be converted by TF-TRT here": "only TensorFlow without TensorRT says it",
}


def module_of(path):
    return path.parent.name if path.stem == "__init__" else path.stem


def errors_made():
    """Where errors are made, as "module.function", each with its source."""
    makes = re.compile(r"\w+Error|missing_package|need_package")
    for path in sorted(path for room in ROOMS for path in room.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    call = node.exc if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) else node
                    name = call if isinstance(call, ast.Name) and call is not node else getattr(call, "func", None)
                    if isinstance(name, ast.Name) and makes.fullmatch(name.id):
                        yield f"{module_of(path)}.{function.name}", ast.unparse(call)


def test_every_error_of_these_rooms_has_its_advice_tried():
    made = list(errors_made())
    tried = [row.raised.partition(": ")[::2] for row in (*ADVICE.values(), *WITHOUT.values())]
    excused = [entry.partition(": ")[::2] for entry in WITHOUT_ADVICE]
    untried = [
        f"{place}: {source}"
        for place, source in made
        if not any(place == known and words in source for known, words in (*tried, *excused))
    ]
    assert not untried, "\n".join(["", *untried])
    rows = [row for row in (*tried, *excused) if row[0] and not row[0].startswith("files.")]
    gone = [row for row in rows if not any(place == row[0] and row[1] in source for place, source in made)]
    assert not gone
