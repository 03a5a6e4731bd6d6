"""ResNet50 with Sony's Model Compression Toolkit: run by tools/benchmark_peers.py."""

import re
import sys
from importlib import metadata

import model_compression_toolkit as mct
import numpy as np
import tensorflow as tf
from measuring import Stopwatch, answer, keras_cost, keras_widths, narrowed


def images():
    yield [np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype("float32")]


def pruned(model, bytes_left: float):
    """Its budget is memory of the weights; the smallest number of score approximations that it takes."""
    return mct.pruning.keras_pruning_experimental(
        model=model,
        target_resource_utilization=mct.core.ResourceUtilization(weights_memory=bytes_left),
        representative_data_gen=images,
        pruning_config=mct.pruning.PruningConfig(num_score_approximations=1),
    )[0]


def lowest(model):
    """The smallest model: an impossible budget is refused with the memory that can be reached."""
    try:
        return pruned(model, 1.0)
    except Exception as error:
        sizes = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", str(error).replace(",", ""))]
        return pruned(model, max(sizes))


def renamed(layer):
    """A copy without a k in its name: MCT 2.6 looks for the weights whose name has the first letter of "kernel", and
    in a layer called "block" it finds two.
    """
    config = layer.get_config()
    return type(layer).from_config(config | {"name": config["name"].replace("k", "c")})


model = tf.keras.models.clone_model(tf.keras.applications.ResNet50(weights=None), clone_function=renamed)
whole, widths = keras_cost(model), keras_widths(model)
with Stopwatch() as watch:
    small = pruned(model, 4 * (1 - float(sys.argv[1])) * whole["params"])
smallest = lowest(model)
answer(
    version=metadata.version("model-compression-toolkit"),
    runs_on=f"TensorFlow {tf.__version__}",
    seconds=watch.seconds,
    peak_bytes=watch.peak_bytes,
    whole=whole,
    left=keras_cost(small),
    lowest=keras_cost(smallest),
    layers=len(widths),
    prunable=narrowed(widths, keras_widths(smallest)),
    removes=True,
    how="that share of the parameters (it has no FLOPs target)",
)
