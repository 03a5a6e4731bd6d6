"""How far plans agree on what goes."""

import numpy as np

from kprune.report.plots import style
from kprune.selection import Plan
from kprune.utils.errors import OptionError


def removed_filters(plan: Plan) -> list[np.ndarray]:
    """Per layer that may lose filters, bool `[N]`, True = removed."""
    return [
        ~np.isin(np.arange(entry.filters), entry.keep, assume_unique=True)
        for entry in plan.layers
        if entry.reason is None
    ]


def check_comparable(plans: dict[str, Plan]):
    """Checks that plans are of one network and that each removes something.

    Raises:
      OptionError: they are not, one removes nothing, or there are fewer than two.
    """
    if len(plans) < 2:
        raise OptionError(f"There are {len(plans)} plans.", "At least two.", "Pass {'similarity': plan, 'l1': other}.")
    networks = {name: [(entry.path, entry.filters) for entry in plan.layers] for name, plan in plans.items()}
    first, layers = next(iter(networks.items()))
    for name, plan in plans.items():
        if networks[name] != layers:
            raise OptionError(
                f"The plans '{first}' and '{name}' are for different networks.",
                "Plans for one network.",
                "Make both with plan_pruning(model, ...).",
            )
        if not any(removed.any() for removed in removed_filters(plan)):
            raise OptionError(f"The plan '{name}' removes nothing.", "Plans that remove filters.", "Raise its target.")


def plan_overlap(plans: dict[str, Plan]) -> np.ndarray:
    """The Jaccard index of what plans remove: filters that both remove over filters that either removes.

    Args:
      plans: plans for one network, by name.

    Returns:
      float64 `[plans, plans]`, symmetric, one on the diagonal.

    Raises:
      OptionError: fewer than two plans, plans for different networks, or one that removes nothing.

    Example:
      >>> plans = {name: kprune.plan_pruning(model, 0.5, criterion=name) for name in ("l1", "random")}
      >>> kprune.plots.plan_overlap(plans)
      array([[1.  , 0.34], [0.34, 1.  ]])
    """
    check_comparable(plans)
    removed = np.stack([np.concatenate(removed_filters(plan)) for plan in plans.values()]).astype(float)
    both = removed @ removed.T
    counts = removed.sum(axis=1)
    return both / (counts[:, None] + counts[None, :] - both)


def chance_overlap(plans: dict[str, Plan]) -> np.ndarray:
    """What `plan_overlap` would be, about, if each plan took as many filters of each layer, but at random.

    Returns:
      float64 `[plans, plans]`: expected common filters over expected joint ones.

    Raises:
      OptionError: see `plan_overlap`.
    """
    check_comparable(plans)
    sizes = np.array([len(removed) for removed in removed_filters(next(iter(plans.values())))], dtype=float)
    rates = np.stack([[removed.mean() for removed in removed_filters(plan)] for plan in plans.values()])
    both = np.einsum("l,al,bl->ab", sizes, rates, rates)
    counts = rates @ sizes
    return both / (counts[:, None] + counts[None, :] - both)


def plot_overlap(plans: dict[str, Plan], path):
    """A matrix of how far plans agree on what goes, with what chance alone would give.

    Args:
      plans: plans for one network, by name; for a fair picture, of one budget.
      path: a picture file; its suffix is the format.

    Returns:
      The path.

    Raises:
      OptionError: see `plan_overlap`; or matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> names = ["similarity", "l1", "geometric_median", "random"]
      >>> plans = {name: kprune.plan_pruning(model, 0.5, criterion=name) for name in names}
      >>> kprune.plots.plot_overlap(plans, "overlap.png")
    """
    found, chance = plan_overlap(plans), chance_overlap(plans)
    size = 0.85 * len(plans)
    figure = style.new_figure(max(size, 3.4) + 2.6, max(0.62 * len(plans), 2.4) + 1.6)
    axes = figure.subplots()
    figure.colorbar(draw_overlap(axes, list(plans), found, chance), ax=axes, label="Jaccard index (%)")
    axes.set_title(
        "Removed filters in common\n(in brackets: by chance, at the same rates per layer)", fontsize="medium"
    )
    return style.save_figure(figure, path)


def draw_overlap(axes, names: list[str], found: np.ndarray, chance: np.ndarray):
    """The matrix with its numbers, in percent."""
    image = axes.imshow(100 * found, cmap=style.SEQUENTIAL, vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(*found.shape):
        text = f"{100 * found[row, column]:.0f}"
        if row != column:
            text += f"\n({100 * chance[row, column]:.0f})"
        color = "black" if found[row, column] > 0.55 else "white"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=style.SMALL + 1)
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    return image
