"""What Keras does not tell of its optimizers: whose slots are whose, what is not decayed, what is averaged."""


def inner_optimizers(optimizer) -> list:
    """The optimizers that do the steps: inside one that scales the loss, or inside a `MultiOptimizer`."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(inner, "optimizers", [inner]))


def build_optimizer(optimizer, variables: list) -> dict[int, object]:
    """Builds an optimizer and tells which model variable each of its slots belongs to.

    Returns:
      For each slot, by the id of the slot variable, the model variable it was made for.
    """
    reference_of: dict[int, object] = {}

    def recording(original):
        def record(reference_variable, *args, **kwargs):
            slot = original(reference_variable, *args, **kwargs)
            reference_of[id(slot)] = reference_variable
            return slot

        return record

    for inner in inner_optimizers(optimizer):
        object.__setattr__(inner, "add_variable_from_reference", recording(inner.add_variable_from_reference))
    try:
        optimizer.build(variables)
    finally:
        for inner in inner_optimizers(optimizer):
            object.__delattr__(inner, "add_variable_from_reference")
    return reference_of


def copy_decay_exclusions(source, target, twin_of: dict[int, object]):
    """Carries over which variables are excluded from weight decay; `twin_of` maps old variable ids to new ones."""
    for one, other in zip(inner_optimizers(source), inner_optimizers(target), strict=True):
        if hasattr(one, "_exclude_from_weight_decay"):
            kept = (twin_of[key] for key in one._exclude_from_weight_decay if key in twin_of)
            other.exclude_from_weight_decay(var_list=list(kept))
        if hasattr(one, "_exclude_from_weight_decay_pattern"):
            other._exclude_from_weight_decay_pattern = one._exclude_from_weight_decay_pattern


def averages_weights(model) -> bool:
    """Whether the optimizer writes an average over the weights when training ends."""
    return any(getattr(optimizer, "use_ema", False) for optimizer in inner_optimizers(model.optimizer))
