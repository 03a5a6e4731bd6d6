"""Draws how channel ids flow through a residual block: the picture of docs/concepts.md.

python tools/draw_ids.py --output=docs/images/channel_ids.png

It builds a small network, traces it with kprune, and draws the ids and the channel sets that it finds.
"""

import keras
import numpy as np
from absl import app, flags
from keras import layers

from kprune.graph import trace
from kprune.report.plots.style import PALETTE, new_figure, save_figure

OUTPUT = flags.DEFINE_string("output", "docs/images/channel_ids.png", "The picture to write.")

# Where each operation stands, and what is written below its name.
SPOTS = {"stem": (1.3, 0), "conv1": (4.1, 0), "relu": (6.1, 0), "conv2": (8.1, 0), "add": (10.9, 0), "pool": (12.9, 0)}
SPOTS |= {"logits": (14.9, 0)}
WORDS = {"stem": "Conv2D(4)", "conv1": "Conv2D(3)", "relu": "ReLU", "conv2": "Conv2D(4)", "add": "Add"}
WORDS |= {"pool": "average", "logits": "Dense(3)"}
KERNELS = {"stem": 1.3, "conv1": 5.1, "conv2": 9.1, "logits": 13.9}  # where the kernels are drawn
COLOURS = [*PALETTE[:6], "#8A7FD1"]
FROZEN, INK, GONE = "#B8BDC4", "#22262B", 0.16
CHIP, STEP = 0.40, 0.46


def network():
    """A residual block between a stem and a classifier, with so few channels that each can be drawn."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    y = layers.ReLU(name="relu")(layers.Conv2D(3, 3, padding="same", name="conv1")(x))
    y = layers.Conv2D(4, 3, padding="same", name="conv2")(y)
    x = layers.GlobalAveragePooling2D(name="pool")(layers.Add(name="add")([x, y]))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


class Picture:
    """The drawing of a traced network in which one channel set is removed.

    Args:
      graph: the traced network.
      axes: where it is drawn.
      removed: the channel set that goes.
    """

    def __init__(self, graph, axes, removed):
        self.graph, self.axes, self.removed = graph, axes, removed
        free = np.flatnonzero(graph.prunable)
        self.colours = {int(s): COLOURS[i % len(COLOURS)] for i, s in enumerate(free)}

    def chip(self, x, y, channel_set, text="", size=CHIP):
        """One channel: a square in the colour of its set, faint and crossed out where the set goes."""
        from matplotlib.patches import FancyBboxPatch

        gone = channel_set == self.removed
        colour = self.colours.get(int(channel_set), FROZEN)
        style = {"boxstyle": "round,pad=0,rounding_size=0.06", "linewidth": 1.1, "zorder": 3}
        low = x - size / 2, y - size / 2
        self.axes.add_patch(FancyBboxPatch(low, size, size, facecolor="white", edgecolor="none", **style))
        face = {"facecolor": colour, "alpha": GONE if gone else 1.0, "edgecolor": "none"}
        self.axes.add_patch(FancyBboxPatch(low, size, size, **face, **style))
        if gone:
            rim = {"facecolor": "none", "edgecolor": colour, "linestyle": (0, (2, 1.5))}
            self.axes.add_patch(FancyBboxPatch(low, size, size, **rim, **style))
        ink = colour if gone else "white" if int(channel_set) in self.colours else INK
        self.axes.text(x, y - 0.01, text, ha="center", va="center", color=ink, fontsize=8.5, weight="bold", zorder=4)

    def tensor(self, x, y, ids):
        """The ids of a tensor, one below the other."""
        ids = np.unique(ids) if ids.size == 1 else ids.ravel()
        for place, number in enumerate(ids):
            middle = y + ((len(ids) - 1) / 2 - place) * STEP
            self.chip(x, middle, self.graph.sets.set_of[number], str(number))

    def operation(self, name, x, y):
        from matplotlib.patches import FancyBboxPatch

        style = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": "#F3F4F6", "edgecolor": "#9AA1AB"}
        self.axes.add_patch(FancyBboxPatch((x - 0.55, y - 0.36), 1.1, 0.72, linewidth=1.0, zorder=3, **style))
        self.axes.text(x, y + 0.12, name, ha="center", va="center", fontsize=9.5, weight="bold", color=INK, zorder=4)
        self.axes.text(x, y - 0.15, WORDS[name], ha="center", va="center", fontsize=7, color="#5B626C", zorder=4)

    def arrow(self, start, end):
        style = {"arrowstyle": "-|>", "color": "#9AA1AB", "linewidth": 1.3, "mutation_scale": 10, "shrinkA": 0}
        self.axes.annotate("", end, start, arrowprops={**style, "shrinkB": 1}, zorder=1)

    def note(self, x, y, text, **options):
        style = {"ha": "center", "va": "center", "fontsize": 8.5, "color": "#40464E", "linespacing": 1.35}
        self.axes.text(x, y, text, **(style | options))

    def flow(self, y):
        """The operations from left to right, each followed by the ids of its output; the shortcut above."""
        self.arrow((-0.2, y), (0.7, y))
        self.tensor(-0.2, y, self.graph.calls[0].ids_in[0])
        ends = [SPOTS[call.path][0] - 0.58 for call in self.graph.calls[1:]]
        for call, end in zip(self.graph.calls, [*ends, 16.6], strict=True):
            x = SPOTS[call.path][0]
            self.operation(call.path, x, y)
            self.arrow((x + 0.58, y), (end, y))
            self.tensor(x + 1.0, y, call.ids_out[0])
        start, add, top = SPOTS["stem"][0] + 1.0, SPOTS["add"][0], y + 1.75
        line = {"color": "#9AA1AB", "linewidth": 1.3, "zorder": 1, "solid_joinstyle": "round"}
        self.axes.plot([start, start, add, add], [y + 0.95, top, top, y + 0.6], **line)
        self.arrow((add, y + 0.7), (add, y + 0.38))

    def kernel(self, weight, x, y):
        """A kernel as a matrix: rows are the channels that it reads, columns the filters that it writes."""
        writes = weight.axes[weight.writes]
        high, wide = weight.shape[-2:]
        reads = np.full(high, -1) if weight.reads is None else weight.axes[weight.reads]
        size = 0.36
        left, top = x - (wide - 1) * size / 2, y + (high - 1) * size / 2
        for row, column in np.ndindex(high, wide):
            self.cell(left + column * size, top - row * size, size, self.removed in (reads[row], writes[column]))
        for column in range(wide):
            self.chip(left + column * size, top + 0.46, writes[column], size=0.26)
        for row in range(high):
            self.chip(left - 0.46, top - row * size, reads[row], size=0.26)
        kept = [int((sets != self.removed).sum()) for sets in (reads, writes)]
        self.note(x, y + 1.55, weight.path, weight="bold", fontsize=9.5, color=INK)
        self.note(x, y - 1.1, f"{high} x {wide} becomes {kept[0]} x {kept[1]}", fontsize=8)

    def cell(self, x, y, size, gone):
        from matplotlib.patches import Rectangle

        face = {"facecolor": "white" if gone else "#DDE1E6", "edgecolor": "#9AA1AB", "linewidth": 0.8}
        low = x - size / 2, y - size / 2
        self.axes.add_patch(Rectangle(low, size, size, hatch="////" if gone else None, zorder=2, **face))


def draw(graph, path):
    """Draws the network, and writes the picture."""
    figure = new_figure(9.8, 5.5)
    axes = figure.add_subplot()
    axes.set_xlim(-0.8, 16.6)
    axes.set_ylim(-6.0, 3.5)
    axes.set_aspect("equal")
    axes.axis("off")
    tied = graph.calls[4].ids_in
    removed = int(graph.sets.set_of[tied[0].ravel()[2]])
    picture = Picture(graph, axes, removed)
    title = {"ha": "left", "fontsize": 11, "weight": "bold", "color": INK}
    picture.note(-0.5, 3.2, "Every layer that makes channels gives them ids; operations carry the ids along", **title)
    picture.flow(0.35)
    pairs = ", ".join(f"{a} with {b}" for a, b in zip(*(ids.ravel() for ids in tied), strict=True))
    picture.note((SPOTS["stem"][0] + 1 + SPOTS["add"][0]) / 2, 2.4, f"Add ties {pairs}: one colour is one channel set")
    picture.note(-0.2, -0.25, "model input:\nfrozen", fontsize=7.5)
    picture.note(15.9, -0.72, "model output:\nfrozen", fontsize=7.5)
    words = "Removing a set (here the green one) slices every kernel that writes it or reads it"
    picture.note(-0.5, -1.75, words, **title)
    for weight in graph.writers:
        picture.kernel(weight, KERNELS[weight.path], -4.05)
    picture.note(-0.5, -3.24, "writes", fontsize=8, ha="left")
    picture.note(-0.5, -4.05, "reads", fontsize=8, ha="left")
    words = "Each square is one slice of a kernel, 3 x 3 weights in a convolution and one in a dense layer."
    picture.note(-0.5, -5.75, words, fontsize=8, ha="left")
    save_figure(figure, path)


def main(_):
    draw(trace(network()), OUTPUT.value)


if __name__ == "__main__":
    app.run(main)
