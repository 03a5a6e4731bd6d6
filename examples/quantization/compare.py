"""Float, post-training int8 and quantization-aware int8 of a pruned CIFAR-10 ResNet, side by side.

python examples/quantization/compare.py --weights=resnet20_cifar10_jpeg.npz --data_dir=cifar10_jpeg.npz

Three networks: the float network fine-tuned for as long as the quantization-aware one trains, so that the quantization
alone makes the difference; its int8 file from calibration data; the int8 file of the quantization-aware network.
"""

import json
import pathlib
import sys
import tempfile

import keras
import numpy as np
import tf_keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import kprune  # noqa: E402
from cifar10_data import load_cifar10, training_dataset  # noqa: E402
from cifar_resnet import load_network  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("weights", None, "A trained network: an .npz of build_resnet, or a Keras file.", required=True)
flags.DEFINE_string("data_dir", None, "CIFAR-10 as load_cifar10 takes it.")
flags.DEFINE_integer("depth", 20, "Depth of the network in an .npz file.")
flags.DEFINE_float("target_flops", 0.5, "Share of the FLOPs to remove; 0 prunes nothing.")
flags.DEFINE_integer("finetune_steps", 400, "Steps of fine-tuning after pruning, before the comparison begins.")
flags.DEFINE_integer("steps", 200, "Steps of training, with and without quantization.")
flags.DEFINE_float("learning_rate", 0.005, "Learning rate of both.")
flags.DEFINE_integer("test_images", 2000, "Test images, from the first.")
flags.DEFINE_integer("seed", 0, "Seed of shuffling and augmentation.")
flags.DEFINE_string("output", None, "A JSON file for the figures.")


def train(model, package, data, steps, learning_rate):
    """Trains a model of `keras` or `tf_keras` on batches of 128."""
    optimizer = package.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)
    model.compile(optimizer, package.losses.SparseCategoricalCrossentropy(from_logits=True))
    for step in range(steps):
        model.train_on_batch(*data[step % len(data)])
        if (step + 1) % len(data) == 0:
            data.on_epoch_end()


def accuracy(outputs, labels):
    return float((np.asarray(outputs).argmax(-1) == labels).mean())


def compare(model, images, labels, data, calibration):
    """Accuracy of each form of the network, and how often the files say what their network says."""
    quantized = kprune.quantize_aware(model, data=calibration)
    figures = {"quantization-aware, before training": accuracy(quantized.predict(images, 500, verbose=0), labels)}
    train(quantized, tf_keras, data(), FLAGS.steps, FLAGS.learning_rate)
    train(model, keras, data(), FLAGS.steps, FLAGS.learning_rate)
    figures["float"] = accuracy(model.predict(images, batch_size=500, verbose=0), labels)
    with tempfile.TemporaryDirectory() as folder:
        options = {"quantize": "int8", "check_data": images[:200]}
        after = kprune.export_tflite(model, f"{folder}/ptq.tflite", representative_data=calibration, **options)
        aware = kprune.export_tflite(quantized, f"{folder}/qat.tflite", **options)
        for name, export in (("post-training int8", after), ("quantization-aware int8", aware)):
            figures[name] = accuracy(kprune.run_tflite(export.path, images), labels)
            figures[f"{name}, kB"] = export.size_bytes / 1000
            figures[f"{name}, same class as its network"] = export.agreement
    return figures


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    (x_train, y_train), (x_test, y_test) = load_cifar10(FLAGS.data_dir)
    images, labels = x_test[: FLAGS.test_images].astype("float32"), y_test[: FLAGS.test_images]
    calibration = x_train[:256].astype("float32")
    model = load_network(FLAGS.weights, FLAGS.depth)
    figures = {"given": accuracy(model.predict(images, batch_size=500, verbose=0), labels)}
    if FLAGS.target_flops:
        model = kprune.prune_model(model, FLAGS.target_flops)
    train(model, keras, training_dataset(x_train, y_train, 128, FLAGS.seed), FLAGS.finetune_steps, 0.02)
    figures["pruned and fine-tuned"] = accuracy(model.predict(images, batch_size=500, verbose=0), labels)
    later = lambda: training_dataset(x_train, y_train, 128, FLAGS.seed + 1)  # noqa: E731
    figures |= compare(model, images, labels, later, calibration)
    text = json.dumps(figures, indent=1)
    print(text)
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(text + "\n")


if __name__ == "__main__":
    app.run(main)
