"""How many filters a layer may keep: multiples of a number, or the widths that a runtime's kernels are made for."""

from dataclasses import dataclass

import numpy as np

from kprune.utils.checks import is_whole
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class Preset:
    """The widths that suit a runtime.

    Attributes:
      steps: pairs `(up_to, step)`: up to this width multiples of this step, `None`: all above.
      source: where this is from.
    """

    steps: tuple[tuple[int | None, int], ...]
    source: str

    def widths(self, filters: int) -> np.ndarray:
        """Which of `0..filters` fit, bool."""
        count, fits, begin = np.arange(filters + 1), np.zeros(filters + 1, dtype=bool), 0
        for up_to, step in self.steps:
            end = filters if up_to is None else up_to
            fits |= (count > begin) & (count <= end) & (count % step == 0)
            begin = end
        return fits


XNNPACK = "measured with LiteRT 2.3 (XNNPACK) on x86 with AVX-512, docs/results/alignment.md"
TENSORRT = "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/data-format-desc.html"
PRESETS = {
    "litert": Preset(((16, 16), (None, 32)), XNNPACK),
    "litert-int8": Preset(((None, 16),), XNNPACK),
    "onnxruntime": Preset(((None, 16),), "measured with onnxruntime 1.31 on AVX-512, docs/results/alignment.md"),
    "tensorrt-fp16": Preset(((None, 8),), f"NHWC8, vectors of 8 channels: {TENSORRT}"),
    "tensorrt-int8": Preset(((None, 32),), f"NC/32HW32, vectors of 32 channels: {TENSORRT}"),
}


def check_rounding(round_to):
    """Refuses what is neither a step nor a preset.

    Raises:
      OptionError: it is neither.
    """
    if isinstance(round_to, str) and round_to not in PRESETS:
        raise OptionError(
            f"round_to is {round_to!r}.", f"A whole number, or one of {', '.join(PRESETS)}.", "Pass round_to=8."
        )
    if not isinstance(round_to, str) and not is_whole(round_to, 1):
        raise OptionError(f"round_to is {round_to!r}.", "A whole number of at least 1.", "Pass round_to=8.")


def rounded_widths(round_to: int | str, filters: int) -> np.ndarray:
    """Which numbers of filters a layer may keep, bool `[filters + 1]`; all of them always.

    Args:
      round_to: a step, or the name of a preset.
      filters: how many it has.
    """
    preset = PRESETS[round_to] if isinstance(round_to, str) else Preset(((None, int(round_to)),), "")
    fits = preset.widths(filters)
    fits[filters] = True
    return fits


def next_width(widths: np.ndarray, count: int) -> int:
    """The smallest width from `count` on, or the largest number there is."""
    found = np.flatnonzero(widths[count:])
    return count + int(found[0]) if len(found) else len(widths) - 1
