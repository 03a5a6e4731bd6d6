"""Writes a Keras model as a SavedModel, plain or converted by TF-TRT, and checks it against the model.

  python tools/export_saved_model.py --model=small.keras --output=small_saved_model
  python tools/export_saved_model.py --model=small.keras --output=small_fp16 --tftrt=FP16 --batch_size=1

Prints the size and how close it is to the model. A mistake gives one line and exit code 2; so does --tftrt where
TensorFlow has no TensorRT, with what to run on the device instead.
"""

from absl import flags

import _cli

MODEL = flags.DEFINE_string("model", None, "The Keras model: a .keras or .h5 file.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The folder to write.", required=True)
TFTRT = flags.DEFINE_enum("tftrt", None, ["FP32", "FP16", "INT8"], "Convert by TF-TRT in this precision.")
BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Samples per run; default: those of the model, with --tftrt 1.", lower_bound=1
)
CHECK_DATA = flags.DEFINE_string(
    "check_data", None, "Inputs to compare on, .npy or .npz; default: random ones. INT8 learns the ranges from them."
)
CHECK_KEY = flags.DEFINE_string("check_key", None, "The one array of an .npz file to use.")
RECORD = flags.DEFINE_string("record", None, "A JSON file for what was measured; tools/report.py shows it.")
OVERWRITE = flags.DEFINE_bool("overwrite", True, "Replace an existing SavedModel.")


def main(_) -> None:
    from kprune.deploy.export import export_saved_model, export_tftrt

    model = _cli.load_model(MODEL.value)
    data = None if CHECK_DATA.value is None else _cli.load_arrays(CHECK_DATA.value, CHECK_KEY.value)
    options = {"batch_size": BATCH_SIZE.value, "overwrite": OVERWRITE.value}
    if TFTRT.value is None:
        result = export_saved_model(model, OUTPUT.value, check_data=data, **options)
    else:
        options["batch_size"] = options["batch_size"] or 1
        result = export_tftrt(model, OUTPUT.value, precision=TFTRT.value, representative_data=data, **options)
    print(result)
    _cli.write_record(RECORD.value, result)


if __name__ == "__main__":
    _cli.run(main)
