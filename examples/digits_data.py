"""Real handwritten digits that scikit-learn carries inside, and a small residual network that learns them in seconds.

train, test = load_digits_images()
model = train_digits(build_digits_resnet(), *train)
"""

import keras
import numpy as np
from keras import layers


def load_digits_images(seed=0):
    """Loads scikit-learn's 1,797 digits; nothing is downloaded.

    Args:
      seed: chooses the test images; every digit has the same share of them as of the whole.

    Returns:
      `(x_train, y_train), (x_test, y_test)`: images `[n, 8, 8, 1]` float32 in 0..1, 1,437 and 360, and labels `[n]`
        int64.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images[..., None] / 16).astype("float32")
    labels = digits.target.astype("int64")
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=360, stratify=labels, random_state=seed
    )
    return (x_train, y_train), (x_test, y_test)


def build_digits_resnet(seed=0, widths=(24, 48, 96)):
    """Builds a residual network with projection shortcuts, one block per stage.

    Args:
      seed: of the initial weights; the same seed gives the same weights on any run.
      widths: channels of the stages.

    Returns:
      A functional `keras.Model` from `[8, 8, 1]` images in 0..1 to 10 logits, not compiled.
    """
    seeds = iter(np.random.default_rng(seed).integers(2**31, size=64).tolist())
    inputs = keras.Input((8, 8, 1), name="image")
    # 16x16 gives the convolutions enough work for timings to mean something.
    x = layers.UpSampling2D(2, interpolation="bilinear", name="upsample")(inputs)
    x = layers.ReLU(name="stem_relu")(_conv_bn(x, widths[0], 3, 1, "stem", seeds))
    for stage, width in enumerate(widths, start=1):
        x = _block(x, width, 1 if stage == 1 else 2, f"stage{stage}", seeds)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.GlorotUniform(seed=next(seeds))
    outputs = layers.Dense(10, kernel_initializer=initializer, name="classifier")(x)
    return keras.Model(inputs, outputs, name="digits_resnet")


def train_digits(model, x, y, epochs=8, learning_rate=3e-3, batch=64, **fit_options):
    """Compiles and trains a model of `build_digits_resnet`: Adam, cosine decay to zero.

    Args:
      model: the model; it is trained in place.
      x: images.
      y: labels 0..9.
      epochs: passes over the images.
      learning_rate: at the start.
      batch: images per step.
      **fit_options: more arguments of `model.fit`, such as `callbacks`.

    Returns:
      `model`.
    """
    steps = epochs * -(-len(x) // batch)
    model.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(learning_rate, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=batch, epochs=epochs, **{"verbose": 0, **fit_options})
    return model


def _conv_bn(x, filters, size, stride, name, seeds):
    initializer = keras.initializers.HeNormal(seed=next(seeds))
    conv = layers.Conv2D(
        filters, size, stride, "same", use_bias=False, kernel_initializer=initializer, name=f"{name}_conv"
    )
    return layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(conv(x))


def _block(x, width, stride, name, seeds):
    y = layers.ReLU(name=f"{name}_relu1")(_conv_bn(x, width, 3, stride, f"{name}_1", seeds))
    y = _conv_bn(y, width, 3, 1, f"{name}_2", seeds)
    if stride > 1:
        x = _conv_bn(x, width, 1, stride, f"{name}_shortcut", seeds)
    return layers.ReLU(name=f"{name}_relu2")(layers.Add(name=f"{name}_add")([x, y]))
