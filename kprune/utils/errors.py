"""The errors that kprune raises. Each says what happened, what was expected and how to fix it."""


class KpruneError(ValueError):
    """Base of all errors of kprune.

    Args:
      what: what happened, with the name of the layer or option and its value.
      expected: what kprune expected instead.
      fix: what the user can do about it.

    Example:
      >>> raise KpruneError("target_flops is 50.", "A share between 0 and 1.", "Pass 0.5 to remove half.")
    """

    def __init__(self, what: str, expected: str, fix: str):
        self.what, self.expected, self.fix = what, expected, fix
        super().__init__(f"{what} Expected: {expected} Fix: {fix}")


class OptionError(KpruneError):
    """An argument that kprune cannot work with."""


class ModelError(KpruneError):
    """A model that kprune cannot work with."""


class TargetError(KpruneError):
    """A budget that cannot be reached. `reachable` is the largest share that can be removed, 0..1."""

    def __init__(self, what: str, expected: str, fix: str, reachable: float | None = None):
        super().__init__(what, expected, fix)
        self.reachable = reachable


class PlanError(KpruneError):
    """A plan that does not fit the model, or a plan file that cannot be read."""


class ExportError(KpruneError):
    """A file that could not be written, or that disagrees with the model it was made from."""


class MissingPackageError(ModelError, ImportError):
    """A package that this needs is not installed; says how to install it."""
