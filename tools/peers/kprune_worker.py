"""ResNet50 with kprune: run by tools/benchmark_peers.py."""

import sys

import keras
from measuring import Stopwatch, answer, keras_cost, keras_widths, narrowed

import kprune

model = keras.applications.ResNet50(weights=None)
whole = keras_cost(model)
with Stopwatch() as watch:
    small = kprune.prune_model(model, float(sys.argv[1]), criterion="l1")
widths = keras_widths(model)
lowest = kprune.prune_model(model, kprune.search_space(model).reachable_flops, criterion="l1")
answer(
    version=kprune.__version__,
    runs_on=f"Keras {keras.__version__}, {keras.backend.backend()}",
    seconds=watch.seconds,
    peak_bytes=watch.peak_bytes,
    whole=whole,
    left=keras_cost(small),
    lowest=keras_cost(lowest),
    layers=len(widths),
    prunable=narrowed(widths, keras_widths(lowest)),
    removes=True,
    how="to the FLOPs target",
)
