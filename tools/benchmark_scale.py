"""Measures how the time and memory of planning grow with a network, and where pruning spends its time.

  python tools/benchmark_scale.py --output=scaling.json --plot=docs/images/scaling.png --page=docs/results/scaling.md
  python tools/benchmark_scale.py --doublings=2 --criteria=l1 --models=            # a short look
  OPENBLAS_NUM_THREADS=1 python tools/benchmark_scale.py                           # beside other work

NumPy's matrix products use all cores and wait for each other, which on busy cores takes longer than one core alone.

Plain stacks of 3x3 convolutions with BatchNorm and random weights: the width doubled, at 8 layers, and the depth
doubled, at 32 filters. A line `seconds = a * weights^b` is fitted to each series: b = 1 is linear. Memory is what
planning allocates at its peak through Python and NumPy, above the model. Then whole networks of keras.applications,
with the share of the time that each stage of `prune_model` takes.
"""

import contextlib
import json
import os
import pathlib
import time
import tracemalloc
from unittest import mock

import numpy as np
from absl import flags

from kprune.cli import common

CRITERIA = flags.DEFINE_list("criteria", ["similarity", "l1", "reconstruction_error"], "What chooses the filters.")
DOUBLINGS = flags.DEFINE_integer("doublings", 5, "How often width and depth are doubled.", lower_bound=1)
WIDTH = flags.DEFINE_integer("width", 16, "Filters of the narrowest network.", lower_bound=2)
DEPTH = flags.DEFINE_integer("depth", 4, "Layers of the shallowest network.", lower_bound=1)
PATIENCE = flags.DEFINE_float("patience", 30.0, "A series ends once a plan takes longer, in seconds.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Plans of each network; the fastest counts.", lower_bound=1)
MODELS = flags.DEFINE_list("models", ["ResNet50", "DenseNet121", "InceptionResNetV2"], "For the table of stages.")
SIZE = flags.DEFINE_integer("size", 96, "Height and width of the input of those models.", lower_bound=32)
OUTPUT = flags.DEFINE_string("output", None, "A JSON file to write; what it holds already is not measured again.")
PLOT = flags.DEFINE_string("plot", None, "A picture to write.")
PAGE = flags.DEFINE_string("page", None, "A Markdown page to write, with the picture.")

BLAS_THREADS = os.environ.get("OPENBLAS_NUM_THREADS", "all")
TARGET, LAYERS, FILTERS, IMAGES = 0.5, 8, 32, 64
STAGES = ("trace", "scores", "selection", "surgery", "rest")


def stack(width, depth):
    """A plain stack of convolutions with random weights."""
    import keras

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((16, 16, 3))
    for _ in range(depth):
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(keras.layers.Conv2D(width, 3, padding="same")(x)))
    outputs = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def series():
    """Per series, the widths and depths of its networks."""
    factors = [2**step for step in range(DOUBLINGS.value + 1)]
    return {
        "width": [(WIDTH.value * factor, LAYERS) for factor in factors],
        "depth": [(FILTERS, DEPTH.value * factor) for factor in factors],
    }


def measure(model, criterion):
    """Seconds and bytes of one plan."""
    import keras

    import kprune

    keras.config.disable_interactive_logging()  # progress bars are not what is timed
    needs_data = criterion == "reconstruction_error"
    data = np.random.default_rng(0).normal(size=(IMAGES, 16, 16, 3)).astype("float32") if needs_data else None

    def plan():
        start = time.perf_counter()
        kprune.plan_pruning(model, TARGET, criterion=criterion, data=data)
        return time.perf_counter() - start

    seconds = [plan()]
    while len(seconds) < REPEATS.value and sum(seconds) < PATIENCE.value:
        seconds.append(plan())
    tracemalloc.start()
    try:
        plan()
        return min(seconds), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure_series(criterion, doubled, networks):
    """One point per network, until patience ends."""
    points = []
    for width, depth in networks:
        model = stack(width, depth)
        seconds, memory = measure(model, criterion)
        weights = model.count_params()
        points.append({"width": width, "depth": depth, "weights": weights, "seconds": seconds, "bytes": memory})
        print(
            f"{criterion:<22} {doubled} doubled: {width:>4} filters x {depth:>3} layers {weights:>12,} weights "
            f"{seconds:8.2f} s {memory / 1e6:9.1f} MB",
            flush=True,
        )
        if seconds > PATIENCE.value:
            break
    found = {"criterion": criterion, "doubled": doubled, "points": points, **exponents(points)}
    return found | {"blas_threads": BLAS_THREADS}


def exponents(points):
    """The slopes of seconds and bytes over weights, both as logarithms."""
    if len(points) < 2:
        return {"seconds_exponent": None, "bytes_exponent": None}
    logs = {name: np.log([point[name] for point in points]) for name in ("weights", "seconds", "bytes")}
    return {f"{y}_exponent": float(np.polyfit(logs["weights"], logs[y], 1)[0]) for y in ("seconds", "bytes")}


@contextlib.contextmanager
def stopwatch(spent):
    """While it lasts, adds up in `spent` how long `prune_model` is in each stage, stages inside a stage left out."""
    import kprune
    from kprune.pruning import one_shot, pipeline

    running = []

    def timed(stage, function):
        def run(*args, **kwargs):
            start, inner = time.perf_counter(), len(running)
            running.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - start
                spent[stage] += seconds - running.pop()
                if inner:
                    running[-1] += seconds

        return run

    places = [
        ("trace", one_shot, "trace"),
        ("scores", kprune.selection.Comparison, "views"),
        ("scores", kprune.criteria.L1, "scores"),
        ("selection", pipeline, "choose"),
        ("surgery", pipeline, "rebuild"),
    ]
    with contextlib.ExitStack() as stack:
        for stage, owner, name in places:
            stack.enter_context(mock.patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield


def stages(name, criterion):
    """The seconds of each stage of `prune_model` on a network of keras.applications."""
    import keras

    import kprune

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIZE.value, SIZE.value, 3))
    spent = dict.fromkeys(STAGES, 0.0)
    with stopwatch(spent):
        start = time.perf_counter()
        kprune.prune_model(model, TARGET, criterion=criterion)
        total = time.perf_counter() - start
    spent["rest"] = total - sum(spent.values())
    shares = "  ".join(f"{stage} {seconds / total:4.0%}" for stage, seconds in spent.items())
    print(f"{name:<20} {criterion:<12} {model.count_params():>12,} weights {total:7.2f} s  {shares}", flush=True)
    keras.backend.clear_session()
    facts = {"model": name, "criterion": criterion, "weights": model.count_params(), "seconds": total}
    return facts | {"stages": spent, "blas_threads": BLAS_THREADS}


def draw(results, path):
    """Seconds and memory over weights, with the slopes."""
    from kprune.report.plots import style

    figure, criteria = style.new_figure(11, 5.2), list(dict.fromkeys(one["criterion"] for one in results))
    panels = [("seconds", "planning (s)", 1.0), ("bytes", "peak memory (MB)", 1e6)]
    for axes, (what, label, unit) in zip(figure.subplots(1, 2), panels, strict=True):
        for one in results:
            place = criteria.index(one["criterion"])
            x, y = ([point[name] for point in one["points"]] for name in ("weights", what))
            slope = one[f"{what}_exponent"]
            axes.loglog(
                x,
                np.array(y) / unit,
                color=style.PALETTE[place],
                marker=style.MARKERS[place],
                linestyle="-" if one["doubled"] == "width" else "--",
                label=f"{one['criterion']}, {one['doubled']}" + ("" if slope is None else f": slope {slope:.2f}"),
            )
        axes.set_xlabel("weights")
        axes.set_ylabel(label)
        axes.legend(frameon=False, fontsize=style.SMALL, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
        style.plain(axes, grid="both")
    style.save_figure(figure, path)


def table(header, rows):
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])


def page(results, path):
    """The Markdown of all that was measured."""
    import keras

    from kprune.utils.machine import machine_facts

    networks = [
        [one["criterion"], one["doubled"], f"{first['width']} x {first['depth']} to {last['width']} x {last['depth']}"]
        + [f"{first['weights']:,} to {last['weights']:,}", f"{first['seconds']:.2f} to {last['seconds']:.2f}"]
        + [slope(one["seconds_exponent"]), f"{first['bytes'] / 1e6:.1f} to {last['bytes'] / 1e6:.1f}"]
        + [slope(one["bytes_exponent"])]
        for one in results["series"]
        for first, last in [(one["points"][0], one["points"][-1])]
    ]
    whole = [
        [one["model"], one["criterion"], f"{one['weights'] / 1e6:.1f} M", f"{one['seconds']:.1f}"]
        + [f"{one['stages'][stage] / one['seconds']:.0%}" for stage in STAGES]
        for one in results["stages"]
    ]
    picture = ["", f"![Seconds and memory over weights]({picture_from(path)})"] if PLOT.value else []
    lines = [
        "# How planning grows with the network",
        "",
        f"Written by `python tools/benchmark_scale.py --page={path}`, with Keras {keras.__version__} on",
        f"{keras.backend.backend()}, {machine_facts().get('processor', '')}; threads of the matrix products:",
        f"{threads_of(results['series'])} (OPENBLAS_NUM_THREADS). Plain stacks of 3x3 convolutions with",
        f"BatchNorm and random weights, asked to lose {TARGET:.0%} of their FLOPs; `reconstruction_error` sees",
        f"{IMAGES} images. A slope of 1 is linear in the number of weights. A series ends after its first plan that",
        f"takes longer than {PATIENCE.value:.0f} s.",
        *picture,
        "",
        table(
            ["criterion", "doubled", "filters x layers", "weights", "seconds", "slope", "peak memory (MB)", "slope"],
            networks,
        ),
        "",
        "## Where the time goes",
        "",
        f"`prune_model(model, {TARGET})` on networks of keras.applications with random weights, on inputs of",
        f"{SIZE.value}x{SIZE.value}. Random filters are hardly similar, so that `similarity` needs more rounds here",
        "than on trained ones. What takes longer than a few seconds shows its progress. Threads of the matrix",
        f"products: {threads_of(results['stages'])}.",
        "",
        table(["model", "criterion", "weights", "seconds", *STAGES], whole),
    ]
    return "\n".join(lines) + "\n"


def threads_of(entries):
    return ", ".join(sorted({entry["blas_threads"] for entry in entries}))


def slope(value):
    return "" if value is None else f"{value:.2f}"


def picture_from(path):
    """Where the picture is, seen from the page."""
    return pathlib.Path(os.path.relpath(PLOT.value, pathlib.Path(path).parent)).as_posix()


def read(path):
    """What an earlier run measured."""
    if path is None or not pathlib.Path(path).exists():
        return {"target_flops": TARGET, "series": [], "stages": []}
    return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))


def write(text, path):
    from kprune.utils.files import write_by_rename

    if path is not None:
        write_by_rename(path, lambda file: file.write_text(text, encoding="utf-8"))


def keep(results):
    write(json.dumps(results, indent=1) + "\n", OUTPUT.value)


def measure_all(results):
    """Measures what is not known yet, and keeps it as it comes."""
    known = {(one["criterion"], one["doubled"]) for one in results["series"]}
    for criterion in CRITERIA.value:
        for doubled, networks in series().items():
            if (criterion, doubled) not in known:
                results["series"].append(measure_series(criterion, doubled, networks))
                keep(results)
    known = {(one["model"], one["criterion"]) for one in results["stages"]}
    for name in MODELS.value:
        for criterion in CRITERIA.value:
            if criterion != "reconstruction_error" and (name, criterion) not in known:
                results["stages"].append(stages(name, criterion))
                keep(results)


def main(_):
    results = read(OUTPUT.value)
    measure_all(results)
    for one in results["series"]:
        if one["seconds_exponent"] is not None:
            print(
                f"{one['criterion']}, {one['doubled']} doubled: seconds ~ weights^{one['seconds_exponent']:.2f}, "
                f"memory ~ weights^{one['bytes_exponent']:.2f}"
            )
    if PLOT.value:
        draw(results["series"], PLOT.value)
    if PAGE.value:
        write(page(results, PAGE.value), PAGE.value)


if __name__ == "__main__":
    common.run(main)
