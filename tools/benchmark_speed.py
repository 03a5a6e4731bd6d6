"""Measures what kprune costs and what it buys, each as a ratio within one run on this machine.

python tools/benchmark_speed.py                       # prune ResNet50; a training step with the callback
python tools/benchmark_speed.py --weights=resnet20_cifar10.npz   # also LiteRT time against FLOPs
"""

import json
import multiprocessing
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
from absl import flags

from kprune.cli import common

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = flags.FLAGS
flags.DEFINE_string("weights", None, "Trained CIFAR ResNet-20 as .npz; without it the LiteRT part is left out.")
flags.DEFINE_integer("repeats", 5, "Interleaved repeats of each measurement.")
flags.DEFINE_string("output", None, "JSON file for the figures, or none.")


def clone(model):
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def prune(model):
    import kprune

    return kprune.prune_model(model, 0.5)


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return time.perf_counter() - start


def resident(field):
    """`VmRSS` (memory now) or `VmHWM` (its peak) of this process in bytes, as Linux tells them."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def peak_memory(name, queue):
    """Bytes that the work adds at its peak to a process of its own, in which the model stands already."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    clone(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = resident("VmRSS")
    result = globals()[name](model)
    queue.put((resident("VmHWM") - before, model.count_params() * 4))
    del result


def measure_memory(name):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=peak_memory, args=(name, queue))
    process.start()
    added, weights = queue.get()
    process.join()
    return added, weights


def prune_resnet50(repeats):
    """`prune_model` against `clone_model` and `set_weights`: time, and peak memory in processes of their own."""
    import keras

    model = keras.applications.ResNet50(weights=None)
    prune(model), clone(model)
    times = {"clone": [], "prune": []}
    for _ in range(repeats):
        times["clone"].append(seconds(clone, model))
        times["prune"].append(seconds(prune, model))
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures = {"seconds": medians, "ratio_of_time": medians["prune"] / medians["clone"]}
    if pathlib.Path("/proc/self/clear_refs").exists():
        memory = {name: measure_memory(name) for name in ("clone", "prune")}
        figures["memory_over_weights"] = {name: added / weights for name, (added, weights) in memory.items()}
    return figures


def training_step(repeats):
    """A step of `fit` on a CIFAR-sized ResNet-20 with the callback's masks against one without."""
    import keras

    import kprune
    from cifar_resnet import build_resnet

    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (512, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 512)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def ready(masked):
        model = build_resnet(20)
        model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
        callbacks = [kprune.SimilarityPruning(0.5, until_epoch=1)] if masked else []
        model.fit(x, y, batch_size=64, epochs=2, verbose=0, callbacks=callbacks)
        return model

    plain, masked = ready(False), ready(True)
    pairs = []
    for _ in range(3 * repeats):
        pairs.append([seconds(lambda m: m.fit(x, y, batch_size=64, verbose=0), model) for model in (plain, masked)])
    ratios = [b / a for a, b in pairs]
    return {"ratio_of_step": statistics.median(ratios), "p10_p90": np.percentile(ratios, [10, 90]).tolist()}


def uniform_widths(flops):
    """The uniformly narrower ResNet-20 whose FLOPs come nearest."""
    import kprune
    from cifar_resnet import build_resnet

    candidates = [tuple(round(w * share) for w in (16, 32, 64)) for share in np.arange(0.3, 1.0, 0.02)]
    models = [build_resnet(20, widths=widths) for widths in sorted(set(candidates))]
    return min(models, key=lambda model: abs(kprune.model_cost(model).flops - flops))


def litert(weights, repeats):
    """LiteRT time of the pruned ResNet-20 against its FLOPs, and against a uniformly narrower net."""
    import kprune
    from cifar_resnet import build_resnet, load_npz

    model = build_resnet(20)
    load_npz(model, weights)
    models = {"full": model, "pruned": kprune.prune_model(model, 0.5)}
    models["uniform"] = uniform_widths(kprune.model_cost(models["pruned"]).flops)
    images = np.random.default_rng(0).uniform(0, 255, (64, 32, 32, 3)).astype("float32")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for quantize in (None, "int8"):
            paths = {name: pathlib.Path(folder) / f"{name}_{quantize}.tflite" for name in models}
            for name, path in paths.items():
                data = {"representative_data": images} if quantize else {}
                kprune.export_tflite(models[name], path, quantize=quantize, **data)
            timed = kprune.deploy.Benchmark(tuple(kprune.benchmark_tflite(*paths.values(), runs=40 * repeats)), {})
            faster = [timed.speedup(index) for index in range(len(timed))]
            figures[quantize or "float32"] = {
                name: {
                    "flops_share": kprune.model_cost(models[name]).flops / kprune.model_cost(model).flops,
                    "median_ms": timing.median_ms,
                    "p10_ms": timing.p10_ms,
                    "p90_ms": timing.p90_ms,
                    "time_share": {"median": 1 / ratio.median, "p10": 1 / ratio.p90, "p90": 1 / ratio.p10},
                }
                for name, timing, ratio in zip(models, timed, faster, strict=True)
            }
    return figures


def main(_):
    sys.path.insert(0, str(ROOT / "examples"))
    figures = {"prune_resnet50": prune_resnet50(FLAGS.repeats), "training_step": training_step(FLAGS.repeats)}
    if FLAGS.weights:
        figures["litert_resnet20"] = litert(FLAGS.weights, FLAGS.repeats)
    text = json.dumps(figures, indent=1)
    print(text)
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(text + "\n")


if __name__ == "__main__":
    common.run(main)
