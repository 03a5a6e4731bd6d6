"""Algorithm 1 of Wu 2023 on a trained ResNet, with training after each round: its record, and Fig. 4 C and D from it.

    python examples/reproduction/rounds.py --weights=resnet20_cifar10_jpeg.npz --data_dir=cifar10_jpeg.npz --epochs=1

Each round trains on the first `--train_images`, and is measured on the last 5,000 training images, which it does not
see; the test images are looked at once, at the end. A run that was killed goes on from its last whole round.
"""

import json
import pathlib
import sys

import keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import kprune  # noqa: E402
from cifar10_data import load_cifar10, training_dataset  # noqa: E402
from cifar10_resnet import fine_tune, require_weights  # noqa: E402
from cifar_resnet import accuracy, load_network  # noqa: E402

VALIDATION = 5000
FLAGS = flags.FLAGS
flags.DEFINE_string("picture", "results/rounds.png", "The picture that is drawn.")


def main(_):
    require_weights()
    keras.utils.set_random_seed(FLAGS.seed)
    (x_train, y_train), (x_test, y_test) = load_cifar10(FLAGS.data_dir)
    held_out = x_train[-VALIDATION:].astype("float32"), y_train[-VALIDATION:]
    x_train, y_train = (data[:-VALIDATION][: FLAGS.train_images] for data in (x_train, y_train))
    model = load_network(FLAGS.weights, FLAGS.depth)

    def fit(small):
        training = training_dataset(x_train, y_train, FLAGS.batch, FLAGS.seed)
        history = fine_tune(small, training, FLAGS.epochs, FLAGS.learning_rate)
        return {"accuracy": history["accuracy"][-1], "val_accuracy": accuracy(small, *held_out)}

    folder = pathlib.Path(FLAGS.output)
    run = kprune.prune_iteratively(model, fit, FLAGS.target_flops, criterion=FLAGS.criterion, directory=folder)
    run.record.save(folder / "record.json")
    kprune.plots.plot_rounds(run.record.history, FLAGS.picture, metrics=("val_accuracy",))
    networks = {"before": model, "after": run.model}
    x_test = x_test.astype("float32")
    found = {name: accuracy(one, x_test, y_test) for name, one in networks.items()}
    print(json.dumps({"rounds": len(run.record), "pruned_flops": run.record.history["pruned_flops"][-1], **found}))


if __name__ == "__main__":
    app.run(main)
