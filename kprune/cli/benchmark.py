"""Times models of any kind on this machine's CPU: .tflite, .onnx, .keras files and SavedModels, in turn on one input.

  kprune benchmark full.tflite small.tflite small.onnx small_saved_model --threads=2

Prints a table, or with --median milliseconds alone, for other programs; ratios are to the first model and carry their
spread. A mistake gives one line and exit code 2.
"""

import json

from kprune.cli import common

POSITIONAL = "files"
FLAGS, define = common.own_flags()
define.list("files", [], "The models, separated by commas, beside those named without a flag.")
define.string("data", None, "Inputs, .npy or .npz; default: random ones.")
define.string("data_key", None, "The one array of an .npz file to use.")
define.integer("batch_size", 1, "Samples per run.", lower_bound=1)
define.integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
define.integer("warmup", 10, "Runs of each model before the first timed one.", lower_bound=0)
define.integer("runs", 100, "Timed runs of each model.", lower_bound=1)
define.integer("seed", 0, "Seed of the random inputs.", lower_bound=0)
define.bool("median", False, "Print nothing but the median milliseconds of each model, a line each.")
define.string("output", None, "A JSON file to write: machine, and for each model its times.")


def main(_) -> None:
    from kprune.deploy import benchmark
    from kprune.utils.files import write_by_rename

    def measure() -> str:
        result = benchmark(
            *FLAGS.files,
            data=None if FLAGS.data is None else common.load_arrays(FLAGS.data, FLAGS.data_key),
            batch_size=FLAGS.batch_size,
            threads=FLAGS.threads,
            warmup=FLAGS.warmup,
            runs=FLAGS.runs,
            seed=FLAGS.seed,
        )
        print(*(f"{timing.median_ms:.6g}" for timing in result) if FLAGS.median else [result], sep="\n")
        return json.dumps(result.to_json(), indent=2) + "\n"

    if FLAGS.output is None:
        measure()
    else:
        write_by_rename(FLAGS.output, lambda file: file.write_text(measure()))
