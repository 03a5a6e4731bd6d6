"""Models of Keras 2 (tf_keras) as models of Keras 3, and back."""

from kprune.compat.files import load_keras2
from kprune.compat.from_keras2 import from_tf_keras
from kprune.compat.to_keras2 import to_tf_keras

__all__ = ["from_tf_keras", "load_keras2", "to_tf_keras"]
