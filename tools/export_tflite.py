"""Writes a Keras model as a TFLite file, and checks the file against the model.

  python tools/export_tflite.py --model=small.keras --output=small.tflite
  python tools/export_tflite.py --model=small.keras --output=small.tflite \\
      --quantize=int8 --representative_data=images.npy

Prints the size of the file and how close it is to the model. A mistake gives one line and exit code 2.
"""

import dataclasses

from absl import flags

import _cli

MODEL = flags.DEFINE_string("model", None, "The Keras model: a .keras or .h5 file.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The TFLite file to write.", required=True)
QUANTIZE = flags.DEFINE_enum(
    "quantize",
    "none",
    ["none", "float16", "dynamic", "int8", "int16x8"],
    "none: float32. float16: half the size. dynamic: 8-bit weights. int8: 8 bits throughout, with representative data. "
    "int16x8: activations of 16 bits.",
)
IO_DTYPE = flags.DEFINE_enum(
    "io_dtype", "float32", ["float32", "int8", "uint8", "int16"], "What a file of int8 or int16x8 takes and gives."
)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Samples per run; default: those of the model.", lower_bound=1)
REPRESENTATIVE_DATA = flags.DEFINE_string(
    "representative_data",
    None,
    "Typical inputs, a few hundred, as .npy, or as .npz whose keys are the names of the model's inputs. "
    "int8 and int16x8 learn the ranges from them; the file is checked on them.",
)
REPRESENTATIVE_KEY = flags.DEFINE_string("representative_key", None, "The one array of an .npz file to use.")
CHECK_DATA = flags.DEFINE_string(
    "check_data", None, "Other inputs to compare file and model on, .npy or .npz; default: the representative data."
)
CHECK_KEY = flags.DEFINE_string("check_key", None, "The one array of an .npz file to use.")
RECORD = flags.DEFINE_string("record", None, "A JSON file for what was measured; tools/report.py shows it.")
MICRO = flags.DEFINE_bool(
    "micro_memory",
    False,
    "Tell the arena that TFLite Micro needs on a microcontroller; needs the package tflite-micro.",
)
OVERWRITE = flags.DEFINE_bool("overwrite", True, "Replace an existing file.")


def main(_) -> None:
    from kprune.deploy.export import export_tflite
    from kprune.deploy.runtimes import micro_memory
    from kprune.utils.errors import OptionError

    data, key = REPRESENTATIVE_DATA.value, REPRESENTATIVE_KEY.value
    if key is not None and data is None:
        raise OptionError(f"--representative_key={key} came without data.", "--representative_data.", "Pass both.")
    result = export_tflite(
        _cli.load_model(MODEL.value),
        OUTPUT.value,
        quantize=None if QUANTIZE.value == "none" else QUANTIZE.value,
        io_dtype=IO_DTYPE.value,
        batch_size=BATCH_SIZE.value,
        representative_data=None if data is None else _cli.load_arrays(data, key),
        check_data=None if CHECK_DATA.value is None else _cli.load_arrays(CHECK_DATA.value, CHECK_KEY.value),
        overwrite=OVERWRITE.value,
    )
    if MICRO.value:
        result = dataclasses.replace(result, arena_bytes=micro_memory(OUTPUT.value).arena_bytes)
    print(result)
    _cli.write_record(RECORD.value, result)


if __name__ == "__main__":
    _cli.run(main)
