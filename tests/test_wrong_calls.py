"""Wrong calls: each is refused with what happened, what was expected and how to mend it, and leaves nothing behind."""

import dataclasses
import json
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import pytest
from models import build, chain, residual

import kprune
from kprune import ExportError, KpruneError, ModelError, OptionError, PlanError, TargetError
from kprune.report import Measurement, Report

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
LABELS = np.arange(8) % 3


class Place(NamedTuple):
    """Where a call is made: a model, compiled, and an empty folder."""

    model: keras.Model
    folder: object


class Wrong(NamedTuple):
    """A wrong call, the error that it gets, and a pattern that the error's text matches."""

    call: Callable
    error: type
    match: str


class Subclassed(keras.Model):
    def call(self, x):
        return keras.ops.convert_to_tensor(np.asarray(x)) if x is not None else x


class NoLayers(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def prune(**options):
    return lambda at: kprune.prune_model(at.model, **{"target_flops": 0.3, **options})


def plan_of(at):
    return kprune.plan_pruning(at.model, 0.3)


def changed_plan(**changes):
    """Applies a plan whose second layer has other entries."""

    def call(at):
        plan = plan_of(at)
        row = dataclasses.replace(plan.layers[1], **changes)
        kprune.apply_plan(at.model, dataclasses.replace(plan, layers=(plan.layers[0], row, *plan.layers[2:])))

    return call


def loaded(text):
    """Loads a plan from a file with that text; the file goes again."""

    def call(at):
        path = at.folder / "plan.json"
        path.write_text(text)
        try:
            kprune.Plan.load(path)
        finally:
            path.unlink()

    return call


def with_nan(layer):
    """A copy of the model that has a NaN in one layer."""
    model = build(residual)
    kernel = model.get_layer(layer).kernel
    kernel.assign(keras.ops.full(kernel.shape, np.nan))
    return model


def trained(make):
    """Trains with a callback; making it may be wrong already."""

    def call(at):
        at.model.fit(IMAGES, LABELS, epochs=1, verbose=0, callbacks=[make()])

    return call


def iterate(fit=lambda small: None, **options):
    options = {"rounds": 2, "verbose": False, "target_flops": 0.3, **options}
    return lambda at: kprune.prune_iteratively(at.model, fit, **options)


def find(accept=lambda small: True, **options):
    return lambda at: kprune.find_target(at.model, accept, verbose=False, **options)


def on_file(write):
    """Calls with the path of a file that is there; it must still hold what it held."""

    def call(at):
        path = at.folder / "there"
        path.write_text("mine")
        try:
            write(at, path)
        finally:
            assert path.read_text() == "mine"
            path.unlink()

    return call


def batches():
    yield IMAGES


def limits(**options):
    return lambda at: kprune.Limits(**options)


def rates(given, **options):
    return lambda at: kprune.plan_rates(at.model, given, **options)


WRONG = {
    # targets
    "no target": Wrong(lambda at: kprune.prune_model(at.model), OptionError, "Neither of target_flops"),
    "two targets": Wrong(prune(target_params=0.3), OptionError, "Both of target_flops"),
    "target in per cent": Wrong(prune(target_flops=50), OptionError, "target_flops is 50"),
    "target of nothing": Wrong(prune(target_flops=0.0), OptionError, "target_flops is 0"),
    "target of all": Wrong(prune(target_flops=1.0), OptionError, "target_flops is 1"),
    "target as text": Wrong(prune(target_flops="half"), OptionError, "target_flops is 'half'"),
    "target NaN": Wrong(prune(target_flops=float("nan")), OptionError, "target_flops is nan"),
    "target as array": Wrong(prune(target_flops=np.array([0.5, 0.2])), OptionError, "target_flops is array"),
    "target out of reach": Wrong(prune(target_flops=0.9999), TargetError, "at most 0[.][0-9]+"),
    "target out of reach for limits": Wrong(
        prune(target_flops=0.9, limits=kprune.Limits(round_to=8)), TargetError, "at most .*loosen the limits"
    ),
    # criteria
    "unknown criterion": Wrong(prune(criterion="l7"), OptionError, "no criterion 'l7'.*similarity"),
    "criterion a number": Wrong(prune(criterion=7), OptionError, "criterion is 7"),
    "criterion a class": Wrong(prune(criterion=kprune.criteria.L1), OptionError, "criterion is"),
    "criterion unhashable": Wrong(prune(criterion=["l1"]), OptionError, r"criterion is \['l1'\]"),
    "criterion without data": Wrong(prune(criterion="taylor"), OptionError, "'taylor' looks at data"),
    "alpha below zero": Wrong(lambda at: kprune.criteria.Similarity(alpha=-1), OptionError, "alpha is -1"),
    "alpha as text": Wrong(lambda at: kprune.criteria.Similarity(alpha="one"), OptionError, "alpha is 'one'"),
    "ratio above one": Wrong(lambda at: kprune.criteria.Similarity(ratio=2), OptionError, "ratio is 2"),
    "unknown metric": Wrong(lambda at: kprune.criteria.Similarity(metric="l5"), OptionError, "metric is 'l5'"),
    "unknown coupling": Wrong(lambda at: kprune.criteria.Similarity(coupling="x"), OptionError, "coupling is 'x'"),
    "seed below zero": Wrong(lambda at: kprune.criteria.Random(-1), OptionError, "seed is -1"),
    "seed as text": Wrong(lambda at: kprune.criteria.Random("a"), OptionError, "seed is 'a'"),
    "unknown ranking": Wrong(lambda at: kprune.criteria.L1(ranking="best"), OptionError, "ranking is 'best'"),
    # limits
    "limits a number": Wrong(prune(limits=8), OptionError, "limits is 8"),
    "no channels": Wrong(limits(min_channels=0), OptionError, "min_channels is 0"),
    "channels a fraction": Wrong(limits(min_channels=2.5), OptionError, "min_channels is 2.5"),
    "rounding to nothing": Wrong(limits(round_to=0), OptionError, "round_to is 0"),
    "rounding to a name": Wrong(limits(round_to="eight"), OptionError, "round_to is 'eight'"),
    "rate in per cent": Wrong(limits(max_rate=50), OptionError, "max_rate is 50"),
    "rate as text": Wrong(limits(max_rate="0.5"), OptionError, "max_rate is '0.5'"),
    "layers by number": Wrong(limits(exclude=[0, 1]), OptionError, "exclude holds 0"),
    "nothing included": Wrong(limits(include=[]), OptionError, "include is empty"),
    "include of no layer": Wrong(
        prune(limits=kprune.Limits(include="nothing_*")), OptionError, "include names 'nothing_[*]'.*Layers are stem"
    ),
    "exclude of no layer": Wrong(prune(limits=kprune.Limits(exclude="stemm")), OptionError, "exclude names 'stemm'"),
    "search space by wrong limits": Wrong(lambda at: kprune.search_space(at.model, 3), OptionError, "limits is 3"),
    # rates by hand
    "rates a number": Wrong(rates(0.5), OptionError, "rates is 0.5"),
    "rates of no layer": Wrong(rates({"no": 0.5}), OptionError, "rates names 'no'"),
    "rates by layer object": Wrong(rates({3: 0.5}), OptionError, "rates names 3"),
    "rate above one": Wrong(rates({"stem": 5}), OptionError, "rate of 'stem' is 5"),
    "rate of all": Wrong(rates({"middle": 1.0}), OptionError, "leave 0 channels"),
    "tied rates that disagree": Wrong(rates({"stem": 0.5, "end": 0.25}), OptionError, "tied to 'end'"),
    # truth values, paths
    "strict in words": Wrong(prune(strict="yes"), OptionError, "strict is 'yes'"),
    "strict in words, of a space": Wrong(
        lambda at: kprune.search_space(at.model, strict=None), OptionError, "strict is None"
    ),
    "repair a number": Wrong(prune(data=IMAGES, repair=1), OptionError, "repair is 1"),
    "a plan saved to a number": Wrong(lambda at: plan_of(at).save(7), OptionError, "path is 7"),
    "a plan saved over a file, in words": Wrong(
        on_file(lambda at, path: plan_of(at).save(path, overwrite="no")), OptionError, "overwrite is 'no'"
    ),
    "a directory that is a number": Wrong(iterate(directory=7), OptionError, "directory is 7"),
    "a search in a number": Wrong(find(directory=7), OptionError, "directory is 7"),
    "a Keras 2 file by number": Wrong(lambda at: kprune.load_keras2(7), OptionError, "path is 7"),
    "a table by number": Wrong(find(quantity="latency", latency_table=7), OptionError, "latency_table is 7"),
    "timing by half a seed": Wrong(lambda at: kprune.benchmark(at.model, seed=-1), OptionError, "seed is -1"),
    # modes and models
    "unknown mode": Wrong(prune(mode="medium"), OptionError, "mode is 'medium'"),
    "a path as model": Wrong(lambda at: kprune.prune_model("model.keras", 0.5), ModelError, "str"),
    "no model": Wrong(lambda at: kprune.model_cost(None), ModelError, "None"),
    "a layer as model": Wrong(lambda at: kprune.search_space(layers.Dense(3)), ModelError, "Dense"),
    "an unbuilt model": Wrong(
        lambda at: kprune.prune_model(keras.Sequential([layers.Dense(3)]), 0.5), ModelError, "not built"
    ),
    "a subclassed model": Wrong(lambda at: kprune.prune_model(NoLayers(), 0.5), ModelError, "subclassed"),
    "an opaque subclassed model": Wrong(lambda at: kprune.strip(Subclassed()), ModelError, "subclassed"),
    "NaN weights": Wrong(lambda at: kprune.prune_model(with_nan("middle"), 0.3), ModelError, "'middle'.* NaN"),
    "NaN weights by l1": Wrong(
        lambda at: kprune.plan_pruning(with_nan("end"), 0.3, criterion="l1"), ModelError, "'end'.* NaN"
    ),
    "NaN weights and images": Wrong(
        lambda at: kprune.prune_model(with_nan("stem"), 0.3, data=IMAGES), KpruneError, "NaN"
    ),
    "NaN weights by hand": Wrong(
        lambda at: kprune.plan_rates(with_nan("stem"), {"middle": 0.3}), ModelError, "'stem'.* NaN"
    ),
    # plans
    "a dict as plan": Wrong(lambda at: kprune.apply_plan(at.model, {}), OptionError, "plan is a dict"),
    "a path as plan": Wrong(lambda at: kprune.apply_plan(at.model, "plan.json"), OptionError, "plan is a str"),
    "a plan of another model": Wrong(
        lambda at: kprune.apply_plan(build(chain), plan_of(at)), PlanError, "they differ in"
    ),
    "a plan that empties a layer": Wrong(changed_plan(keep=()), PlanError, "keeps \\[\\] of the 6"),
    "a plan beyond the layer": Wrong(changed_plan(keep=(0, 99)), PlanError, "keeps \\[0, 99\\]"),
    "a plan before the first filter": Wrong(changed_plan(keep=(-5, 0, 1)), PlanError, "keeps \\[-5, 0, 1\\]"),
    "a plan out of order": Wrong(changed_plan(keep=(2, 1)), PlanError, "rising"),
    "a plan for more filters": Wrong(changed_plan(filters=99), PlanError, "99 filters"),
    "a plan that merges what is not there": Wrong(changed_plan(merge=((77, 0, 1.0),)), PlanError, "'middle'"),
    "a missing plan file": Wrong(lambda at: kprune.Plan.load(at.folder / "no.json"), PlanError, "cannot be read"),
    "a folder as plan file": Wrong(lambda at: kprune.Plan.load(at.folder), PlanError, "cannot be read"),
    "a plan file cut short": Wrong(loaded('{"schema": 1, "lay'), PlanError, "is not JSON"),
    "a plan of a later schema": Wrong(loaded('{"schema": 99}'), PlanError, "schema 99"),
    "a plan file of something else": Wrong(loaded("[1, 2]"), PlanError, "schema None"),
    "a plan file with a number for layers": Wrong(loaded('{"schema": 1, "layers": 3}'), PlanError, "damaged"),
    "a plan file without rates": Wrong(
        loaded(json.dumps({"schema": 1, "layers": [{"path": "a", "filters": 3, "keep": "xyz"}]})), PlanError, "damaged"
    ),
    "a plan saved nowhere": Wrong(
        lambda at: plan_of(at).save(at.folder / "no" / "plan.json"), ExportError, "folder .*no of plan.json does not"
    ),
    "a plan saved over a file": Wrong(
        on_file(lambda at, path: plan_of(at).save(path, overwrite=False)), ExportError, "already there"
    ),
    "a plan saved as a folder": Wrong(lambda at: plan_of(at).save(at.folder), ExportError, "as a folder"),
    # data
    "images of another size": Wrong(prune(data=IMAGES[:, :4]), OptionError, "examples of shape"),
    "images without channels": Wrong(prune(data=IMAGES[..., 0]), OptionError, "examples of shape"),
    "images of another size for a criterion": Wrong(
        prune(data=(IMAGES[:, :4], LABELS), criterion="taylor"), OptionError, "examples of shape"
    ),
    "images of another size for statistics": Wrong(
        lambda at: kprune.recalibrate_batchnorm(build(chain), IMAGES[:, :4]), OptionError, "examples of shape"
    ),
    "no images": Wrong(prune(data=IMAGES[:0]), OptionError, "data is empty"),
    "no batches": Wrong(prune(data=[]), OptionError, "data is empty"),
    "a number as data": Wrong(prune(data=3), OptionError, "data is a int"),
    "text as data": Wrong(prune(data="images/"), OptionError, "data is a str"),
    "NaN in the images": Wrong(prune(data=np.full_like(IMAGES, np.nan)), OptionError, "NaN"),
    "NaN in the images for a criterion": Wrong(
        prune(data=(np.full_like(IMAGES, np.nan), LABELS), criterion="taylor"), OptionError, "data hold NaN"
    ),
    "no labels": Wrong(prune(data=IMAGES, criterion="relevance"), OptionError, "no labels"),
    "labels of no class": Wrong(prune(data=(IMAGES, LABELS + 9), criterion="relevance"), OptionError, "labels|class"),
    "fewer labels than images": Wrong(prune(data=(IMAGES, LABELS[:3]), criterion="taylor"), OptionError, "3, 8"),
    "images of strings": Wrong(prune(data=np.full((4, 8, 8, 3), "x")), OptionError, "data"),
    "a generator read twice": Wrong(prune(data=batches(), criterion="hrank"), OptionError, "read only once"),
    "a generator in rounds": Wrong(iterate(data=batches()), OptionError, "read only once"),
    # callbacks
    "an end before the start": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, start_epoch=5, until_epoch=5)), OptionError, "until_epoch=5"
    ),
    "an end in part of an epoch": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, until_epoch=1.5)), OptionError, "until_epoch is 1.5"
    ),
    "a start before the first epoch": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, start_epoch=-1)), OptionError, "start_epoch is -1"
    ),
    "rounds after no epoch": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, every_epochs=0)), OptionError, "every_epochs is 0"
    ),
    "a callback without a target": Wrong(trained(kprune.SimilarityPruning), OptionError, "Neither"),
    "a callback out of reach": Wrong(trained(lambda: kprune.SimilarityPruning(0.9999)), TargetError, "at most"),
    "a callback with wrong limits": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, limits={"min_channels": 3})), OptionError, "limits is {"
    ),
    "an unknown option of similarity": Wrong(
        trained(lambda: kprune.SimilarityPruning(0.3, beta=2)), OptionError, "beta"
    ),
    "similarity as scores": Wrong(trained(lambda: kprune.GradualPruning("similarity", 0.3)), OptionError, "no scores"),
    "a callback without data": Wrong(trained(lambda: kprune.GradualPruning("apoz", 0.3)), OptionError, "data is None"),
    "a callback with a generator": Wrong(
        trained(lambda: kprune.GradualPruning("hrank", 0.3, data=batches())), OptionError, "only once"
    ),
    "channels and a target": Wrong(
        trained(lambda: kprune.GradualPruning("l1", 0.3, channels_per_round=3)), OptionError, "together with a target"
    ),
    "half a channel": Wrong(
        trained(lambda: kprune.GradualPruning("l1", channels_per_round=0.5)), OptionError, "channels_per_round is 0.5"
    ),
    "more channels than there are": Wrong(
        trained(lambda: kprune.GradualPruning("l1", channels_per_round=999)), TargetError, "999 channels"
    ),
    "a penalty below zero": Wrong(trained(lambda: kprune.BatchNormPenalty(-1.0)), OptionError, "strength is -1"),
    # rounds and searches
    "rounds of nothing": Wrong(iterate(rounds=0), OptionError, "rounds is 0"),
    "no training": Wrong(iterate(fit=None), OptionError, "fit is None"),
    "a training that gives a model": Wrong(iterate(fit=lambda small: small), OptionError, "fit returned"),
    "rounds out of reach": Wrong(iterate(target_flops=0.9999), TargetError, "at most"),
    "a file as directory of rounds": Wrong(
        on_file(lambda at, path: iterate(directory=path)(at)), OptionError, "there is a file"
    ),
    "no judgement": Wrong(find(accept=None), OptionError, "accept is None"),
    "a judgement in numbers": Wrong(find(accept=lambda small: 0.9), OptionError, "accept returned 0.9"),
    "a search over nothing known": Wrong(find(quantity="ms"), OptionError, "quantity is 'ms'"),
    "a search without tolerance": Wrong(find(tolerance=0), OptionError, "tolerance is 0"),
    "a search that accepts nothing": Wrong(find(accept=lambda small: False), TargetError, "refused every network"),
    "a search within limits that leave nothing": Wrong(
        find(limits=kprune.Limits(min_channels=99)), TargetError, "at most 0.0000"
    ),
    # timing, reports
    "timing of no file": Wrong(lambda at: kprune.benchmark_tflite(at.folder / "no.tflite"), OptionError, "no file"),
    "timing on no thread": Wrong(
        lambda at: kprune.benchmark_tflite(at.folder / "no.tflite", threads=0), OptionError, "threads is 0|no file"
    ),
    "timing on a truth value of threads": Wrong(
        lambda at: kprune.benchmark(at.folder / "no.tflite", threads=True), OptionError, "threads is True"
    ),
    "timing of a text": Wrong(on_file(lambda at, path: kprune.benchmark(path)), KpruneError, "no model"),
    "timing of a dict": Wrong(lambda at: kprune.benchmark({"a": 1}), OptionError, "A dict was given"),
    "timing of nothing": Wrong(lambda at: kprune.benchmark(), OptionError, "no model"),
    "metadata of no file": Wrong(lambda at: kprune.read_metadata(at.folder / "no.onnx"), KpruneError, "no.onnx"),
    "a report nowhere": Wrong(
        lambda at: Report([Measurement("a")]).save(at.folder / "no" / "r.md"), ExportError, "does not exist"
    ),
    "a report of what JSON cannot hold": Wrong(
        lambda at: Report([Measurement("a")], history={"loss": object()}).save(at.folder / "r.json"),
        OptionError,
        "JSON",
    ),
    "a record of something else": Wrong(
        on_file(lambda at, path: kprune.PruningRecord.load(path)), PlanError, "no pruning record"
    ),
    "a missing Keras 2 file": Wrong(lambda at: kprune.load_keras2(at.folder / "no.h5"), KpruneError, "no.h5"),
}

EXPORTS = {
    "an unknown quantization": Wrong(
        lambda at: kprune.export_tflite(at.model, at.folder / "a.tflite", quantize="int3"), OptionError, "'int3'"
    ),
    "int8 without data": Wrong(
        lambda at: kprune.export_tflite(at.model, at.folder / "a.tflite", quantize="int8"), OptionError, "data"
    ),
    "int8 with images of another size": Wrong(
        lambda at: kprune.export_tflite(
            at.model, at.folder / "a.tflite", quantize="int8", representative_data=IMAGES[:, :4]
        ),
        OptionError,
        "shape",
    ),
    "int8 with NaN": Wrong(
        lambda at: kprune.export_tflite(
            at.model, at.folder / "a.tflite", quantize="int8", representative_data=np.full_like(IMAGES, np.nan)
        ),
        OptionError,
        "NaN",
    ),
    "an export nowhere": Wrong(
        lambda at: kprune.export_tflite(at.model, at.folder / "no" / "a.tflite"), ExportError, "does not exist"
    ),
    "an export as a folder": Wrong(lambda at: kprune.export_tflite(at.model, at.folder), ExportError, "folder"),
    "an export over a file": Wrong(
        on_file(lambda at, path: kprune.export_saved_model(at.model, path)), ExportError, "already there"
    ),
    "an export of a path": Wrong(
        lambda at: kprune.export_tflite("model.keras", at.folder / "a.tflite"), ModelError, "str"
    ),
    "a SavedModel nowhere": Wrong(
        lambda at: kprune.export_saved_model(at.model, at.folder / "no" / "a"), ExportError, "does not exist"
    ),
}

TARGETS = {
    "no target": ({}, "Neither of target_flops"),
    "two targets": ({"target_flops": 0.3, "target_params": 0.3}, "Both of target_flops"),
    "a number of times": ({"target_flops": 5}, "target_flops is 5"),
    "parameters in per cent": ({"target_params": 30}, "target_params is 30"),
    "nothing": ({"target_flops": 0}, "target_flops is 0"),
    "a text": ({"target_params": "0.5"}, "target_params is '0.5'"),
    "NaN": ({"target_flops": float("nan")}, "target_flops is nan"),
    "a truth value": ({"target_flops": True}, "target_flops is True"),
    "milliseconds without a table": ({"target_latency": 0.3}, "target_latency came without latency"),
    "a table without milliseconds": (
        {"target_flops": 0.3, "latency_table": "t.json"},
        "latency_table came without target_latency",
    ),
    "a size in words": ({"target_flops": 0.3, "input_shape": "224x224"}, "input_shape is '224x224'"),
    "a size of nothing": ({"target_flops": 0.3, "input_shape": (0, 224, 3)}, "input_shape is"),
    "a table that is not there": (
        {"target_latency": 0.3, "latency_table": "no/t.json"},
        "cannot be read as a latency table",
    ),
    "a number as table": ({"target_latency": 0.3, "latency_table": 3}, "latency_table is 3"),
}
OF_CALLBACKS = {
    "limits of another kind": ({"limits": {"min_channels": 3}}, "limits is {"),
    "limits that are empty": ({"limits": {}}, "limits is {}"),
    "strict in words": ({"strict": "yes"}, "strict is 'yes'"),
    "rounds after half an epoch": ({"every_epochs": 0.5}, "every_epochs is 0.5"),
    "rounds after no epoch": ({"every_epochs": 0}, "every_epochs is 0"),
    "an end before the first epoch": ({"until_epoch": 0}, "until_epoch is 0"),
    "an end in words": ({"until_epoch": "10"}, "until_epoch is '10'"),
}


def similarity(**options):
    return lambda: kprune.SimilarityPruning(**{"target_flops": 0.3, **options})


def gradual(**options):
    return lambda: kprune.GradualPruning(**{"criterion": "l1", "target_flops": 0.3, **options})


def table(**options):
    grid = kprune.cost.latency_table.Grid(kprune.rules.OperatorConfig("mean", (1, 1)), (1,), (1,), np.ones((1, 1)))
    return lambda: kprune.LatencyTable(**{"grids": (grid,), **options})


def measured(**options):
    return lambda: Measurement(**{"name": "a", **options})


def report(**options):
    return lambda: Report(**{"rows": [Measurement("a")], **options})


# What can be judged when it is given is refused then, before there is a model: {what: (call, what the error says)}.
MADE = {
    **{f"similarity: {k}": (similarity(**{"target_flops": None, **o}), m) for k, (o, m) in TARGETS.items()},
    **{f"gradual: {k}": (gradual(**{"target_flops": None, **o}), m) for k, (o, m) in TARGETS.items()},
    **{f"similarity: {k}": (similarity(**o), m) for k, (o, m) in OF_CALLBACKS.items()},
    **{f"gradual: {k}": (gradual(**o), m) for k, (o, m) in OF_CALLBACKS.items()},
    "similarity: an end before the start": (similarity(start_epoch=5, until_epoch=5), "until_epoch=5"),
    "similarity: a start before the first epoch": (similarity(start_epoch=-1), "start_epoch is -1"),
    "similarity: an unknown option": (similarity(beta=2), "beta"),
    "similarity: alpha below zero": (similarity(alpha=-1), "alpha is -1"),
    "similarity: a ratio of nothing": (similarity(ratio=0), "ratio is 0"),
    "similarity: guard in words": (similarity(guard="no"), "guard is 'no'"),
    "similarity: compensate": (similarity(compensate=True), "compensate"),
    "gradual: an unknown criterion": (gradual(criterion="l7"), "no criterion 'l7'"),
    "gradual: similarity": (gradual(criterion="similarity"), "no scores"),
    "gradual: a class as criterion": (gradual(criterion=kprune.criteria.L1), "criterion is"),
    "gradual: no data": (gradual(criterion="apoz"), "data is None"),
    "gradual: a number as data": (gradual(criterion="apoz", data=3), "data is a int"),
    "gradual: a text as data": (gradual(criterion="apoz", data="images/"), "data is a str"),
    "gradual: no images": (gradual(criterion="apoz", data=IMAGES[:0]), "data is empty"),
    "gradual: fewer labels than images": (gradual(criterion="taylor", data=(IMAGES, LABELS[:3])), "3, 8"),
    "gradual: a generator": (gradual(criterion="hrank", data=batches()), "only once"),
    "gradual: regrow in words": (gradual(regrow="yes"), "regrow is 'yes'"),
    "gradual: half a channel": (gradual(target_flops=None, channels_per_round=0.5), "channels_per_round is 0.5"),
    "gradual: channels and a target": (gradual(channels_per_round=3), "together with a target"),
    "gradual: channels and a table": (
        gradual(target_flops=None, channels_per_round=3, latency_table="t.json"),
        "together with a target",
    ),
    "gradual: channels that regrow": (
        gradual(target_flops=None, channels_per_round=3, regrow=True),
        "together with regrow",
    ),
    "gradual: an end before the first round": (gradual(every_epochs=4, until_epoch=3), "until_epoch=3"),
    "a penalty of nothing": (lambda: kprune.BatchNormPenalty(0), "strength is 0"),
    "an endless penalty": (lambda: kprune.BatchNormPenalty(float("inf")), "strength is inf"),
    "a penalty in words": (lambda: kprune.BatchNormPenalty("1e-4"), "strength is '1e-4'"),
    "limits: no channels": (lambda: kprune.Limits(min_channels=0), "min_channels is 0"),
    "limits: rate in per cent": (lambda: kprune.Limits(max_rate=50), "max_rate is 50"),
    "limits: an unknown preset": (lambda: kprune.Limits(round_to="litert-int4"), "round_to is 'litert-int4'"),
    "limits: a number as name": (lambda: kprune.Limits(include=3), "include holds 3"),
    "criteria: alpha without end": (lambda: kprune.criteria.Similarity(alpha=float("inf")), "alpha is inf"),
    "criteria: fold_bn in words": (lambda: kprune.criteria.Similarity(fold_bn="yes"), "fold_bn is 'yes'"),
    "criteria: compensate a number": (lambda: kprune.criteria.Similarity(compensate=1), "compensate is 1"),
    "criteria: an unknown loss": (lambda: kprune.criteria.Taylor(loss="l7"), "loss is 'l7'"),
    "criteria: a number as loss": (lambda: kprune.criteria.Taylor(loss=3), "loss is 3"),
    "criteria: a number among losses": (lambda: kprune.criteria.Taylor(loss={"a": "mse", "b": 3}), "loss is 3"),
    "criteria: half of an image": (lambda: kprune.criteria.HRank(images=0.5), "images is 0.5"),
    "criteria: alpha and beta": (lambda: kprune.criteria.FeatureRelevance(alpha=2, beta=2), "alpha is 2 and beta is 2"),
    "criteria: a share of nothing": (lambda: kprune.criteria.TraceRatio(share=0), "share is 0"),
    "criteria: seed": (lambda: kprune.criteria.Random(seed=1.5), "seed is 1.5"),
    "criteria: an unknown ranking": (lambda: kprune.criteria.APoZ(ranking="best"), "ranking is 'best'"),
    "criteria: no name": (lambda: kprune.register_criterion(7), "registered as 7"),
    "a rule for an object": (lambda: kprune.register_rule("Conv2D"), "not a layer class"),
    "table: nothing measured": (table(grids=()), "no measurements"),
    "table: numbers in the place of grids": (table(grids=(1.0, 2.0)), "no measurements"),
    "table: an unknown runtime": (table(runtime="tflite"), "runtime is 'tflite'"),
    "table: four bits": (table(quantize="int4"), "quantize is 'int4'"),
    "table: no thread": (table(threads=0), "threads is 0"),
    "table: less than nothing": (table(overhead_ms=-1.0), "overhead_ms is -1"),
    "watch: no run": (lambda: kprune.Stopwatch(runs=0), "runs is 0"),
    "watch: half a thread": (lambda: kprune.Stopwatch(threads=0.5), "threads is 0.5"),
    "watch: no command": (lambda: kprune.CommandStopwatch("  "), "command is '  '"),
    "watch: a list as command": (lambda: kprune.CommandStopwatch(["ssh", "pi"]), "command is"),
    "watch: no time": (lambda: kprune.CommandStopwatch("ssh pi", timeout=0), "timeout is 0"),
    "watch: a time in words": (lambda: kprune.CommandStopwatch("ssh pi", timeout="10s"), "timeout is '10s'"),
    "measurement: no name": (lambda: Measurement(None), "name is None"),
    "measurement: accuracy in per cent": (measured(accuracy=92.03), "accuracy is 92.03"),
    "measurement: a text": (measured(flops="40M"), "flops is '40M'"),
    "measurement: less than nothing": (measured(size_bytes=-1), "size_bytes is -1"),
    "measurement: half a spread": (measured(median_ms=1.0, p10_ms=0.9), "p90_ms is None"),
    "measurement: a spread around nothing": (measured(p10_ms=0.9, p90_ms=1.1), "median_ms is None"),
    "report: no rows": (report(rows=[]), "rows is empty"),
    "report: one row by itself": (report(rows=Measurement("a")), "rows holds Measurement"),
    "report: rows of text": (report(rows=["a"]), "rows holds 'a'"),
    "report: a path as plan": (report(plan="plan.json"), "plan holds 'plan.json'"),
    "report: a history of lists": (report(history=[1, 2]), r"history and facts holds \[1, 2\]"),
    "report: exports by path": (report(exports=["a.tflite"]), "exports holds 'a.tflite'"),
    "report: a number as timings": (report(timings=3.0), "timings holds 3.0"),
    "report: facts that JSON cannot hold": (report(facts={"model": object()}), "JSON"),
    "report: a number as title": (report(title=3), "title holds 3"),
    "record: a list": (lambda: kprune.PruningRecord([1]), "no dict of lists"),
    "record: lists of other lengths": (lambda: kprune.PruningRecord({"flops": [1], "params": []}), "no dict of lists"),
    "masks of no layer": (lambda: kprune.MaskedLayer(layers.Dense(3), [1]), "masks is"),
}


@pytest.mark.parametrize("call, match", MADE.values(), ids=MADE)
def test_what_can_be_judged_when_it_is_given_is_refused_then(call, match):
    with pytest.raises(OptionError, match=match) as caught:
        call()
    assert_three_parts(caught.value)


@pytest.fixture(scope="module")
def model():
    model = build(residual)
    model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


on_tensorflow = [pytest.param(wrong, marks=pytest.mark.tensorflow, id=name) for name, wrong in EXPORTS.items()]


@pytest.mark.parametrize("wrong", [*(pytest.param(wrong, id=name) for name, wrong in WRONG.items()), *on_tensorflow])
def test_a_wrong_call_is_refused_and_leaves_nothing_behind(wrong, model, tmp_path):
    before = model.get_weights()
    with pytest.raises(wrong.error, match=wrong.match) as caught:
        wrong.call(Place(model, tmp_path))
    assert_three_parts(caught.value)
    assert not list(tmp_path.rglob("*"))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def assert_three_parts(error):
    parts = (error.what, error.expected, error.fix)
    assert all(len(part) > 2 for part in parts), parts
    assert str(error) == f"{parts[0]} Expected: {parts[1]} Fix: {parts[2]}"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    """By a failing rename, for whoever runs the tests may be allowed to write everywhere."""

    def refuse(*paths):
        raise PermissionError(13, "Permission denied")

    plan = kprune.plan_pruning(build(residual), 0.3)
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(ExportError, match="could not be written.*Permission denied.*Fix"):
        plan.save(tmp_path / "plan.json")
    assert not list(tmp_path.iterdir())
    for name in ("mkstemp", "mkdtemp"):
        monkeypatch.setattr(f"tempfile.{name}", lambda **options: refuse())
    with pytest.raises(ExportError, match="could not be written.*Permission denied.*Fix"):
        plan.save(tmp_path / "plan.json")
    with pytest.raises(ExportError, match="could not be written.*Permission denied.*Fix"):
        kprune.utils.files.write_folder_by_rename(tmp_path / "folder", lambda folder: None, "mark")


def test_a_search_begins_only_where_its_file_can_be_written(tmp_path, monkeypatch):
    timed = []

    def search(output):
        kprune.prune_to_latency(build(residual), 1.0, timed.append, criterion="l1", output=output)

    for output, words in ((tmp_path / "no" / "a.tflite", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(ExportError, match=f"{words}.*Fix"):
            search(output)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ExportError, match="not writable.*Fix"):
        search(tmp_path / "a.tflite")
    assert not timed
