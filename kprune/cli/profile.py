"""Times a model's layers over their widths on this device, as a table for kprune prune --target_latency.

  kprune profile model.keras --output=table.json
  kprune profile model.keras --output=int8.json --quantize=int8 --threads=2

On another device: --sweeps=1 --measure_command="scp {path} board:l.tflite && ssh board python3 jetson_benchmark.py
l.tflite --median". Each kind of layer is timed by itself at some widths; let nothing else run meanwhile. Prints how
near the sum over the layers comes to the time of the whole model. A mistake gives one line and exit code 2.
"""

from absl import flags

from kprune.cli import common

POSITIONAL = "model"
NEEDS = ("model", "output")
FLAGS, define = common.own_flags()
define.string("model", None, "The Keras model: a .keras or .h5 file.")
define.string("output", None, "The JSON file to write.")
define.enum("runtime", "litert", ["litert", "onnxruntime"], "What runs the layers.")
define.enum("quantize", "none", ["none", "int8"], "none: float32. int8: 8 bits, with litert.")
define.integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
define.string(
    "measure_command",
    None,
    "A shell command that times a file on another device, its path in the place of {path} or at the end; the last "
    "number that it prints is milliseconds, as with jetson_benchmark.py --median. By default layers are timed here.",
)
define.integer("sweeps", 4, "How often everything is measured; the fastest counts.", lower_bound=1)


def main(_) -> None:
    from kprune.deploy import CommandStopwatch, profile_latency
    from kprune.utils.files import check_place

    check_place(FLAGS.output)
    command = FLAGS.measure_command
    if command is not None and FLAGS["threads"].present:
        raise flags.Error("--threads is for layers timed here; put the threads into --measure_command")
    table = profile_latency(
        common.load_model(FLAGS.model),
        runtime=FLAGS.runtime,
        quantize=None if FLAGS.quantize == "none" else FLAGS.quantize,
        threads=FLAGS.threads,
        sweeps=FLAGS.sweeps,
        measure=None if command is None else CommandStopwatch(command),
    )
    table.save(FLAGS.output)
    measured, predicted = table.check["measured_ms"], table.check["predicted_ms"]
    print(f"{len(table.grids)} kinds of layers, {sum(grid.ms.size for grid in table.grids)} timings: {FLAGS.output}")
    print(
        f"{table.check['model']}: measured {measured:.3g} ms, by the table {predicted:.3g} ms "
        f"({predicted / measured - 1:+.1%})"
    )
