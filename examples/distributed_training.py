"""Prunes while training on several devices: the same masks everywhere, and the same network as on one.

python examples/distributed_training.py --strategy=mirrored       # one process, two devices
python examples/distributed_training.py --strategy=multiworker    # two processes, as on two machines
KERAS_BACKEND=jax python examples/distributed_training.py --strategy=data_parallel

The devices are parts of this machine's CPU. On a cluster, set TF_CONFIG on every machine and run
`--strategy=multiworker` there; with GPUs, leave `split_cpu` out. See docs/guides/distributed.md.
"""

import functools
import json
import os
import pathlib
import socket
import subprocess
import sys

from absl import app, flags, logging

FLAGS = flags.FLAGS
if "strategy" not in FLAGS:  # a test may import several examples in one process
    flags.DEFINE_enum(
        "strategy",
        "mirrored",
        ["single", "mirrored", "multiworker", "data_parallel"],
        "How to train: on one device; tf.distribute.MirroredStrategy; tf.distribute.MultiWorkerMirroredStrategy; "
        "keras.distribution.DataParallel (JAX).",
    )
    flags.DEFINE_integer("devices", 2, "How many devices, or workers.")
    flags.DEFINE_integer("epochs", 6, "Epochs with the callback; it prunes during the first two thirds.")
    flags.DEFINE_integer("batch", 64, "Images per step, over all devices together; they share it evenly.")
    flags.DEFINE_integer("images", 1437, "Training images; what the devices cannot share evenly is left out.")
    flags.DEFINE_list("widths", ["24", "48", "96"], "Channels of the stages of the network.")
    flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs (multiply-accumulates) to remove.")
    flags.DEFINE_string("criterion", "similarity", "What chooses filters: similarity in rounds, another one gradually.")
    flags.DEFINE_float("penalty", 0.0, "Strength of BatchNormPenalty beside the pruning; 0 leaves it out.")
    flags.DEFINE_string("output", "results/distributed", "Folder for pruned.keras and plan.json.")


def split_cpu(count):
    """Makes TensorFlow see the CPU as several devices."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    return [f"CPU:{index}" for index in range(count)]


@functools.cache
def make_strategy(name):
    """The strategy of TensorFlow. One a process: a second one's messages would go by the keys of the first."""
    import tensorflow as tf

    if name == "mirrored":
        return tf.distribute.MirroredStrategy(split_cpu(FLAGS.devices))
    return tf.distribute.MultiWorkerMirroredStrategy()


def make_scope():
    """The strategy of the flags, as a context in which the model is made and compiled."""
    import contextlib

    if FLAGS.strategy in ("mirrored", "multiworker"):
        return make_strategy(FLAGS.strategy).scope()
    if FLAGS.strategy == "data_parallel":
        import keras

        keras.distribution.set_distribution(keras.distribution.DataParallel())
    return contextlib.nullcontext()


def build():
    """The digits network, its BatchNorms taking their statistics over all devices."""
    import keras

    from digits_data import build_digits_resnet

    model = build_digits_resnet(widths=tuple(map(int, FLAGS.widths)))
    if keras.backend.backend() == "tensorflow":
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True
    return model


def make_model():
    """The network, compiled; call it inside the strategy's scope."""
    import keras

    import kprune.compat

    model = kprune.compat.fix_multiworker_fit(build())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), loss, metrics=["accuracy"])
    return model


def make_callbacks(data) -> list:
    """The callback that prunes, as the flags say, and after it the penalty."""
    import kprune

    if FLAGS.criterion == "similarity":
        pruning = kprune.SimilarityPruning(FLAGS.target_flops)
    else:
        pruning = kprune.GradualPruning(FLAGS.criterion, FLAGS.target_flops, data=data)
    return [pruning, kprune.BatchNormPenalty(FLAGS.penalty)] if FLAGS.penalty else [pruning]


def load_images():
    """Training and test images, of which the devices get as many each: JAX wants that of every batch, the last too."""
    from digits_data import load_digits_images

    (x, y), (x_test, y_test) = load_digits_images()
    count, test_count = (n // FLAGS.devices * FLAGS.devices for n in (min(FLAGS.images, len(x)), len(x_test)))
    return (x[:count], y[:count]), (x_test[:test_count], y_test[:test_count])


def train():
    """Trains and prunes, on one worker of however many.

    Returns:
      The trained model, masked and on all devices, and the plan.
    """
    (x, y), test = load_images()
    with make_scope():
        model = make_model()
    callbacks = make_callbacks((x[:64], y[:64]))
    # Every worker must see the images in the same order: not shuffled here, since the digits came shuffled.
    options = {"batch_size": FLAGS.batch, "epochs": FLAGS.epochs, "shuffle": False, "verbose": 0}
    model.fit(x, y, validation_data=test, callbacks=callbacks, **options)
    return model, callbacks[0].plan


def finish(model, plan):
    """Prints the accuracy on the test images, evaluated on all devices before the strip, and writes the files."""
    import kprune

    _, accuracy = model.evaluate(*load_images()[1], batch_size=FLAGS.batch, verbose=0)
    name, removed = f"{FLAGS.strategy}, worker {worker_index()}", 1 - plan.flops[1] / plan.flops[0]
    print(f"{FLAGS.criterion}, {name}: {removed:.2%} of the FLOPs removed, accuracy {accuracy:.2%}", flush=True)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / f"plan{file_suffix()}.json")
    kprune.strip(model).save(folder / f"pruned{file_suffix()}.keras")


def start_workers():
    """Runs this script once per worker on this machine, as a launcher does on a cluster."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(FLAGS.devices)]
    workers = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    processes = []
    for index in range(FLAGS.devices):
        place = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
        processes.append(subprocess.Popen([sys.executable, *sys.argv], env=os.environ | {"TF_CONFIG": place}))
    sys.exit(max(abs(process.wait()) for process in processes))


def worker_index() -> int:
    """Which worker this is."""
    return json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)


def file_suffix() -> str:
    """What tells the files of this worker from those of the first."""
    return f"_{worker_index()}" if worker_index() else ""


def prepare():
    """Starts the workers, or the devices, that the strategy needs."""
    if FLAGS.strategy == "multiworker" and "TF_CONFIG" not in os.environ:
        start_workers()
    if FLAGS.strategy == "data_parallel":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={FLAGS.devices}"


def main(_):
    logging.set_verbosity(logging.WARNING)
    prepare()
    finish(*train())


if __name__ == "__main__":
    app.run(main)
