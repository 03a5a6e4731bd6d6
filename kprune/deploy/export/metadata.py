"""What a file was made from, written into it, and read back."""

import json
import pathlib

from kprune.deploy.runtimes.open import kind_of
from kprune.utils.errors import KpruneError, ModelError
from kprune.utils.packages import missing_package

KEY = "kprune"
SAVED_MODEL_FILE = pathlib.Path("assets.extra") / "kprune.json"


def read_metadata(path) -> dict:
    """What a file that kprune wrote was made from.

    Args:
      path: a TFLite or ONNX file, or the folder of a SavedModel.

    Returns:
      The name of the model, its parameters, a hash of its weights, inputs, how it was quantized, and the versions of
      what wrote it.

    Raises:
      OptionError: there is no such file.
      ModelError: the file has no such metadata.

    Example:
      >>> kprune.read_metadata("small.tflite")["params"]
      127010
    """
    readers = {"tflite": _read_tflite, "onnx": _read_onnx, "saved_model": _read_saved_model}
    read = readers.get(kind_of(path), lambda _: None)
    try:
        text = read(pathlib.Path(path))
        facts = None if text is None else json.loads(text)
    except KpruneError:
        raise
    except Exception as error:  # whatever the readers of a format raise at a damaged file
        raise ModelError(f"{path} is damaged: {error!r}.", "A whole file.", "Export the model again.") from error
    if facts is None:
        raise ModelError(f"{path} has no metadata of kprune.", "A file that kprune wrote.", "Export the model again.")
    return facts


def add_metadata(model, facts: dict) -> None:
    """Writes `facts` among the metadata of the `ModelT` of a TFLite file."""
    from tensorflow.lite.python import schema_py_generated as schema

    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(dump(facts).encode())
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def dump(facts: dict) -> str:
    return json.dumps(facts, sort_keys=True)


def _read_tflite(path: pathlib.Path) -> str | None:
    try:
        from tensorflow.lite.tools import flatbuffer_utils
    except ImportError as error:
        raise missing_package("TensorFlow", "which reads what TFLite files hold", "tensorflow") from error
    model = flatbuffer_utils.read_model(str(path))
    for entry in model.metadata or []:
        if entry.name in (KEY, KEY.encode()):
            return bytes(model.buffers[entry.buffer].data).decode()
    return None


def _read_onnx(path: pathlib.Path) -> str | None:
    try:
        import onnx
    except ImportError as error:
        raise missing_package("onnx", "which reads what ONNX files hold", "kprune[export]") from error
    found = {entry.key: entry.value for entry in onnx.load(str(path), load_external_data=False).metadata_props}
    return found.get(KEY)


def _read_saved_model(path: pathlib.Path) -> str | None:
    file = path / SAVED_MODEL_FILE
    return file.read_text(encoding="utf-8") if file.is_file() else None
