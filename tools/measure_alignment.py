"""Times convolutions at many numbers of channels on this device: which multiples do its kernels want?

  python tools/measure_alignment.py
  python tools/measure_alignment.py --runtimes=litert --runtimes=onnxruntime --size=14 --threads=2

Prints Markdown: microseconds of a 3x3 and a 1x1 conv by output channels, then by input channels, with 64 on the other
side. docs/results/alignment.md has such tables, and the presets of kprune.Limits(round_to=...) that follow from them.
Let nothing else run meanwhile. A mistake gives one line and exit code 2.
"""

import functools

from absl import flags

from kprune.cli import common

NAMES = ["litert", "litert-int8", "onnxruntime"]
RUNTIMES = flags.DEFINE_multi_enum(
    "runtimes", ["litert", "litert-int8"], NAMES, "What runs the layers; may be repeated."
)
WIDTHS = flags.DEFINE_list(
    "widths",
    "4,8,9,15,16,17,24,31,32,33,40,48,49,56,64,65,72,80,95,96,97,112,120,128",
    "Numbers of channels to time.",
)
OTHER = flags.DEFINE_integer("other", 64, "Channels on the other side.", lower_bound=1)
SIZE = flags.DEFINE_integer("size", 28, "Height and width of the map.", lower_bound=1)
THREADS = flags.DEFINE_integer("threads", 1, "CPU threads that one run may use.", lower_bound=1)
SWEEPS = flags.DEFINE_integer("sweeps", 5, "How often everything is measured; the fastest counts.", lower_bound=1)


def main(_) -> None:
    from kprune.deploy.timing.profile import fastest, time_here, time_layer
    from kprune.rules import OperatorConfig

    widths, side = [int(width) for width in WIDTHS.value], (SIZE.value, SIZE.value)
    kinds = [OperatorConfig("conv", side, (k, k), (1, 1), (1, 1), "same") for k in (3, 1)]
    columns = [(name, kind) for name in RUNTIMES.value for kind in kinds]

    def watch(name: str, kind: OperatorConfig, width_in: int, width_out: int) -> float:
        runtime, _, quantize = name.partition("-")
        here = functools.partial(time_here, THREADS.value)
        return time_layer(runtime, quantize or None, here, kind, width_in, width_out)

    for title, pair in (
        ("output", lambda width: (OTHER.value, width)),
        ("input", lambda width: (width, OTHER.value)),
    ):
        points = [(*column, *pair(width)) for width in widths for column in columns]
        ms = fastest(watch, points, SWEEPS.value, None).reshape(len(widths), -1)
        heads = [f"{name} {kind.kernel[0]}x{kind.kernel[1]}" for name, kind in columns]
        print(f"\n| {title} channels | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
        for width, row in zip(widths, ms, strict=True):
            print(f"| {width} | {' | '.join(f'{1000 * x:.1f}' for x in row)} |")
    print(
        f"\nMicroseconds; map of {SIZE.value}x{SIZE.value}, {OTHER.value} channels on the other side, "
        f"{THREADS.value} thread(s)."
    )


if __name__ == "__main__":
    common.run(main)
