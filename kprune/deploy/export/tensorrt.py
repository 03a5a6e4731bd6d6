"""A Keras model as a SavedModel whose layers TensorRT computes (TF-TRT), where TensorFlow can make one."""

import pathlib

import keras

from kprune.deploy.export.check import Export, compare, reason
from kprune.deploy.export.metadata import SAVED_MODEL_FILE, dump
from kprune.deploy.export.saved_model import MARK, folder_bytes, temporary_folder, write_checked
from kprune.deploy.export.source import RANDOM_SAMPLES, Source
from kprune.deploy.runtimes.base import quiet
from kprune.deploy.runtimes.samples import Samples, in_batches, random_samples
from kprune.deploy.runtimes.saved_model import open_saved_model
from kprune.utils.errors import ExportError, OptionError
from kprune.utils.files import write_folder_by_rename

PRECISIONS = ("FP32", "FP16", "INT8")
WORKSPACE_BYTES = 1 << 30


def export_tftrt(
    model: keras.Model,
    path,
    *,
    precision: str = "FP16",
    representative_data=None,
    batch_size: int = 1,
    min_segment_size: int = 3,
    overwrite: bool = True,
) -> Export:
    """Writes a Keras model as a SavedModel that runs in TensorRT, built for the GPU of this machine.

    The engines are built here and hold for GPUs of this kind and this TensorRT only. Where TensorFlow has no TensorRT,
    as everywhere in TensorFlow 2.18 and later, the error says what to run on the device instead.

    Args:
      model: a built model with known inputs (functional or sequential), on the TensorFlow backend.
      path: the folder to write. It appears whole, and only after the check.
      precision: "FP32", "FP16" or "INT8".
      representative_data: typical inputs, as in `export_tflite`; "INT8" learns the ranges from them; model and folder
        are compared on them. Default: 16 random normal inputs, for the comparison.
      batch_size: samples that one run takes.
      min_segment_size: the fewest operations that are worth an engine.
      overwrite: whether an existing SavedModel may be replaced.

    Returns:
      What was written and how close it is to the model. "FP16" and "INT8" may differ by any amount: look at it.

    Raises:
      OptionError: an unknown `precision`, no data for "INT8", or data that does not fit the model.
      ModelError: a model without known inputs, another backend than TensorFlow, or outputs that are not finite.
      ExportError: TensorFlow has no TensorRT or sees no GPU, the conversion failed, or `path` cannot be written.

    Example:
      >>> print(kprune.export_tftrt(small, "small_tftrt", precision="FP16"))
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision is {precision!r}.", f"One of {PRECISIONS}.", "Pass one of these.")
    source = Source(model, batch_size)
    data = source.read(representative_data, "representative_data")
    if precision == "INT8" and data is None:
        raise OptionError(
            'precision="INT8" came without representative_data.',
            "A few hundred typical inputs.",
            "Pass representative_data=x_train[:200].",
        )
    check = data or random_samples(source.inputs, RANDOM_SAMPLES)
    _need_tensorrt(path, precision)
    closeness = []

    def write(temporary: pathlib.Path) -> None:
        _convert(source, temporary, precision, check, min_segment_size)
        exact = precision == "FP32"
        closeness.extend(compare(source, lambda: open_saved_model(temporary), check, "TF-TRT SavedModel", exact))

    path = write_folder_by_rename(path, write, MARK, overwrite)
    count = len(next(iter(check.values())))
    return Export(path, f"TF-TRT {precision}", folder_bytes(path), *closeness, count)


def missing_for_tensorrt() -> str | None:
    """What this machine lacks for TF-TRT, in words, or None. Asks for the capability: trt_convert imports anywhere."""
    import tensorflow as tf

    if not tf.sysconfig.get_build_info().get("is_tensorrt_build"):
        return f"TensorFlow {tf.__version__} is built without TensorRT"
    if not tf.config.list_physical_devices("GPU"):
        return f"TensorFlow {tf.__version__} sees no GPU"
    return None


def _need_tensorrt(path, precision: str) -> None:
    missing = missing_for_tensorrt()
    if missing is not None:
        raise ExportError(
            f"{pathlib.Path(path).name} cannot be converted by TF-TRT here: {missing}.",
            "A machine such as a Jetson with NVIDIA's TensorFlow.",
            "Write the model with kprune.export_saved_model, copy the folder and tools/jetson_benchmark.py to the "
            f"device, and run there: python3 jetson_benchmark.py FOLDER --tftrt={precision}",
        )


def _convert(source: Source, folder: pathlib.Path, precision: str, samples: Samples, min_segment_size: int) -> None:
    from tensorflow.python.compiler.tensorrt import trt_convert

    def batches():
        for batch in in_batches(samples, source.batch or 1):
            yield [batch[spec.name] for spec in source.inputs]

    with temporary_folder() as plain:
        write_checked(source, pathlib.Path(plain))
        try:
            with quiet():
                converter = trt_convert.TrtGraphConverterV2(
                    input_saved_model_dir=plain,
                    precision_mode=precision,
                    max_workspace_size_bytes=WORKSPACE_BYTES,
                    minimum_segment_size=min_segment_size,
                )
                if precision == "INT8":
                    converter.convert(calibration_input_fn=batches)
                else:
                    converter.convert()
                converter.build(input_fn=lambda: iter([next(batches())]))
                converter.save(str(folder))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ExportError(
                f"{source.name} could not be converted by TF-TRT ({precision}): {reason(error)}.",
                "A model and a TensorRT that fit together.",
                "Try precision='FP32', a larger min_segment_size, or export_onnx and trtexec.",
            ) from error
    file = folder / SAVED_MODEL_FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(dump(source.description() | {"precision": precision}) + "\n", encoding="utf-8")
