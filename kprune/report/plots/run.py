"""A pruning run at a glance: what each layer kept, and accuracy and FLOPs over the epochs."""

from kprune.report.plots import style
from kprune.selection import Plan
from kprune.utils.errors import OptionError


def plot_run(plan: Plan, history: dict, path, accuracy: str = "val_accuracy"):
    """Channels kept per layer; accuracy and removed FLOPs over the epochs.

    Args:
      plan: the plan.
      history: lists by name, as `History.history`: the accuracy, and `pruned_flops`.
      path: a picture file; its suffix is the format.
      accuracy: the name of the accuracy in `history`.

    Returns:
      The path.

    Raises:
      OptionError: `history` lacks one of its lists; or matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_run(callback.plan, history.history, "run.png")
    """
    missing = {accuracy, "pruned_flops"} - history.keys()
    if missing:
        raise OptionError(
            f"The history has no {' and no '.join(sorted(missing))}.",
            f"Lists by name: '{accuracy}' and 'pruned_flops'.",
            "Pass the history of a fit with validation data and a pruning callback, or name the accuracy.",
        )
    shown = sum(entry.reason is None for entry in plan.layers)
    figure = style.new_figure(11, max(style.heatmap_height(shown), 2.6) + 1.4)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_layers(left, plan)
    draw_epochs(right, history, accuracy)
    style.legend_below(
        figure, [part for axes in (left, right) for part in axes.get_legend_handles_labels()[0]], ncols=4
    )
    return style.save_figure(figure, path)


def plot_layers(plan: Plan, path):
    """Channels kept and removed, one bar per layer that may lose some.

    Args:
      plan: the plan.
      path: a picture file; its suffix is the format.

    Returns:
      The path.

    Raises:
      OptionError: matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_layers(kprune.Plan.load("plan.json"), "layers.png")
    """
    shown = sum(entry.reason is None for entry in plan.layers)
    figure = style.new_figure(7, max(style.heatmap_height(shown), 1.6) + 1.4)
    draw_layers(figure.subplots(), plan)
    style.legend_below(figure)
    return style.save_figure(figure, path)


def draw_layers(axes, plan: Plan):
    """One bar a layer: what stays and what goes."""
    layers = [entry for entry in plan.layers if entry.reason is None]
    kept = [len(entry.keep) for entry in layers]
    gone = [entry.filters - len(entry.keep) for entry in layers]
    places = range(len(layers))
    axes.barh(places, kept, color=style.KEPT, label="kept")
    axes.barh(places, gone, left=kept, color=style.REMOVED, hatch="///", edgecolor="white", label="removed")
    step = style.every_nth(len(layers))
    axes.set_yticks(places[::step], [entry.path for entry in layers[::step]], fontsize=style.SMALL)
    for place, entry in enumerate(layers[::step]):
        spot = (entry.filters, place * step)
        axes.annotate(f"{entry.rate:.0%}", spot, (3, 0), textcoords="offset points", va="center", fontsize=style.SMALL)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.margins(x=0.1)
    axes.set_xlabel("channels")
    axes.set_title("Channels kept per layer (share removed)")
    style.plain(axes)


def draw_epochs(axes, history: dict, accuracy: str):
    """Accuracy and the FLOPs that are left, in percent, over the epochs."""
    epochs = range(1, len(history[accuracy]) + 1)
    axes.plot(epochs, [100 * value for value in history[accuracy]], color=style.ACCENT, marker="o", label="accuracy")
    left = [100 * (1 - value) for value in history["pruned_flops"]]
    axes.plot(epochs, left, color=style.KEPT, marker="s", linestyle="--", label="FLOPs left")
    axes.set_ylim(0, 104)
    axes.set_xlabel("epoch")
    axes.set_ylabel("percent")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Accuracy and FLOPs over the epochs")
    style.plain(axes, "y")
