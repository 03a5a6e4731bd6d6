"""Files that other runtimes load, each checked against the Keras model that it was made from."""

from kprune.export._check import Export
from kprune.export._metadata import read_metadata
from kprune.export._operations import FloatOperation
from kprune.export.micro import MicroMemory, micro_memory
from kprune.export.onnx import export_onnx
from kprune.export.saved_model import export_saved_model
from kprune.export.tensorrt import export_tftrt
from kprune.export.tflite import TFLiteExport, export_tflite

__all__ = [
    "Export",
    "FloatOperation",
    "MicroMemory",
    "TFLiteExport",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "export_tftrt",
    "micro_memory",
    "read_metadata",
]
