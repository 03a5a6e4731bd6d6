"""Accuracy after pruning and the same fine-tuning, for many ways to choose filters and several seeds.

    python examples/reproduction/fine_tune.py --weights=resnet20_cifar10_jpeg.npz --data_dir=cifar10_jpeg.npz
    python examples/reproduction/fine_tune.py --table

One protocol for all: the same trained network, target, epochs, learning rates, images and augmentation; accuracy of
the last epoch on all test images, which chose nothing. Rows are added to a file as they come; what is there is not run
again.
"""

import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import time

import keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import kprune  # noqa: E402
from cifar10_data import load_cifar10, training_dataset  # noqa: E402
from cifar10_resnet import fine_tune, require_weights  # noqa: E402
from cifar_resnet import accuracy, load_network  # noqa: E402

S = kprune.criteria.Similarity


@dataclasses.dataclass(frozen=True)
class Method:
    """How filters are chosen, and what happens to the weights that stay.

    Attributes:
      criterion: a criterion, or a function that makes one from the seed; None prunes nothing.
      repair: whether the readers are refitted from images without labels.
      soft: whether filters go between the epochs, in the place of before the first.
      scratch: whether the pruned shape starts from new weights.
    """

    criterion: object
    repair: bool = False
    soft: bool = False
    scratch: bool = False


METHODS = {
    "not pruned": Method(None),
    "reconstruction_error, repaired": Method("reconstruction_error", repair=True),
    "reconstruction_error": Method("reconstruction_error"),
    "similarity, repaired": Method(S(), repair=True),
    "similarity": Method(S()),
    "similarity, literal": Method(S(guard=False)),
    "similarity, closest pair first": Method(S(alpha=100.0)),
    "similarity, soft": Method(S(), soft=True),
    "relevance": Method("relevance"),
    "relevance, gradual": Method("relevance", soft=True),
    "relevance, repaired": Method("relevance", repair=True),
    "l1": Method("l1"),
    "l1, repaired": Method("l1", repair=True),
    "geometric_median": Method("geometric_median"),
    "geometric_median, repaired": Method("geometric_median", repair=True),
    "random": Method(kprune.criteria.Random),
    "random, repaired": Method(kprune.criteria.Random, repair=True),
    "shape of reconstruction_error, from scratch": Method("reconstruction_error", scratch=True),
}
DEFAULTS = {"batch": 128, "repair_images": 512, "test_images": 10_000, "parts": 3}  # of rows that do not say
SETTING = ("network", "images", "epochs", "learning_rate", *DEFAULTS)
RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "fine_tune.jsonl"
FLAGS = flags.FLAGS
flags.DEFINE_string("methods", ";".join(METHODS), "Which methods, separated by ';'.")
flags.DEFINE_list("targets", ["0.5"], "Shares of the FLOPs to remove.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the order and the augmentation of the images, and of random choices.")
flags.DEFINE_integer("images", 512, "Training images, without labels, for the repair; with labels for relevance.")
flags.DEFINE_string("results", str(RESULTS), "Where rows are added; another file begins anew.")
flags.DEFINE_integer("parts", 3, "Into how many parts an epoch is cut where filters go between the epochs.")
flags.DEFINE_bool("table", False, "Only print a table of what is there.")


class InParts(keras.utils.PyDataset):
    """The batches of a dataset in the same order, an epoch of it cut into several, so that callbacks are asked between.

    Args:
      whole: a `keras.utils.PyDataset`.
      parts: into how many; what does not divide evenly is left out.
    """

    def __init__(self, whole, parts):
        super().__init__()
        self.whole, self.parts, self.part = whole, parts, 0

    def __len__(self):
        return len(self.whole) // self.parts

    def __getitem__(self, index):
        return self.whole[self.part * len(self) + index]

    def on_epoch_end(self):
        self.part = (self.part + 1) % self.parts
        if self.part == 0:
            self.whole.on_epoch_end()


def start_of(model, method, target, seed, images):
    """The network before training: pruned already, but where nothing goes or filters go while it trains."""
    if method.soft or method.criterion is None:
        whole = keras.models.clone_model(model)
        whole.set_weights(model.get_weights())
        return whole
    criterion = method.criterion(seed) if isinstance(method.criterion, type) else method.criterion
    plan = kprune.plan_pruning(model, target, criterion=criterion, data=images)
    small = kprune.apply_plan(model, plan, data=images[0] if method.repair else None)
    if method.scratch:
        keras.utils.set_random_seed(seed)
        small = keras.models.clone_model(small)
    return small


def pruning_while_training(method, target, images):
    """The callback that prunes between the parts of an epoch."""
    if isinstance(method.criterion, S):
        return kprune.SimilarityPruning(target)
    return kprune.GradualPruning(method.criterion, target, data=images)


def run(model, before, name, target, seed, data):
    """One row; `before` is the accuracy of the model on the test images."""
    (x_train, y_train), (x_test, y_test) = data
    method, begun = METHODS[name], time.monotonic()
    keras.utils.set_random_seed(seed)
    index = slice(None, None, len(x_train) // FLAGS.images)
    images = x_train[index].astype("float32"), y_train[index]
    small = start_of(model, method, target, seed, images)
    pruned = accuracy(small, x_test, y_test)
    training = training_dataset(x_train, y_train, FLAGS.batch, seed)
    if method.soft:
        training = InParts(training, FLAGS.parts)
    callbacks = [pruning_while_training(method, target, images)] if method.soft else []
    epochs = FLAGS.epochs * (FLAGS.parts if method.soft else 1)
    history = fine_tune(small, training, epochs, FLAGS.learning_rate, callbacks) if epochs else {}
    small = kprune.strip(small) if method.soft else small
    cost, whole = kprune.model_cost(small), kprune.model_cost(model)
    return {
        "removed_flops": 1 - cost.flops / whole.flops,
        "params": cost.params,
        "before": before,
        "pruned": pruned,
        "after": accuracy(small, x_test, y_test),
        "train_accuracy": history.get("accuracy", [None])[-1],
        "after_on_training_images": accuracy(small, x_train[::5].astype("float32"), y_train[::5]),
        "seconds": time.monotonic() - begun,
    }


def key_of(name, target, seed, data):
    """All that changes a row; what a row with this key holds is not run again."""
    (x_train, _), (x_test, _) = data
    return {
        "network": pathlib.Path(FLAGS.weights).stem,
        "method": name,
        "target": target,
        "epochs": FLAGS.epochs,
        "learning_rate": FLAGS.learning_rate,
        "images": len(x_train),
        "seed": seed,
        "batch": FLAGS.batch,
        "repair_images": FLAGS.images,
        "test_images": len(x_test),
        "parts": FLAGS.parts,
    }


def rows():
    path = pathlib.Path(FLAGS.results)
    return [DEFAULTS | json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(found):
    """Markdown: per setting a table, with a line per method and, per target, means and deviations over the seeds."""
    settings = {}
    for row in found:
        settings.setdefault(tuple(row[key] for key in SETTING), []).append(row)
    return "\n\n".join(table_of(setting, settings[setting]) for setting in sorted(settings))


def table_of(setting, found):
    network, images, epochs, rate, *others = setting
    groups = {}
    for row in found:
        groups.setdefault((row["method"], row["target"]), []).append(row)
    unpruned = [row for row in found if METHODS[row["method"]].criterion is None]
    targets = sorted({row["target"] for row in found if row not in unpruned})
    facts = f"{network}: {found[0]['before']:.2%} before; epochs: {epochs}, images: {images:,}, learning rate: {rate}"
    for (key, default), value in zip(DEFAULTS.items(), others, strict=True):
        facts += "" if value == default else f", {key.replace('_', ' ')}: {value:,}"
    if unpruned:
        facts += f"; trained alike, not pruned: {over_seeds(unpruned)}"
    columns = [f"{target:.0%}: parameters | straight after | last epoch (seeds)" for target in targets]
    lines = [f"| method | mode | {' | '.join(columns)} |", "|---|---|" + "---|" * 3 * len(targets)]
    first = {}
    for method, target in sorted(groups):  # the order of the lines is that of the lowest target
        first.setdefault(method, statistics.fmean(row["after"] for row in groups[method, target]))
    for method in sorted(first.keys() - {row["method"] for row in unpruned}, key=lambda name: -first[name]):
        cells = [method, "soft" if METHODS[method].soft else "hard"]
        for target in targets:
            cells += cells_of(groups.get((method, target), []))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([f"**{facts}**", "", *lines])


def cells_of(group):
    if not group:
        return ["", "", ""]
    params, pruned = (statistics.fmean(row[key] for row in group) for key in ("params", "pruned"))
    return [f"{params:,.0f}", f"{pruned:.1%}", over_seeds(group)]


def over_seeds(group):
    after = [100 * row["after"] for row in group]
    spread = f" ± {statistics.stdev(after):.2f}" if len(after) > 1 else ""
    return f"{statistics.fmean(after):.2f}{spread} % ({len(after)})"


def main(_):
    if FLAGS.table:
        print(table(rows()))
        return
    require_weights()
    train, (x_test, y_test) = load_cifar10(FLAGS.data_dir)
    data = tuple(x[: FLAGS.train_images] for x in train), (x_test[: FLAGS.test_images].astype("float32"), y_test)
    data = data[0], (data[1][0], y_test[: FLAGS.test_images])
    model = load_network(FLAGS.weights, FLAGS.depth)
    before = accuracy(model, *data[1])
    path = pathlib.Path(FLAGS.results)
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = itertools.product(map(float, FLAGS.targets), map(int, FLAGS.seeds), FLAGS.methods.split(";"))
    for target, seed, name in trials:
        key = key_of(name, target, seed, data)
        if any(row.items() >= key.items() for row in rows()):
            continue
        row = key | run(model, before, name, target, seed, data)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
