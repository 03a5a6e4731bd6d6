"""Accuracy straight after pruning, without any training, of trained CIFAR-10 ResNets: which rule hurts least?

    python examples/reproduction/one_shot.py --models=FOLDER --data=cifar10_jpeg.npz

Each row is one network, rule and target, on the same test images, before and after BatchNorm recalibration.
"""

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
    "l1": "l1",
    "geometric_median": "geometric_median",
    "random": "random",
}
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "models", None, "Folder with resnet{20,32,44,56}_cifar10.npz and resnet20_cifar10_jpeg.npz.", required=True
)
flags.DEFINE_string("data", None, "cifar10_jpeg.npz.", required=True)
flags.DEFINE_list("networks", ["20_jpeg", "20", "32", "44", "56"], "Depths; _jpeg: fine-tuned on JPEG images.")
flags.DEFINE_list("targets", ["0.3", "0.5", "0.7"], "Shares of the FLOPs to remove.")
flags.DEFINE_list("rules", list(RULES), "Which rules.")
flags.DEFINE_integer("images", 2000, "Test images.")
flags.DEFINE_integer("calibration", 1024, "Training images for BatchNorm.")
flags.DEFINE_string("results", "results/one_shot.jsonl", "Where rows are added as they come.")


def main(_):
    keras.utils.set_random_seed(0)
    x, y = load_split(FLAGS.data, "test")
    x, y = x[: FLAGS.images].astype("float32"), y[: FLAGS.images]
    calibration = load_split(FLAGS.data, "train")[0][: FLAGS.calibration].astype("float32")
    pathlib.Path(FLAGS.results).parent.mkdir(parents=True, exist_ok=True)
    for network in FLAGS.networks:
        depth, *jpeg = network.split("_")
        name = f"resnet{depth}_cifar10{'_jpeg' if jpeg else ''}.npz"
        model = load_network(pathlib.Path(FLAGS.models) / name, int(depth))
        before = accuracy(model, x, y)
        for target in map(float, FLAGS.targets):
            for rule in FLAGS.rules:
                criterion = RULES[rule]
                plan = kprune.plan_pruning(model, target, criterion=criterion)
                small = kprune.apply_plan(model, plan)
                row = {
                    "network": network,
                    "rule": rule,
                    "target": target,
                    "removed": 1 - plan.flops[1] / plan.flops[0],
                    "before": before,
                    "pruned": accuracy(small, x, y),
                    "recalibrated": accuracy(kprune.recalibrate_batchnorm(small, calibration), x, y),
                }
                with open(FLAGS.results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
