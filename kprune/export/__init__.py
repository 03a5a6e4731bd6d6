"""Files that other runtimes load, each checked against the Keras model that it was made from."""

from kprune.export.tflite import TFLiteExport, export_tflite

__all__ = ["TFLiteExport", "export_tflite"]
