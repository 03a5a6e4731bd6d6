"""The memory that TFLite Micro needs for a TFLite file, as TFLite Micro itself plans it."""

import dataclasses
import pathlib
import re
import subprocess
import sys

from kprune.deploy.runtimes.open import kind_of
from kprune.utils.checks import check_whole
from kprune.utils.errors import ModelError, OptionError
from kprune.utils.packages import need_package

PACKAGE = "tflite_micro"
ARENA_BYTES = 1 << 28  # what it may plan in; far more than a microcontroller has
# In a process of its own: the planner prints, and some files end the process.
PROGRAM = """
import sys
from tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2])).print_allocations()
"""


@dataclasses.dataclass(frozen=True)
class MicroMemory:
    """The tensor arena of a file under TFLite Micro, in bytes.

    Attributes:
      activation_bytes: the part that runs share: activations, and what kernels need while they run, after its planner
        has laid them over one another.
      persistent_bytes: the part that stays: quantization parameters, and the structs of tensors and operations. On a
        64-bit machine; microcontrollers have pointers of half the size, and need less here.
    """

    activation_bytes: int
    persistent_bytes: int

    @property
    def arena_bytes(self) -> int:
        """The smallest arena in which the file runs here."""
        return self.activation_bytes + self.persistent_bytes

    def __str__(self) -> str:
        return (
            f"{self.arena_bytes / 1000:.1f} kB of arena under TFLite Micro: {self.activation_bytes / 1000:.1f} kB of "
            f"activations, {self.persistent_bytes / 1000:.1f} kB that stay"
        )


def micro_memory(path, arena_bytes: int = ARENA_BYTES) -> MicroMemory:
    """What memory a TFLite file needs under TFLite Micro. Weights are not in it: they stay in flash.

    The file is opened with the interpreter of TFLite Micro, which plans the arena as on the device; kernels that are
    made for one device (CMSIS-NN, vendors' own) may want other scratch buffers. Needs the package tflite-micro, of
    which there are wheels for Linux on x86-64. Without it `model_cost(model).activation_bytes` is an estimate of the
    first part: in float32, divided by 4 in int8.

    Args:
      path: the file; microcontrollers run "int8" best, `export_tflite(..., io_dtype="int8")`.
      arena_bytes: the largest arena that is tried.

    Returns:
      A `MicroMemory`.

    Raises:
      OptionError: there is no such file, or it needs more than `arena_bytes`.
      ModelError: tflite-micro is not installed, or cannot run the file, such as one with an operation that it lacks.

    Example:
      >>> print(kprune.micro_memory("small.tflite"))
      84.6 kB of arena under TFLite Micro: 49.2 kB of activations, 35.4 kB that stay
    """
    check_whole("arena_bytes", arena_bytes, 1, example=ARENA_BYTES)
    path = pathlib.Path(path)
    if kind_of(path) != "tflite":
        raise ModelError(f"{path} is no TFLite file.", "A .tflite file.", "Export the model with kprune.export_tflite.")
    need_package(PACKAGE, "which has builds for Linux on x86-64", "kprune[micro]")
    command = [sys.executable, "-c", PROGRAM, str(path), str(arena_bytes)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = {part: re.search(rf"allocation {part} (\d+) bytes", done.stdout + done.stderr) for part in ("head", "tail")}
    if done.returncode or None in found.values():
        _refuse(path, arena_bytes, done.stderr, done.returncode)
    return MicroMemory(int(found["head"][1]), int(found["tail"][1]))


def _refuse(path: pathlib.Path, arena_bytes: int, told: str, code: int):
    """The error of a file that TFLite Micro did not open.

    Raises:
      OptionError: the arena is too small.
      ModelError: anything else.
    """
    lines = [line for line in told.splitlines() if line.strip()] or [f"it ended with exit code {code} and no word"]
    if re.search(r"Requested: \d+, available", told):
        raise OptionError(
            f"{path} needs more than {arena_bytes} bytes of arena.",
            "An arena that holds all that is alive at one moment.",
            "Pass a larger arena_bytes, or prune further.",
        )
    lacking = [line for line in lines if "op for builtin opcode" in line]
    at_fault = lacking or [line for line in lines if "supported" in line] or lines[-1:]
    raise ModelError(
        f"TFLite Micro cannot run {path}: {at_fault[0].strip()}.",
        "A whole file of operations that TFLite Micro has.",
        "Replace the operation that the reason names by others; GELU by approximate=True and export_tflite(micro=True)."
        if lacking
        else 'Export the model again with quantize="int8" and io_dtype="int8", or without quantize.',
    )
