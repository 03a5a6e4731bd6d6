"""Which plan keeps the most accuracy at one latency? FLOPs, FLOPs with rounded widths, or milliseconds of a table.

    kprune profile resnet20.keras --output=table.json
    python examples/latency/compare.py --network=resnet20.keras --data=cifar10_jpeg.npz --table=table.json --folder=out
    python examples/latency/compare.py --folder=out --time

The first run of this script prunes one network in each way to several targets, without training, repairs each from 512
training images, and writes TFLite files with their accuracy on test images. The second times all files of the folder in
turn, which wants a machine that does nothing else, and prints, for each way, the accuracy at some latencies, on a line
between the files on both sides.
"""

import functools
import json
import pathlib
import sys

import keras
import numpy as np
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import kprune  # noqa: E402
from cifar10_data import load_split  # noqa: E402
from cifar_resnet import accuracy  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("network", None, "A trained CIFAR-10 network, a .keras or .h5 file.")
flags.DEFINE_string("data", None, "cifar10_jpeg.npz.")
flags.DEFINE_string("table", None, "The latency table of the network on this machine, from kprune profile.")
flags.DEFINE_string("folder", None, "Where files and results are.", required=True)
flags.DEFINE_list("targets", ["0.3", "0.45", "0.6"], "Shares of the FLOPs, or of the milliseconds, to remove.")
flags.DEFINE_list(
    "rates", ["0.125", "0.25", "0.375"], "Shares of each layer's filters, for the uniformly narrower network."
)
flags.DEFINE_list("ways", ["flops", "preset", "milliseconds", "uniform"], "What chooses the filters.")
flags.DEFINE_integer("images", 5000, "Test images.")
flags.DEFINE_integer("repair", 512, "Training images for the choice and the repair.")
flags.DEFINE_bool("time", False, "Time the files of the folder, and print the table.")
flags.DEFINE_integer("runs", 200, "Timed runs of each file.")
flags.DEFINE_list("at", ["0.8", "0.65", "0.5"], "Shares of the whole network's milliseconds to compare at.")


def plans(model, table, images):
    """Each way's name and its plans."""
    preset = "litert-int8" if table.quantize else "litert"
    share = functools.partial(kprune.plan_pruning, model, data=images)
    targets = [float(target) for target in FLAGS.targets]
    rounded = kprune.Limits(round_to=preset)
    ways = {
        "flops": ("FLOPs", targets, lambda target: share(target)),
        "preset": (f"FLOPs, {preset}", targets, lambda target: share(target, limits=rounded)),
        "milliseconds": ("milliseconds", targets, lambda target: share(target_latency=target, latency_table=table)),
        "uniform": (
            "uniform",
            [float(rate) for rate in FLAGS.rates],
            lambda rate: kprune.plan_rates(model, {"*": rate}, criterion="reconstruction_error", data=images),
        ),
    }
    for way in FLAGS.ways:
        name, shares, plan = ways[way]
        for one in shares:
            yield name, functools.partial(plan, one)


def make(folder):
    """Writes the files and `files.jsonl`, one row per file."""
    model = keras.models.load_model(FLAGS.network, compile=False)
    table = kprune.LatencyTable.load(FLAGS.table)
    images = load_split(FLAGS.data, "train")[0][: FLAGS.repair].astype("float32")
    x, y = (array[: FLAGS.images] for array in load_split(FLAGS.data, "test"))
    representative = {"representative_data": images[:200]} if table.quantize else {}

    def add(way, network, plan):
        name = f"{len(list(folder.glob('*.tflite'))):02d}.tflite"
        kprune.export_tflite(network, folder / name, quantize=table.quantize, **representative)
        row = {"way": way, "file": name, "accuracy": file_accuracy(folder / name, network, x, y, table.quantize)}
        row |= {"flops": kprune.model_cost(network).flops, "predicted_ms": table.predict(network)}
        row |= {"network": model.name, "quantize": table.quantize, "threads": table.threads}
        row["widths"] = [] if plan is None else [len(entry.keep) for entry in plan.layers]
        with open(folder / "files.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    if not (folder / "files.jsonl").exists():
        add("whole", model, None)
    for way, make_plan in plans(model, table, images):
        try:
            plan = make_plan()
        except (kprune.TargetError, kprune.OptionError) as error:  # out of reach, or tied layers cannot lose so many
            print(f"{way}: {error}", flush=True)
            continue
        add(way, kprune.apply_plan(model, plan, data=images), plan)


def file_accuracy(path, network, x, y, quantize):
    """Of the file where it is quantized, of the network where the file computes the same."""
    if not quantize:
        return accuracy(network, x.astype("float32"), y)
    return float((kprune.run_tflite(path, x.astype("float32")).argmax(-1) == y).mean())


def time_files(folder):
    """Adds the milliseconds of each file, timed in turn with all others."""
    rows = [json.loads(line) for line in (folder / "files.jsonl").read_text(encoding="utf-8").splitlines()]
    paths = [folder / row["file"] for row in rows]
    timings = kprune.benchmark_tflite(*paths, threads=rows[0]["threads"], runs=FLAGS.runs)
    rows = [
        {**row, "ms": timing.median_ms, "p10_ms": timing.p10_ms, "p90_ms": timing.p90_ms}
        for row, timing in zip(rows, timings, strict=True)
    ]
    (folder / "timed.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return rows


def table_of(rows):
    """Markdown: the accuracy of each way at some latencies, and what the table predicted."""
    whole = next(row for row in rows if row["way"] == "whole")
    shares = [float(share) for share in FLAGS.at]
    lines = [f"{whole['network']}, {whole['quantize'] or 'float32'}: {whole['ms']:.3f} ms, {whole['accuracy']:.2%}", ""]
    heads = " | ".join(f"{share * whole['ms']:.3f} ms" for share in shares)
    lines += [f"| plan | {heads} |", f"|---|{'---|' * len(shares)}"]
    for way in dict.fromkeys(row["way"] for row in rows if row["way"] != "whole"):
        own = sorted([whole, *(row for row in rows if row["way"] == way)], key=lambda row: row["ms"])
        ms, found = [row["ms"] for row in own], [row["accuracy"] for row in own]
        cells = [at_latency(share * whole["ms"], ms, found) for share in shares]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    errors = [row["predicted_ms"] / row["ms"] - 1 for row in rows]
    lines += [
        "",
        f"Prediction of the {len(rows)} files: {min(errors):+.1%} to {max(errors):+.1%}, "
        f"median {np.median(errors):+.1%}.",
    ]
    return "\n".join(lines)


def at_latency(wanted, ms, found):
    """The accuracy on a line between the files on both sides, or a dash outside."""
    return f"{np.interp(wanted, ms, found):.2%}" if ms[0] <= wanted <= ms[-1] else "-"


def main(_):
    folder = pathlib.Path(FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if FLAGS.time:
        print(table_of(time_files(folder)))
    else:
        keras.config.disable_interactive_logging()
        make(folder)


if __name__ == "__main__":
    app.run(main)
