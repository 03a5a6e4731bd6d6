#!/usr/bin/env python3
"""Times TFLite, SavedModel, TF-TRT and ONNX models on a device. One file, Python 3.6 or newer; needs nothing of kprune.

  python3 jetson_benchmark.py exported/                       # every model in the folder
  python3 jetson_benchmark.py exported/ --tftrt=FP16          # also each SavedModel, converted by TF-TRT
  python3 jetson_benchmark.py small.onnx --trtexec=fp16       # also each ONNX file in TensorRT's own trtexec
  python3 jetson_benchmark.py small.tflite --median           # prints milliseconds alone, for other programs

It uses what it finds: TensorFlow 1.15 or 2.x (with TensorRT if it is built so), tflite_runtime or ai_edge_litert,
onnxruntime, trtexec. Models take turns, run by run, so that heat and clocks meet all of them alike; only trtexec runs
by itself. Times include the copy of inputs and outputs. A model that cannot be run is listed with its reason.
"""

import argparse
import glob
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
WORKSPACE_BYTES = 1 << 28
# File that tells about the device -> what it tells.
DEVICE_FILES = {
    "/proc/device-tree/model": "board",
    "/etc/nv_tegra_release": "l4t",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "cpu_governor",
}
CLOCK_FILES = (
    "/sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq",
    "/sys/class/devfreq/*/cur_freq",
    "/sys/devices/gpu.0/devfreq/*/cur_freq",
    "/sys/class/thermal/thermal_zone*/temp",
)


class Unusable(Exception):
    """A model that cannot be run here; the text says why."""


def random_inputs(specs, batch, seed):
    """Inputs by name; `specs` are (name, shape, dtype), unknown sizes None or below 1, the first of them the batch."""
    rng, inputs = np.random.RandomState(seed), {}
    for name, shape, dtype in sorted(specs, key=lambda spec: spec[0]):
        sizes = [size if isinstance(size, (int, np.integer)) and size > 0 else None for size in shape]
        if None in sizes[1:]:
            raise Unusable("input %s has the shape %s; sizes other than the batch must be fixed" % (name, list(shape)))
        sizes = [batch if size is None else int(size) for size in sizes]
        dtype = np.dtype(dtype)
        values = rng.uniform(0, 1, sizes) if dtype.kind == "f" else rng.randint(0, 128, sizes)
        inputs[name] = values.astype(dtype)
    return inputs


# --- Models: each class opens a file and runs it once per call -------------------------------------------------------


class TFLiteModel(object):
    def __init__(self, path, options):
        interpreter_class, self.runtime = tflite_interpreter()
        try:
            self.interpreter = interpreter_class(model_path=path, num_threads=options.threads)
        except TypeError:  # before TensorFlow 2.3, which runs one thread
            self.interpreter = interpreter_class(model_path=path)
        details = self.interpreter.get_input_details()
        specs = [(d["name"], d.get("shape_signature", d["shape"]), d["dtype"]) for d in details]
        inputs = random_inputs(specs, options.batch, options.seed)
        for detail in details:
            self.interpreter.resize_tensor_input(detail["index"], inputs[detail["name"]].shape)
        self.interpreter.allocate_tensors()
        for detail in details:
            self.interpreter.set_tensor(detail["index"], inputs[detail["name"]])

    def run(self):
        self.interpreter.invoke()


class OnnxModel(object):
    def __init__(self, path, options):
        try:
            import onnxruntime
        except ImportError:
            raise Unusable("onnxruntime is not installed")
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        available = onnxruntime.get_available_providers()
        wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        providers = [name for name in wanted if name in available]
        self.session = onnxruntime.InferenceSession(path, settings, providers=providers)
        self.runtime = "onnxruntime %s (%s)" % (onnxruntime.__version__, self.session.get_providers()[0])
        dtypes = {"float": "float32", "double": "float64"}
        specs = []
        for node in self.session.get_inputs():
            dtype = node.type[len("tensor(") : -1]
            specs.append((node.name, node.shape, dtypes.get(dtype, dtype)))
        self.inputs = random_inputs(specs, options.batch, options.seed)

    def run(self):
        self.session.run(None, self.inputs)


class SavedModel(object):
    def __init__(self, path, options):
        tf = tensorflow(options)
        self.runtime = "TensorFlow %s%s" % (tf.__version__, " with a GPU" if gpus(tf) else "")
        self.runtime += tensorrt_name(tf)
        self.tf, self.options = tf, options
        if tf.__version__.startswith("1."):
            self.open_graph(path)
        else:
            self.open_function(path)

    def open_function(self, path):
        loaded = self.tf.saved_model.load(path)
        function = loaded.signatures["serving_default"]
        specs = function.structured_input_signature[1]
        specs = [(name, spec.shape.as_list(), spec.dtype.as_numpy_dtype) for name, spec in specs.items()]
        arrays = random_inputs(specs, self.options.batch, self.options.seed)
        inputs = {name: self.tf.constant(array) for name, array in arrays.items()}
        self.loaded = loaded  # holds the variables
        self.run = lambda: [value.numpy() for value in function(**inputs).values()]

    def open_graph(self, path):
        v1 = self.tf.compat.v1
        config = v1.ConfigProto(intra_op_parallelism_threads=self.options.threads)
        config.gpu_options.allow_growth = True
        session = v1.Session(graph=self.tf.Graph(), config=config)
        with session.graph.as_default():
            signature = v1.saved_model.loader.load(session, ["serve"], path).signature_def["serving_default"]
        specs = []
        for info in signature.inputs.values():
            shape = [dim.size for dim in info.tensor_shape.dim]
            specs.append((info.name, shape, self.tf.as_dtype(info.dtype).as_numpy_dtype))
        inputs = random_inputs(specs, self.options.batch, self.options.seed)
        outputs = [info.name for info in signature.outputs.values()]
        self.run = lambda: session.run(outputs, inputs)


# --- What is installed ------------------------------------------------------------------------------------------------


def tflite_interpreter():
    """The interpreter class, and the name and version of its package."""
    for module in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            imported = __import__(module, fromlist=["Interpreter"])
            package = sys.modules[module.split(".")[0]]
            return imported.Interpreter, "%s %s" % (package.__name__, getattr(package, "__version__", ""))
        except ImportError:
            pass
    try:
        import tensorflow as tf

        return tf.lite.Interpreter, "tf.lite of TensorFlow %s" % tf.__version__
    except ImportError:
        raise Unusable("none of ai_edge_litert, tflite_runtime and tensorflow is installed")


def tensorflow(options):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import tensorflow as tf
    except ImportError:
        raise Unusable("tensorflow is not installed")
    if not tf.__version__.startswith("1."):
        try:
            tf.config.threading.set_intra_op_parallelism_threads(options.threads)
            for gpu in tf.config.list_physical_devices("GPU"):
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            pass  # TensorFlow runs already, with these settings
    return tf


def gpus(tf):
    if tf.__version__.startswith("1."):
        return tf.test.is_gpu_available()
    return bool(tf.config.list_physical_devices("GPU"))


def has_tensorrt(tf):
    """Whether TensorFlow was built with TensorRT, by what it does: its converter imports everywhere."""
    try:
        return bool(tf.sysconfig.get_build_info()["is_tensorrt_build"])
    except (AttributeError, KeyError):  # TensorFlow before 2.3 tells it only by its version
        return tensorrt_version() is not None


def tensorrt_version():
    """The version of TensorRT that TensorFlow was built with, or None."""
    for module in ("_pywrap_py_utils", "wrap_py_utils"):  # TensorFlow 2.1 and newer; 1.14 to 2.0
        try:
            imported = __import__("tensorflow.compiler.tf2tensorrt." + module, fromlist=["get_linked_tensorrt_version"])
            version = tuple(imported.get_linked_tensorrt_version())
        except (ImportError, AttributeError):
            continue
        return None if version == (0, 0, 0) else version
    return None


def tensorrt_name(tf):
    """What a runtime's name says of TensorRT."""
    version = tensorrt_version() if has_tensorrt(tf) else None
    return ", TensorRT %s" % ".".join(map(str, version)) if version else ""


def find_trtexec():
    return shutil.which("trtexec") or (TRTEXEC if os.path.isfile(TRTEXEC) else None)


# --- TensorRT ---------------------------------------------------------------------------------------------------------


def convert_tftrt(path, folder, precision, options):
    """Converts a SavedModel by TF-TRT and gives the path of the new one."""
    tf = tensorflow(options)
    if not has_tensorrt(tf):
        raise Unusable("TensorFlow %s is built without TensorRT; use NVIDIA's TensorFlow for Jetson" % tf.__version__)
    if not gpus(tf):
        raise Unusable("TensorFlow %s sees no GPU" % tf.__version__)
    from tensorflow.python.compiler.tensorrt import trt_convert

    target = os.path.join(folder, "%s_tftrt_%s" % (os.path.basename(path.rstrip("/")), precision.lower()))
    if tf.__version__.startswith("1."):
        converter = trt_convert.TrtGraphConverter(
            input_saved_model_dir=path, precision_mode=precision, is_dynamic_op=True, max_batch_size=options.batch,
            max_workspace_size_bytes=WORKSPACE_BYTES,
        )  # fmt: skip
        if precision == "INT8":
            raise Unusable("INT8 by TF-TRT needs TensorFlow 2")
        converter.convert()
        converter.save(target)
        return target
    settings = {"precision_mode": precision, "max_workspace_size_bytes": WORKSPACE_BYTES}
    try:
        converter = trt_convert.TrtGraphConverterV2(input_saved_model_dir=path, **settings)
    except TypeError:  # before TensorFlow 2.5
        params = trt_convert.DEFAULT_TRT_CONVERSION_PARAMS._replace(**settings)
        converter = trt_convert.TrtGraphConverterV2(input_saved_model_dir=path, conversion_params=params)

    def batches():
        specs = tf.saved_model.load(path).signatures["serving_default"].structured_input_signature[1]
        specs = [(name, spec.shape.as_list(), spec.dtype.as_numpy_dtype) for name, spec in specs.items()]
        arrays = random_inputs(specs, options.batch, options.seed)
        # TensorFlow orders the inputs of a signature by their names.
        yield [tf.constant(arrays[name]) for name in sorted(arrays)]

    converter.convert(**({"calibration_input_fn": batches} if precision == "INT8" else {}))
    converter.build(input_fn=batches)
    converter.save(target)
    return target


def run_trtexec(path, precision, options):
    """Times an ONNX file in TensorRT's own program; milliseconds of each run, as it writes them."""
    program = find_trtexec()
    if program is None:
        raise Unusable("trtexec was not found in the PATH or at " + TRTEXEC)
    with tempfile.TemporaryDirectory() as folder:
        times = os.path.join(folder, "times.json")
        command = [program, "--onnx=" + path, "--exportTimes=" + times, "--avgRuns=1"]
        command += ["--iterations=%d" % options.runs, "--warmUp=500"]
        command += [] if precision == "fp32" else ["--" + precision]
        if options.shapes:
            command.append("--shapes=" + options.shapes)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        if done.returncode or not os.path.isfile(times):
            lines = [line for line in done.stdout.splitlines() if "[E]" in line] or done.stdout.splitlines()[-1:]
            raise Unusable("trtexec failed: " + (lines[0].strip() if lines else "it said nothing"))
        with open(times) as file:
            rows = json.load(file)
    version = re.search(r"TensorRT[. ]v?(\d+)", done.stdout)
    runtime = "trtexec %s, TensorRT %s" % (precision, version.group(1) if version else "unknown")
    return [float(row["latencyMs"]) for row in rows], runtime


# --- Finding, timing, telling -----------------------------------------------------------------------------------------


def find_models(paths):
    """The models in files and folders, as (path, class)."""
    found = []
    for path in paths:
        if os.path.isfile(os.path.join(path, "saved_model.pb")):
            found.append((path, SavedModel))
        elif os.path.isdir(path):
            inside = sorted(os.path.join(path, name) for name in os.listdir(path) if not name.startswith("."))
            found += find_models([name for name in inside if os.path.isdir(name) or kind_of(name)])
        elif not os.path.exists(path):
            raise SystemExit("There is no %s. Name the exported files, or the folder that they are in." % path)
        elif kind_of(path) is None:
            raise SystemExit("%s is no .tflite or .onnx file and no SavedModel." % path)
        else:
            found.append((path, kind_of(path)))
    return found


def kind_of(path):
    return {".tflite": TFLiteModel, ".onnx": OnnxModel}.get(os.path.splitext(path)[1])


def open_models(options, folder):
    """The models that can be run, as (label, model), and rows for those that cannot."""
    models, failed = [], []

    def attempt(label, make):
        try:
            model = make()
            model.run()  # what loads may still not run
            models.append((label, model))
        except Exception as error:  # one model must not keep the others from being timed
            failed.append({"model": label, "error": first_line(error)})

    for path, kind in find_models(options.paths):
        attempt(path, lambda: kind(path, options))
        for precision in options.tftrt if kind is SavedModel else []:
            label = "%s, TF-TRT %s" % (path, precision)
            attempt(label, lambda: SavedModel(convert_tftrt(path, folder, precision, options), options))
    return models, failed


def time_in_turn(models, options):
    """Rows of the models, each with the milliseconds of its runs; one that fails meanwhile has its reason."""
    times, errors = [[] for _ in models], {}
    for turn in range(options.warmup + options.runs):
        for index, (_, model) in enumerate(models):
            if index in errors:
                continue
            start = time.perf_counter()
            try:
                model.run()
            except Exception as error:  # one model must not take the others' times with it
                errors[index] = "in run %d: %s" % (turn + 1, first_line(error))
                continue
            if turn >= options.warmup:
                times[index].append((time.perf_counter() - start) * 1e3)
    return [
        {"model": label, "error": errors[index]} if index in errors else row(label, model.runtime, times[index], True)
        for index, (label, model) in enumerate(models)
    ]


def first_line(error):
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def row(label, runtime, times, in_turn):
    quantiles = dict(zip(("p10_ms", "median_ms", "p90_ms", "p99_ms"), np.percentile(times, [10, 50, 90, 99]).tolist()))
    facts = {"model": label, "runtime": runtime, "runs": len(times), "in_turn": in_turn, "samples_ms": times}
    facts.update(quantiles)
    return facts


def read_text(path):
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace").strip("\0\n ")
    except (IOError, OSError):
        return None


def device_facts():
    """Board, software, power mode and clock settings, as far as the device tells."""
    facts = {"machine": platform.machine(), "system": platform.platform(), "python": platform.python_version()}
    for path, name in DEVICE_FILES.items():
        text = read_text(path)
        if text:
            facts[name] = text.splitlines()[0]
    model = re.search(r"model name\s*: (.+)", read_text("/proc/cpuinfo") or "")
    if model:
        facts["processor"] = model.group(1)
    if shutil.which("nvpmodel"):
        done = subprocess.run(
            ["nvpmodel", "-q"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
        )
        facts["power_mode"] = " ".join(done.stdout.split())
    return facts


def clocks():
    """Clock frequencies and temperatures now, by the file that tells them."""
    paths = sorted(path for pattern in CLOCK_FILES for path in glob.glob(pattern))
    values = {path: read_text(path) for path in paths}
    return {path: int(value) for path, value in values.items() if value and value.lstrip("-").isdigit()}


def print_table(rows):
    lines = [("model", "runtime", "median ms", "10 % to 90 %", "99 %")]
    for one in rows:
        if "error" in one:
            lines.append((one["model"], "not run: " + one["error"], "", "", ""))
        else:
            spread = "%.3f to %.3f" % (one["p10_ms"], one["p90_ms"])
            lines.append((one["model"], one["runtime"], "%.3f" % one["median_ms"], spread, "%.3f" % one["p99_ms"]))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog="Set the power mode first: sudo nvpmodel -m 0; sudo jetson_clocks"
    )
    parser.add_argument("paths", nargs="+", help="model files, SavedModels, or folders of them")
    parser.add_argument("--tftrt", action="append", default=[], choices=["FP32", "FP16", "INT8"],
                        help="also convert each SavedModel by TF-TRT; INT8 is calibrated on random inputs, "
                        "so good for its time only; may be given more than once")  # fmt: skip
    parser.add_argument("--trtexec", action="append", default=[], choices=["fp32", "fp16", "int8"],
                        help="also time each ONNX file in trtexec; may be given more than once")  # fmt: skip
    parser.add_argument("--shapes", default="", help="for trtexec and ONNX files of a free batch: image:1x224x224x3")
    parser.add_argument("--batch", type=int, default=1, help="samples per run, where the model takes any number")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--warmup", type=int, default=20, help="runs of each model before the first timed one")
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random inputs")
    parser.add_argument("--median", action="store_true",
                        help="print nothing but the median milliseconds of each model, a line each; fails if one "
                        "cannot be run")  # fmt: skip
    parser.add_argument("--output", default="jetson_benchmark.json", help="the JSON file to write")
    options = parser.parse_args(argv)
    for name, least in (("batch", 1), ("threads", 1), ("warmup", 0), ("runs", 1)):
        if getattr(options, name) < least:
            parser.error("--%s must be at least %d" % (name, least))
    folder = os.path.dirname(os.path.abspath(options.output))
    if os.path.isdir(options.output) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        parser.error("--output=%s cannot be written; name a file in a folder that is there" % options.output)
    return options


def main(argv=None):
    options = parse(argv)
    folder = tempfile.mkdtemp()
    try:
        models, rows = open_models(options, folder)
        before = clocks()
        rows = time_in_turn(models, options) + rows
        after = clocks()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for path, kind in find_models(options.paths):
        for precision in options.trtexec if kind is OnnxModel else []:
            label = "%s, trtexec %s" % (path, precision)
            try:
                measured, runtime = run_trtexec(path, precision, options)
                rows.append(row(label, runtime, measured, False))
            except Exception as error:  # the other rows are not lost for it
                rows.append({"model": label, "error": first_line(error)})
    failed = [one for one in rows if "error" in one]
    if options.median:
        print("".join("%.6g\n" % one["median_ms"] for one in rows if "error" not in one), end="")
        print("".join("%s: %s\n" % (one["model"], one["error"]) for one in failed), end="", file=sys.stderr)
    else:
        print_table(rows)
    report = {"device": device_facts(), "clocks_before": before, "clocks_after": after, "numpy": np.__version__}
    report.update(options=vars(options), models=rows)
    temporary = options.output + ".part"
    with open(temporary, "w") as file:
        json.dump(report, file, indent=1)
    os.replace(temporary, options.output)
    if not options.median:
        print("Written to %s" % options.output)
    return 1 if len(failed) == len(rows) or (options.median and failed) else 0


if __name__ == "__main__":
    sys.exit(main())
