"""What is carried back from the outputs: the gradient of a loss, or relevance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from kprune.compat.autodiff import linearize
from kprune.compat.functional import output_names
from kprune.compat.training import compile_arguments
from kprune.criteria.statistics.relevance_propagation import Propagation
from kprune.criteria.statistics.tape import by_gradient
from kprune.graph import Graph
from kprune.rules import find_rule
from kprune.utils.errors import OptionError

ops = keras.ops


class Walk:
    """What is carried back. Subclasses are frozen dataclasses: equal walks are done once.

    Attributes:
      labels: whether it starts from labels.
    """

    labels: bool = True

    def on(self, graph: Graph) -> "PreparedWalk":
        """The walk prepared for one model."""
        raise NotImplementedError


@dataclass(frozen=True)
class PreparedWalk:
    """Where a walk starts, `seeds(outputs, targets)`, and the rule of a step, `back(step, arriving)`."""

    seeds: Callable
    back: Callable


@dataclass(frozen=True)
class Gradients(Walk):
    """The gradient of a loss, summed over the examples.

    Args:
      loss: a Keras loss, its name, or a function `(y_true, y_pred)`; for several outputs a list or dict of them; None:
        what the model is compiled with, else cross-entropy.
    """

    loss: object = None

    def __hash__(self):
        return hash(type(self))  # a dict or list of losses has none

    def on(self, graph: Graph) -> PreparedWalk:
        losses = losses_of(graph, self.loss)

        def seeds(outputs: Sequence, targets: Sequence) -> list:
            if losses is None:
                return linearize_loss([cross_entropy(graph)], outputs, [class_indices(targets, outputs)])
            if not len(losses) == len(outputs) == len(targets):
                raise OptionError(
                    f"The model has {len(outputs)} outputs, {len(losses)} losses and {len(targets)} targets.",
                    "One loss and one target per output.",
                    "Pass data with as many targets as outputs, and one loss.",
                )
            return linearize_loss(losses, outputs, targets, loss_weights(graph, self.loss))

        return PreparedWalk(seeds, by_gradient)


def linearize_loss(losses: Sequence[Callable], outputs: Sequence, targets: Sequence, weights=(1.0,)) -> list:
    """The gradient of the losses of all examples, each times its weight, with respect to each output."""
    count = outputs[0].shape[0]

    def total(*predicted):
        parts = [
            weight * ops.mean(ops.cast(loss(as_predicted(ops.convert_to_tensor(y), p), p), "float32"))
            for loss, y, p, weight in zip(losses, targets, predicted, weights, strict=True)
        ]
        return [sum(parts) * count]

    _, pullback = linearize(total, [ops.cast(y, "float32") for y in outputs])
    return pullback([ops.ones(())])


def as_predicted(target, prediction):
    """Targets with a last axis of length 1 where the predictions have one, and without where not, as in `fit`."""
    more = len(prediction.shape) - len(target.shape)
    if more == 1 and prediction.shape[-1] == 1:
        return ops.expand_dims(target, -1)
    return ops.squeeze(target, -1) if more == -1 and target.shape[-1] == 1 else target


def loss_weights(graph: Graph, loss) -> list[float]:
    """The weights of the losses, one per output, where they are those that the model is compiled with; else ones."""
    given = None if loss is not None else (compile_arguments(graph.model) or {}).get("loss_weights")
    if isinstance(given, dict):
        given = by_output(graph, given, "loss_weights", 1.0)
    return [1.0] * len(graph.ends) if given is None else [float(weight) for weight in keras.tree.flatten(given)]


def by_output(graph: Graph, given: dict, what: str, default) -> list:
    """The values of a dict, one per output of the model, `default` where it names none.

    Raises:
      OptionError: it names something else.
    """
    names = output_names(graph.inside[id(graph.model)], given)
    if not set(given) <= set(names):
        raise OptionError(f"{what} has the keys {sorted(given)}.", f"Of the outputs {names}.", "Name outputs only.")
    return [given.get(name, default) for name in names]


def check_losses(loss):
    """Refuses what is no loss of any model.

    Raises:
      OptionError: something else than a loss, its name, a function or None, or a list or dict of such.
    """
    for one in keras.tree.flatten(loss):
        if one is not None and not callable(one) and not isinstance(one, str):
            raise OptionError(
                f"loss is {one!r}.", "A Keras loss, its name, or a function.", "Pass 'mse', for instance."
            )
        known_loss(one)


def known_loss(loss) -> Callable | None:
    """A loss as Keras knows it.

    Raises:
      OptionError: it does not.
    """
    try:
        return keras.losses.get(loss)
    except ValueError as error:
        raise OptionError(
            f"loss is {loss!r}: {error}", "A Keras loss, its name, or a function.", "Pass 'mse', for instance."
        ) from error


def losses_of(graph: Graph, loss) -> list[Callable] | None:
    """The losses, one per output of the model; None where nobody named one.

    Raises:
      OptionError: Keras does not know the loss, or it is of no output.
    """
    if loss is None:
        loss = (compile_arguments(graph.model) or {}).get("loss")
    if loss is None:
        return None
    if isinstance(loss, dict):
        loss = by_output(graph, loss, "loss", None)
    given = list(loss) if isinstance(loss, (list, tuple)) else [loss] * len(graph.ends)
    return [known_loss(one) if one is not None else no_loss for one in given]


def no_loss(y_true, y_pred):
    """Of an output that was compiled without one."""
    return ops.zeros(())


def gives_probabilities(graph: Graph) -> bool:
    """Whether the first output comes from a softmax or sigmoid, rather than being logits."""
    last = next(call for call in reversed(graph.calls) if graph.ends[0] in call.outputs)
    known = (keras.activations.softmax, keras.activations.sigmoid)
    return getattr(last.operation, "activation", None) in known or find_rule(last.operation).gives_probabilities


def cross_entropy(graph: Graph) -> Callable:
    """Cross-entropy of class indices, from logits or from probabilities, whichever the model gives."""
    from_logits = not gives_probabilities(graph)

    def loss(y_true, y_pred):
        if y_pred.shape[-1] == 1:
            return ops.binary_crossentropy(ops.cast(y_true, y_pred.dtype), y_pred, from_logits=from_logits)
        return ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits)

    return loss


@dataclass(frozen=True)
class Relevance(Walk):
    """Layer-wise relevance propagation from the true class (see `kprune.criteria.statistics.relevance_propagation`).

    Args:
      alpha, beta: of the alpha-beta rule.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def on(self, graph: Graph) -> PreparedWalk:
        return PreparedWalk(one_hot_seeds, Propagation(self.alpha, self.beta))


def one_hot_seeds(outputs: Sequence, targets: Sequence) -> list:
    """One at the output of the true class; a single output, of two classes, starts with one for both."""
    labels, classes = class_indices(targets, outputs), outputs[0].shape[1]
    return [ops.convert_to_tensor((np.eye(classes)[labels] if classes > 1 else np.ones((len(labels), 1))), "float32")]


def class_indices(targets: Sequence, outputs: Sequence) -> np.ndarray:
    """The class of each example from integer or one-hot labels.

    Raises:
      OptionError: the model does not name classes, or the labels are none of its classes.
    """
    if len(outputs) != 1 or len(outputs[0].shape) != 2:
        raise OptionError(
            f"The model has outputs of shape {[tuple(y.shape)[1:] for y in outputs]}.",
            "One output with a number per class.",
            "Choose a criterion that needs no classes, such as 'apoz', or 'taylor' with a loss.",
        )
    classes = max(outputs[0].shape[1], 2)
    labels = np.asarray(targets[0]) if len(targets) == 1 else np.zeros(())
    if labels.ndim == 2 and labels.shape[1] == classes:
        return labels.argmax(axis=1)
    flat = labels.reshape(-1)
    whole = flat.astype(int)
    if len(flat) != outputs[0].shape[0] or (whole != flat).any() or whole.min() < 0 or whole.max() >= classes:
        raise OptionError(
            f"data has labels of shape {labels.shape[1:]} with values such as {flat[:5].tolist()}.",
            f"One of {classes} classes per example: a whole number below {classes}, or one-hot.",
            "Pass (images, labels) with the labels that the model was trained on.",
        )
    return whole
