"""Prunes a trained CIFAR-10 ResNet, fine-tunes it, exports it and times it, step by step.

    python examples/cifar10_resnet.py --weights=resnet20_cifar10.npz --depth=20 --target_flops=0.5 --epochs=2

The weights are arrays in PyTorch order (see `cifar_resnet.load_npz`), or any `.keras` file with the same input and
classes.
"""

import json
import pathlib

import keras
from absl import app, flags

import kprune
from cifar10_data import load_cifar10, training_dataset
from cifar_resnet import accuracy, load_network

FLAGS = flags.FLAGS
if "weights" not in FLAGS:  # a test may import this module and tools in one process
    flags.DEFINE_string("weights", None, "Trained weights: an .npz in PyTorch order, or a .keras file.")
    flags.DEFINE_integer("depth", 20, "Depth of the network, for .npz files: 20, 32, 44, 56 or 110.")
    flags.DEFINE_string(
        "data_dir", None, "A folder of tensorflow-datasets, or an .npz with JPEG files; none: download."
    )
    flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs (multiply-accumulates) to remove.")
    flags.DEFINE_string("criterion", "similarity", "What chooses the filters: similarity, l1, random, ...")
    flags.DEFINE_integer("recalibrate", 0, "Recalibrate BatchNorm on so many training images; 0: not at all.")
    flags.DEFINE_integer("epochs", 2, "Epochs of fine-tuning.")
    flags.DEFINE_float("learning_rate", 0.02, "Of fine-tuning: SGD, Nesterov 0.9, cosine decay to zero.")
    flags.DEFINE_integer("batch", 128, "Images per step.")
    flags.DEFINE_integer("seed", 0, "Of the order and the augmentation of the images, and of the random criterion.")
    flags.DEFINE_integer("train_images", None, "Use only the first so many training images.")
    flags.DEFINE_integer("test_images", None, "Use only the first so many test images.")
    flags.DEFINE_bool("tflite", True, "Export float32 TFLite files of both networks and time them.")
    flags.DEFINE_string("output", "results/cifar10_resnet", "Folder for the pruned model, the plan and the results.")


def fine_tune(model, data, epochs, learning_rate, callbacks=()):
    """SGD with Nesterov momentum 0.9, weight decay 1e-4, and a cosine from `learning_rate` to zero."""
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(1, epochs * len(data)))
    softmax = getattr(model.layers[-1], "activation", None) is keras.activations.softmax
    model.compile(
        optimizer=keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax),
        metrics=["accuracy"],
        jit_compile="auto" if keras.backend.backend() != "tensorflow" or _has_gpu() else False,
    )
    return model.fit(data, epochs=epochs, verbose=2, callbacks=list(callbacks)).history


def _has_gpu():
    """On CPUs, TensorFlow's own convolutions train these networks 1.6 times as fast as those that XLA makes."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def require_weights():
    """Refuses to begin without a trained network."""
    if FLAGS.weights is None:
        raise app.UsageError("Pass --weights=FILE: an .npz in PyTorch order, or a .keras file.")


def make_criterion(name, seed):
    return kprune.criteria.Random(seed) if name == "random" else name


def export_and_time(models, folder, images):
    """Writes a TFLite file of each model and times them in turn.

    Returns:
      Per model its size in bytes and its milliseconds per image.
    """
    exports = {
        name: kprune.export_tflite(model, folder / f"{name}.tflite", check_data=images)
        for name, model in models.items()
    }
    timings = kprune.benchmark_tflite(*(export.path for export in exports.values()))
    return {
        name: {
            "bytes": export.size_bytes,
            "median_ms": timing.median_ms,
            "p10_ms": timing.p10_ms,
            "p90_ms": timing.p90_ms,
        }
        for (name, export), timing in zip(exports.items(), timings, strict=True)
    }


def main(_):
    require_weights()
    keras.utils.set_random_seed(FLAGS.seed)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    (x_train, y_train), (x_test, y_test) = load_cifar10(FLAGS.data_dir)
    x_train, y_train = x_train[: FLAGS.train_images], y_train[: FLAGS.train_images]
    x_test, y_test = x_test[: FLAGS.test_images].astype("float32"), y_test[: FLAGS.test_images]

    model = load_network(FLAGS.weights, FLAGS.depth)
    result = {
        name: FLAGS[name].value for name in ("depth", "criterion", "target_flops", "epochs", "learning_rate", "seed")
    }
    result["accuracy_before"] = accuracy(model, x_test, y_test)
    print(f"{model.name}: {result['accuracy_before']:.2%}, {kprune.model_cost(model)}", flush=True)

    criterion = make_criterion(FLAGS.criterion, FLAGS.seed)
    plan = kprune.plan_pruning(model, FLAGS.target_flops, criterion=criterion)
    plan.save(folder / "plan.json")
    print(plan.summary())
    small = kprune.apply_plan(model, plan)
    result["flops"], result["params"] = plan.flops, plan.params
    result["accuracy_pruned"] = accuracy(small, x_test, y_test)
    if FLAGS.recalibrate:
        small = kprune.recalibrate_batchnorm(small, x_train[: FLAGS.recalibrate].astype("float32"))
        result["accuracy_recalibrated"] = accuracy(small, x_test, y_test)
    if FLAGS.epochs:
        fine_tune(small, training_dataset(x_train, y_train, FLAGS.batch, FLAGS.seed), FLAGS.epochs, FLAGS.learning_rate)
        result["accuracy_fine_tuned"] = accuracy(small, x_test, y_test)
    small.save(folder / "pruned.keras")
    if FLAGS.tflite:
        result["tflite"] = export_and_time({"original": model, "pruned": small}, folder, x_test[:64])
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    app.run(main)
