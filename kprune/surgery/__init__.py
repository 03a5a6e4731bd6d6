"""The smaller model, or the same with masks; its weights repaired and its BatchNorm statistics measured again."""

from kprune.surgery.batchnorm import recalibrate_batchnorm
from kprune.surgery.least_squares import repair
from kprune.surgery.masks import MaskedLayer, TrainingMasks
from kprune.surgery.rebuild import rebuild

__all__ = ["MaskedLayer", "TrainingMasks", "rebuild", "recalibrate_batchnorm", "repair"]
