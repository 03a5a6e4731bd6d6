"""Times TFLite files on this machine's CPU. Several files take turns, so that they meet the same noise.

  python tools/benchmark_tflite.py full.tflite small.tflite
  python tools/benchmark_tflite.py --files=full.tflite,small.tflite --threads=2 --output=timings.json

Prints one line for each file. A mistake gives one line and exit code 2.
"""

import dataclasses
import json

from absl import flags

import _cli

FILES = flags.DEFINE_list("files", [], "The TFLite files, separated by commas; or name them without a flag.")
THREADS = flags.DEFINE_integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
WARMUP = flags.DEFINE_integer("warmup", 10, "Runs of each file before the first timed one.", lower_bound=0)
RUNS = flags.DEFINE_integer("runs", 100, "Timed runs of each file.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the random inputs.", lower_bound=0)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write: for each file its times in milliseconds.")


def main(paths: list[str]) -> None:
    from kprune.benchmark import benchmark_tflite
    from kprune.files import write_by_rename

    def measure() -> list:
        timings = benchmark_tflite(
            *FILES.value, *paths, threads=THREADS.value, warmup=WARMUP.value, runs=RUNS.value, seed=SEED.value
        )
        timings = timings if isinstance(timings, list) else [timings]
        print(*timings, sep="\n")
        return [dataclasses.asdict(timing) for timing in timings]

    if OUTPUT.value is None:
        measure()
    else:
        write_by_rename(OUTPUT.value, lambda file: file.write_text(json.dumps(measure(), indent=2) + "\n"))


if __name__ == "__main__":
    _cli.run(main, positional=True)
