"""kprune removes redundant filters from trained Keras models until a budget is met."""

from kprune import criteria
from kprune.api import apply_plan, plan_pruning, prune_model, strip
from kprune.benchmark import benchmark, benchmark_tflite, run_tflite
from kprune.calibration import recalibrate_batchnorm
from kprune.callbacks import BatchNormPenalty, GradualPruning, SimilarityPruning
from kprune.compat import from_tf_keras, load_keras2, to_tf_keras
from kprune.cost import Cost, model_cost
from kprune.criteria import Criterion, DataCriterion, register_criterion
from kprune.errors import ExportError, KpruneError, ModelError, OptionError, PlanError, TargetError
from kprune.export import (
    Export,
    MicroMemory,
    TFLiteExport,
    export_onnx,
    export_saved_model,
    export_tflite,
    export_tftrt,
    micro_memory,
    read_metadata,
)
from kprune.iterate import PruningRun, prune_iteratively
from kprune.latency import LatencyTable
from kprune.latency_search import LatencySearch, prune_to_latency
from kprune.masking import MaskedLayer
from kprune.plan import Plan
from kprune.profiling import profile_latency
from kprune.quantization import quantize_aware
from kprune.rates import plan_rates
from kprune.record import PruningRecord
from kprune.report import Measurement, Report
from kprune.rules import Rule, register_rule
from kprune.search import Evaluation, TargetSearch, find_target
from kprune.selection import Limits
from kprune.space import LayerSpace, SearchSpace, search_space
from kprune.stopwatch import CommandStopwatch, Stopwatch
from kprune.timings import Benchmark, Ratio, Timing

__version__ = "0.1.0"

__all__ = [
    "BatchNormPenalty",
    "Benchmark",
    "CommandStopwatch",
    "Cost",
    "Criterion",
    "DataCriterion",
    "Evaluation",
    "Export",
    "ExportError",
    "GradualPruning",
    "KpruneError",
    "LatencySearch",
    "LatencyTable",
    "LayerSpace",
    "Limits",
    "MaskedLayer",
    "Measurement",
    "MicroMemory",
    "ModelError",
    "OptionError",
    "Plan",
    "PlanError",
    "PruningRecord",
    "PruningRun",
    "Ratio",
    "Report",
    "Rule",
    "SearchSpace",
    "SimilarityPruning",
    "Stopwatch",
    "TFLiteExport",
    "TargetError",
    "TargetSearch",
    "Timing",
    "apply_plan",
    "benchmark",
    "benchmark_tflite",
    "criteria",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "export_tftrt",
    "find_target",
    "from_tf_keras",
    "load_keras2",
    "micro_memory",
    "model_cost",
    "plan_pruning",
    "plan_rates",
    "profile_latency",
    "prune_iteratively",
    "prune_model",
    "prune_to_latency",
    "quantize_aware",
    "read_metadata",
    "recalibrate_batchnorm",
    "register_criterion",
    "register_rule",
    "run_tflite",
    "search_space",
    "strip",
    "to_tf_keras",
]
