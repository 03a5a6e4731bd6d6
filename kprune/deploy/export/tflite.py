"""A Keras model as a TFLite file, in float or quantized, checked with the runtime that will run it."""

import dataclasses
import logging
import pathlib
import re
import tempfile

import keras

from kprune.deploy.export.check import Export, compare
from kprune.deploy.export.conversion import CALIBRATED, Settings, convert, convert_apart, has_loops
from kprune.deploy.export.metadata import add_metadata
from kprune.deploy.export.operations import FloatOperation, float_operations
from kprune.deploy.export.requantization import check_factors
from kprune.deploy.export.source import RANDOM_SAMPLES, Source, save
from kprune.deploy.runtimes.base import SIGNATURE, quiet
from kprune.deploy.runtimes.litert import open_tflite
from kprune.deploy.runtimes.samples import Samples, in_batches, random_samples
from kprune.utils.checks import check_flag
from kprune.utils.errors import ExportError, OptionError
from kprune.utils.files import write_by_rename

# What may go in and out of a file of each kind, floats first.
IO_DTYPES = {
    None: ("float32",),
    "float16": ("float32",),
    "dynamic": ("float32",),
    "int8": ("float32", "int8", "uint8"),
    "int16x8": ("float32", "int16"),
}

logger = logging.getLogger("kprune")


@dataclasses.dataclass(frozen=True)
class TFLiteExport(Export):
    """A TFLite file that was written, and how close it is to its Keras model.

    Attributes:
      path, kind, size_bytes, error, agreement, samples: as those of `Export`.
      quantize: how it computes: None, "float16", "dynamic", "int8" or "int16x8".
      io_dtype: the dtype of its real inputs and outputs.
      float_operations: what computes in float all the same in an "int8" or "int16x8" file, beside the conversions at
        its ends, and why; empty where nothing does, and for files that are to compute in float.
    """

    quantize: str | None
    io_dtype: str
    float_operations: tuple[FloatOperation, ...] = ()

    def __str__(self) -> str:
        lines = [f"in float, in spite of {self.quantize}: {found}" for found in self.float_operations]
        return "\n".join([super().__str__(), *lines])


@dataclasses.dataclass(frozen=True)
class _Options:
    quantize: str | None
    io_dtype: str
    calibration: Samples | None
    micro: bool


def export_tflite(
    model: keras.Model,
    path,
    *,
    quantize: str | None = None,
    representative_data=None,
    check_data=None,
    io_dtype: str = "float32",
    batch_size: int | None = None,
    signatures: dict | None = None,
    micro: bool = False,
    overwrite: bool = True,
) -> TFLiteExport:
    """Writes a Keras model as a TFLite file and runs the file to check it. The model does not change.

    The file says what it was made from: `kprune.read_metadata(path)`. TFLite's converter can end the whole process
    where it quantizes a loop, as of recurrent layers that are not unrolled; there it runs in a process of its own,
    which takes some seconds more, and the crash is an `ExportError`. Other models are converted in this process.

    Args:
      model: a built model with known inputs (functional or sequential), on the TensorFlow backend; or the tf_keras
        model of `quantize_aware`, whose ranges are trained, so that "int8" needs no data.
      path: the file to write. It appears whole, and only after the check.
      quantize: None for float32; "float16" halves the file; "dynamic" stores weights in 8 bits and computes what it can
        in 8 bits; "int8" computes in 8 bits throughout; "int16x8" has activations of 16 bits and weights of 8, which
        is closer to the model and far slower where the runtime has no fast kernels for it.
      representative_data: typical inputs, a few hundred, from which "int8" and "int16x8" learn the ranges: an array,
        for several inputs a list, tuple or dict of arrays, or a finite `tf.data.Dataset` or other iterable of batches.
        Labels in `(x, y)` pairs are dropped.
      check_data: the inputs to compare file and model on, in the same forms. Default: `representative_data`, else 16
        random normal inputs.
      io_dtype: what the file takes and gives: "float32", or with "int8" also "int8" or "uint8" and with "int16x8"
        "int16", for devices without floats. `run_tflite` converts real numbers by the file's own scales.
      batch_size: samples that one run takes; default: that of the model, so any number where it has none.
      signatures: further models on the same inputs that shall be signatures of the same file, by name, such as
        `{"features": keras.Model(model.input, model.get_layer("pool").output)}`; common weights are stored once.
        `model` itself is "serving_default".
      micro: whether operations that TFLite Micro lacks are written as several that it has, of the same values: so far
        the approximate GELU, which takes six in place of one that is faster and closer in LiteRT.
      overwrite: whether an existing file may be replaced.

    Returns:
      What was written and how close it is to the model; with `signatures` the worst of all.

    Raises:
      OptionError: an unknown `quantize`, an `io_dtype` or `batch_size` that does not go with the rest, no data for
        "int8", signatures with other inputs, or data that does not fit the model.
      ModelError: a model without known inputs, another backend than TensorFlow, or outputs that are not finite.
      ExportError: the model cannot be converted, `path` cannot be written, a float32 file differs from the model by
        more than 0.001, or outputs go so far beyond the ranges of an "int8" file that LiteRT would not open it. Nothing
        is left behind.

    Example:
      >>> print(kprune.export_tflite(model, "small.tflite", quantize="int8", representative_data=x_train[:200]))
    """
    sources = _sources(model, batch_size, signatures or {})
    source = sources[SIGNATURE]
    check_flag("micro", micro)
    options = _Options(quantize, io_dtype, source.read(representative_data, "representative_data"), micro)
    _check_options(options, source.legacy)
    check = source.read(check_data, "check_data") or options.calibration
    check = check or random_samples(source.inputs, RANDOM_SAMPLES)
    kind, closeness = f"{quantize or 'float32'} TFLite file", []

    def write(temporary: pathlib.Path) -> None:
        temporary.write_bytes(_convert(sources, options))
        for name, one in sources.items():
            one_signature = name if len(sources) > 1 else None
            open_one = lambda name=one_signature: open_tflite(temporary, signature=name)  # noqa: E731
            closeness.append(compare(one, open_one, check, kind, exact=quantize is None))

    path = write_by_rename(path, write, overwrite)
    errors, agreements = zip(*closeness, strict=True)
    agreement = min((value for value in agreements if value is not None), default=None)
    floats = float_operations(path) if quantize in CALIBRATED else ()
    for found in floats:
        logger.warning("%s of %s computes in float: %s", path.name, source.name, found)
    count = len(next(iter(check.values())))
    return TFLiteExport(path, kind, path.stat().st_size, max(errors), agreement, count, quantize, io_dtype, floats)


def _sources(model, batch_size: int | None, signatures: dict) -> dict[str, Source]:
    sources = {SIGNATURE: Source(model, batch_size)}
    for name, other in signatures.items():
        if not re.fullmatch(r"[A-Za-z]\w*", str(name)) or name == SIGNATURE:
            raise OptionError(
                f"signatures has the name {name!r}.", "Letters, digits and _.", "Choose a name such as 'features'."
            )
        sources[name] = Source(other, batch_size)
        if sources[name].inputs != sources[SIGNATURE].inputs:
            raise OptionError(
                f"The signature {name!r} has the inputs {sources[name].inputs}.",
                f"Those of the model: {sources[SIGNATURE].inputs}.",
                "Build it on the same inputs: keras.Model(model.input, ...).",
            )
    return sources


def _check_options(options: _Options, trained_ranges: bool) -> None:
    if options.quantize not in IO_DTYPES:
        raise OptionError(f"quantize is {options.quantize!r}.", f"One of {tuple(IO_DTYPES)}.", "Pass one of these.")
    allowed = IO_DTYPES[options.quantize]
    if options.io_dtype not in allowed:
        raise OptionError(
            f"io_dtype is {options.io_dtype!r} with quantize={options.quantize!r}.",
            f"One of {allowed}.",
            'Pass io_dtype="float32", or quantize="int8" for integers.',
        )
    needs_data = options.quantize in CALIBRATED and not (trained_ranges and options.quantize == "int8")
    if needs_data and options.calibration is None:
        raise OptionError(
            f'quantize="{options.quantize}" came without representative_data.',
            "A few hundred typical inputs, from which the ranges are learnt.",
            'Pass representative_data=x_train[:200], or quantize="dynamic", which needs none.',
        )


def _convert(sources: dict[str, Source], options: _Options) -> bytes:
    """The bytes of the TFLite file."""
    from tensorflow.lite.tools import flatbuffer_utils

    source = sources[SIGNATURE]
    facts = source.description() | {"quantize": options.quantize, "io_dtype": options.io_dtype}
    facts["calibration_samples"] = len(next(iter((options.calibration or {"": ()}).values())))
    calibrated = options.calibration is not None and options.quantize in CALIBRATED
    settings = Settings(list(sources), options.quantize, options.io_dtype, calibrated)
    batches, loops = [], False
    if calibrated:
        batches = [source.renamed(batch) for batch in in_batches(options.calibration, rows=source.batch or 1)]
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            loops = any(map(has_loops, save(sources, folder, options.micro)))
            may_die = loops and calibrated
            content = (convert_apart if may_die else convert)(folder, settings, batches)
    except Exception as error:
        expected, mend = _advice(error, options.quantize, loops)
        raise ExportError(
            f"{source.name} could not be converted to TFLite ({options.quantize or 'float32'}): {_reason(error)}.",
            expected,
            mend,
        ) from error
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    if options.quantize == "int8":
        check_factors(model, source.name)
    add_metadata(model, facts)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _advice(error: Exception, quantize: str | None, loops: bool) -> tuple[str, str]:
    """What was expected of a model that could not be converted, and what can be done."""
    if not loops:
        mend = "Replace the operation that the reason names, or write the model with kprune.export_saved_model."
        return "A model of operations that TFLite has.", mend
    rebuild = "build the recurrent layers with unroll=True and set_weights of the trained ones"
    if quantize in CALIBRATED:
        expected = "Recurrent layers without a loop: TFLite's converter cannot quantize what a loop computes."
        return expected, f'For {quantize}, {rebuild}; else pass quantize="dynamic" and batch_size=1.'
    if "element_shape" in str(error):
        expected = "A fixed batch: TFLite needs to know the size of what a recurrent layer collects."
        return expected, f"Pass batch_size=1; or, for any number of samples, {rebuild}."
    return "A loop that TFLite can run.", f"Pass batch_size=1, or {rebuild}."


def _reason(error: Exception) -> str:
    """What the converter says about the operation at fault, else the first line that it says."""
    text = str(error).strip() or type(error).__name__
    operation = re.search(r"'tfl?\.\w+' op [^\n]+", text)
    return (operation[0] if operation else text.splitlines()[0]).rstrip(" .")
