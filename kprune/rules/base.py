"""What a rule is: the four things that kprune must know of an operation, and how rules are found."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.compat.functional import bare_operation
from kprune.rules.channels import Barrier, Channels
from kprune.rules.linear_maps import LinearMap
from kprune.rules.liveness import live_by_ids
from kprune.rules.operators import OperatorConfig
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class Call:
    """One operation applied once.

    Attributes:
      operation: the layer or bare operation.
      path: its name, with those of the nested models around it (`backbone/conv1`).
      arguments: the arguments of the call as Keras recorded them.
      input_shapes, output_shapes: one shape per tensor, in flat order, the batch axis first.
      ids_in, ids_out: one id array per tensor (see `kprune.rules.channels`).
      inputs, outputs: a number for each tensor, the same wherever it is used.
      resting: for each input, whether a removed channel of it is zero (see `Rule.zero_if_removed`).
      stopped: whether it is a barrier: what happens to channels inside is not known.
    """

    operation: object
    path: str
    arguments: object
    input_shapes: tuple[tuple, ...]
    output_shapes: tuple[tuple, ...]
    ids_in: tuple[np.ndarray, ...]
    ids_out: tuple[np.ndarray, ...] = ()
    inputs: tuple[int, ...] = ()
    outputs: tuple[int, ...] = ()
    resting: tuple[bool, ...] = ()
    stopped: bool = False

    @property
    def owner(self) -> int:
        return id(self.operation)


@dataclass(frozen=True)
class Weight:
    """How one variable of a layer follows the channels.

    Attributes:
      name: the variable's name in the layer, such as `kernel`.
      axes: per axis of the variable, the ids that it is sliced by, or None.
      uses: multiply-accumulates per element of the variable for one example; 0 for what is not a kernel.
      reads: the axis that is summed over input channels, or None.
      writes: the axis whose every slice is a filter, or None.
    """

    name: str
    axes: tuple[np.ndarray | None, ...]
    uses: float = 0.0
    reads: int | None = None
    writes: int | None = None


@dataclass(frozen=True)
class Kept:
    """A decision, seen from the ids: `mask` is one boolean per id, True = keep."""

    mask: np.ndarray = field(repr=False)

    def count(self, ids: np.ndarray) -> int:
        return int(self.mask[ids].sum())

    def size(self, ids: np.ndarray, axis: int, full: int) -> int:
        """How long an axis of length `full` is after removal."""
        return self.count(ids.reshape(-1)) if ids.shape[axis] > 1 else full


class Rule:
    """What kprune knows of one family of operations. The methods here are those of a pass-through.

    Attributes:
      config_holds_channels: whether its config or arguments hold a number of channels, so that all calls of one
        operation must agree.
      relevance: how layer-wise relevance propagation passes it: "in_proportion", "pass_on", "transport" (goes where the
        numbers came from), "equal_parts" or "contributions" (of a kernel).
      transparent_to_probes: whether the channels of a layer before it are looked at behind it, after an activation.
      adds: whether it adds its inputs position by position, as a residual stream does.
      normalizes_channels: whether it is a BatchNorm: scales each channel by statistics of the data.
      gives_probabilities: whether its outputs are probabilities.
      separate_inputs: whether its layer takes query, value and key as arguments of their own.
    """

    config_holds_channels = False
    relevance = "in_proportion"
    transparent_to_probes = False
    adds = False
    normalizes_channels = False
    gives_probabilities = False
    separate_inputs = False

    def output_ids(self, call: Call, channels: Channels) -> list[np.ndarray]:
        """The ids of the outputs. May make fresh ids, tie, freeze, or raise `Barrier` with a reason in words."""
        return [call.ids_in[0] for _ in call.output_shapes]

    def zero_if_removed(self, call: Call) -> bool:
        """Whether a removed channel is exactly zero in the outputs of the masked model; of the inputs, `call.resting`
        says it. Where it is, an operation may sum over channels.
        """
        return False

    def sliced_weights(self, call: Call) -> list[Weight]:
        """The variables that are sliced with the channels."""
        return []

    def pruned_config(self, call: Call, kept: Kept) -> dict:
        """The config of the operation after removal."""
        return call.operation.get_config()

    def pruned_arguments(self, call: Call, kept: Kept, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """The arguments of the call after removal; tensors among them are those of the new graph."""
        return args, kwargs

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """For each output, the constant that each position holds whatever the input, NaN where it varies.

        Args:
          call: the call.
          values: the same of each input; arrays that broadcast to the input's shape.
        """
        return [np.full((1,) * len(shape), np.nan) for shape in call.output_shapes]

    def activates(self, call: Call) -> bool:
        """Whether it is an activation, or has one of its own that is not linear."""
        return getattr(call.operation, "activation", None) not in (None, keras.activations.linear)

    def channel_scale(self, layer) -> np.ndarray | None:
        """What a layer that normalizes channels multiplies each of them by, float64; None for any other."""
        return None

    def operator(self, call: Call) -> OperatorConfig | None:
        """What its time on a device depends on but its widths; None where kprune cannot time it by itself."""
        return None

    def sums_over_channels(self, call: Call) -> bool:
        """Whether it sums over channels without weights, so that only a channel of zeros can go unnoticed."""
        return False

    def linear_maps(self, call: Call) -> list[LinearMap]:
        """How its kernels act, those that are a matrix product in which channels are summed over: what a repair fits
        anew, and what tells the cost of a channel.
        """
        return []

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """Which positions of the inputs an output that matters depends on: liveness, carried backwards.

        A rule that says nothing of it listens to everything but for what its ids and weights show: a channel of the
        first input that comes out again matters where it does, and one that a weight is summed over matters where that
        weight is not zero. Whatever else goes in matters as long as anything that comes out does.

        Args:
          call: the call.
          live: for each output a boolean array of the shape of its ids: whether the position matters.
          values: the constants of each input, see `constant_channels`.

        Returns:
          The same for each input, in the shapes of their ids.
        """
        return live_by_ids(self, call, live, values)


_rules: dict[type, Rule] = {}
NOT_COMPUTING = {"compute_mask", "compute_output_shape", "compute_output_spec", "get_config", "from_config"}
NOT_COMPUTING |= {"get_build_config", "build_from_config", "save_own_variables", "load_own_variables"}


def register_rule(*operations: type) -> Callable[[type[Rule]], type[Rule]]:
    """Class decorator: registers a `Rule` for one or more layer or operation classes.

    Args:
      *operations: subclasses of `keras.layers.Layer` or `keras.Operation`.

    Raises:
      OptionError: something else was given.

    Example:
      >>> @kprune.register_rule(MyGatedActivation)
      ... class MyRule(kprune.Rule):
      ...     pass  # every channel passes through; override `output_ids`, `sliced_weights` for more
    """
    for operation in operations:
        if not (isinstance(operation, type) and issubclass(operation, keras.Operation)):
            raise OptionError(f"{operation!r} is not a layer class.", "A class, not an object.", "Pass type(layer).")

    def decorate(rule: type[Rule]) -> type[Rule]:
        _rules.update((operation, rule()) for operation in operations)
        return rule

    return decorate


def bare(*names: str) -> list[type]:
    """The classes of bare operations by name, those that this Keras has."""
    return [found for found in map(bare_operation, names) if found is not None]


def find_rule(operation) -> Rule:
    """The rule of an operation: of its class, or of a base class that it computes as."""
    for cls in type(operation).__mro__:
        if cls in _rules:
            return _rules[cls] if computes_as(type(operation), cls) else NoRule()
    return NoRule()


@functools.cache
def computes_as(derived: type, base: type) -> bool:
    """Whether a class has every method of a base class, but for those that make, load and save it: one that overrides
    `convolution_op` convolves with other weights.
    """
    between = derived.__mro__[: derived.__mro__.index(base)]
    kinds = (property, classmethod, staticmethod)
    own = {name for cls in between for name, value in vars(cls).items() if callable(value) or isinstance(value, kinds)}
    own -= {name for name in own if name.startswith("__") and name != "__call__"} | NOT_COMPUTING
    return not any(hasattr(base, name) for name in own)


class NoRule(Rule):
    """Of an operation that kprune does not know: nothing passes."""

    def output_ids(self, call: Call, channels: Channels) -> list[np.ndarray]:
        raise Barrier(f"kprune has no rule for {type(call.operation).__name__}")


def channel_axis(layer, rank: int) -> int:
    """The channel axis of a layer with a `data_format`."""
    data_format = getattr(layer, "data_format", "channels_last") or keras.config.image_data_format()
    return 1 if data_format == "channels_first" else rank - 1


def map_size(call) -> tuple[int, ...] | None:
    """Height and width of what a call reads, or None where that is no map of known size."""
    shape = call.input_shapes[0]
    if len(shape) != 4 or any(None in other[1:] for other in call.input_shapes):
        return None
    axis = channel_axis(call.operation, 4)
    return tuple(length for index, length in enumerate(shape) if index not in (0, axis))


def require_plain_kernel(layer):
    """Raises Barrier for a layer that computes with something else than its kernel."""
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        raise Barrier("quantized and LoRA layers hold their kernel in another form")


def positions(shape: tuple, axis: int) -> float:
    """How many places a map has, batch and channels left out; NaN where a size is unknown."""
    sizes = [size for index, size in enumerate(shape) if index not in (0, axis % len(shape))]
    return math.nan if None in sizes else float(math.prod(sizes))


def constant_along(ids: np.ndarray, axes, what: str):
    """Checks that no channel lies along the axes on which a layer works.

    Raises:
      Barrier: one does.
    """
    if any(ids.shape[axis] > 1 for axis in axes):
        raise Barrier(f"{what} works along the channel axis")
