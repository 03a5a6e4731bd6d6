"""CIFAR-10 as NumPy arrays, and batches of it with random crops and flips, for any Keras backend.

(x_train, y_train), (x_test, y_test) = load_cifar10()
model.fit(training_dataset(x_train, y_train, batch=128, seed=0), epochs=10)
"""

import io
import itertools
import pathlib

import keras
import numpy as np


def load_cifar10(data_dir=None):
    """Loads CIFAR-10.

    Args:
      data_dir: a folder that tensorflow-datasets prepared, which is read without network; or an `.npz` file with the
        arrays `{train,test}_jpeg` (all JPEG files one after the other), `{train,test}_offset` and `{train,test}_label`;
        or None for the ordinary tensorflow-datasets download.

    Returns:
      `(x_train, y_train), (x_test, y_test)`: images `[n, 32, 32, 3]` uint8, 50,000 and 10,000, and labels `[n]` int64.
    """
    if data_dir is not None and pathlib.Path(data_dir).suffix == ".npz":
        return load_split(data_dir, "train"), load_split(data_dir, "test")
    import tensorflow_datasets as tfds

    # batch_size=-1: a whole split as one tensor, decoded in parallel.
    options = {"split": ["train", "test"], "as_supervised": True, "batch_size": -1, "download": data_dir is None}
    splits = tfds.load("cifar10", data_dir=data_dir, **options)
    return tuple((np.asarray(x), np.asarray(y, "int64")) for x, y in splits)


def load_split(path, split):
    """Returns `(images, labels)` of one split, "train" or "test", of an `.npz` file as `load_cifar10` takes it."""
    from PIL import Image

    with np.load(path) as file:
        data, offset, labels = (file[f"{split}_{name}"] for name in ("jpeg", "offset", "label"))
    images = np.empty((len(labels), 32, 32, 3), "uint8")
    for i, (start, stop) in enumerate(itertools.pairwise(offset)):
        images[i] = Image.open(io.BytesIO(data[start:stop].data))
    return images, labels.astype("int64")


def training_dataset(x, y, batch=128, seed=0):
    """Batches for `model.fit`: reshuffled each epoch, images cropped at random from their 4-pixel padding and flipped.

    Args:
      x: images `[n, height, width, channels]`, any range; the padding is 0.
      y: labels, first axis `n`.
      batch: images per batch; the last batch of an epoch may be smaller.
      seed: the same seed gives the same batches in the same order, whatever the backend and the number of workers.

    Returns:
      A `keras.utils.PyDataset` of `(x, y)` batches, images as float32.
    """
    return _Augmented(x, y, batch, seed)


def augment(images, rng, pad=4):
    """Crops each image at random from its zero-padded self and flips every second one, on average, left to right.

    Args:
      images: `[n, height, width, channels]`.
      rng: a `numpy.random.Generator`.
      pad: pixels of padding on each side.

    Returns:
      An array of the shape and dtype of `images`.
    """
    count, height, width, _ = images.shape
    padded = np.pad(images, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    top, left = rng.integers(0, 2 * pad + 1, (2, count, 1))
    rows = top + np.arange(height)
    columns = left + np.arange(width)
    columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


class _Augmented(keras.utils.PyDataset):
    def __init__(self, x, y, batch, seed):
        super().__init__()
        self.x, self.y, self.batch, self.seed = x, y, batch, seed
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.x) // self.batch)

    def __getitem__(self, index):
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        # A generator of its own for each batch: the order in which workers ask must not matter.
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return augment(self.x[chosen], rng).astype("float32"), self.y[chosen]

    def on_epoch_end(self):
        self.epoch += 1
        self.order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.x))
