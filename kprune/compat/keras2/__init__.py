"""Models of Keras 2 (tf_keras) as models of Keras 3, and back."""

from kprune.compat.keras2.files import load_keras2
from kprune.compat.keras2.from_tf_keras import from_tf_keras
from kprune.compat.keras2.to_tf_keras import to_tf_keras

__all__ = ["from_tf_keras", "load_keras2", "to_tf_keras"]
