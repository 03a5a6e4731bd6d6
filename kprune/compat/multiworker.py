"""What training on several machines needs beside kprune itself."""

import keras

from kprune.compat.training import skip_symbolic_build


def fix_multiworker_fit(model):
    """Lets `fit`, `evaluate` and `predict` of Keras run under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3.15 fails there by itself, with any model and no callback: before the first step it reduces a batch of
    data that it needs only the shapes of, and after each step it reduces scalar metrics along an axis that they do
    not have. This skips the one, and gives the metrics that axis. It changes this model object, not its class and
    nothing that is saved; elsewhere (one worker, another strategy, another backend) it does nothing, so that a script
    can always call it.

    Args:
      model: a built model, made inside the strategy's scope.

    Returns:
      `model`.

    Example:
      >>> strategy = tf.distribute.MultiWorkerMirroredStrategy()
      >>> with strategy.scope():
      ...     model = kprune.compat.fix_multiworker_fit(build())
      ...     model.compile(...)
      >>> model.fit(x, y, callbacks=[kprune.SimilarityPruning(0.5)])
    """
    if runs_on_several_workers(model):
        skip_symbolic_build(model)
        model.train_step = with_axis(model.train_step)
        model.test_step = with_axis(model.test_step)
    return model


def with_axis(step):
    """A step whose metrics are vectors of one element, which Keras can take the mean of over all workers."""
    if getattr(step, "gives_vectors", False):
        return step

    def vectors(data):
        return keras.tree.map_structure(lambda value: keras.ops.expand_dims(value, 0), step(data))

    vectors.gives_vectors = True
    return vectors


def runs_on_several_workers(model) -> bool:
    """Whether the model was made in the scope of a TensorFlow strategy over several processes."""
    strategy = getattr(model, "distribute_strategy", None)
    several = getattr(getattr(strategy, "extended", None), "_in_multi_worker_mode", None)
    return several is not None and several()
