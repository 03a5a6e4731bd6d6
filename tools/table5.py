"""Times networks before and after pruning on this machine, beside uniformly narrower ones, as table 5 of Wu 2023 does.

  python tools/table5.py --output=results/table5 --only_files     # makes the files, which needs no idle machine
  python tools/table5.py --output=results/table5                  # times them; on an idle machine
  python tools/table5.py --output=results/table5 --table          # prints what is there as Markdown
  python tools/table5.py --networks=resnet56 --tables=resnet56=litert.json    # one more plan, by measured steps

The networks are VGG16, ResNet-56 and DenseNet-40 for CIFAR, ResNet-50 and MobileNetV2 for 224 pixels. Weights are
random, except where --weights names trained ones: time depends on shapes, and these on the criterion. All files of a
row take turns, run by run, each in a process of its own. Rows are lines of rows.jsonl; what is there is kept.
"""

import json
import pathlib
import sys
import time

import numpy as np
from absl import flags

from kprune.cli import common

ROOT = pathlib.Path(__file__).resolve().parent.parent
# How each runtime is named in a row, and the file that it runs.
RUNTIMES = {"litert float32": "float32.tflite", "litert int8": "int8.tflite", "onnxruntime": "float32.onnx"}
NETWORKS = {"resnet56": 32, "vgg16": 32, "densenet40": 32, "resnet50": 224, "mobilenet_v2_224": 224}
FLAGS = flags.FLAGS
flags.DEFINE_string("output", "results/table5", "Folder for the files and rows.jsonl; made if missing.")
flags.DEFINE_list("networks", list(NETWORKS), f"Which of {', '.join(NETWORKS)}.")
flags.DEFINE_list("runtimes", list(RUNTIMES), f"Which of {', '.join(RUNTIMES)}.")
flags.DEFINE_list("threads", ["1", "2"], "Numbers of CPU threads.")
flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs to remove.")
flags.DEFINE_list("round_to", ["1"], "Pruned once for each of these: numbers or presets, as kprune.Limits takes them.")
flags.DEFINE_string("criterion", "similarity", "What chooses the filters.")
flags.DEFINE_string("data", None, "Images for the criterion, .npy; only where all networks take images of this size.")
flags.DEFINE_list("weights", [], "Trained weights, as NETWORK=FILE.npz, for ResNets of build_resnet.")
flags.DEFINE_list(
    "tables", [], "Latency tables of `kprune profile`, as NETWORK=FILE.json: one more variant, planned by each."
)
flags.DEFINE_integer("warmup", 10, "Runs of each file before the first timed one.", lower_bound=1)
flags.DEFINE_integer("runs", 60, "Timed runs of each file.", lower_bound=5)
flags.DEFINE_float("max_seconds", None, "Begin no row after so many seconds; the next run goes on.")
flags.DEFINE_bool("only_files", False, "Make the files, and time nothing.")
flags.DEFINE_bool("table", False, "Only print a table of what is there.")


def files_of(entries: list[str]) -> dict[str, str]:
    """The file of each network."""
    return dict(entry.split("=", 1) for entry in entries)


def build(network: str):
    """A network by its name, with trained weights where --weights has some."""
    import keras

    from cifar_models import build_network
    from cifar_resnet import load_npz

    keras.utils.set_random_seed(0)
    trained = files_of(FLAGS.weights)
    if network in ("resnet50", "mobilenet_v2_224"):
        name = {"resnet50": "ResNet50", "mobilenet_v2_224": "MobileNetV2"}[network]
        return getattr(keras.applications, name)(weights=None, input_shape=(224, 224, 3))
    model = build_network(network)
    return load_npz(model, trained[network]) if network in trained else model


def narrower_models(network: str, model):
    """A function that gives the network with all layers narrowed to one share of their widths."""
    import kprune
    from cifar_resnet import build_resnet

    def by_widths(share):  # the identity shortcuts of the CIFAR ResNets tie stages of unlike widths
        return build_resnet(56, [max(1, round(width * share)) for width in (16, 32, 64)])

    def by_rate(share):
        return kprune.apply_plan(model, kprune.plan_rates(model, {"*": 1 - share}, criterion="l1"))

    return by_widths if network == "resnet56" else by_rate


def uniformly_narrower(network: str, model, flops: float):
    """The uniformly narrower network whose FLOPs come nearest to a number, found by halving an interval of widths."""
    import kprune

    narrowed, low, high, found = narrower_models(network, model), 0.2, 1.0, []
    for _ in range(9):
        share = (low + high) / 2
        one = narrowed(share)
        cost = kprune.model_cost(one).flops
        found.append((abs(cost - flops), share, one))
        low, high = (share, high) if cost < flops else (low, share)
    return min(found, key=lambda entry: entry[:2])[-1]


def chosen_by() -> dict:
    """What chooses the filters, as options of `plan_pruning`."""
    data = None if FLAGS.data is None else common.load_arrays(FLAGS.data)
    return {"criterion": FLAGS.criterion, "data": data}


def pruned_variants(model) -> dict:
    """The plan for each --round_to, by the name of the variant; one that forbids the target is left out."""
    import kprune

    plans, options = {}, chosen_by()
    for step in FLAGS.round_to:
        limits = kprune.Limits(round_to=int(step) if step.isdigit() else step)
        try:
            plan = kprune.plan_pruning(model, FLAGS.target_flops, limits=limits, **options)
        except kprune.TargetError as error:
            print(f"{model.name}, round_to={step} is left out: {error}", flush=True)
            continue
        plans["pruned" if step == "1" else f"pruned, round_to={step}"] = plan
    if not plans:
        raise flags.Error(f"no --round_to lets {model.name} lose {FLAGS.target_flops:.0%} of its FLOPs")
    return plans


def plan_by_table(model, table, target: float, **options):
    """The plan that removes the least of the milliseconds by a table among those that remove a share of the FLOPs."""
    import kprune

    low, high, found = 0.0, 1.0, None
    for _ in range(8):
        share = (low + high) / 2
        try:
            plan = kprune.plan_pruning(model, target_latency=share, latency_table=table, **options)
        except kprune.TargetError:
            high = share
            continue
        if plan.flops[1] <= (1 - target) * plan.flops[0]:
            found, high = plan, share
        else:
            low = share
    if found is None:
        raise flags.Error(f"no plan by the table lets {model.name} lose {target:.0%} of its FLOPs")
    return found


def make_networks(network: str, folder: pathlib.Path) -> None:
    """Writes all variants of a network as Keras files, and variants.json with what each costs."""
    import kprune

    folder.mkdir(parents=True, exist_ok=True)
    model = build(network)
    plans, tables = pruned_variants(model), files_of(FLAGS.tables)
    if network in tables:
        plans["pruned, by the table"] = plan_by_table(model, tables[network], FLAGS.target_flops, **chosen_by())
    models = {"full": model} | {name: kprune.apply_plan(model, plan) for name, plan in plans.items()}
    flops = next(iter(plans.values())).flops[1]
    models["uniformly narrower"] = uniformly_narrower(network, model, flops)
    facts = []
    for index, (name, one) in enumerate(models.items()):
        one.save(folder / f"{index}.keras")
        cost = kprune.model_cost(one)
        facts.append(
            {"variant": name} | {kind: getattr(cost, kind) for kind in ("flops", "params", "activation_bytes")}
        )
    text = json.dumps(facts, indent=1) + "\n"
    kprune.utils.files.write_by_rename(folder / "variants.json", lambda file: file.write_text(text))


def make_files(network: str, folder: pathlib.Path) -> None:
    """Writes a network's files for all runtimes that were asked for."""
    note = folder / "variants.json"
    if not note.exists():
        make_networks(network, folder)
    for index, fact in enumerate(json.loads(note.read_text())):
        for runtime in FLAGS.runtimes:
            path = folder / f"{index}_{RUNTIMES[runtime]}"
            if not path.exists():
                print(f"{network}, {fact['variant']}: {path.name}", flush=True)
                export(common.load_model(folder / f"{index}.keras"), path)


def export(model, path: pathlib.Path) -> None:
    """Writes one file for batches of one; int8 takes its ranges from random images, since only time is measured."""
    import kprune

    if path.suffix == ".onnx":
        kprune.export_onnx(model, path, batch_size=1)
        return
    images = np.random.default_rng(0).uniform(0, 255, (8, *model.input_shape[1:])).astype("float32")
    options = {"quantize": "int8", "representative_data": images} if "int8" in path.name else {}
    kprune.export_tflite(model, path, batch_size=1, **options)


def measure(key: dict, folder: pathlib.Path) -> dict:
    """Times all variants in turn; a row, with real and theoretical speed-up of each over the first."""
    import kprune

    facts = json.loads((folder / "variants.json").read_text())
    paths = [folder / f"{index}_{RUNTIMES[key['runtime']]}" for index in range(len(facts))]
    timed = kprune.benchmark(*paths, threads=key["threads"], warmup=FLAGS.warmup, runs=FLAGS.runs)
    for index, (fact, timing) in enumerate(zip(facts, timed, strict=True)):
        real, theoretical = timed.speedup(index), facts[0]["flops"] / fact["flops"]
        fact |= {name: getattr(timing, name) for name in ("median_ms", "p10_ms", "p90_ms", "size_bytes")}
        fact |= {"speedup": [real.median, real.p10, real.p90], "theoretical": theoretical}
        fact["quotient"] = [value / theoretical for value in fact["speedup"]]
    return key | {"runs": FLAGS.runs, "variants": facts, "machine": timed.machine}


def read_rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: list[dict]) -> str:
    """Markdown, a line per variant: medians, and in brackets where the middle 80 % of the rounds lie."""
    head = ["network", "runtime, threads", "variant", "FLOPs left", "ms", "speed-up", "of", "quotient"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in rows:
        for fact in row["variants"]:
            first = fact is row["variants"][0]
            spread = "({:.2f}-{:.2f})"
            cells = [
                f"{row['network']}{', trained' if row['weights'] else ''}" if first else "",
                f"{row['runtime']}, {row['threads']}" if first else "",
                fact["variant"],
                f"{1 / fact['theoretical']:.1%}",
                f"{fact['median_ms']:.2f} ({fact['p10_ms']:.2f}-{fact['p90_ms']:.2f})",
                "" if first else f"{fact['speedup'][0]:.2f} {spread.format(*fact['speedup'][1:])}",
                "" if first else f"{fact['theoretical']:.2f}",
                "" if first else f"{fact['quotient'][0]:.2f} {spread.format(*fact['quotient'][1:])}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def check_flags() -> None:
    for name, known in (("networks", NETWORKS), ("runtimes", RUNTIMES)):
        unknown = sorted(set(FLAGS[name].value) - set(known))
        if unknown:
            raise flags.Error(f"--{name} has {', '.join(unknown)}; known are {', '.join(known)}")
    if not all(text.isdigit() and int(text) for text in FLAGS.threads):
        raise flags.Error(f"--threads is {','.join(FLAGS.threads)}; expected whole numbers from 1")
    for name in ("weights", "tables"):
        for entry in FLAGS[name].value:
            network, _, path = entry.partition("=")
            if network not in NETWORKS or not pathlib.Path(path).is_file():
                raise flags.Error(f"--{name} has {entry}; expected NETWORK=FILE")


def keys_of(network: str) -> list[dict]:
    """What each row of a network depends on."""
    trained, tables = files_of(FLAGS.weights), files_of(FLAGS.tables)
    made = {"criterion": FLAGS.criterion, "target": FLAGS.target_flops, "round_to": FLAGS.round_to}
    made["weights"] = pathlib.Path(trained[network]).stem if network in trained else None
    if network in tables:
        made["table"] = pathlib.Path(tables[network]).stem
    return [
        {"network": network, "runtime": runtime, "threads": int(threads), **made}
        for runtime in FLAGS.runtimes
        for threads in FLAGS.threads
    ]


def folder_of(key: dict) -> pathlib.Path:
    made = [key[name] for name in ("network", "criterion", "target")] + [key["weights"] or "random", *key["round_to"]]
    made += [key["table"]] if "table" in key else []
    return pathlib.Path(FLAGS.output) / "_".join(map(str, made))


def main(_) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    check_flags()
    path, begun = pathlib.Path(FLAGS.output) / "rows.jsonl", time.monotonic()
    keys = [] if FLAGS.table else [key for network in FLAGS.networks for key in keys_of(network)]
    for key in keys:
        if any(row.items() >= key.items() for row in read_rows(path)):
            continue
        if FLAGS.max_seconds is not None and time.monotonic() - begun > FLAGS.max_seconds:
            break
        make_files(key["network"], folder_of(key))
        if FLAGS.only_files:
            continue
        row = measure(key, folder_of(key))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(table([row]), flush=True)
    if not FLAGS.only_files:
        print(table(read_rows(path)))


if __name__ == "__main__":
    common.run(main)
