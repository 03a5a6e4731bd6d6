"""Embeddings: vectors that are looked up."""

import keras
import numpy as np

from kprune.rules.base import Call, Rule, register_rule


@register_rule(keras.layers.Embedding)
class EmbeddingRule(Rule):
    """Makes channels, of which none goes; nothing is multiplied."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        return [channels.frozen(len(call.output_shapes[0]), f"kprune leaves the vectors of '{call.path}' whole")]
