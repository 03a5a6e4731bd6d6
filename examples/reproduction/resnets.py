"""Checks the whole way on the trained CIFAR-10 ResNets, and tables the rates per layer that follow.

    python examples/reproduction/resnets.py --models=FOLDER --output=rates.md

For each network and target: the share removed, and the largest difference between masked and smaller model, between
the saved file in a process without kprune and the model, and between the TFLite file and the model, relative to the
largest logit.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import kprune  # noqa: E402
from cifar_resnet import load_network  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("models", None, "Folder with resnet{20,32,44,56}_cifar10.npz.", required=True)
flags.DEFINE_list("networks", ["20", "32", "44", "56"], "Depths.")
flags.DEFINE_list("targets", ["0.3", "0.5", "0.7"], "Shares of the FLOPs to remove.")
flags.DEFINE_string("output", None, "Markdown file for the rates, or none.")
WITHOUT_KPRUNE = """
import sys, numpy as np, keras
images = np.load(sys.argv[1])
for path in sys.argv[2:]:
    np.save(path + ".npy", keras.models.load_model(path).predict(images, verbose=0))
assert "kprune" not in sys.modules
"""


def difference(one, other):
    return float(np.abs(one - other).max() / np.abs(other).max())


def check(model, target, images, path):
    """Prunes, saves and exports; the row that can be told already, and the plan."""
    plan = kprune.plan_pruning(model, target, criterion=kprune.criteria.Similarity(ratio=0.3))
    hard, soft = kprune.apply_plan(model, plan), kprune.apply_plan(model, plan, mode="soft")
    outputs = hard.predict(images, verbose=0)
    hard.save(path)
    np.save(f"{path}.hard.npy", outputs)
    export = kprune.export_tflite(hard, f"{path}.tflite", check_data=images)
    files = kprune.run_tflite(export.path, images)
    row = {
        "network": model.name,
        "target": target,
        "removed": 1 - plan.flops[1] / plan.flops[0],
        "soft": difference(soft.predict(images, verbose=0), outputs),
        "tflite": difference(np.asarray(files).reshape(outputs.shape), outputs),
    }
    return row, plan


def rates(plans):
    """Markdown: one line per layer, one column per target."""
    targets = list(plans)
    lines = [f"| layer | filters | {' | '.join(f'{t:.0%}' for t in targets)} |", "|---|---|" + "---|" * len(targets)]
    for entries in zip(*(plan.layers for plan in plans.values()), strict=True):
        cells = [f"{entry.rate:.0%}" if entry.reason is None else "frozen" for entry in entries]
        lines.append(f"| {entries[0].path} | {entries[0].filters} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3)).astype("float32")
    sections, rows = [], {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", images)
        for depth in FLAGS.networks:
            model = load_network(pathlib.Path(FLAGS.models) / f"resnet{depth}_cifar10.npz", int(depth))
            plans = {}
            for target in map(float, FLAGS.targets):
                path = f"{folder}/{depth}_{target}.keras"
                rows[path], plans[target] = check(model, target, images, path)
            sections.append(f"## ResNet-{depth}\n\n{rates(plans)}\n")
        command = [sys.executable, "-c", WITHOUT_KPRUNE, f"{folder}/images.npy", *rows]
        subprocess.run(command, cwd=folder, check=True)
        for path, row in rows.items():
            row["keras"] = difference(np.load(f"{path}.npy"), np.load(f"{path}.hard.npy"))
            print(json.dumps(row), flush=True)
    if FLAGS.output:
        head = "# Rates per layer\n\nFilter similarity, `ratio=0.3`: share of the filters removed at each target.\n"
        pathlib.Path(FLAGS.output).write_text("\n".join([head, *sections]), encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
