"""What private Keras knows of compiling and fitting: how a model was compiled, what `fit` does."""

import keras
from keras.src.saving.serialization_lib import SafeModeScope


def compile_arguments(model) -> dict | None:
    """What the model was compiled with, as objects, or None if it is not compiled."""
    if not getattr(model, "compiled", False) or not hasattr(model, "_compile_config"):
        return None
    return dict(model._compile_config.config)


def clone_object(thing):
    """A stateful object (metric, optimizer) made again from its config; functions, strings and losses as they are."""
    if isinstance(thing, (keras.metrics.Metric, keras.optimizers.Optimizer)):
        with SafeModeScope(False):
            return type(thing).from_config(thing.get_config())
    if isinstance(thing, dict):
        return {key: clone_object(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(clone_object(value) for value in thing)
    return thing


def refresh_train_function(model):
    """Makes the compiled training step see a changed mask; needed once on TensorFlow, at each change elsewhere."""
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def was_restored(model) -> bool:
    """Whether the training under way began somewhere else: `BackupAndRestore` has moved the first epoch."""
    return getattr(model, "_initial_epoch", None) is not None


def skip_symbolic_build(model):
    """Keeps `fit` from building a model that is built, and from reading a batch of data for it."""
    model._maybe_symbolic_build = lambda *args, **kwargs: None
