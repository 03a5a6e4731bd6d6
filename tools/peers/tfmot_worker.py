"""ResNet50 with the masks of tensorflow-model-optimization: run by tools/benchmark_peers.py."""

import sys
from importlib import metadata

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
from measuring import Stopwatch, answer, keras_cost, keras_widths, narrowed

keras, sparsity = tf.keras, tfmot.sparsity.keras
model = keras.applications.ResNet50(weights=None)
whole, widths = keras_cost(model), keras_widths(model)
images, labels = np.zeros((1, 224, 224, 3), "float32"), np.zeros(1, "int32")
with Stopwatch() as watch:
    schedule = sparsity.ConstantSparsity(float(sys.argv[1]), begin_step=0, frequency=1)
    masked = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
    masked.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")  # masks are made while it trains
    masked.fit(images, labels, epochs=1, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
    stripped = sparsity.strip_pruning(masked)
kernels = [layer.kernel.numpy() for layer in stripped.layers if hasattr(layer, "kernel")]
zeros = sum((k == 0).sum() for k in kernels) / sum(k.size for k in kernels)
answer(
    version=metadata.version("tensorflow-model-optimization"),
    runs_on=f"TensorFlow {tf.__version__}",
    seconds=watch.seconds,
    peak_bytes=watch.peak_bytes,
    whole=whole,
    left=keras_cost(stripped),
    lowest=keras_cost(stripped),
    layers=len(widths),
    prunable=narrowed(widths, keras_widths(stripped)),
    removes=False,
    how=f"{zeros:.0%} of the weights are zero, all stay stored",
)
