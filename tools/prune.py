"""Prunes a Keras model file to a budget: writes the pruned model, the plan and a report, as a page too.

python tools/prune.py --model=model.keras --target_flops=0.5 --output=pruned

Or as far as accuracy allows, without training; the images choose the target, so report accuracy on others. With
--directory=search, a search that was killed goes on when it is run again:

python tools/prune.py --model=model.keras --max_accuracy_drop=0.01 --data=validation.npz --repair_data=train_512.npz

Or until the exported file runs in so many milliseconds, on this machine or on another:

python tools/prune.py --model=model.keras --target_ms=0.6 --repair_data=train_512.npz
python tools/prune.py --model=model.keras --target_ms=9 --export=onnx \\
    --measure_command="scp {path} jetson:m.onnx && ssh jetson python3 jetson_benchmark.py m.onnx --median"
"""

import functools
import hashlib
import pathlib
import tempfile

from absl import flags

import _cli

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "The Keras model file to prune.", required=True)
flags.DEFINE_float("target_flops", None, "Share of the FLOPs (multiply-accumulates) to remove, 0..1.")
flags.DEFINE_float("target_params", None, "Share of the parameters to remove, 0..1; instead of --target_flops.")
flags.DEFINE_float("target_latency", None, "Share of the milliseconds of --latency_table to remove, 0..1; instead.")
flags.DEFINE_string(
    "latency_table",
    None,
    "The times of the layers on a device, as tools/profile_layers.py writes them; for --target_latency, or to choose "
    "channels by in --target_ms.",
)
flags.DEFINE_float("target_ms", None, "Milliseconds of one run that the exported file shall meet; instead of a target.")
flags.DEFINE_string(
    "measure_command",
    None,
    "For --target_ms: a shell command that times a file, its path in the place of {path} or at the end; the last "
    "number that it prints is milliseconds, as with jetson_benchmark.py --median. By default the file is timed here.",
)
flags.DEFINE_enum(
    "export",
    "float32",
    ["float32", "int8", "onnx"],
    "For --target_ms: a TFLite file in float32 or int8 (with ranges from --repair_data), or ONNX.",
)
flags.DEFINE_integer("threads", 1, "For --target_ms: CPU threads of a run here.", lower_bound=1)
flags.DEFINE_float(
    "max_accuracy_drop",
    None,
    "Remove as much of the FLOPs as leaves the top-1 accuracy on --data within this much of what it was, 0..1 "
    "(0.01: one point); instead of a target. Nothing is trained.",
)
flags.DEFINE_string("data", None, "A .npz file with x (images as the model takes them) and y (labels, or one-hot).")
flags.DEFINE_float("tolerance", 0.02, "How close the search comes to the largest share, 0..1.")
flags.DEFINE_string(
    "directory",
    None,
    "For --max_accuracy_drop: a folder for what was tried and the models accepted. A search that was killed goes on "
    "when it is run again with the same flags, and tries nothing twice.",
)
flags.DEFINE_string(
    "repair_data",
    None,
    "A .npy or .npz file of a few hundred images (x in the .npz, where it holds more), from which the weights that "
    "stay are repaired by least squares. Labels (y) are for criteria that look at them, such as relevance.",
)
flags.DEFINE_string(
    "criterion",
    None,
    "What chooses the filters: similarity, l1, l2, geometric_median, random, ...; by default reconstruction_error "
    "where there is --repair_data, else similarity.",
)
flags.DEFINE_enum("coupling", "graph", ["graph", "stage"], "For similarity: judge channel sets, or whole stages.")
flags.DEFINE_float("alpha", 1.0, "For similarity: larger prunes less in a round.")
flags.DEFINE_float("ratio", 0.35, "For similarity: a filter similar to this share of its layer is redundant.")
flags.DEFINE_bool("guard", True, "For similarity: keep one filter that each removed one is similar to.")
flags.DEFINE_bool("compensate", False, "For similarity: hand outgoing weights on to the nearest kept filter.")
flags.DEFINE_list("include", None, "Only these layers lose filters: names or patterns, separated by commas.")
flags.DEFINE_list("exclude", [], "These layers lose none: names or patterns, separated by commas.")
flags.DEFINE_integer("min_channels", 1, "The fewest filters that a layer keeps.")
flags.DEFINE_float("max_rate", None, "The largest share of its filters that a layer may lose, 0..1.")
flags.DEFINE_string(
    "round_to",
    "1",
    "A layer that loses filters keeps a multiple of this number, or a width of a preset: litert, litert-int8, "
    "onnxruntime, tensorrt-fp16, tensorrt-int8.",
)
flags.DEFINE_enum("mode", "hard", ["hard", "soft"], "A smaller model, or masks held at zero for training on.")
flags.DEFINE_string("plan", None, "Apply this plan file instead of making a new one.")
flags.DEFINE_integer("seed", 0, "Of what is drawn: the filters of --criterion=random.", lower_bound=0)
flags.DEFINE_bool("strict", False, "Fail where a layer stops channels because kprune has no rule for it.")
flags.DEFINE_string("output", "pruned", "Folder for the model, the plan and the report; made if missing.")


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
    if timed and FLAGS.export == "int8" and FLAGS.repair_data is None:
        raise flags.Error("--export=int8 needs --repair_data, images to learn the ranges from")
    if timed and FLAGS.mode != "hard":
        raise flags.Error("--target_ms times smaller files, so --mode=hard")
    if FLAGS.latency_table and not (timed or FLAGS.target_latency is not None):
        raise flags.Error("--latency_table is for --target_latency or --target_ms")
    if searched and targets:
        raise flags.Error(f"--max_accuracy_drop finds the target itself; leave out --{targets[0]}")
    if searched and FLAGS.data is None:
        raise flags.Error("--max_accuracy_drop needs --data, a .npz file with x and y")
    ignored = [name for name in ("tolerance", "directory") if FLAGS[name].present and not searched]
    if ignored:
        raise flags.Error(f"--{ignored[0]} is for --max_accuracy_drop")
    if searched and not 0 <= FLAGS.max_accuracy_drop < 1:
        raise flags.Error(f"--max_accuracy_drop is a share from 0 to 1, not {FLAGS.max_accuracy_drop}")


def load_examples():
    """The images and labels of --data, or None."""
    if FLAGS.data is None:
        return None
    x, y = (_cli.load_arrays(FLAGS.data, key) for key in ("x", "y"))
    if len(x) != len(y):
        raise flags.Error(f"{FLAGS.data} has {len(x)} images and {len(y)} labels")
    return x, (y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(len(y)))


def accuracy_of(model, examples) -> float | None:
    """The top-1 accuracy, 0..1: the share of images whose largest output is that of the label."""
    from kprune.graph import trace
    from kprune.graph.batches import check_inputs

    if examples is None:
        return None
    x, y = examples
    check_inputs(trace(model), (x,))
    outputs = model.predict(x, batch_size=256, verbose=0)
    if not hasattr(outputs, "ndim") or outputs.ndim != 2 or outputs.shape[1] < 2:
        raise flags.Error("--data is for a classifier: one output of shape [images, classes], two classes or more")
    return float((outputs.argmax(-1) == y).mean())


def load_images():
    """The images of --repair_data, with their labels in a tuple where it holds them, or None."""
    if FLAGS.repair_data is None:
        return None
    images = _cli.load_arrays(FLAGS.repair_data)
    if not isinstance(images, dict):
        return images
    x = _cli.load_arrays(FLAGS.repair_data, "x")
    return (x, images["y"]) if "y" in images else x


def make_criterion(kprune):
    """The criterion of the flags."""
    criterion = FLAGS.criterion or ("similarity" if FLAGS.repair_data is None else "reconstruction_error")
    names = ("alpha", "ratio", "guard", "compensate", "coupling")
    if criterion == "similarity":
        return kprune.criteria.Similarity(**{name: FLAGS[name].value for name in names})
    given = [name for name in names if FLAGS[name].present]
    if given:
        raise flags.Error(f"--{given[0]} is for --criterion=similarity, not for {criterion}")
    return kprune.criteria.Random(FLAGS.seed) if criterion == "random" else criterion


def make_plan(kprune, model, examples, accuracy, images):
    """The plan of the flags."""
    if FLAGS.plan:
        return kprune.Plan.load(FLAGS.plan)
    criterion = make_criterion(kprune)
    rounding = int(FLAGS.round_to) if FLAGS.round_to.isdecimal() else FLAGS.round_to
    limits = kprune.Limits(FLAGS.include, FLAGS.exclude, FLAGS.min_channels, FLAGS.max_rate, rounding)
    if FLAGS.target_ms is not None:
        return meet_latency(kprune, model, criterion, limits, images)
    if FLAGS.max_accuracy_drop is not None:
        return keep_accuracy(kprune, model, criterion, limits, examples, accuracy, images)
    return kprune.plan_pruning(
        model,
        FLAGS.target_flops,
        target_params=FLAGS.target_params,
        target_latency=FLAGS.target_latency,
        latency=FLAGS.latency_table,
        criterion=criterion,
        data=images,
        limits=limits,
        strict=FLAGS.strict,
    )


def keep_accuracy(kprune, model, criterion, limits, examples, accuracy, images):
    """The plan that removes the most within --max_accuracy_drop; what was tried is in the folder of --directory."""
    from kprune.pruning.run_folder import RunFolder

    kprune.pruning.pipeline.refuse_barriers(kprune.graph.trace(model), FLAGS.strict)
    # find_target keeps the verdicts, but cannot know what they rest on: --directory is for these files and this drop.
    files = {f"sha256 of {name}": FLAGS[name].value and sha256(FLAGS[name].value) for name in ("data", "repair_data")}
    RunFolder(FLAGS.directory, "prune.json", files | {"max_accuracy_drop": FLAGS.max_accuracy_drop}).save({})
    least = accuracy - FLAGS.max_accuracy_drop - 1e-9  # rounding, of what is a count of images over their number
    found = kprune.find_target(
        model,
        lambda small: accuracy_of(small, examples) >= least,
        criterion=criterion,
        data=images,
        limits=limits,
        tolerance=FLAGS.tolerance,
        directory=FLAGS.directory,
    )
    return found.plan


def sha256(path: str) -> str:
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def meet_latency(kprune, model, criterion, limits, images):
    """The plan whose exported file meets --target_ms; the file is in the folder of --output."""
    export, suffix = kprune.export_tflite, "tflite"
    if FLAGS.export == "int8":
        x = images[0] if isinstance(images, tuple) else images
        export = functools.partial(export, quantize="int8", representative_data=x)
    elif FLAGS.export == "onnx":
        export, suffix = kprune.export_onnx, "onnx"
    command = FLAGS.measure_command
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    found = kprune.prune_to_latency(
        model,
        FLAGS.target_ms,
        kprune.CommandStopwatch(command) if command else kprune.Stopwatch(FLAGS.threads),
        export=export,
        output=folder / f"model.{suffix}",
        latency=FLAGS.latency_table,
        criterion=criterion,
        data=images,
        limits=limits,
        strict=FLAGS.strict,
    )
    print(f"{found.path}: {found.ms:.3g} ms, asked for {FLAGS.target_ms:.3g} ms.")
    return found.plan


def activation_bytes(kprune, model, plan) -> list[float]:
    """The largest sum of tensors alive at one moment, before and after."""
    cost = kprune.cost.CostModel(kprune.graph.trace(model))
    return [cost.activation_bytes(keep) for keep in (cost.everything(), plan.mask(cost.graph))]


def saved_size(model) -> int:
    """The size of the model's file, without the state of an optimizer that the user's file may hold."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.keras"
        model.save(path)
        return path.stat().st_size


def main(_):
    import keras

    import kprune
    from kprune.report import Measurement, Report, run_facts

    check_flags()
    keras.utils.set_random_seed(FLAGS.seed)
    model = _cli.load_model(FLAGS.model)
    examples, images = load_examples(), load_images()
    accuracy = accuracy_of(model, examples)
    plan = make_plan(kprune, model, examples, accuracy, images)
    pruned = kprune.apply_plan(model, plan, FLAGS.mode, images)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / "plan.json")
    target = folder / "model.keras"
    kprune.utils.files.write_by_rename(target, pruned.save)
    sizes = saved_size(model), target.stat().st_size
    names = "before", "after"
    accuracies = accuracy, accuracy_of(pruned, examples)
    memory = activation_bytes(kprune, model, plan)
    rows = [
        Measurement(*row, activation_bytes=peak)
        for *row, peak in zip(names, accuracies, plan.flops, plan.params, sizes, memory, strict=True)
    ]
    report = Report(
        rows, plan, facts=run_facts(seed=FLAGS.seed, settings=_cli.given_flags()), title=f"{model.name}, pruned"
    )
    for suffix in ("md", "json", "html"):
        report.save(folder / f"report.{suffix}")
    print(plan.summary())
    print(report.table())
    print(f"Written to {folder}: model.keras, plan.json, report.md, report.json, report.html.")


if __name__ == "__main__":
    _cli.run(main)
