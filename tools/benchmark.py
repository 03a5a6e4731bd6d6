"""Times models of any kind on this machine's CPU: .tflite, .onnx, .keras files and SavedModels, in turn on one input.

  python tools/benchmark.py full.tflite small.tflite small.onnx small_saved_model --threads=2

Prints a table, or with --median milliseconds alone, for other programs; ratios are to the first model and carry their
spread. A mistake gives one line and exit code 2.
"""

import json

from absl import flags

import _cli

FILES = flags.DEFINE_list("files", [], "The models, separated by commas; or name them without a flag.")
DATA = flags.DEFINE_string("data", None, "Inputs, .npy or .npz; default: random ones.")
DATA_KEY = flags.DEFINE_string("data_key", None, "The one array of an .npz file to use.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "Samples per run.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
WARMUP = flags.DEFINE_integer("warmup", 10, "Runs of each model before the first timed one.", lower_bound=0)
RUNS = flags.DEFINE_integer("runs", 100, "Timed runs of each model.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random inputs.", lower_bound=0)
MEDIAN = flags.DEFINE_bool("median", False, "Print nothing but the median milliseconds of each model, a line each.")
OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write: machine, and for each model its times.")


def main(_) -> None:
    import kprune
    from kprune.utils.files import write_by_rename

    def measure() -> str:
        result = kprune.benchmark(
            *FILES.value,
            data=None if DATA.value is None else _cli.load_arrays(DATA.value, DATA_KEY.value),
            batch_size=BATCH_SIZE.value,
            threads=THREADS.value,
            warmup=WARMUP.value,
            runs=RUNS.value,
            seed=SEED.value,
        )
        print(*(f"{timing.median_ms:.6g}" for timing in result) if MEDIAN.value else [result], sep="\n")
        return json.dumps(result.to_json(), indent=2) + "\n"

    if OUTPUT.value is None:
        measure()
    else:
        write_by_rename(OUTPUT.value, lambda file: file.write_text(measure()))


if __name__ == "__main__":
    _cli.run(main, positional="files")
