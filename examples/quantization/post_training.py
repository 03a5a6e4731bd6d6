"""Two ways to 8 bits without training: TensorFlow's converter, and ai-edge-quantizer on the float32 file.

    pip install ai-edge-quantizer
    python examples/quantization/post_training.py --model=small.keras --data_dir=cifar10_jpeg.npz --folder=files
    kprune benchmark files/float32.tflite files/converter_int8.tflite files/quantizer_int8.tflite

The first command prints a Markdown table; time the files on an idle machine.
"""

import pathlib
import sys
import time

import keras
from absl import app, flags

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import kprune  # noqa: E402
from cifar10_data import load_cifar10  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "A Keras file of a CIFAR-10 network.", required=True)
flags.DEFINE_string("data_dir", None, "CIFAR-10 as load_cifar10 takes it.")
flags.DEFINE_integer("images", 512, "Training images, without labels, from which ranges are learnt.")
flags.DEFINE_integer("test_images", 10000, "Test images, from the first.")
flags.DEFINE_string("folder", "results/post_training", "For the files; made if missing.")


def by_converter(model, path, mode, images):
    """A file by kprune's export."""
    data = {"representative_data": images} if mode == "int8" else {}
    kprune.export_tflite(model, path, quantize=mode, batch_size=1, **data)


def by_quantizer(source, path, mode, images):
    """A file by ai-edge-quantizer from a float32 file: static int8, or 8-bit weights with dynamic activations."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(str(source))
    work.load_quantization_recipe(recipe.static_wi8_ai8() if mode == "int8" else recipe.dynamic_wi8_afp32())
    found = None
    if mode == "int8":
        signatures = Interpreter(model_path=str(source)).get_signature_list()
        ((key, ends),) = signatures.items()
        samples = [{ends["inputs"][0]: image[None]} for image in images]
        found = work.calibrate({key: samples}, num_threads=1)
    path.unlink(missing_ok=True)
    work.quantize(found).export_model(str(path))


def main(_):
    (x_train, _), (x_test, y_test) = load_cifar10(FLAGS.data_dir)
    calibration = x_train[:: len(x_train) // FLAGS.images][: FLAGS.images].astype("float32")
    images, labels = x_test[: FLAGS.test_images].astype("float32"), y_test[: FLAGS.test_images]
    model = keras.saving.load_model(FLAGS.model, compile=False)
    wanted = model.predict(images, batch_size=500, verbose=0).argmax(-1)
    folder = pathlib.Path(FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "float32.tflite"
    kprune.export_tflite(model, base, batch_size=1)
    ways = {
        "converter_int8": lambda path: by_converter(model, path, "int8", calibration),
        "quantizer_int8": lambda path: by_quantizer(base, path, "int8", calibration),
        "converter_dynamic": lambda path: by_converter(model, path, "dynamic", calibration),
        "quantizer_dynamic": lambda path: by_quantizer(base, path, "dynamic", calibration),
    }
    print("| file | accuracy | same class as the Keras model | size | seconds to make |\n|---|---|---|---|---|")
    for name, make in {"float32": None, **ways}.items():
        path, begun = folder / f"{name}.tflite", time.monotonic()
        if make:
            make(path)
        took = f"{time.monotonic() - begun:.1f}" if make else ""
        found = kprune.run_tflite(path, images).argmax(-1)
        cells = f"{(found == labels).mean():.2%} | {(found == wanted).mean():.1%} | {path.stat().st_size / 1000:.1f} kB"
        print(f"| {name} | {cells} | {took} |", flush=True)


if __name__ == "__main__":
    app.run(main)
