"""Which share of each layer is redundant, over the two options of similarity (Wu 2023, Fig. 4 A and B)."""

import numpy as np

from kprune.criteria import Similarity
from kprune.graph import trace
from kprune.report.plots import style
from kprune.report.plots.distances import compared_filters, require_similarity
from kprune.utils.errors import OptionError

# The ranges that Wu 2023 explores.
ALPHAS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1)
RATIOS = (0.25, 0.275, 0.3, 0.325, 0.35, 0.375, 0.4)


def layer_rates(model, option: str, values, criterion=None, layers=None) -> dict[str, np.ndarray]:
    """The share of each layer that one round of similarity finds redundant, each layer by itself (method 1.1).

    Args:
      model: a built functional or Sequential `keras.Model`.
      option: "alpha" or "ratio".
      values: the values that it takes.
      criterion: "similarity", a `kprune.criteria.Similarity` for the other options, or None for its defaults.
      layers: names or patterns of layers; None: all that may lose filters.

    Returns:
      Per layer, from the input on, float64 `[values]`, shares 0..1.

    Raises:
      OptionError: another option or criterion, or a value out of range.
      ModelError: the model has no graph.

    Example:
      >>> kprune.plots.layer_rates(model, "alpha", [0.8, 1.0])
      {'stem_conv': array([0.25, 0.12]), ...}
    """
    compared = compared_filters(trace(model), require_similarity(criterion), layers)
    return rates_of(compared, option, values, criterion)


def rates_of(compared: list, option: str, values, criterion=None) -> dict[str, np.ndarray]:
    """`layer_rates` of filters already read from a model."""
    if option not in ("alpha", "ratio"):
        raise OptionError(f"option is {option!r}.", "'alpha' or 'ratio'.", "Choose one of them.")
    if not len(values):
        raise OptionError(f"There are no values of {option}.", "At least one.", "Pass [0.8, 1.0].")
    config = require_similarity(criterion).get_config()
    variants = [Similarity(**config | {option: value}) for value in values]
    return {
        layer.name: np.array([variant.redundant(layer.filters.T).mean() for variant in variants]) for layer in compared
    }


def plot_rates(model, path, criterion=None, *, alphas=ALPHAS, ratios=RATIOS, layers=None):
    """Maps of the share of each layer that one round finds redundant, over `alpha` and over `ratio`.

    Args:
      model, criterion, layers: see `layer_rates`.
      path: a picture file; its suffix is the format.
      alphas: values of `alpha`, with the criterion's own `ratio`.
      ratios: values of `ratio` (the paper's r), with the criterion's own `alpha`.

    Returns:
      The path.

    Raises:
      OptionError: see `layer_rates`; or matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_rates(model, "rates.png", alphas=[0.8, 1.0, 1.2])
    """
    criterion = require_similarity(criterion)
    compared = compared_filters(trace(model), criterion, layers)
    over = {"alpha": alphas, "ratio": ratios}
    maps = {option: rates_of(compared, option, values, criterion) for option, values in over.items()}
    height = style.heatmap_height(len(compared))
    figure = style.new_figure(7.2, height + 1.3)
    panels = figure.subplots(1, 2, sharey=True)
    top = style.rounded_up([100 * rate.max() for rates in maps.values() for rate in rates.values()])
    titles = {"alpha": f"over α (r = {criterion.ratio:g})", "ratio": f"over r (α = {criterion.alpha:g})"}
    for axes, (option, rates) in zip(panels, maps.items(), strict=True):
        image = draw_rates(axes, rates, over[option], top)
        axes.set_title(titles[option], fontsize="medium")
        axes.set_xlabel("α" if option == "alpha" else "r")
    panels[0].set_ylabel("layer")
    style.add_colorbar(figure, image, panels, "redundant filters of the layer (%)", height)
    figure.suptitle("Share of each layer that one round finds redundant")
    return style.save_figure(figure, path)


def draw_rates(axes, rates: dict[str, np.ndarray], values, top: float = 100.0):
    """One map: a row per layer, a column per value."""
    percent = 100 * np.stack(list(rates.values()))
    return style.draw_heatmap(axes, percent, list(rates), [f"{value:g}" for value in values], top, most=5)
