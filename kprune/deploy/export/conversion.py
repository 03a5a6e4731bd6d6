"""From a SavedModel to the bytes of a TFLite file: here, or in a process that the converter may end."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import numpy as np

from kprune.deploy.runtimes.samples import Samples

CALIBRATED = ("int8", "int16x8")
LOOPS = ("While", "StatelessWhile")


class ConverterError(RuntimeError):
    """The converter in a process of its own failed. `died` says whether it ended the process."""

    def __init__(self, text: str, died: bool):
        super().__init__(text)
        self.died = died


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a file computes.

    Attributes:
      signatures: the names of the SavedModel's signatures that the file shall have.
      quantize, io_dtype: as in `export_tflite`.
      calibrated: whether ranges are learnt from batches.
    """

    signatures: list[str]
    quantize: str | None
    io_dtype: str
    calibrated: bool


def has_loops(function) -> bool:
    """Whether a traced function loops, as recurrent layers do that are not unrolled."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
    return any(node.op in LOOPS for node in nodes)


def convert(folder, settings: Settings, batches: list[Samples]) -> bytes:
    """Converts the SavedModel in `folder`; `batches` are by the names that inputs have in the file."""
    import tensorflow as tf

    def calibration():
        for batch in batches:
            for name in settings.signatures:
                yield (name, batch) if len(settings.signatures) > 1 else batch

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=settings.signatures)
    _set_quantization(converter, settings)
    if settings.calibrated:
        converter.representative_dataset = calibration
    return converter.convert()


def convert_apart(folder, settings: Settings, batches: list[Samples]) -> bytes:
    """`convert` in a process of its own, which a crash of the converter ends instead of this one.

    Raises:
      ConverterError: the conversion failed, or the process died.
    """
    folder = pathlib.Path(folder)
    arrays = {f"{index}/{name}": array for index, batch in enumerate(batches) for name, array in batch.items()}
    np.savez(folder / "calibration.npz", **arrays)
    (folder / "settings.json").write_text(json.dumps(dataclasses.asdict(settings)))
    environment = os.environ | {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = os.pathsep.join(part or os.getcwd() for part in sys.path)
    command = [sys.executable, "-m", "kprune.deploy.export.conversion", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
    result, reason = folder / "converted.tflite", folder / "reason.txt"
    if done.returncode == 0 and result.is_file():
        return result.read_bytes()
    if reason.is_file():
        raise ConverterError(reason.read_text(), died=False)
    raise ConverterError(f"the converter ended its process with exit code {done.returncode}", died=True)


def main(path: str) -> None:
    """The other process."""
    folder = pathlib.Path(path)
    settings, batches = Settings(**json.loads((folder / "settings.json").read_text())), {}
    with np.load(folder / "calibration.npz") as file:
        for key in file:
            index, _, name = key.partition("/")
            batches.setdefault(int(index), {})[name] = file[key]
    try:
        content = convert(folder, settings, [batches[index] for index in sorted(batches)])
    except Exception as error:  # whatever the converter raises
        (folder / "reason.txt").write_text(str(error).strip() or type(error).__name__)
        raise
    (folder / "converted.tflite").write_bytes(content)


def _set_quantization(converter, settings: Settings) -> None:
    import tensorflow as tf

    if settings.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if settings.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if settings.quantize == "int8" and settings.calibrated:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if settings.quantize == "int16x8":
        wide = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [wide]
    if settings.io_dtype != "float32":
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(settings.io_dtype)


if __name__ == "__main__":
    main(*sys.argv[1:])
