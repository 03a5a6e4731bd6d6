"""Writes a model as a file for other runtimes, and checks the file against the model.

  kprune export model.keras                                                      # float32 TFLite: model.tflite
  kprune export model.keras --quantize=int8 --representative_data=images.npy --output=int8.tflite
  kprune export model.keras --format=onnx --batch_size=1
  kprune export model.keras --format=tftrt --precision=FP16                      # where TensorFlow has TensorRT

Prints the size and how close it is to the model. A mistake gives one line and exit code 2.
"""

import dataclasses
import pathlib

from absl import flags

from kprune.cli import common

POSITIONAL = "model"
NEEDS = ("model",)
# By format: what is added to the model's name for the file, and the flags for this format alone.
ENDINGS = {"tflite": ".tflite", "onnx": ".onnx", "saved_model": "_saved_model", "tftrt": "_tftrt"}
OWN = {
    "tflite": ("quantize", "io_dtype", "micro_memory"),
    "onnx": ("opset",),
    "saved_model": (),
    "tftrt": ("precision",),
}
WITH_REPRESENTATIVE_DATA = ("tflite", "tftrt")
FLAGS, define = common.own_flags()
define.string("model", None, "The Keras model: a .keras or .h5 file.")
define.enum("format", "tflite", list(ENDINGS), "What to write; the last two are folders.")
define.string("output", None, "Where; by default beside the model, by its name.")
define.enum(
    "quantize",
    "none",
    ["none", "float16", "dynamic", "int8", "int16x8"],
    "For tflite. none: float32. float16: half the size. dynamic: 8-bit weights. int8: 8 bits throughout, with "
    "--representative_data. int16x8: activations of 16 bits.",
)
define.enum(
    "io_dtype",
    "float32",
    ["float32", "int8", "uint8", "int16"],
    "For tflite: what a file of int8 or int16x8 takes and gives.",
)
define.enum("precision", "FP16", ["FP32", "FP16", "INT8"], "For tftrt: the precision.")
define.integer("opset", 17, "For onnx: version of its operations, 13 to 18.")
define.integer("batch_size", None, "Samples per run; default: those of the model, for tftrt 1.", lower_bound=1)
define.string(
    "representative_data",
    None,
    "Typical inputs, a few hundred, as .npy, or as .npz whose keys are the names of the model's inputs. int8, int16x8 "
    "and tftrt in INT8 learn the ranges from them; the file is checked on them.",
)
define.string("representative_key", None, "The one array of an .npz file to use.")
define.string(
    "check_data",
    None,
    "Other inputs to compare file and model on, .npy or .npz; default: the representative data, or random ones.",
)
define.string("check_key", None, "The one array of an .npz file to use.")
define.string("record", None, "A JSON file for what was measured; kprune report shows it.")
define.bool(
    "micro_memory",
    False,
    "For tflite: tell the arena that TFLite Micro needs on a microcontroller; needs the package tflite-micro.",
)
define.bool("overwrite", True, "Replace what is there.")


def check_flags() -> None:
    """Refuses flags that would be ignored beside others."""
    for name, own in OWN.items():
        given = [flag for flag in own if FLAGS[flag].present]
        if given and name != FLAGS.format:
            raise flags.Error(f"--{given[0]} is for --format={name}, not for {FLAGS.format}")
    if FLAGS.representative_data is not None and FLAGS.format not in WITH_REPRESENTATIVE_DATA:
        raise flags.Error(f"--representative_data is not for --format={FLAGS.format}; --check_data is")
    if FLAGS.format == "tftrt" and FLAGS.check_data is not None:
        raise flags.Error("--check_data is not for --format=tftrt; it is checked on --representative_data")
    for kind in ("representative", "check"):
        if FLAGS[f"{kind}_key"].present and FLAGS[f"{kind}_data"].value is None:
            raise flags.Error(f"--{kind}_key is for --{kind}_data")


def read(kind: str):
    """The arrays of --representative_data or --check_data, or None."""
    path = FLAGS[f"{kind}_data"].value
    return None if path is None else common.load_arrays(path, FLAGS[f"{kind}_key"].value)


def write(model, output: pathlib.Path):
    """Writes the model in the format of the flags."""
    from kprune.deploy import export_onnx, export_saved_model, export_tflite, export_tftrt

    options = {"batch_size": FLAGS.batch_size, "overwrite": FLAGS.overwrite}
    if FLAGS.format == "onnx":
        return export_onnx(model, output, opset=FLAGS.opset, check_data=read("check"), **options)
    if FLAGS.format == "saved_model":
        return export_saved_model(model, output, check_data=read("check"), **options)
    if FLAGS.format == "tftrt":
        options["batch_size"] = FLAGS.batch_size or 1
        data = read("representative")
        return export_tftrt(model, output, precision=FLAGS.precision, representative_data=data, **options)
    return export_tflite(
        model,
        output,
        quantize=None if FLAGS.quantize == "none" else FLAGS.quantize,
        io_dtype=FLAGS.io_dtype,
        representative_data=read("representative"),
        check_data=read("check"),
        **options,
    )


def main(_) -> None:
    from kprune.deploy import micro_memory

    check_flags()
    source = pathlib.Path(FLAGS.model)
    output = pathlib.Path(FLAGS.output or source.with_name(source.stem + ENDINGS[FLAGS.format]))
    result = write(common.load_model(FLAGS.model), output)
    if FLAGS.micro_memory:
        result = dataclasses.replace(result, arena_bytes=micro_memory(output).arena_bytes)
    print(result)
    common.write_record(FLAGS.record, result)
