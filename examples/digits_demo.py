"""The whole way on a small scale: train, prune while training, strip, fine-tune, export, run and time the files.

python examples/digits_demo.py --output=results/digits_demo
"""

import pathlib

import keras
from absl import app, flags

import kprune
from digits_data import build_digits_resnet, load_digits_images, train_digits
from kprune.report import Measurement, Report, run_facts
from kprune.report.plots import plot_run
from kprune.utils.machine import machine_facts

FLAGS = flags.FLAGS
if "pruning_epochs" not in FLAGS:  # a test may import several examples in one process
    flags.DEFINE_integer("training_epochs", 8, "Epochs before pruning.")
    flags.DEFINE_integer("pruning_epochs", 12, "Epochs with the callback; it prunes during the first two thirds.")
    flags.DEFINE_integer("tuning_epochs", 4, "Epochs of fine-tuning after the masked filters are gone.")
    flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs (multiply-accumulates) to remove.")
    flags.DEFINE_integer("timing_runs", 200, "Timed runs of each file.")
    flags.DEFINE_string("output", "results/digits_demo", "Folder for the models, the table and the plot.")


def measure(name, model, path, quantize, train_images, test, exports):
    """Exports one TFLite file, notes it in `exports`, and runs it on the test images."""
    images, labels = test
    export = kprune.export_tflite(
        model, path, quantize=quantize, representative_data=train_images[:200] if quantize else None, check_data=images
    )
    exports.append(export)
    accuracy = float((kprune.run_tflite(path, images).argmax(-1) == labels).mean())
    cost = kprune.model_cost(model)
    return {
        "name": name,
        "accuracy": accuracy,
        "flops": cost.flops,
        "params": cost.params,
        "size_bytes": export.size_bytes,
        "activation_bytes": cost.activation_bytes,
    }


def tell_epoch(epoch, logs):
    removed, accuracy = logs["pruned_flops"], logs["val_accuracy"]
    print(f"  epoch {epoch + 1:>2}: {removed:4.0%} of the FLOPs removed, accuracy {accuracy:.1%}", flush=True)


def prune_and_tune(model, train, test, epochs, tuning_epochs, target):
    """Prunes during `fit`, strips, fine-tunes.

    Returns:
      The small model, the plan, and the history of the epochs with the callback and after.
    """
    callback = kprune.SimilarityPruning(target_flops=target)
    progress = keras.callbacks.LambdaCallback(on_epoch_end=tell_epoch)
    train_digits(model, *train, epochs=epochs, callbacks=[callback, progress], validation_data=test)
    history = dict(model.history.history)
    plan = callback.plan
    small = kprune.strip(model)
    train_digits(small, *train, epochs=tuning_epochs, learning_rate=1e-3, validation_data=test)
    for key, values in small.history.history.items():
        history[key] = history[key] + values
    history["pruned_flops"] += [history["pruned_flops"][-1]] * tuning_epochs
    return small, plan, history


def main(_):
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    train, test = load_digits_images()
    print("Training a residual network on 1,437 digits ...", flush=True)
    model = train_digits(build_digits_resnet(), *train, epochs=FLAGS.training_epochs)
    exports, rows = [], []
    for quantize in (None, "int8"):
        path = folder / f"before_{quantize or 'float32'}.tflite"
        rows.append(measure(f"before, {quantize or 'float32'}", model, path, quantize, train[0], test, exports))

    print(f"Pruning {FLAGS.target_flops:.0%} of its FLOPs while it trains, then fine-tuning ...", flush=True)
    epochs = FLAGS.pruning_epochs, FLAGS.tuning_epochs
    small, plan, history = prune_and_tune(model, train, test, *epochs, FLAGS.target_flops)
    for quantize in (None, "int8"):
        path = folder / f"after_{quantize or 'float32'}.tflite"
        rows.append(measure(f"after, {quantize or 'float32'}", small, path, quantize, train[0], test, exports))
    small.save(folder / "pruned.keras")
    plan.save(folder / "plan.json")

    timings = kprune.benchmark_tflite(*(export.path for export in exports), runs=FLAGS.timing_runs)
    for row, timing in zip(rows, timings, strict=True):
        row.update(median_ms=timing.median_ms, p10_ms=timing.p10_ms, p90_ms=timing.p90_ms)
    settings = {name: FLAGS[name].value for name in ("training_epochs", "pruning_epochs", "tuning_epochs")}
    report = Report(
        [Measurement(**row) for row in sorted(rows, key=lambda row: row["name"].split(", ")[1])],
        plan,
        history,
        exports,
        kprune.deploy.Benchmark(tuple(timings), machine_facts()),
        run_facts(seed=0, settings=settings),
        "Pruning a small residual network on handwritten digits",
    )
    print(report.table())
    for name in ("report.md", "report.json", "report.html"):
        report.save(folder / name)
    plot_run(plan, history, folder / "run.png")
    print(f"Written to {folder}: report.html, .md and .json, run.png, plan.json, pruned.keras and four .tflite files.")


if __name__ == "__main__":
    app.run(main)
