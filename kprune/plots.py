"""Pictures of a pruning run. They need matplotlib (`pip install kprune[examples]`)."""

from kprune.files import write_by_rename
from kprune.plan import Plan

# Okabe and Ito's palette, told apart by colour-blind readers.
KEPT, REMOVED, ACCENT = "#0072B2", "#E69F00", "#009E73"


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
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_run(callback.plan, history.history, "run.png")
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.28 * len(plan.layers) + 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    draw_layers(left, plan)
    draw_epochs(right, history, accuracy)
    return write_by_rename(path, lambda temporary: figure.savefig(temporary, dpi=120))


def draw_layers(axes, plan: Plan):
    """One bar a layer: what stays and what goes."""
    layers = [entry for entry in plan.layers if entry.reason is None]
    names = [entry.path for entry in layers]
    kept = [len(entry.keep) for entry in layers]
    gone = [entry.filters - len(entry.keep) for entry in layers]
    axes.barh(names, kept, color=KEPT, label="kept")
    axes.barh(names, gone, left=kept, color=REMOVED, hatch="///", edgecolor="white", label="removed")
    for place, entry in enumerate(layers):
        axes.annotate(
            f"{entry.rate:.0%}", (entry.filters, place), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("channels")
    axes.set_title("Channels kept per layer (share removed)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)


def draw_epochs(axes, history: dict, accuracy: str):
    """Accuracy and the FLOPs that are left, in percent, over the epochs."""
    epochs = range(1, len(history[accuracy]) + 1)
    axes.plot(epochs, [100 * value for value in history[accuracy]], color=ACCENT, marker="o", label="accuracy")
    left = [100 * (1 - value) for value in history["pruned_flops"]]
    axes.plot(epochs, left, color=KEPT, marker="s", linestyle="--", label="FLOPs left")
    axes.set_ylim(0, 104)
    axes.set_xlabel("epoch")
    axes.set_ylabel("percent")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("Accuracy and FLOPs over the epochs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
