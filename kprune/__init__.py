"""kprune removes redundant filters from trained Keras models until a budget is met."""

import importlib

from kprune.utils.startup import is_command

__version__ = "0.1.0"

if not is_command():  # which answers --help before it loads Keras
    from kprune import criteria
    from kprune.compat.keras2 import from_tf_keras, load_keras2, to_tf_keras
    from kprune.cost import Cost, LatencyTable, model_cost
    from kprune.criteria import Criterion, DataCriterion, register_criterion
    from kprune.pruning import (
        BatchNormPenalty,
        GradualPruning,
        PruningRecord,
        SimilarityPruning,
        apply_plan,
        find_target,
        plan_pruning,
        plan_rates,
        prune_iteratively,
        prune_model,
        prune_within_accuracy,
        search_space,
        strip,
    )
    from kprune.pruning import callbacks as callbacks
    from kprune.rules import Rule, register_rule
    from kprune.selection import Limits, Plan
    from kprune.surgery import MaskedLayer, recalibrate_batchnorm
    from kprune.utils.errors import (
        ExportError,
        KpruneError,
        MissingPackageError,
        ModelError,
        OptionError,
        PlanError,
        TargetError,
    )

__all__ = [
    # at once
    "prune_model",
    "plan_pruning",
    "apply_plan",
    "plan_rates",
    "search_space",
    "strip",
    "Limits",
    "Plan",
    # while training
    "SimilarityPruning",
    "GradualPruning",
    "BatchNormPenalty",
    # round by round, to an accuracy, to milliseconds
    "prune_iteratively",
    "find_target",
    "prune_within_accuracy",
    "prune_to_latency",
    "PruningRecord",
    # what says which filters go, what layers do to channels, what a model costs
    "criteria",
    "Criterion",
    "DataCriterion",
    "register_criterion",
    "Rule",
    "register_rule",
    "model_cost",
    "Cost",
    "LatencyTable",
    # the pruned model
    "recalibrate_batchnorm",
    "MaskedLayer",
    # to the device
    "export_tflite",
    "export_onnx",
    "export_saved_model",
    "export_tftrt",
    "quantize_aware",
    "read_metadata",
    "benchmark",
    "benchmark_tflite",
    "run_tflite",
    "profile_latency",
    "micro_memory",
    "Stopwatch",
    "CommandStopwatch",
    # before and after
    "Report",
    "Measurement",
    # Keras 2
    "load_keras2",
    "from_tf_keras",
    "to_tf_keras",
    # what went wrong
    "KpruneError",
    "MissingPackageError",
    "ModelError",
    "OptionError",
    "PlanError",
    "TargetError",
    "ExportError",
]

# What needs more than the core, loaded when it is first asked for: {room: names}.
_LATER = {
    "kprune.pruning": ("prune_to_latency",),
    "kprune.deploy": (
        "CommandStopwatch",
        "Stopwatch",
        "benchmark",
        "benchmark_tflite",
        "export",
        "export_onnx",
        "export_saved_model",
        "export_tflite",
        "export_tftrt",
        "micro_memory",
        "profile_latency",
        "quantize_aware",
        "read_metadata",
        "run_tflite",
    ),
    "kprune.report": ("Measurement", "Report", "plots"),
}


# Where the core's own names lie, for the command, which has not imported them above.
_CORE = (
    "kprune.pruning",
    "kprune.selection",
    "kprune.criteria",
    "kprune.cost",
    "kprune.surgery",
    "kprune.rules",
    "kprune.compat.keras2",
    "kprune.utils.errors",
)


def __getattr__(name: str):
    if f"kprune.{name}" in (*_LATER, *_CORE):
        return importlib.import_module(f"kprune.{name}")
    rooms = [room for room, names in _LATER.items() if name in names]
    if name in (*__all__, "callbacks"):
        rooms += _CORE
    for module in map(importlib.import_module, rooms):
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module 'kprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "deploy", "export", "plots", "report"})
