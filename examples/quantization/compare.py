"""Float, post-training int8 and quantization-aware int8 of a pruned CIFAR-10 ResNet, side by side.

    python examples/quantization/compare.py --weights=resnet20_cifar10_jpeg.npz --data_dir=cifar10_jpeg.npz
    python examples/quantization/compare.py --table

The network is pruned, repaired and fine-tuned. From there on one copy trains in float and one with quantization in the
loop, on the same batches at the same learning rates, so that the quantization alone makes the difference. Networks,
files and rows stay in a folder; a run goes on where the last one ended.
"""

import json
import pathlib
import statistics
import sys
import time

import keras
import numpy as np
import tf_keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import kprune  # noqa: E402
from cifar10_data import load_cifar10, training_dataset  # noqa: E402
from cifar_resnet import load_network  # noqa: E402

BATCH = 128
# The forms of the network in the order of the table, and what a row calls them.
FORMS = ("given", "pruned", "fine-tuned", "float", "post-training int8", "aware, untrained", "quantization-aware int8")
FLAGS = flags.FLAGS
flags.DEFINE_string("weights", None, "A trained network: an .npz of build_resnet, or a Keras file.")
flags.DEFINE_string("data_dir", None, "CIFAR-10 as load_cifar10 takes it.")
flags.DEFINE_integer("depth", 20, "Depth of the network in an .npz file.")
flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs to remove; 0 prunes nothing.")
flags.DEFINE_integer("images", 512, "Training images, without labels, for the repair and for the ranges of int8.")
flags.DEFINE_integer("finetune_steps", 391, f"Steps of {BATCH} images after pruning, before the comparison begins.")
flags.DEFINE_integer("steps", 250, "Steps of training, with and without quantization.")
flags.DEFINE_float("finetune_rate", 0.02, "Learning rate of the fine-tuning; it falls to 0 by a cosine.")
flags.DEFINE_float("learning_rate", 0.005, "Learning rate of the training, with and without quantization; likewise.")
flags.DEFINE_integer("test_images", 10000, "Test images, from the first.")
flags.DEFINE_integer("seed", 0, "Seed of shuffling and augmentation.")
flags.DEFINE_string("folder", "results/quantization", "For networks, files and rows.jsonl.")
flags.DEFINE_integer("max_rows", None, "End after so many new rows; the next run goes on.")
flags.DEFINE_bool("table", False, "Only print a table of what is there.")

# What a row depends on, by the flags' names.
SETTINGS = ("target_flops", "images", "finetune_steps", "steps")
SETTINGS += ("finetune_rate", "learning_rate", "test_images", "seed")


def train(model, package, data, steps, learning_rate):
    """Trains a model of `keras` or `tf_keras` for some steps."""
    rates = package.optimizers.schedules.CosineDecay(learning_rate, steps)
    optimizer = package.optimizers.SGD(rates, momentum=0.9, nesterov=True)
    model.compile(optimizer, package.losses.SparseCategoricalCrossentropy(from_logits=True))
    begun = time.monotonic()
    for step in range(steps):
        model.train_on_batch(*data[step % len(data)])
        if (step + 1) % len(data) == 0:
            data.on_epoch_end()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}, {(time.monotonic() - begun) / (step + 1):.2f} s each", flush=True)
    return model


class Comparison:
    """One run: its data, its folder, and each form of the network, made when it is first asked for."""

    def __init__(self):
        (x_train, y_train), (x_test, y_test) = load_cifar10(FLAGS.data_dir)
        self.images, self.labels = x_test[: FLAGS.test_images].astype("float32"), y_test[: FLAGS.test_images]
        self.calibration = x_train[:: len(x_train) // FLAGS.images][: FLAGS.images].astype("float32")
        self.batches = lambda seed: training_dataset(x_train, y_train, BATCH, seed)
        self.key = {"network": pathlib.Path(FLAGS.weights).stem} | {name: FLAGS[name].value for name in SETTINGS}
        self.folder = pathlib.Path(FLAGS.folder) / "_".join(f"{value}" for value in self.key.values())
        self.folder.mkdir(parents=True, exist_ok=True)

    def kept(self, name, make):
        """The Keras model of a file, made and written where it is missing."""
        path = self.folder / f"{name}.keras"
        if not path.exists():
            kprune.utils.files.write_by_rename(path, make().save)
        return keras.saving.load_model(path, compile=False)

    def pruned(self):
        model = load_network(FLAGS.weights, FLAGS.depth)
        prune = lambda: kprune.prune_model(model, FLAGS.target_flops, data=self.calibration)  # noqa: E731
        return self.kept("pruned", prune) if FLAGS.target_flops else model

    def fine_tuned(self):
        rate, steps = FLAGS.finetune_rate, FLAGS.finetune_steps
        return self.kept("fine_tuned", lambda: train(self.pruned(), keras, self.batches(FLAGS.seed), steps, rate))

    def trained(self):
        data, rate = self.batches(FLAGS.seed + 1), FLAGS.learning_rate
        return self.kept("float", lambda: train(self.fine_tuned(), keras, data, FLAGS.steps, rate))

    def aware(self):
        """The trained tf_keras model: its weights are kept, since tf_keras files need tfmot's scopes."""
        model, path = self.aware_untrained(), self.folder / "aware.h5"
        if not path.exists():
            train(model, tf_keras, self.batches(FLAGS.seed + 1), FLAGS.steps, FLAGS.learning_rate)
            kprune.utils.files.write_by_rename(path, model.save_weights)
        model.load_weights(path)
        return model

    def aware_untrained(self):
        return kprune.quantize_aware(self.fine_tuned(), data=self.calibration)

    def of_model(self, model):
        logits = np.asarray(model.predict(self.images, batch_size=500, verbose=0))
        return {"accuracy": float((logits.argmax(-1) == self.labels).mean())}

    def of_file(self, model, name, **data):
        """Accuracy and size of the int8 file, and how often it says what the model says."""
        path = self.folder / f"{name}.tflite"
        export = kprune.export_tflite(model, path, quantize="int8", check_data=self.images[:500], **data)
        correct = kprune.run_tflite(path, self.images).argmax(-1) == self.labels
        agreement = {"agreement": export.agreement, "size_bytes": export.size_bytes}
        return {"accuracy": float(correct.mean())} | agreement

    def measure(self, form):
        """What one row holds beside its key."""
        if form.endswith("int8"):
            if form == "post-training int8":
                return self.of_file(self.trained(), "post_training", representative_data=self.calibration)
            return self.of_file(self.aware(), "aware")
        make = {
            "given": lambda: load_network(FLAGS.weights, FLAGS.depth),
            "pruned": self.pruned,
            "fine-tuned": self.fine_tuned,
            "float": self.trained,
            "aware, untrained": self.aware_untrained,
        }
        model = make[form]()
        return self.of_model(model) | {"params": model.count_params()}


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(found):
    """Markdown: a line per network, setting and form; mean and standard deviation over seeds."""
    lines = ["| form | accuracy | same class as its network | size | seeds |", "|---|---|---|---|---|"]
    groups = {}
    for row in found:
        name = (row["network"], row["target_flops"], row["steps"])
        groups.setdefault((name, FORMS.index(row["form"])), []).append(row)
    for ((network, target, steps), form), group in sorted(groups.items()):
        values = [100 * row["accuracy"] for row in group]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        first = group[0]
        cells = [
            f"{FORMS[form]} ({network}, {target:.0%} removed, {steps} steps)",
            f"{statistics.fmean(values):.2f}{spread} %",
            f"{first['agreement']:.1%}" if "agreement" in first else "",
            f"{first['size_bytes'] / 1000:.1f} kB" if "size_bytes" in first else f"{first['params']:,} parameters",
            str(len(group)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    path = pathlib.Path(FLAGS.folder) / "rows.jsonl"
    if not FLAGS.table:
        if FLAGS.weights is None:
            raise app.UsageError("--weights is missing.")
        keras.utils.set_random_seed(FLAGS.seed)
        comparison = Comparison()
        keys = [comparison.key | {"form": form} for form in FORMS]
        missing = [key for key in keys if not any(row.items() >= key.items() for row in rows(path))]
        for key in missing[: FLAGS.max_rows]:
            row = key | comparison.measure(key["form"])
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print(table(rows(path)))


if __name__ == "__main__":
    app.run(main)
