"""As much pruning as leaves the accuracy within so many points of what it was, without training."""

import hashlib

import numpy as np

from kprune.graph import Graph, trace
from kprune.graph.batches import batches_of, check_inputs, require_end, require_rereadable
from kprune.pruning.pipeline import check_graph
from kprune.pruning.run_folder import RunFolder
from kprune.pruning.target_search import TargetSearch, find_target
from kprune.utils.checks import is_number
from kprune.utils.errors import OptionError

STATE = "accuracy.json"
BATCH_SIZE = 256
ROUNDING = 1e-9  # of what is a count of images over their number


def prune_within_accuracy(
    model,
    eval_data,
    max_drop,
    *,
    criterion=None,
    data=None,
    repair=True,
    limits=None,
    strict=False,
    tolerance=0.02,
    directory=None,
    verbose=True,
) -> TargetSearch:
    """Removes as much of the FLOPs as leaves the top-1 accuracy within `max_drop` of what it was. Nothing is trained.

    The images choose how much goes, so report accuracy on others.

    Args:
      model: a built functional or Sequential `keras.Model` with one output, of shape `[images, classes]`; never
        changed.
      eval_data: images and their labels, as classes or one-hot: `(x, y)`, or batches of them, see `prune_model`. They
        are read for every network that is tried.
      max_drop: how much accuracy may be lost, 0..1; 0.01 is one point.
      criterion, data, repair, limits, strict: see `prune_model`; data are read for every network.
      tolerance, verbose: see `find_target`.
      directory: see `find_target`; a folder of other data or another drop is refused.

    Returns:
      A `TargetSearch`: `.model`, `.plan`, `.target`, `.evaluations`.

    Raises:
      TargetError: every network that was tried loses more.
      OptionError: a wrong option, a folder of another search, or data that are no images with labels.
      ModelError: see `plan_pruning`.

    Example:
      >>> found = kprune.prune_within_accuracy(model, (x_val, y_val), 0.01, data=x_train[:512])
      >>> found.model.save("small.keras")
    """
    if not is_number(max_drop) or not 0 <= max_drop < 1:
        raise OptionError(f"max_drop is {max_drop!r}.", "A share from 0 to 1.", "Pass 0.01 for one point.")
    require_rereadable(eval_data)
    require_end(eval_data, "eval_data")
    check_graph(trace(model), strict)
    if directory is not None:  # find_target keeps the verdicts, but cannot know what they rest on
        hashes = {"sha256 of eval_data": sha256(eval_data), "sha256 of data": data is not None and sha256(data)}
        RunFolder(directory, STATE, {"max_drop": float(max_drop), **hashes}).save({})
    least = top1_accuracy(model, eval_data) - max_drop - ROUNDING
    return find_target(
        model,
        lambda small: top1_accuracy(small, eval_data) >= least,
        criterion=criterion,
        data=data,
        repair=repair,
        limits=limits,
        tolerance=tolerance,
        directory=directory,
        verbose=verbose,
    )


def top1_accuracy(model, eval_data) -> float:
    """The share of images whose largest output is that of the label, 0..1.

    Args:
      model: a classifier: one output of shape `[images, classes]`.
      eval_data: see `prune_within_accuracy`.

    Raises:
      OptionError: the model is no classifier, or the data do not fit it.
    """
    graph, right, count = trace(model), 0, 0
    for batch in batches_of(eval_data, BATCH_SIZE, labels=True, graph=graph):
        check_inputs(graph, batch.inputs)
        outputs = predict(graph, batch.inputs)
        right += int((outputs.argmax(-1) == classes(batch.targets, len(outputs))).sum())
        count += len(outputs)
    return right / count


def predict(graph: Graph, inputs) -> np.ndarray:
    """The outputs for one batch.

    Raises:
      OptionError: they are not those of a classifier.
    """
    outputs = graph.model.predict_on_batch(inputs[0] if len(inputs) == 1 else list(inputs))
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] < 2:
        raise OptionError(
            f"The outputs of '{graph.model.name}' have the shape {graph.model.output_shape}.",
            "A classifier: one output of shape [images, classes], two classes or more.",
            "Use kprune.find_target with a function that judges the model.",
        )
    return np.asarray(outputs)


def classes(targets, count: int) -> np.ndarray:
    """The classes of one batch, from classes or one-hot.

    Raises:
      OptionError: there is not one for each image.
    """
    y = targets[0]
    y = y.argmax(-1) if y.ndim > 1 and y.shape[-1] > 1 else y.reshape(-1)
    if len(targets) != 1 or len(y) != count:
        raise OptionError(
            f"eval_data has {len(targets)} arrays of labels, the first with {len(y)} labels for {count} images.",
            "One label for each image.",
            "Pass (x, y).",
        )
    return y


def sha256(data) -> str:
    """Tells data apart: a hash of all images and labels."""
    digest = hashlib.sha256()
    for batch in batches_of(data, BATCH_SIZE):
        for array in (*batch.inputs, *batch.targets):
            digest.update(str(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
