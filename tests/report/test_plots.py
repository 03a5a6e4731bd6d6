"""What the pictures show is true: the drawn numbers against counts made by other means."""

import ast
import statistics
import sys

import keras
import numpy as np
import pytest
from models import build, chain, dense_block, residual
from random_models import randomize
from slow_similarity import redundant_filters

import kprune
from cifar_resnet import build_resnet, load_npz
from kprune import plots
from kprune.criteria import Similarity
from kprune.graph import trace
from kprune.report.plots import distances, filters, overlap, rates, rounds, style, tradeoff

figures = pytest.importorskip("matplotlib.figure")
FACES = {"kept": style.KEPT, "removed": style.REMOVED}


@pytest.fixture(scope="module")
def model():
    """A narrow CIFAR ResNet with numbers in all weights."""
    return randomize(build_resnet(8, widths=(8, 12, 16)))


@pytest.fixture(scope="module")
def trained(shared):
    return load_npz(build_resnet(20), shared / "models" / "resnet20_cifar10_jpeg.npz")


@pytest.fixture
def axes():
    return figures.Figure().subplots()


def kernel_of(model, name):
    return np.asarray(keras.ops.convert_to_numpy(model.get_layer(name).kernel), dtype=float)


def pairs_of(kernel):
    """Distances of all pairs, one after the other."""
    rows = kernel.reshape(-1, kernel.shape[-1]).T
    return [float(np.sqrt(((a - b) ** 2).sum())) for i, a in enumerate(rows) for b in rows[i + 1 :]]


def hex_colors(patches):
    from matplotlib.colors import to_hex

    return np.array([to_hex(patch.get_facecolor()).upper() for patch in patches])


# Distances


def test_distances_and_threshold_are_those_of_the_kernel(model):
    found = plots.layer_distances(model, Similarity(alpha=0.9))
    assert [layer.name for layer in found] == [
        layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
    ]
    for layer in found:
        pairs = pairs_of(kernel_of(model, layer.name))
        mean, deviation = statistics.fmean(pairs), statistics.pstdev(pairs)
        np.testing.assert_allclose(layer.distances, pairs, rtol=1e-9)
        assert (layer.mean, layer.deviation) == pytest.approx((mean, deviation))
        assert layer.threshold == pytest.approx(mean - 0.9 * deviation)
        assert layer.similar == np.mean(np.array(pairs) < mean - 0.9 * deviation)


def test_the_histogram_has_the_area_of_the_similar_pairs_left_of_the_threshold(trained, axes):
    layer = plots.layer_distances(trained, Similarity(alpha=0.8), layers="stage3_block2_conv1")[0]
    distances.draw_distances(axes, layer)
    area = np.array([bar.get_height() * bar.get_width() for bar in axes.patches])
    similar = hex_colors(axes.patches) == style.REMOVED
    assert area.sum() == pytest.approx(1.0) and area[similar].sum() == pytest.approx(layer.similar)
    bell, threshold = axes.lines
    assert set(threshold.get_xdata()) == {layer.threshold}
    right = max(bar.get_x() + bar.get_width() for bar, s in zip(axes.patches, similar, strict=True) if s)
    assert right == pytest.approx(layer.threshold)
    x, y = bell.get_data()
    assert x[y.argmax()] == pytest.approx(layer.mean, abs=x[1] - x[0])
    assert f"{layer.similar:.0%}" in axes.get_title()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0, 2.9, 4.0, 30.0])
def test_bins_are_few_hold_every_distance_and_part_at_the_threshold(alpha):
    rng = np.random.default_rng(0)
    for name, rows in {"wide": rng.normal(size=(40, 9)), "two": rng.normal(size=(2, 9))}.items():
        layer = distances.distances_of(distances.ComparedFilters(name, rows), Similarity(alpha=alpha))
        edges = distances.bin_edges(layer)
        count, _ = np.histogram(layer.distances, edges)
        assert count.sum() == len(layer.distances) and 1 <= len(count) <= 2 * distances.BINS
        np.testing.assert_allclose(np.diff(edges), edges[-1] - edges[-2])
        assert count[edges[:-1] + np.diff(edges) / 2 < layer.threshold].sum() == round(
            layer.similar * len(layer.distances)
        )


def test_equal_distances_are_drawn_too(axes):
    layer = distances.distances_of(distances.ComparedFilters("same", np.eye(5)), Similarity())
    distances.draw_distances(axes, layer)
    assert sum(bar.get_height() * bar.get_width() for bar in axes.patches) == pytest.approx(1.0)


def test_in_dense_blocks_input_slices_are_compared():
    model = build(dense_block)
    found = {layer.name: layer for layer in plots.layer_distances(model)}
    slices = kernel_of(model, "three").transpose(0, 1, 3, 2)
    own = found["three (inputs)"].distances
    # The last conv of the block reads the stem's 6 channels and 8 of the two convs before it.
    assert len(own) == 14 * 13 // 2
    np.testing.assert_allclose(np.sort(own), np.sort(pairs_of(slices)), rtol=1e-6)


def test_folding_batchnorm_scales_the_filters(model):
    norm = model.get_layer("stage1_block1_bn1")
    gamma, variance = (keras.ops.convert_to_numpy(v) for v in (norm.gamma, norm.moving_variance))
    folded = kernel_of(model, "stage1_block1_conv1") * gamma / np.sqrt(variance + norm.epsilon)
    found = plots.layer_distances(model, Similarity(fold_bn=True), layers="stage1_block1_conv1")
    np.testing.assert_allclose(found[0].distances, pairs_of(folded), rtol=1e-5)


def test_masked_filters_are_left_out():
    model = randomize(build(chain))
    plan = kprune.plan_pruning(model, 0.3)
    kept = {entry.path: len(entry.keep) for entry in plan.layers}
    soft = kprune.apply_plan(model, plan, "soft")
    sizes = {layer.name: len(layer.distances) for layer in plots.layer_distances(soft)}
    assert kept["a"] < 8
    assert all(size == kept[name] * (kept[name] - 1) // 2 for name, size in sizes.items())


# Rates


@pytest.mark.parametrize("guard", [True, False])
def test_rates_are_those_of_redundant(trained, guard):
    options = {"alpha": (0.8, 1.1), "ratio": (0.2, 0.4)}
    for option, values in options.items():
        found = plots.layer_rates(trained, option, values, Similarity(ratio=0.3, guard=guard))
        assert len(found) == 19
        for name, shares in found.items():
            kernel = kernel_of(trained, name)
            for value, share in zip(values, shares, strict=True):
                criterion = Similarity(**({"ratio": 0.3, "guard": guard} | {option: value}))
                assert share == criterion.redundant(kernel).mean()


def test_literal_rates_are_those_of_the_paper_and_fall_with_the_ratio(model, axes):
    values = [0.2, 0.3, 0.4]
    found = plots.layer_rates(model, "ratio", values, Similarity(guard=False))
    for name, shares in found.items():
        slow = [np.mean(redundant_filters(kernel_of(model, name), 1.0, value)) for value in values]
        assert shares.tolist() == slow
    drawn = np.asarray(rates.draw_rates(axes, found, values).get_array())
    np.testing.assert_allclose(drawn, 100 * np.stack(list(found.values())))
    assert (np.diff(drawn, axis=1) <= 0).all() and drawn.max() > 0
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.2", "0.3", "0.4"]


# Rounds


@pytest.fixture
def history():
    return {
        "pruned_flops": [0.2, 0.5],
        "pruned_params": [0.1, 0.4],
        "rates": [{"a": 0.25, "b": 0.0}, {"a": 0.5, "b": 0.125}],
        "val_accuracy": [None, 0.9],
        "ratio": [0.35, 0.3],
    }


def test_lines_start_at_the_whole_network_and_skip_what_was_not_measured(history):
    lines = rounds.lines_of(history, ["val_accuracy", "loss"])
    assert list(lines) == ["FLOPs left", "parameters left", "val accuracy"]
    np.testing.assert_allclose(lines["FLOPs left"][1], [100, 80, 50])
    np.testing.assert_allclose(lines["parameters left"][1], [100, 90, 60])
    assert lines["val accuracy"][0].tolist() == [2] and lines["val accuracy"][1].tolist() == [90]


def test_the_map_of_rounds_has_a_row_per_layer(history, axes):
    image = rounds.draw_round_rates(axes, rounds.rates_by_layer(history))
    assert np.asarray(image.get_array()).tolist() == [[25, 50], [0, 12.5]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]


def test_a_round_without_rates_is_a_gap(history):
    history["rates"][0] = None
    assert rounds.rates_by_layer(history)["a"] == pytest.approx([np.nan, 0.5], nan_ok=True)


def test_the_rounds_of_a_plan_end_at_its_target(model):
    for target in ("flops", "params"):
        plan = kprune.plan_pruning(model, **{f"target_{target}": 0.3})
        before, after = getattr(plan, target)
        found = plots.history_of_plan(plan)[f"pruned_{target}"]
        assert len(found) == len(plan.rounds) and found == sorted(found)
        assert found[-1] == pytest.approx(1 - after / before) and 0.3 <= found[-1] <= 0.4


# Filters


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_twins_are_the_nearest_kept_filters(trained, metric):
    kernel = kernel_of(trained, "stage2_block2_conv2")
    removed = Similarity(ratio=0.25, metric=metric).redundant(kernel)
    twins = plots.find_twins(kernel, removed, metric)
    assert removed.any()
    for j in range(kernel.shape[-1]):
        away = {}
        for k in np.flatnonzero(~removed):
            a, b = kernel[..., j].ravel(), kernel[..., k].ravel()
            cosine = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
            away[k] = np.linalg.norm(a - b) if metric == "euclidean" else cosine
        assert twins.twin[j] == (min(away, key=away.get) if removed[j] else j)
        if removed[j]:
            assert twins.distance[j] == pytest.approx(min(away.values()), abs=1e-7)


def test_removed_filters_and_twins_are_marked_and_numbered(axes):
    removed = np.array([False, True, False, True, False])
    twins = filters.Twins(removed, np.array([0, 2, 2, 2, 4]), np.zeros(5))
    filters.draw_tiles(axes, np.full((5, 3, 3, 3), 0.5), twins, np.arange(5), 3)
    assert [text.get_text() for text in axes.texts] == ["0", "1 → 2", "2", "3 → 2", "4"]
    frames = {(frame.get_x(), frame.get_y()): frame for frame in axes.patches}
    corners = [(image.get_extent()[0], image.get_extent()[3]) for image in axes.images]
    from matplotlib.colors import to_hex

    colors = [to_hex(frames[c].get_edgecolor()).upper() if c in frames else None for c in corners]
    assert colors == [None, style.REMOVED, style.KEPT, style.REMOVED, None]


def test_a_wide_layer_shows_the_closest_removed_filters_with_their_twins():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 90))
    twins = plots.find_twins(kernel, rng.random(90) < 0.5)
    shown = filters.shown_filters(twins, most=20)
    gone = shown[twins.removed[shown]]
    assert 18 <= len(shown) <= 20 and np.isin(twins.twin[gone], shown).all()
    others = np.setdiff1d(np.flatnonzero(twins.removed), gone)
    assert twins.distance[gone].max() <= twins.distance[others].min()
    nothing = plots.find_twins(kernel, np.zeros(90, dtype=bool))
    assert filters.shown_filters(nothing, most=20).tolist() == list(range(20))
    assert filters.shown_filters(nothing, most=90).tolist() == list(range(90))


def test_tiles_are_the_weights_and_the_feature_maps(model):
    images = np.random.default_rng(3).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    graph = trace(model)
    weight = filters.find_conv(graph, "stage1_block1_conv1")
    inner = keras.Model(model.input, model.get_layer("stage1_block1_conv1").output)
    maps = keras.ops.convert_to_numpy(inner(images[:1]))[0].transpose(2, 0, 1)
    tiles = filters.map_tiles(graph, weight, images)
    low, high = np.percentile(maps, 1), np.percentile(maps, 99)
    np.testing.assert_allclose(tiles, np.clip((maps - low) / (high - low), 0, 1), atol=1e-4)
    stem = kernel_of(model, "stem_conv")
    colors = filters.filter_tiles(stem)
    np.testing.assert_allclose((colors - 0.5) * 2 * np.abs(stem).max(), np.moveaxis(stem, -1, 0), atol=1e-6)
    assert filters.filter_tiles(kernel_of(model, "stage1_block1_conv1")).shape == (8, 3, 3)


# Overlap


def removed_pairs(plan):
    return {(e.path, j) for e in plan.layers for j in set(range(e.filters)) - set(e.keep)}


def test_overlap_is_that_of_the_removed_sets(model, axes):
    plans = {name: kprune.plan_pruning(model, 0.4, criterion=name) for name in ("similarity", "l1", "random")}
    found = plots.plan_overlap(plans)
    sets = [removed_pairs(plan) for plan in plans.values()]
    for row, column in np.ndindex(3, 3):
        assert found[row, column] == pytest.approx(len(sets[row] & sets[column]) / len(sets[row] | sets[column]))
    overlap.draw_overlap(axes, list(plans), found, plots.chance_overlap(plans))
    numbers = [text.get_text().split("\n")[0] for text in axes.texts]
    assert numbers == [f"{100 * value:.0f}" for value in found.ravel()]


def test_chance_overlap_is_that_of_random_plans():
    rng = np.random.default_rng(0)
    sizes, rates_of = (40, 60), {"a": (0.25, 0.5), "b": (0.5, 0.2)}

    def draw(name):
        layers = tuple(
            kprune.selection.plan.LayerPlan(str(n), n, tuple(sorted(rng.permutation(n)[int(n * rate) :].tolist())))
            for n, rate in zip(sizes, rates_of[name], strict=True)
        )
        return kprune.Plan(layers)

    drawn = [{"a": draw("a"), "b": draw("b")} for _ in range(300)]
    expected = plots.chance_overlap(drawn[0])
    assert expected[0, 1] == pytest.approx(np.mean([plots.plan_overlap(plans)[0, 1] for plans in drawn]), abs=0.01)


# Trade-off


@pytest.fixture
def records():
    accuracies = {"similarity": [0.91, 0.92, 0.90], "l1": [0.89, 0.88, 0.90]}
    made = [
        {"method": name, "target": target, "pruned_flops": target + 0.001 * seed, "accuracy": accuracy - target / 10}
        for name, values in accuracies.items()
        for target in (0.5, 0.3)
        for seed, accuracy in enumerate(values)
    ]
    return [*made, {"method": "similarity", "target": 0.3, "pruned_flops": 0.3}]


@pytest.mark.parametrize("with_target", [True, False])
def test_points_are_mean_and_spread_of_the_runs(records, with_target, axes):
    if not with_target:
        for record in records:
            del record["target"]
    points = plots.tradeoff_points(records)
    assert list(points) == ["similarity", "l1"]
    low, high = points["similarity"]
    assert (low.removed, high.removed) == pytest.approx((0.301, 0.501)) and low.runs == high.runs == 3
    assert low.accuracy == pytest.approx(statistics.fmean([0.88, 0.89, 0.87]))
    assert low.spread == pytest.approx(statistics.stdev([0.88, 0.89, 0.87]))
    tradeoff.draw_tradeoff(axes, points, before=0.93)
    line, _, (bars,) = axes.containers[0]
    np.testing.assert_allclose(line.get_xydata(), [[30.1, 88.0], [50.1, 86.0]])
    ends = np.array(bars.get_segments())[:, :, 1]
    np.testing.assert_allclose(ends, [[87.0, 89.0], [85.0, 87.0]])
    assert "3 runs" in axes.containers[0].get_label()


def test_a_single_run_has_no_error_bar(axes):
    points = plots.tradeoff_points([{"method": "l1", "pruned_flops": 0.5, "accuracy": 0.9}])
    tradeoff.draw_tradeoff(axes, points)
    assert points["l1"][0].spread == 0 and not axes.containers[0].has_yerr
    assert "1 run)" in axes.containers[0].get_label()


# Files, text and mistakes


@pytest.mark.parametrize("layers", [5, 55, 109, 200])
def test_names_of_layers_do_not_overlap(layers):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = style.new_figure(7.2, style.heatmap_height(layers) + 1.3)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    names = [f"stage1_block{n}_conv1" for n in range(layers)]
    style.draw_heatmap(axes, np.zeros((layers, 7)), names, ["0.325"] * 7, 100.0, most=5)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
    edges = np.array(sorted((box.y0, box.y1) for box in boxes))
    assert (edges[1:, 0] >= edges[:-1, 1]).all()
    columns = np.array(sorted((b.x0, b.x1) for b in (label.get_window_extent() for label in axes.get_xticklabels())))
    assert (columns[1:, 0] >= columns[:-1, 1]).all()


def draw(name, model, path, history):
    plan = kprune.plan_pruning(model, 0.3)
    images = np.zeros((1, 32, 32, 3), dtype="float32")
    record = {"method": "l1", "pruned_flops": 0.5, "accuracy": 0.9}
    return {
        "distances": lambda: plots.plot_distances(model, path),
        "rates": lambda: plots.plot_rates(model, path, alphas=(0.8, 1.0), ratios=(0.3,)),
        "rounds": lambda: plots.plot_rounds(history, path),
        "rounds without rates": lambda: plots.plot_rounds(plots.history_of_plan(plan), path),
        "filters": lambda: plots.plot_filters(model, path, images, plan=plan),
        "filters of another layer": lambda: plots.plot_filters(model, path, layer="stage2_*"),
        "overlap": lambda: plots.plot_overlap({"one": plan, "two": plan}, path),
        "tradeoff": lambda: plots.plot_tradeoff([record], path, before=0.95, title="Title"),
    }[name]()


@pytest.mark.parametrize(
    "name",
    ["distances", "rates", "rounds", "rounds without rates", "filters", "filters of another layer", "overlap"]
    + ["tradeoff"],
)
def test_every_picture_is_written(name, model, history, tmp_path):
    path = draw(name, model, tmp_path / "picture.png", history)
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 8_000


MISTAKES = [
    (lambda m, path: plots.plot_distances(m, path, "l1"), "other criteria have no distances"),
    (lambda m, path: plots.plot_distances(m, path, layers=["nothing_*"]), "matches no layer"),
    (lambda m, path: plots.layer_distances(m, layers=["classifier"]), "Nothing in"),
    (lambda m, path: plots.layer_rates(m, "metric", ["cosine"]), "'alpha' or 'ratio'"),
    (lambda m, path: plots.layer_rates(m, "alpha", []), "no values"),
    (lambda m, path: plots.layer_rates(m, "ratio", [1.5]), "ratio is 1.5"),
    (lambda m, path: plots.plot_rounds({"loss": [1.0]}, path), "pruned_flops"),
    (lambda m, path: plots.history_of_plan(kprune.plan_pruning(m, 0.3, criterion="l1")), "no record of rounds"),
    (lambda m, path: plots.plot_filters(m, path, layer="classifier"), "no 2D conv"),
    (lambda m, path: plots.plot_filters(m, path, np.zeros((1, 8, 8, 1))), "data has examples"),
    (lambda m, path: plots.find_twins(np.zeros((3, 4)), np.ones(4, dtype=bool)), "at least one of them False"),
    (lambda m, path: plots.plan_overlap({"one": kprune.plan_pruning(m, 0.3)}), "At least two"),
    (lambda m, path: plots.tradeoff_points([{"method": "l1", "accuracy": 0.9}]), "pruned_flops=None"),
    (lambda m, path: plots.tradeoff_points([{"method": "l1", "accuracy": 88, "pruned_flops": 0}]), "accuracy=88"),
    (lambda m, path: plots.tradeoff_points([]), "No record"),
    (lambda m, path: plots.plot_run(kprune.Plan(()), {"val_accuracy": [1.0]}, path), "no pruned_flops"),
    (lambda m, path: plots.plot_tradeoff(
        [{"method": "a", "pruned_flops": 0, "accuracy": 1}], path.with_suffix(".xyz")), "'xyz'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_are_refused_and_nothing_is_written(model, tmp_path, call, message):
    with pytest.raises(kprune.OptionError, match=message):
        call(model, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_plans_of_different_networks_have_no_overlap(model):
    other = kprune.plan_pruning(randomize(build(residual)), 0.3)
    with pytest.raises(kprune.OptionError, match="different networks"):
        plots.plan_overlap({"one": kprune.plan_pruning(model, 0.3), "two": other})


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch, tmp_path, records):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(kprune.MissingPackageError, match=r"pip install 'kprune\[plots\]'"):
        plots.plot_tradeoff(records, tmp_path / "picture.png")


def test_matplotlib_is_not_imported_with_the_package():
    import pathlib

    for file in pathlib.Path(plots.__file__).parent.glob("*.py"):
        statements = ast.parse(file.read_text(encoding="utf-8")).body
        names = [ast.unparse(s) for s in statements if isinstance(s, ast.Import | ast.ImportFrom)]
        assert names and not [name for name in names if "matplotlib" in name]
