"""Lists which networks of keras.applications TFLite Micro runs as int8 files, and what stops the others.

    python tools/micro_operations.py --networks=MobileNetV2:96,ResNet50:32

Weights are random, BatchNormalizations recalibrated. Needs tflite-micro.
"""

import pathlib
import tempfile

import keras
import numpy as np
from absl import app, flags

import kprune

NETWORKS = (
    "MobileNet:96,MobileNetV2:96,MobileNetV3Small:96,EfficientNetB0:64,EfficientNetV2B0:64,NASNetMobile:64,VGG16:32,"
    "ResNet50:32,ResNet50V2:32,DenseNet121:32,Xception:71,InceptionV3:75,InceptionResNetV2:75,ConvNeXtTiny:32"
)
FLAGS = flags.FLAGS
flags.DEFINE_string("networks", NETWORKS, "names and sizes in pixels")


def row(name: str, pixels: int) -> str:
    """One line of the table."""
    model = getattr(keras.applications, name)(weights=None, input_shape=(pixels, pixels, 3), classes=10)
    images = np.random.default_rng(0).uniform(0, 255, size=(2, pixels, pixels, 3)).astype("float32")
    model = kprune.recalibrate_batchnorm(model, images)  # files of MobileNets end TFLite Micro without this
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.tflite"
        options = {"quantize": "int8", "io_dtype": "int8", "batch_size": 1}
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
