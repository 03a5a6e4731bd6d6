"""Times a model's layers over their widths on this device, as a table for --target_latency of tools/prune.py.

  python tools/profile_layers.py --model=model.keras --output=table.json
  python tools/profile_layers.py --model=model.keras --output=int8.json --quantize=int8 --threads=2

On another device: --sweeps=1 --measure_command="scp {path} board:l.tflite && ssh board python3 jetson_benchmark.py
l.tflite --median". Each kind of layer is timed by itself at some widths; let nothing else run meanwhile. Prints how
near the sum over the layers comes to the time of the whole model. A mistake gives one line and exit code 2.
"""

from absl import flags

import _cli

MODEL = flags.DEFINE_string("model", None, "The Keras model: a .keras or .h5 file.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.", required=True)
RUNTIME = flags.DEFINE_enum("runtime", "litert", ["litert", "onnxruntime"], "What runs the layers.")
QUANTIZE = flags.DEFINE_enum("quantize", "none", ["none", "int8"], "none: float32. int8: 8 bits, with litert.")
THREADS = flags.DEFINE_integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
MEASURE_COMMAND = flags.DEFINE_string(
    "measure_command",
    None,
    "A shell command that times a file on another device, its path in the place of {path} or at the end; the last "
    "number that it prints is milliseconds, as with jetson_benchmark.py --median. By default layers are timed here.",
)
SWEEPS = flags.DEFINE_integer("sweeps", 4, "How often everything is measured; the fastest counts.", lower_bound=1)


def main(_) -> None:
    from kprune import CommandStopwatch
    from kprune.deploy.timing import profile_latency
    from kprune.utils.files import check_place

    check_place(OUTPUT.value)
    command = MEASURE_COMMAND.value
    if command is not None and flags.FLAGS["threads"].present:
        raise flags.Error("--threads is for layers timed here; put the threads into --measure_command")
    table = profile_latency(
        _cli.load_model(MODEL.value),
        runtime=RUNTIME.value,
        quantize=None if QUANTIZE.value == "none" else QUANTIZE.value,
        threads=THREADS.value,
        sweeps=SWEEPS.value,
        measure=None if command is None else CommandStopwatch(command),
    )
    table.save(OUTPUT.value)
    measured, predicted = table.check["measured_ms"], table.check["predicted_ms"]
    print(f"{len(table.grids)} kinds of layers, {sum(grid.ms.size for grid in table.grids)} timings: {OUTPUT.value}")
    print(
        f"{table.check['model']}: measured {measured:.3g} ms, by the table {predicted:.3g} ms "
        f"({predicted / measured - 1:+.1%})"
    )


if __name__ == "__main__":
    _cli.run(main)
