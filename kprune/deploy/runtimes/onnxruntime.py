"""Opens and runs ONNX files with onnxruntime."""

import pathlib

import numpy as np

from kprune.deploy.runtimes.base import Runtime, quiet
from kprune.deploy.runtimes.samples import InputSpec, Samples
from kprune.utils.errors import ModelError
from kprune.utils.packages import missing_package

DTYPES = {"float": "float32", "double": "float64"}


class OnnxModel(Runtime):
    """An open ONNX file. Attributes as those of `Runtime`."""

    def __init__(self, session):
        self._session, self._fed, self._results = session, {}, []
        self.inputs = [_input_spec(node) for node in session.get_inputs()]
        self.outputs = [node.name for node in session.get_outputs()]
        sizes = (node.shape[0] for node in session.get_inputs() if node.shape)
        self.batch = max([1, *(size if isinstance(size, int) else 1 for size in sizes)])

    def feed(self, samples: Samples) -> None:
        self._fed = {spec.name: np.ascontiguousarray(samples[spec.name], spec.dtype) for spec in self.inputs}

    def invoke(self) -> None:
        self._results = self._session.run(None, self._fed)

    def fetch(self) -> Samples:
        return dict(zip(self.outputs, self._results, strict=True))


def open_onnx(path, threads: int = 1) -> OnnxModel:
    """Opens an ONNX file on the CPU.

    Raises:
      ModelError: onnxruntime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package("onnxruntime", "", "kprune[export]") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    # Else its threads keep spinning after a run, and slow whatever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        with quiet():
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return OnnxModel(session)
    except Exception as error:  # onnxruntime's own errors share no base class but Exception
        raise ModelError(
            f"{pathlib.Path(path)} could not be opened: {' '.join(str(error).split()).rstrip('.')}.",
            "An ONNX file that onnxruntime can run.",
            "Export the model again with kprune.export_onnx, or update onnxruntime.",
        ) from error


def _input_spec(node) -> InputSpec:
    shape = tuple(size if isinstance(size, int) else None for size in node.shape[1:])
    dtype = node.type[len("tensor(") : -1]
    return InputSpec(node.name, shape, DTYPES.get(dtype, dtype))
