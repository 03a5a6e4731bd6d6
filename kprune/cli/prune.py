"""Prunes a Keras model file to a budget: writes the pruned model, the plan and a report, as a page too.

  kprune prune model.keras --target_flops=0.5 --data=train_512.npz --output=pruned

Or as far as accuracy allows, without training; the images choose the target, so report accuracy on others. With
--directory=search, a search that was killed goes on when it is run again:

  kprune prune model.keras --max_accuracy_drop=0.01 --eval_data=validation.npz --data=train_512.npz

Or until the exported file runs in so many milliseconds, on this machine or on another:

  kprune prune model.keras --target_ms=0.6 --data=train_512.npz
  kprune prune model.keras --target_ms=9 --export=onnx \\
      --measure_command="scp {path} jetson:m.onnx && ssh jetson python3 jetson_benchmark.py m.onnx --median"
"""

import functools
import pathlib
import tempfile

from absl import flags

from kprune.cli import common

POSITIONAL = "model"
NEEDS = ("model",)
FLAGS, define = common.own_flags()
define.string("model", None, "The Keras model file to prune.")
define.string("output", "pruned", "Folder for the model, the plan and the report; made if missing.")
define.float("target_flops", None, "Share of the FLOPs (multiply-accumulates) to remove, 0..1.")
define.float("target_params", None, "Share of the parameters to remove, 0..1; instead of --target_flops.")
define.string(
    "data",
    None,
    "A .npy or .npz file of a few hundred images (x in the .npz, where it holds more), from which the weights that "
    "stay are repaired by least squares. Labels (y) are for criteria that look at them, such as relevance.",
)
define.string(
    "criterion",
    None,
    "What chooses the filters: similarity, l1, l2, geometric_median, random, ...; by default reconstruction_error "
    "where there is --data, else similarity.",
)
define.list("include", None, "Only these layers lose filters: names or patterns, separated by commas.")
define.list("exclude", [], "These layers lose none: names or patterns, separated by commas.")
define.integer("min_channels", 1, "The fewest filters that a layer keeps.")
define.float("max_rate", None, "The largest share of its filters that a layer may lose, 0..1.")
define.string(
    "round_to",
    "1",
    "A layer that loses filters keeps a multiple of this number, or a width of a preset: litert, litert-int8, "
    "onnxruntime, tensorrt-fp16, tensorrt-int8.",
)
define.enum("mode", "hard", ["hard", "soft"], "A smaller model, or masks held at zero for training on.")
define.string("plan", None, "Apply this plan file instead of making a new one.")
define.integer("seed", 0, "Of what is drawn: the filters of --criterion=random.", lower_bound=0)
define.bool("strict", False, "Fail where a layer stops channels because kprune has no rule for it.")
define.string(
    "eval_data",
    None,
    "A .npz file with x (images as the model takes them) and y (labels, or one-hot): the report then has the accuracy "
    "before and after.",
)
define.float(
    "max_accuracy_drop",
    None,
    "Remove as much of the FLOPs as leaves the top-1 accuracy on --eval_data within this much of what it was, 0..1 "
    "(0.01: one point); instead of a target. Nothing is trained.",
)
define.float("tolerance", 0.02, "For --max_accuracy_drop: how close the search comes to the largest share, 0..1.")
define.string(
    "directory",
    None,
    "For --max_accuracy_drop: a folder for what was tried and the models accepted. A search that was killed goes on "
    "when it is run again with the same flags, and tries nothing twice.",
)
define.float("target_latency", None, "Share of the milliseconds of --latency_table to remove, 0..1; instead.")
define.string(
    "latency_table",
    None,
    "The times of the layers on a device, as kprune profile writes them; for --target_latency, or to choose "
    "channels by in --target_ms.",
)
define.float("target_ms", None, "Milliseconds of one run that the exported file shall meet; instead of a target.")
define.string(
    "measure_command",
    None,
    "For --target_ms: a shell command that times a file, its path in the place of {path} or at the end; the last "
    "number that it prints is milliseconds, as with jetson_benchmark.py --median. By default the file is timed here.",
)
define.enum(
    "export",
    "float32",
    ["float32", "int8", "onnx"],
    "For --target_ms: a TFLite file in float32 or int8 (with ranges from --data), or ONNX.",
)
define.integer("threads", 1, "For --target_ms: CPU threads of a run here.", lower_bound=1)
define.enum("coupling", "graph", ["graph", "stage"], "For similarity: judge channel sets, or whole stages.")
define.float("alpha", 1.0, "For similarity: larger prunes less in a round.")
define.float("ratio", 0.35, "For similarity: a filter similar to this share of its layer is redundant.")
define.bool("guard", True, "For similarity: keep one filter that each removed one is similar to.")
define.bool("compensate", False, "For similarity: hand outgoing weights on to the nearest kept filter.")


def check_flags():
    """Refuses flags that would be ignored beside others."""
    searched = FLAGS.max_accuracy_drop is not None
    timed = FLAGS.target_ms is not None
    names = ("target_flops", "target_params", "target_latency", "target_ms", "plan")
    targets = [name for name in names if FLAGS[name].present]
    if timed and len(targets) > 1:
        other = next(name for name in targets if name != "target_ms")
        raise flags.Error(f"--target_ms finds the target itself; leave out --{other}")
    ignored = [name for name in ("measure_command", "export", "threads") if FLAGS[name].present and not timed]
    if ignored:
        raise flags.Error(f"--{ignored[0]} is for --target_ms")
    if FLAGS.threads > 1 and FLAGS.measure_command:
        raise flags.Error("--threads is for files timed here; put the threads into --measure_command")
    if timed and FLAGS.export == "int8" and FLAGS.data is None:
        raise flags.Error("--export=int8 needs --data, images to learn the ranges from")
    if timed and FLAGS.mode != "hard":
        raise flags.Error("--target_ms times smaller files, so --mode=hard")
    if FLAGS.latency_table and not (timed or FLAGS.target_latency is not None):
        raise flags.Error("--latency_table is for --target_latency or --target_ms")
    if searched and targets:
        raise flags.Error(f"--max_accuracy_drop finds the target itself; leave out --{targets[0]}")
    if searched and FLAGS.eval_data is None:
        raise flags.Error("--max_accuracy_drop needs --eval_data, a .npz file with x and y")
    ignored = [name for name in ("tolerance", "directory") if FLAGS[name].present and not searched]
    if ignored:
        raise flags.Error(f"--{ignored[0]} is for --max_accuracy_drop")
    if searched and not 0 <= FLAGS.max_accuracy_drop < 1:
        raise flags.Error(f"--max_accuracy_drop is a share from 0 to 1, not {FLAGS.max_accuracy_drop}")


def load_examples():
    """The images and labels of --eval_data, or None."""
    if FLAGS.eval_data is None:
        return None
    x, y = (common.load_arrays(FLAGS.eval_data, key) for key in ("x", "y"))
    if len(x) != len(y):
        raise flags.Error(f"{FLAGS.eval_data} has {len(x)} images and {len(y)} labels")
    return x, y


def load_images():
    """The images of --data, with their labels in a tuple where it holds them, or None."""
    if FLAGS.data is None:
        return None
    images = common.load_arrays(FLAGS.data)
    if not isinstance(images, dict):
        return images
    x = common.load_arrays(FLAGS.data, "x")
    return (x, images["y"]) if "y" in images else x


def make_criterion():
    """The criterion of the flags."""
    from kprune.criteria import Random, Similarity

    criterion = FLAGS.criterion or ("similarity" if FLAGS.data is None else "reconstruction_error")
    names = ("alpha", "ratio", "guard", "compensate", "coupling")
    if criterion == "similarity":
        return Similarity(**{name: FLAGS[name].value for name in names})
    given = [name for name in names if FLAGS[name].present]
    if given:
        raise flags.Error(f"--{given[0]} is for --criterion=similarity, not for {criterion}")
    return Random(FLAGS.seed) if criterion == "random" else criterion


def make_plan(model, examples, images):
    """The plan of the flags."""
    from kprune.pruning import plan_pruning, prune_within_accuracy
    from kprune.selection import Limits, Plan

    if FLAGS.plan:
        return Plan.load(FLAGS.plan)
    rounding = int(FLAGS.round_to) if FLAGS.round_to.isdecimal() else FLAGS.round_to
    limits = Limits(FLAGS.include, FLAGS.exclude, FLAGS.min_channels, FLAGS.max_rate, rounding)
    options = {"criterion": make_criterion(), "data": images, "limits": limits, "strict": FLAGS.strict}
    if FLAGS.target_ms is not None:
        return meet_latency(model, options)
    if FLAGS.max_accuracy_drop is not None:
        options |= {"tolerance": FLAGS.tolerance, "directory": FLAGS.directory}
        return prune_within_accuracy(model, examples, FLAGS.max_accuracy_drop, **options).plan
    targets = {"target_params": FLAGS.target_params, "target_latency": FLAGS.target_latency}
    return plan_pruning(model, FLAGS.target_flops, latency_table=FLAGS.latency_table, **targets, **options)


def meet_latency(model, options: dict):
    """The plan whose exported file meets --target_ms; the file is in the folder of --output."""
    from kprune.deploy import CommandStopwatch, Stopwatch, export_onnx, export_tflite
    from kprune.pruning import prune_to_latency

    export, suffix = export_tflite, "tflite"
    if FLAGS.export == "int8":
        images = options["data"]
        x = images[0] if isinstance(images, tuple) else images
        export = functools.partial(export, quantize="int8", representative_data=x)
    elif FLAGS.export == "onnx":
        export, suffix = export_onnx, "onnx"
    command = FLAGS.measure_command
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    found = prune_to_latency(
        model,
        FLAGS.target_ms,
        CommandStopwatch(command) if command else Stopwatch(FLAGS.threads),
        export=export,
        output=folder / f"model.{suffix}",
        latency_table=FLAGS.latency_table,
        **options,
    )
    print(f"{found.path}: {found.ms:.3g} ms, asked for {FLAGS.target_ms:.3g} ms.")
    return found.plan


def activation_bytes(model, plan) -> list[float]:
    """The largest sum of tensors alive at one moment, before and after."""
    from kprune.cost import CostModel
    from kprune.graph import trace

    cost = CostModel(trace(model))
    return [cost.activation_bytes(keep) for keep in (cost.everything(), plan.mask(cost.graph))]


def saved_size(model) -> int:
    """The size of the model's file, without the state of an optimizer that the user's file may hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def accuracy_of(model, examples) -> float | None:
    from kprune.pruning import top1_accuracy

    return None if examples is None else top1_accuracy(model, examples)


def measure(model, plan, accuracies, size: int):
    """A row of the report for the model before, and one for the pruned one, whose file has this size."""
    from kprune.report import Measurement

    sizes, memory = (saved_size(model), size), activation_bytes(model, plan)
    columns = zip(("before", "after"), accuracies, plan.flops, plan.params, sizes, memory, strict=True)
    return [Measurement(*row, activation_bytes=peak) for *row, peak in columns]


def main(_) -> None:
    import keras

    from kprune.pruning import apply_plan
    from kprune.report import Report, run_facts
    from kprune.utils.files import write_by_rename

    check_flags()
    keras.utils.set_random_seed(FLAGS.seed)
    model = common.load_model(FLAGS.model)
    examples, images = load_examples(), load_images()
    before = accuracy_of(model, examples)  # at once, since data may not fit the model
    plan = make_plan(model, examples, images)
    pruned = apply_plan(model, plan, FLAGS.mode, images)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
    target = write_by_rename(folder / "model.keras", pruned.save)
    rows = measure(model, plan, (before, accuracy_of(pruned, examples)), target.stat().st_size)
    facts = run_facts(seed=FLAGS.seed, settings=common.given(FLAGS))
    report = Report(rows, plan, facts=facts, title=f"{model.name}, pruned")
    for suffix in ("md", "json", "html"):
        report.save(folder / f"report.{suffix}")
    print(plan.summary())
    print(report.table())
    print(f"Written to {folder}: model.keras, plan.json, report.md, report.json, report.html.")
