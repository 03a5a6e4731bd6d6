"""Prunes random models and checks that masked equals removed, that targets are met, that costs are exact, and more.

python tools/fuzz.py --examples=5000 --seed=1

The first failure is made as small as hypothesis can and printed as Python code. The properties are those of the tests.
"""

import logging
import pathlib
import sys
import time
import warnings

from absl import flags

from kprune.cli import common

FLAGS = flags.FLAGS
flags.DEFINE_integer("examples", 5000, "How many models.")
flags.DEFINE_integer("seed", 1, "Of the draws.")
flags.DEFINE_bool("shrink", True, "Make the failing model as small as possible before it is printed.")


def as_code(model) -> str:
    """Python code that builds a functional model of the same layers (with new weights)."""
    import keras

    from kprune.compat.functional import functional, nodes

    names, lines = {}, ["import numpy as np", "import keras", ""]
    function = functional(model)
    for tensor in function.inputs:
        names[id(tensor)] = f"x{len(names)}"
        lines.append(f"{names[id(tensor)]} = keras.Input({tuple(tensor.shape[1:])}, dtype={tensor.dtype!r})")
    made = {}
    for node in nodes(function):
        if id(node.operation) not in made:
            made[id(node.operation)] = f"f{len(made)}"
            lines.append(f"{made[id(node.operation)]} = {constructor(node.operation)}")
        shown = [(None, a) for a in node.arguments.args] + list(node.arguments.kwargs.items())
        given = ", ".join((f"{key}=" if key else "") + argument(value, names) for key, value in shown)
        for tensor in node.outputs:
            names[id(tensor)] = f"x{len(names)}"
        left = ", ".join(names[id(tensor)] for tensor in node.outputs)
        lines.append(f"{left} = {made[id(node.operation)]}({given})")
    ends = ", ".join(names[id(tensor)] for tensor in function.outputs)
    begins = ", ".join(names[id(tensor)] for tensor in function.inputs)
    return "\n".join([*lines, f"model = keras.Model([{begins}], [{ends}])  # keras {keras.__version__}"])


def constructor(operation) -> str:
    """Code that makes a layer, a nested model (its own code as a comment) or a bare operation."""
    import keras

    from kprune.compat.functional import is_model

    if is_model(operation):
        inside = as_code(operation).replace("\n", "\n#     ")
        return f"...  # a nested model:\n#     {inside}"
    kind, config = type(operation), operation.get_config()
    config.pop("dtype", None)
    place = (
        f"keras.layers.{kind.__name__}" if isinstance(operation, keras.layers.Layer) else f"keras.src.{kind.__name__}"
    )
    return f"{place}.from_config({config!r})"


def argument(value, names: dict) -> str:
    """An argument of a call, tensors by their names."""
    if id(value) in names:
        return names[id(value)]
    if isinstance(value, (list, tuple)):
        inside = ", ".join(argument(part, names) for part in value)
        return f"[{inside}]" if isinstance(value, list) else f"({inside},)"
    return f"np.{value!r}" if type(value).__name__ == "ndarray" else repr(value)


def main(_):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from properties import check_random

    warnings.simplefilter("ignore")
    logging.getLogger("kprune").setLevel(logging.ERROR)
    last, count, start = {}, [0], time.perf_counter()

    def remember(model):
        last["model"] = model
        count[0] += 1
        if count[0] % 50 == 0:
            print(f"{count[0]} models, {time.perf_counter() - start:.0f} s", flush=True)

    @seed(FLAGS.seed)
    @settings(
        max_examples=FLAGS.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink][: 1 + FLAGS.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def fuzz(data):
        check_random(data, remember)

    try:
        fuzz()
    except BaseException:
        print(as_code(last["model"]))
        raise
    print(f"{count[0]} models, {time.perf_counter() - start:.0f} s: no fault.")


if __name__ == "__main__":
    common.run(main)
