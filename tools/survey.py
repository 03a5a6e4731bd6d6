"""Prunes all of keras.applications, image backbones of KerasHub and files of Keras 2, and writes a table of it.

python tools/survey.py                                   # all of them; about an hour on two cores
python tools/survey.py --models="ResNet*,VGG*" --output=some.md

Each model gets fresh weights, scaled so that its outputs vary from image to image, and a plan for --target of its
FLOPs; the masked and the smaller model are compared on eight images. Results are kept in --results, line by line, so
that a run that was stopped goes on where it was.
"""

import fnmatch
import gc
import json
import pathlib
import re
import time
from collections import Counter

import numpy as np
from absl import flags

from _survey_models import applications, backbones, keras2_files
from kprune.cli import common

FLAGS = flags.FLAGS
flags.DEFINE_list("models", ["*"], "Names or patterns of models, separated by commas.")
flags.DEFINE_float("target", 0.5, "Share of the FLOPs (multiply-accumulates) to remove, 0..1.")
flags.DEFINE_string("criterion", "l1", "What chooses the filters.")
flags.DEFINE_string("output", "docs/results/survey.md", "The Markdown file.")
flags.DEFINE_string("results", "survey.jsonl", "Results so far, one model a line; deleted by hand for a fresh start.")

OUTPUT_REASONS = re.compile(r"it is a model output|.*activation( of '[^']*')? mixes channels")
EQUAL = 1e-5
IMAGES, PATCH = 8, 16


def settle(model, images):
    """Gives weights under which what a filter makes differs from image to image, so that a wrong one would show.

    Scales and offsets move off their start; then, layer after layer, BatchNorm is fitted to the images, and each kernel
    scaled until its outputs vary by about one (layer-sequential unit variance, Mishkin & Matas 2016).
    """
    from kprune.graph import trace
    from kprune.graph.interpreter import execute
    from kprune.surgery.batchnorm import Statistics

    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if len(variable.shape) == 1:
            start = 1.0 if variable.name == "gamma" else 0.0
            variable.assign(start + 0.2 * rng.normal(size=variable.shape))
    graph, statistics = trace(model), Statistics()
    kernels = {id(weight.layer): weight.variable for weight in graph.weights if weight.uses}

    def apply(call, operation, args, kwargs):
        output = statistics.apply(call, operation, args, kwargs)
        kernel = kernels.pop(call.owner, None)
        spread = 0.0 if kernel is None else variation(output)
        if spread > 1e-12:
            kernel.assign(kernel / spread)
            output = operation(*args, **kwargs)
        return output

    execute(graph, [images], apply)


def variation(output):
    """By how much a tensor differs from example to example: the root of its mean variance over the batch."""
    return float(np.sqrt(np.mean(np.var(array(output), axis=0))))


def array(tensor):
    """A tensor of any backend as a NumPy array of float64."""
    import keras

    return keras.ops.convert_to_numpy(tensor).astype(float)


def sample(model):
    """The images that a model is looked at with: patches of colours, for plain noise looks alike to a deep network."""
    height, width, colours = model.inputs[0].shape[1:]
    patches = np.random.default_rng(0).uniform(-1, 1, (IMAGES, -(-height // PATCH), -(-width // PATCH), colours))
    return patches.repeat(PATCH, axis=1).repeat(PATCH, axis=2)[:, :height, :width].astype("float32")


def difference(first, second, images):
    """The largest difference of two models' outputs, relative to the largest output; and by how much the first ones
    vary from image to image, relative to the same: where that is nothing, equal outputs prove nothing.
    """
    import keras

    one, other = (keras.tree.flatten(model(images)) for model in (first, second))
    pairs = [(array(a), array(b)) for a, b in zip(one, other, strict=True)]
    largest = [max(np.abs(a).max(), 1e-30) for a, _ in pairs]
    gaps = [float(np.abs(a - b).max() / size) for (a, b), size in zip(pairs, largest, strict=True)]
    return max(gaps), min(variation(a) / size for (a, _), size in zip(pairs, largest, strict=True))


def timed(work):
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def examine(model):
    """One row of the table."""
    import kprune
    from kprune.cost import CostModel
    from kprune.graph import trace
    from kprune.selection import bind

    images = sample(model)
    settle(model, images)
    graph, trace_seconds = timed(lambda: trace(model))
    cost = CostModel(graph)
    everything = cost.everything()
    least = bind(None, graph).smallest(everything, cost.gains(everything, "flops"))
    frozen = [graph.reason(w) for w in graph.writers if graph.reason(w)]
    row = {
        "prunable": len(graph.writers) - len(frozen),
        "writers": len(graph.writers),
        "sets": int(graph.prunable.sum()),
        "least_flops": cost.flops(least) / cost.flops(everything) if cost.flops(everything) else 1.0,
        "least_params": cost.params(least) / cost.params(everything),
        "trace": trace_seconds,
        "reasons": Counter(r for r in frozen if not OUTPUT_REASONS.match(r)).most_common(),
    }
    try:
        plan, row["plan"] = timed(lambda: kprune.plan_pruning(model, FLAGS.target, criterion=FLAGS.criterion))
    except kprune.TargetError as error:
        return {**row, "refused": str(error)}
    hard, row["apply"] = timed(lambda: kprune.apply_plan(model, plan))
    row["removed"] = 1 - plan.flops[1] / plan.flops[0]
    row["promised"] = kprune.model_cost(hard).flops == plan.flops[1] and hard.count_params() == plan.params[1]
    row["difference"], row["variation"] = difference(kprune.apply_plan(model, plan, mode="soft"), hard, images)
    return row


def exact_difference(make):
    """The same difference in float64, which tells rounding that a deep random net blew up from a fault."""
    import keras

    import kprune

    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        model = make()
        images = sample(model).astype("float64")
        settle(model, images)
        plan = kprune.plan_pruning(model, FLAGS.target, criterion=FLAGS.criterion)
        return difference(kprune.apply_plan(model, plan, mode="soft"), kprune.apply_plan(model, plan), images)[0]
    finally:
        keras.config.set_floatx(before)


def attempt(make):
    """A row, or what went wrong."""
    import keras

    keras.utils.set_random_seed(0)
    try:
        row = examine(make())
        if row.get("difference", 0.0) > EQUAL:
            row["float64"] = exact_difference(make)
        return row
    except Exception as error:  # a survey reports what fails and goes on
        return {"failed": f"{type(error).__name__}: {error}"[:400]}
    finally:
        keras.backend.clear_session()
        gc.collect()


def read_results(path):
    return {row["model"]: row for row in map(json.loads, path.read_text().splitlines())} if path.exists() else {}


def line(row):
    """One line of the Markdown table."""
    if "failed" in row:
        return f"| {row['model']} | failed: {row['failed']} |" + " |" * 7
    reached = "refused" if "refused" in row else f"{row['removed']:.3f}"
    equal = f"{row['difference']:.0e}" if "difference" in row else ""
    equal += f" (float64: {row['float64']:.0e})" if "float64" in row else ""
    varies = f"{row['variation']:.2f}" if "variation" in row else ""
    seconds = " / ".join(f"{row[name]:.1f}" if name in row else "-" for name in ("trace", "plan", "apply"))
    return (
        f"| {row['model']} | {row['prunable']} / {row['writers']} | {row['sets']:,} | {row['least_flops']:.4f} | "
        f"{row['least_params']:.4f} | {reached} | {equal} | {varies} | {seconds} |"
    )


def common_reasons(row):
    """The reasons of a row, those that differ in a layer's name only counted together."""
    kinds = Counter()
    for reason, count in row.get("reasons", []):
        kinds[reason.split("barrier: ")[-1]] += count
    return "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common())


def markdown(rows):
    """The whole page."""
    import keras

    backends = " and ".join(sorted({row["backend"] for row in rows}))
    head = [
        "# Survey",
        "",
        f"Written by `python tools/survey.py`: each model with new weights, pruned by {FLAGS.target:.0%} of its FLOPs",
        f"(multiply-accumulates), filters chosen by {FLAGS.criterion}. *Prunable* counts layers that make channels;",
        "*least* is the share of FLOPs and parameters that is left at most pruning; *difference* is the largest one",
        "between the masked and the smaller model (float32, relative to the largest output), *variation* how much the",
        f"outputs of {IMAGES} images differ from each other (standard deviation, relative to the same). Keras",
        f"{keras.__version__} on {backends}; seconds on a machine that did other",
        "work too. The last layer of each model is its output and stays. `keras2/` are `.h5` files that Keras 2 wrote.",
        "",
        "| model | prunable / all | channel sets | least FLOPs | least parameters | removed | difference "
        "| variation | trace / plan / apply (s) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    frozen = [f"- **{row['model']}**: {common_reasons(row)}" for row in rows if common_reasons(row)]
    refused = [f"- **{row['model']}**: {row['refused']}" for row in rows if "refused" in row]
    tail = ["", "## What is frozen, besides the outputs", "", *(frozen or ["Nothing."])]
    if refused:
        tail += ["", "## What cannot reach the target", "", *refused]
    for package, what in (("keras_hub", "image backbones of KerasHub"), ("keras2", "files of tf_keras")):
        if not any(row["model"].startswith(f"{package}/") for row in rows):
            tail += ["", f"No {what} are in the table: the package was not installed, or they were not asked for."]
    return "\n".join([*head, *map(line, rows), *tail]) + "\n"


def main(_):
    import keras

    path = pathlib.Path(FLAGS.results)
    known = read_results(path)
    makers = [*applications(), *backbones(), *keras2_files()]
    chosen = [(name, make) for name, make in makers if any(fnmatch.fnmatchcase(name, p) for p in FLAGS.models)]
    for name, make in chosen:
        if name not in known:
            known[name] = {"model": name, "backend": keras.backend.backend(), **attempt(make)}
            with path.open("a") as file:
                file.write(json.dumps(known[name]) + "\n")
            print(line(known[name]), common_reasons(known[name]), flush=True)
    rows = [known[name] for name, _ in chosen]
    output = pathlib.Path(FLAGS.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(markdown(rows))
    print(f"Written to {output}.")


if __name__ == "__main__":
    common.run(main)
