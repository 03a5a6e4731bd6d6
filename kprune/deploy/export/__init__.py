"""Files that other runtimes load, each checked against the Keras model that it was made from."""

from kprune.deploy.export.check import Export
from kprune.deploy.export.metadata import read_metadata
from kprune.deploy.export.onnx import export_onnx
from kprune.deploy.export.operations import FloatOperation
from kprune.deploy.export.quantization_aware import quantize_aware
from kprune.deploy.export.saved_model import export_saved_model
from kprune.deploy.export.tensorrt import export_tftrt
from kprune.deploy.export.tflite import TFLiteExport, export_tflite

__all__ = [
    "Export",
    "FloatOperation",
    "TFLiteExport",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "export_tftrt",
    "quantize_aware",
    "read_metadata",
]
