"""What users call to prune a model at once."""

from kprune.graph import trace
from kprune.graph.dead_channels import dead_sets
from kprune.pruning.pipeline import apply_to_graph, check_mode, plan_graph, take_once, with_data
from kprune.selection import Plan
from kprune.selection.targets import Targets
from kprune.surgery import rebuild
from kprune.utils.checks import check_flag


def plan_pruning(
    model,
    target_flops=None,
    *,
    target_params=None,
    target_latency=None,
    latency_table=None,
    criterion=None,
    data=None,
    limits=None,
    strict=False,
    input_shape=None,
) -> Plan:
    """Chooses the filters to remove; changes nothing.

    Args:
      model: a built functional or Sequential `keras.Model`.
      target_flops: the share of the FLOPs (multiply-accumulates of conv and dense layers) to remove, between 0 and 1.
      target_params: the same of the parameters.
      target_latency: the same of the milliseconds of one run on a device, as `latency_table` predicts them; give one
        of the three. Layers then keep widths at which the device's kernels waste nothing, and "reconstruction_error"
        weighs a channel's error against the milliseconds that it saves.
      latency_table: for target_latency: a `LatencyTable` of the device, or the path of one; `kprune.profile_latency`
        and the command `kprune profile` measure it.
      criterion: a name such as "similarity", "l1" or "relevance", or an object such as
        `kprune.criteria.Similarity(...)`; None: "reconstruction_error" where there are data, else "similarity".
      data: for a criterion that looks at data: images, `(images, labels)` where it needs classes, or anything else that
        `fit` takes; read once. A progress bar appears where that takes more than a few seconds, unless
        `keras.config.disable_interactive_logging()` was called.
      limits: `kprune.Limits`, or None.
      strict: whether a layer that stops channels (a barrier) is an error.
      input_shape: for a model that takes inputs of any size, that of one example, such as (224, 224, 3), of several
        inputs a list or dict: what the FLOPs are counted for. None: the size that the first batch of data has.

    Returns:
      A `Plan` that removes a share in `[target, target + 0.01]`, or the closest above it that the channel
        sets and the widths of `limits` allow.

    Raises:
      OptionError: a wrong target, criterion or limit.
      ModelError: the model has no graph, holds NaN, or has barriers and `strict` is set.
      TargetError: the target cannot be reached; says what can and what is frozen.

    Example:
      >>> plan = kprune.plan_pruning(model, target_flops=0.5)
      >>> print(plan.summary())
    """
    criterion = with_data(criterion, data)
    targets = Targets(target_flops, target_params, target_latency, latency_table, input_shape, data)
    return plan_graph(trace(model), targets, criterion, limits, strict)


def apply_plan(model, plan: Plan, mode: str = "hard", data=None):
    """Makes the pruned model of a plan; the given model is only read.

    Args:
      model: the model that the plan was made for (other weights may be in it).
      plan: a `Plan`.
      mode: "hard": a smaller, plain model. "soft": the same shapes, removed weights held at zero by `MaskedLayer`
        wrappers, to be trained on and stripped later. The two compute the same function.
      data: a few hundred images (labels are not needed) from which the weights that stay are repaired by least squares,
        see `kprune.surgery.repair`; None: no repair.

    Returns:
      A `keras.Model` with the same inputs, outputs and names, compiled as `model` is, its optimizer state kept.

    Raises:
      OptionError: an unknown mode, or images that the model cannot take.
      PlanError: the plan does not fit the model.

    Example:
      >>> small = kprune.apply_plan(model, kprune.Plan.load("plan.json"))
    """
    return apply_to_graph(trace(model), plan, mode, data)


def prune_model(
    model,
    target_flops=None,
    *,
    target_params=None,
    target_latency=None,
    latency_table=None,
    criterion=None,
    mode="hard",
    data=None,
    repair=True,
    limits=None,
    strict=False,
    input_shape=None,
):
    """Prunes a trained model to a budget in one call.

    Args:
      model: a built functional or Sequential `keras.Model`; never changed.
      target_flops, target_params, target_latency, latency_table, criterion, limits, strict, input_shape: see
        `plan_pruning`.
      mode: see `apply_plan`.
      data: a few hundred images, from which the weights that stay are repaired by least squares; and what the
        criterion looks at, if it does (with labels where it needs them, see `plan_pruning`).
      repair: whether to repair.

    Returns:
      The pruned `keras.Model`, ready for fine-tuning.

    Raises:
      KpruneError: see `plan_pruning` and `apply_plan`.

    Example:
      >>> small = kprune.prune_model(model, target_flops=0.5, data=x_train[:512])
      >>> small.fit(x_train, y_train, epochs=10)
    """
    check_mode(mode)
    check_flag("repair", repair)
    graph = trace(model)
    data = take_once(graph, criterion, data) if repair else data
    criterion = with_data(criterion, data, repair)
    targets = Targets(target_flops, target_params, target_latency, latency_table, input_shape, data)
    plan = plan_graph(graph, targets, criterion, limits, strict)
    return apply_to_graph(graph, plan, mode, data if repair else None)


def strip(model):
    """Removes every channel that the weights have silenced, exactly: outputs stay what they are.

    It finds the channels by the zeros in the weights, so that it needs neither a wrapper nor a plan; wrappers of soft
    pruning go. A channel that holds a constant other than zero stays, unless no reader listens to it.

    Args:
      model: a built functional or Sequential `keras.Model`, after `SimilarityPruning` or `mode="soft"`, or any
        other that has zeros; never changed.

    Returns:
      The smaller, plain `keras.Model`.

    Raises:
      ModelError: the model has no graph.

    Example:
      >>> model.fit(x, y, callbacks=[kprune.SimilarityPruning(target_flops=0.5)])
      >>> small = kprune.strip(model)
    """
    graph = trace(model)
    return rebuild(graph, ~dead_sets(graph))
