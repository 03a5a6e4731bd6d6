"""What users call: at once, while training, round by round, to an accuracy, to milliseconds."""

from kprune.pruning.accuracy_search import prune_within_accuracy, top1_accuracy
from kprune.pruning.callbacks import BatchNormPenalty, GradualPruning, SimilarityPruning
from kprune.pruning.one_shot import apply_plan, plan_pruning, prune_model, strip
from kprune.pruning.rates import plan_rates
from kprune.pruning.record import PruningRecord
from kprune.pruning.rounds import PruningRun, prune_iteratively
from kprune.pruning.search_space import LayerSpace, SearchSpace, search_space
from kprune.pruning.target_search import Evaluation, TargetSearch, find_target

__all__ = [
    "BatchNormPenalty",
    "Evaluation",
    "GradualPruning",
    "LatencySearch",
    "LayerSpace",
    "PruningRecord",
    "PruningRun",
    "SearchSpace",
    "SimilarityPruning",
    "TargetSearch",
    "apply_plan",
    "find_target",
    "plan_pruning",
    "plan_rates",
    "prune_iteratively",
    "prune_model",
    "prune_to_latency",
    "prune_within_accuracy",
    "search_space",
    "strip",
    "top1_accuracy",
]


def __getattr__(name: str):
    """What needs `kprune.deploy`, loaded when it is first asked for."""
    if name in ("LatencySearch", "prune_to_latency"):
        from kprune.pruning import latency_search

        return getattr(latency_search, name)
    raise AttributeError(f"module 'kprune.pruning' has no attribute {name!r}")
