"""Writes a Keras model as an ONNX file, and checks the file against the model with onnxruntime.

  python tools/export_onnx.py --model=small.keras --output=small.onnx --batch_size=1

Prints the size of the file and how close it is to the model. A mistake gives one line and exit code 2.
"""

from absl import flags

import _cli

MODEL = flags.DEFINE_string("model", None, "The Keras model: a .keras or .h5 file.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The ONNX file to write.", required=True)
OPSET = flags.DEFINE_integer("opset", 17, "Version of ONNX' operations, 13 to 18.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Samples per run; default: those of the model.", lower_bound=1)
CHECK_DATA = flags.DEFINE_string("check_data", None, "Inputs to compare on, .npy or .npz; default: random ones.")
CHECK_KEY = flags.DEFINE_string("check_key", None, "The one array of an .npz file to use.")
RECORD = flags.DEFINE_string("record", None, "A JSON file for what was measured; tools/report.py shows it.")
OVERWRITE = flags.DEFINE_bool("overwrite", True, "Replace an existing file.")


def main(_) -> None:
    from kprune.deploy.export import export_onnx

    result = export_onnx(
        _cli.load_model(MODEL.value),
        OUTPUT.value,
        opset=OPSET.value,
        batch_size=BATCH_SIZE.value,
        check_data=None if CHECK_DATA.value is None else _cli.load_arrays(CHECK_DATA.value, CHECK_KEY.value),
        overwrite=OVERWRITE.value,
    )
    print(result)
    _cli.write_record(RECORD.value, result)


if __name__ == "__main__":
    _cli.run(main)
