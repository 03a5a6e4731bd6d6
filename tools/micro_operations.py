"""Lists which networks TFLite Micro runs as int8 files, and what stops the others.

    python tools/micro_operations.py --networks=MobileNetV2:96,ResNet50:32,unet:32

Names are of keras.applications, or of the small networks below. Weights are random,
BatchNormalizations recalibrated. Needs tflite-micro.
"""

import pathlib
import tempfile

import keras
import numpy as np
from absl import app, flags
from keras import layers

import kprune

NETWORKS = (
    "MobileNet:96,MobileNetV2:96,MobileNetV3Small:96,EfficientNetB0:64,EfficientNetV2B0:64,NASNetMobile:64,VGG16:32,"
    "ResNet50:32,ResNet50V2:32,DenseNet121:32,Xception:71,InceptionV3:75,InceptionResNetV2:75,ConvNeXtTiny:32,"
    "unet:32,unet_transposed:32,lstm:32,gru:32,siamese:32,attention:32,ssd:32,gelu:32,gelu_approximate:32"
)
FLAGS = flags.FLAGS
flags.DEFINE_string("networks", NETWORKS, "names and sizes in pixels")


def conv(x, filters: int, strides: int = 1):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def unet(x, transposed: bool = False):
    """Encoder and decoder, with what the encoder saw beside what the decoder makes of it."""
    first = conv(x, 8)
    second = conv(layers.MaxPooling2D()(first), 16)
    deep = conv(layers.MaxPooling2D()(second), 32)
    for shallow, filters in ((second, 16), (first, 8)):
        grown = layers.Conv2DTranspose(filters, 2, 2)(deep) if transposed else layers.UpSampling2D()(deep)
        deep = conv(layers.Concatenate()([grown, shallow]), filters)
    return layers.Conv2D(1, 1, activation="sigmoid")(deep)


def rows_of(x):
    """An image as a series of its rows."""
    return layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)


def siamese(x):
    """The distance of the features of two halves of an image, by one encoder."""
    half = x.shape[1] // 2
    inputs = keras.Input((half, *x.shape[2:]))
    encoder = keras.Model(inputs, layers.Dense(16)(layers.GlobalAveragePooling2D()(conv(conv(inputs, 8), 16, 2))))
    first, second = encoder(x[:, :half]), encoder(x[:, half:])
    return layers.Dense(1, activation="sigmoid")(keras.ops.norm(first - second, axis=-1, keepdims=True))


def attention(x):
    x = layers.Dense(16)(rows_of(x))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    return layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(x))


def ssd(x):
    """Boxes and classes of two scales, one after another."""
    fine = conv(conv(x, 8, 2), 16, 2)
    boxes, classes = [], []
    for features in (fine, conv(fine, 32, 2)):
        boxes.append(layers.Reshape((-1, 4))(layers.Conv2D(4 * 3, 3, padding="same")(features)))
        classes.append(layers.Reshape((-1, 5))(layers.Conv2D(5 * 3, 3, padding="same")(features)))
    classes = layers.Softmax()(layers.Concatenate(1)(classes))
    return [layers.Concatenate(1)(boxes), classes]


OWN = {
    "unet": unet,
    "unet_transposed": lambda x: unet(x, transposed=True),
    "lstm": lambda x: layers.Dense(10)(layers.LSTM(16, unroll=True)(rows_of(x))),
    "gru": lambda x: layers.Dense(10)(layers.GRU(16, unroll=True)(rows_of(x))),
    "siamese": siamese,
    "attention": attention,
    "ssd": ssd,
    "gelu": lambda x: layers.Dense(10)(layers.Activation("gelu")(conv(x, 8))),
    "gelu_approximate": lambda x: layers.Dense(10)(keras.ops.gelu(conv(x, 8), approximate=True)),
}


def network(name: str, pixels: int) -> keras.Model:
    if name not in OWN:
        return getattr(keras.applications, name)(weights=None, input_shape=(pixels, pixels, 3), classes=10)
    inputs = keras.Input((pixels, pixels, 3))
    return keras.Model(inputs, OWN[name](inputs / 255.0))


def row(name: str, pixels: int) -> str:
    """One line of the table."""
    keras.utils.set_random_seed(0)
    model = network(name, pixels)
    images = np.random.default_rng(0).uniform(0, 255, size=(2, pixels, pixels, 3)).astype("float32")
    model = kprune.recalibrate_batchnorm(model, images)  # files of MobileNets end TFLite Micro without this
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.tflite"
        options = {"quantize": "int8", "io_dtype": "int8", "batch_size": 1, "micro": True}
        try:
            export = kprune.export_tflite(model, path, representative_data=images, **options)
            floats = sorted({found.operator for found in export.float_operations})
            found = f"{kprune.micro_memory(path).arena_bytes / 1000:.0f} kB"
        except kprune.KpruneError as error:
            floats, found = floats if path.exists() else [], error.what.replace(f"{path}: ", "")
    return f"| {name}, {pixels} pixels | {found} | {', '.join(floats)} |"


def main(_) -> None:
    print("| network, int8 | TFLite Micro | in float |\n|---|---|---|")
    for entry in FLAGS.networks.split(","):
        name, _, pixels = entry.partition(":")
        print(row(name, int(pixels)), flush=True)
        keras.backend.clear_session()


if __name__ == "__main__":
    app.run(main)
