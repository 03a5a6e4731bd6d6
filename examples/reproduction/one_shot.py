"""Accuracy straight after pruning, without any training, of trained CIFAR-10 ResNets: which rule hurts least?

    python examples/reproduction/one_shot.py --models=FOLDER --data=cifar10_jpeg.npz

Each row is one network, rule and target, on the same test images: pruned only, with BatchNorm recalibrated, and with
the readers' weights repaired by least squares, the last two from the same few training images without labels. Rows
are added to a file as they come; what is there is not run again.
"""

import itertools
import json
import pathlib
import sys

import keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import kprune  # noqa: E402
from cifar10_data import load_split  # noqa: E402
from cifar_resnet import accuracy, load_network  # noqa: E402

S = kprune.criteria.Similarity
RULES = {
    "similarity graph": S(ratio=0.3),
    "similarity stage": S(ratio=0.3, coupling="stage"),
    "similarity graph literal": S(ratio=0.3, guard=False),
    "similarity stage literal": S(ratio=0.3, coupling="stage", guard=False),
    "similarity graph merged": S(ratio=0.3, compensate=True),
    "similarity graph cosine": S(ratio=0.3, metric="cosine"),
    "similarity graph BatchNorm folded": S(ratio=0.3, fold_bn=True),
    "reconstruction_error": "reconstruction_error",
    "l1": "l1",
    "geometric_median": "geometric_median",
    "random": "random",
}
RESULTS = pathlib.Path(__file__).resolve().parent / "results" / "one_shot.jsonl"
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "models",
    None,
    "Folder with resnet{20,32,44,56}_cifar10.npz, resnet20_cifar10_jpeg.npz, and the ResNet-8 of MLPerf.",
)
flags.DEFINE_string("data", None, "cifar10_jpeg.npz.")
flags.DEFINE_list("networks", ["20_jpeg", "20", "32", "44", "56", "8"], "Depths; _jpeg: fine-tuned on JPEG images.")
flags.DEFINE_list("targets", ["0.3", "0.5", "0.7"], "Shares of the FLOPs to remove.")
flags.DEFINE_list("rules", list(RULES), "Which rules.")
flags.DEFINE_integer("images", 2000, "Test images.")
flags.DEFINE_integer("calibration", 512, "Training images for BatchNorm and for the repair.")
flags.DEFINE_string("results", str(RESULTS), "Where rows are added as they come; another file begins anew.")
flags.DEFINE_bool("table", False, "Only print a table of what is there.")


def load(network):
    """A trained network by its name in `--networks`."""
    depth, *jpeg = network.split("_")
    name = "mlperf_tiny_resnet8_cifar10.h5" if depth == "8" else f"resnet{depth}_cifar10{'_jpeg' if jpeg else ''}.npz"
    return load_network(pathlib.Path(FLAGS.models) / name, int(depth))


def rows():
    path = pathlib.Path(FLAGS.results)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(found):
    """Markdown: one line per network, target, rule and number of images."""
    lines = [
        "| network | images: test, calibration | FLOPs removed | rule | before | pruned | recalibrated | repaired |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [row["network"], f"{row['images']:,}, {row['calibration']:,}", f"{row['removed']:.1%}", row["rule"]]
        cells += [f"{row[name]:.1%}" for name in ("before", "pruned", "recalibrated", "repaired")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def missing():
    """What the flags ask for and the results lack: per row, by network, all that changes it."""
    known, asked = rows(), {}
    for network, target, rule in itertools.product(FLAGS.networks, map(float, FLAGS.targets), FLAGS.rules):
        key = {"network": network, "rule": rule, "target": target}
        key |= {"images": FLAGS.images, "calibration": FLAGS.calibration}
        if not any(row.items() >= key.items() for row in known):
            asked.setdefault(network, []).append(key)
    return asked


def measure(model, criterion, target, calibration, x, y):
    """The share removed, and the accuracies."""
    plan = kprune.plan_pruning(model, target, criterion=criterion, data=calibration)
    small = kprune.apply_plan(model, plan)
    return {
        "removed": 1 - plan.flops[1] / plan.flops[0],
        "pruned": accuracy(small, x, y),
        "recalibrated": accuracy(kprune.recalibrate_batchnorm(small, calibration), x, y),
        "repaired": accuracy(kprune.apply_plan(model, plan, data=calibration), x, y),
    }


def main(_):
    if FLAGS.table:
        print(table(rows()))
        return
    asked = missing()
    if not asked:
        return
    keras.utils.set_random_seed(0)
    keras.config.disable_interactive_logging()
    x, y = load_split(FLAGS.data, "test")
    x, y = x[: FLAGS.images].astype("float32"), y[: FLAGS.images]
    train = load_split(FLAGS.data, "train")[0]
    calibration = train[:: len(train) // FLAGS.calibration][: FLAGS.calibration].astype("float32")
    pathlib.Path(FLAGS.results).parent.mkdir(parents=True, exist_ok=True)
    for network, keys in asked.items():
        model = load(network)
        before = accuracy(model, x, y)
        for key in keys:
            row = key | {"before": before}
            row |= measure(model, RULES[key["rule"]], key["target"], calibration, x, y)
            with open(FLAGS.results, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
