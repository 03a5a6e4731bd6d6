"""How all pictures look: colours, figures, files, and heat maps with one row per layer."""

import math

import numpy as np

from kprune.utils.errors import OptionError
from kprune.utils.files import write_by_rename
from kprune.utils.packages import missing_package

# Okabe and Ito's palette, told apart by colour-blind readers; without its yellow, which is lost on white.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
KEPT, REMOVED, ACCENT, THRESHOLD = PALETTE[:4]
MARKERS = "osD^vPX"
SEQUENTIAL = "viridis"
SMALL = 8  # points; the smallest text
MOST_NAMES = 60  # names on one axis


def new_figure(width: float, height: float):
    """A figure without any window.

    Args:
      width, height: in inches.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_package("matplotlib", "which draws pictures", "kprune[plots]") from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure, path):
    """Writes a figure; the suffix of the path is the format.

    Returns:
      The path.

    Raises:
      OptionError: matplotlib does not know the suffix.
      ExportError: the file cannot be written.
    """
    known = figure.canvas.get_supported_filetypes()
    suffix = str(path).rpartition(".")[2].lower()
    if suffix not in known:
        raise OptionError(f"{path} ends in '{suffix}'.", f"One of {sorted(known)}.", "Name it picture.png.")
    from matplotlib import rc_context

    # The same picture gives the same bytes: no date, and no random names inside.
    options = {"metadata": {"Date": None}} if suffix in ("svg", "svgz") else {}
    with rc_context({"svg.hashsalt": "kprune"}):
        return write_by_rename(path, lambda temporary: figure.savefig(temporary, dpi=120, **options))


def plain(axes, grid: str | None = None):
    """Takes away the frame above and to the right; `grid` is the axis whose ticks get faint lines."""
    axes.spines[["top", "right"]].set_visible(False)
    if grid:
        axes.grid(axis=grid, alpha=0.3)
        axes.set_axisbelow(True)


def legend_below(target, handles=None, ncols: int = 2):
    """A legend under a figure, where it covers nothing, of at most so many columns as fit its width."""
    options = {} if handles is None else {"handles": handles}
    for columns in range(ncols, 0, -1):
        legend = target.legend(loc="outside lower center", ncols=columns, frameon=False, **options)
        if columns == 1 or legend.get_window_extent().width <= target.bbox.width:
            return
        legend.remove()


def heatmap_height(rows: int) -> float:
    """Inches that so many rows take so that their names, or every n-th of them, can be read."""
    return 0.17 * min(max(rows, 6), MOST_NAMES)


def every_nth(names: int, most: int = MOST_NAMES) -> int:
    """Of so many names on an axis, each how-manyth is written."""
    return max(1, math.ceil(names / most))


def add_colorbar(figure, image, axes, label: str, height: float):
    """A colour bar of the usual width beside axes of any height, in inches."""
    figure.colorbar(image, ax=axes, label=label, aspect=max(height / 0.16, 1.0), pad=0.02)


def draw_heatmap(axes, values: np.ndarray, rows: list[str], columns: list[str], top: float, most: int = 12):
    """A map with one row per layer.

    Args:
      axes: where.
      values: `[rows, columns]`, in percent.
      rows: names of the layers, from the input on.
      columns: labels.
      top: the value of the last colour.
      most: of more columns, only every n-th is labelled.

    Returns:
      The image, for a colour bar.
    """
    image = axes.imshow(values, aspect="auto", cmap=SEQUENTIAL, vmin=0.0, vmax=top, interpolation="nearest")
    step = every_nth(len(rows))
    axes.set_yticks(range(0, len(rows), step), rows[::step], fontsize=SMALL)
    step = every_nth(len(columns), most)
    axes.set_xticks(range(0, len(columns), step), columns[::step])
    axes.tick_params(length=2)
    return image


def rounded_up(values, step: float = 10.0) -> float:
    """The next round number, in percent, so that a map uses all of its colours; at least `step`."""
    return min(100.0, max(step, step * math.ceil(float(np.nanmax(values, initial=0.0)) / step)))
