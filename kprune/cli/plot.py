"""Draws what pruning looks at, chooses and costs.

  kprune plot distances --model=model.keras --output=distances.png
  kprune plot rates --model=model.keras --output=rates.png
  kprune plot filters --model=model.keras --plan=plan.json --images=x_test.npy --output=filters.png
  kprune plot overlap --model=model.keras --criteria=similarity,l1,random --output=overlap.png
  kprune plot overlap --model=model.keras --criteria=l1,hrank --images=x.npy --output=overlap.png
  kprune plot overlap --plans=similarity=a.json,l1=b.json --output=overlap.png
  kprune plot rounds --history=record.json --output=rounds.png
  kprune plot rounds --plan=plan.json --output=rounds.png
  kprune plot run --plan=plan.json --history=history.json --output=run.png
  kprune plot tradeoff --records=runs.jsonl --where=network=20 --before=0.884 --output=tradeoff.png

The suffix of --output is the format: .png, .svg, .pdf. A mistake gives one line and exit code 2.
"""

import json
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

from kprune.cli import common

POSITIONAL = "picture"
NEEDS = ("picture", "output")
FLAGS, define = common.own_flags()
define.string("output", None, "The picture to write.")
define.string("model", None, "A Keras model file.")
define.list("layers", None, "Only these layers: names or patterns, separated by commas.")
define.float("alpha", 1.0, "Of similarity: a pair is similar below mean - alpha * deviation of the distances.")
define.float("ratio", 0.35, "Of similarity: a filter similar to this share of its layer is redundant.")
define.enum("metric", "euclidean", ["euclidean", "cosine"], "Of similarity: the distance of two filters.")
define.bool("fold_bn", False, "Of similarity: compare the filters with their BatchNorm folded in.")
define.bool("guard", True, "Of similarity: keep one filter that each removed one is similar to.")
define.list("alphas", None, "For rates: values of alpha, separated by commas.")
define.list("ratios", None, "For rates: values of ratio, separated by commas.")
define.string("layer", None, "For filters: the conv; none: the first one.")
define.string("images", None, "Images as the model takes them, .npy or .npz: one for filters, more for overlap.")
define.string("images_key", None, "The one array of an .npz file to use.")
define.string("labels", None, "For overlap: the classes of the images, .npy, for criteria that need them.")
define.string("plan", None, "A plan file: what goes (filters, run), or its rounds (rounds).")
define.list("criteria", None, "For overlap: names of criteria, separated by commas.")
define.float("target_flops", 0.5, "For overlap: share of the FLOPs that each of the criteria removes, 0..1.")
define.list("plans", None, "For overlap: plan files for one network, as NAME=FILE or FILE.")
define.string("history", None, "JSON: lists by name, or a pruning record.")
define.list("metrics", ["val_accuracy"], "For rounds: lists of the history to draw, shares 0..1.")
define.string("records", None, "For tradeoff: JSON lines, one run each.")
define.list("where", [], "For tradeoff: only runs with these values, as KEY=VALUE, separated by commas.")
define.string("method", "method", "For tradeoff: the key of what tells methods apart.")
define.string("removed", "pruned_flops", "For tradeoff: the key of the share of the FLOPs removed, 0..1.")
define.string("accuracy", "accuracy", "For tradeoff: the key of the accuracy, 0..1.")
define.string("target", "target", "For tradeoff: the key of the budget that makes runs one point.")
define.float("before", None, "For tradeoff: the accuracy of the unpruned network, 0..1.")
define.string("title", None, "For tradeoff: a title.")

SIMILARITY = ("alpha", "ratio", "metric", "fold_bn", "guard")


def value(name: str):
    return FLAGS[name].value


def given(*names: str) -> dict:
    """The flags among these that were given, by name."""
    return common.given({name: FLAGS[name] for name in names})


def similarity():
    from kprune.criteria import Similarity

    return Similarity(**{name: value(name) for name in SIMILARITY})


def numbers(name: str) -> list[float]:
    try:
        return [float(text) for text in value(name)]
    except ValueError as error:
        raise flags.Error(f"--{name}: {error}") from error


def parse_object(text: bytes, source: str) -> dict:
    """A JSON object from a file or from one of its lines."""
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise flags.Error(f"{source} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise flags.Error(f"{source} is a JSON {type(data).__name__}, not an object")
    return data


def read_history(path: str) -> dict:
    """Lists by name, from a plain file or from a pruning record."""
    data = parse_object(pathlib.Path(path).read_bytes(), path)
    return data["history"] if isinstance(data.get("history"), dict) else data


def read_records(path: str) -> list[dict]:
    """The objects of a JSON-lines file."""
    lines = enumerate(pathlib.Path(path).read_bytes().splitlines(), 1)
    return [parse_object(line, f"line {number} of {path}") for number, line in lines if line.strip()]


def chosen(records: list[dict], conditions: list[str]) -> list[dict]:
    """The records in which each of the keys has its value.

    Raises:
      flags.Error: no record is left, or a condition is none.
    """
    for condition in conditions:
        key, sign, wanted = condition.partition("=")
        records = [record for record in records if key in record and str(record[key]) == wanted]
        if not sign or not records:
            raise flags.Error(f"--where={condition}: no run has this value; expected KEY=VALUE")
    return records


def load_data():
    """Images, or images with their classes, or None."""
    images = value("images") and common.load_arrays(value("images"), value("images_key"))
    return (images, common.load_arrays(value("labels"))) if value("labels") else images


def draw_distances():
    from kprune.report import plots

    model = common.load_model(value("model"))
    return plots.plot_distances(model, value("output"), similarity(), value("layers"))


def draw_rates():
    from kprune.report import plots

    values = {name: numbers(name) for name in given("alphas", "ratios")}
    model = common.load_model(value("model"))
    return plots.plot_rates(model, value("output"), similarity(), layers=value("layers"), **values)


def draw_filters():
    from kprune.report import plots
    from kprune.selection import Plan

    model = common.load_model(value("model"))
    plan = value("plan") and Plan.load(value("plan"))
    options = {"plan": plan, "criterion": similarity(), "layer": value("layer")}
    return plots.plot_filters(model, value("output"), load_data(), **options)


def draw_overlap():
    from kprune.pruning import plan_pruning
    from kprune.report import plots
    from kprune.selection import Plan

    if bool(value("plans")) == bool(value("model") and value("criteria")):
        raise flags.Error("--picture=overlap wants either --plans, or --model and --criteria")
    if value("labels") and not value("images"):
        raise flags.Error("--labels wants --images")
    plans = {}
    for item in value("plans") or ():
        name, _, path = item.rpartition("=")
        plans[name or pathlib.Path(path).stem] = Plan.load(path)
    if value("criteria"):
        model = common.load_model(value("model"))
        share, data = value("target_flops"), load_data()
        for name in value("criteria"):
            plans[name] = plan_pruning(model, share, criterion=name, data=data)
    return plots.plot_overlap(plans, value("output"))


def draw_rounds():
    from kprune.report import plots
    from kprune.selection import Plan

    if bool(value("history")) == bool(value("plan")):
        raise flags.Error("--picture=rounds wants either --history or --plan")
    if value("history"):
        history = read_history(value("history"))
    else:
        history = plots.history_of_plan(Plan.load(value("plan")))
    return plots.plot_rounds(history, value("output"), value("metrics"))


def draw_run():
    from kprune.report import plots
    from kprune.selection import Plan

    plan, history = Plan.load(value("plan")), read_history(value("history"))
    return plots.plot_run(plan, history, value("output"))


def draw_tradeoff():
    from kprune.report import plots

    names = {name: value(name) for name in ("method", "removed", "accuracy", "target")}
    records = chosen(read_records(value("records")), value("where"))
    return plots.plot_tradeoff(records, value("output"), before=value("before"), title=value("title"), **names)


class Picture(NamedTuple):
    """How one kind of picture is drawn, the flags it must have, and those it may have."""

    draw: Callable
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


PICTURES = {
    "distances": Picture(draw_distances, ("model",), ("layers", *SIMILARITY)),
    "rates": Picture(draw_rates, ("model",), ("layers", "alphas", "ratios", *SIMILARITY)),
    "filters": Picture(draw_filters, ("model",), ("layer", "images", "images_key", "plan", *SIMILARITY)),
    "overlap": Picture(
        draw_overlap, (), ("model", "criteria", "target_flops", "plans", "images", "images_key", "labels")
    ),
    "rounds": Picture(draw_rounds, (), ("history", "plan", "metrics")),
    "run": Picture(draw_run, ("plan", "history")),
    "tradeoff": Picture(
        draw_tradeoff, ("records",), ("where", "method", "removed", "accuracy", "target", "before", "title")
    ),
}
define.enum("picture", None, list(PICTURES), "What to draw.")


def check_flags(name: str, picture: Picture) -> None:
    """Refuses a flag that this picture would ignore, and asks for one that it needs."""
    every = {flag for other in PICTURES.values() for flag in other.needs + other.takes}
    for flag in sorted(given(*every)):
        if flag not in picture.needs + picture.takes:
            raise flags.Error(f"--{flag} is not for --picture={name}")
    for flag in picture.needs:
        if not FLAGS[flag].present:
            raise flags.Error(f"--picture={name} wants --{flag}")


def main(_) -> None:
    picture = PICTURES[value("picture")]
    check_flags(value("picture"), picture)
    print(picture.draw())
