"""kprune removes redundant filters from trained Keras models until a budget is met."""

from kprune import criteria
from kprune.api import apply_plan, plan_pruning, prune_model, strip
from kprune.benchmark import TFLiteTiming, benchmark_tflite, run_tflite
from kprune.calibration import recalibrate_batchnorm
from kprune.callbacks import BatchNormPenalty, GradualPruning, SimilarityPruning
from kprune.cost import Cost, model_cost
from kprune.criteria import Criterion, DataCriterion, register_criterion
from kprune.errors import ExportError, KpruneError, ModelError, OptionError, PlanError, TargetError
from kprune.export import TFLiteExport, export_tflite
from kprune.iterate import PruningRun, prune_iteratively
from kprune.masking import MaskedLayer
from kprune.plan import Plan
from kprune.record import PruningRecord
from kprune.rules import Rule, register_rule
from kprune.search import Evaluation, TargetSearch, find_target
from kprune.selection import Limits

__version__ = "0.1.0"

__all__ = [
    "BatchNormPenalty",
    "Cost",
    "Criterion",
    "DataCriterion",
    "Evaluation",
    "ExportError",
    "GradualPruning",
    "KpruneError",
    "Limits",
    "MaskedLayer",
    "ModelError",
    "OptionError",
    "Plan",
    "PlanError",
    "PruningRecord",
    "PruningRun",
    "Rule",
    "SimilarityPruning",
    "TFLiteExport",
    "TFLiteTiming",
    "TargetError",
    "TargetSearch",
    "apply_plan",
    "benchmark_tflite",
    "criteria",
    "export_tflite",
    "find_target",
    "model_cost",
    "plan_pruning",
    "prune_iteratively",
    "prune_model",
    "recalibrate_batchnorm",
    "register_criterion",
    "register_rule",
    "run_tflite",
    "strip",
]
