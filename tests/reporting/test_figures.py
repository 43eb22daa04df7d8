import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from lexicell.reporting import figures


@pytest.fixture
def cells() -> pd.DataFrame:
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["x", "y"])
    return table.assign(label=np.repeat(["a", "b", None], 20), split=np.tile(["one", "two"], 30))


def text_of(figure) -> set[str]:
    import matplotlib.text

    return {artist.get_text() for artist in figure.findobj(matplotlib.text.Text)} - {""}


def test_an_svg_is_whole_and_repeatable_and_its_ids_are_its_own(cells):
    first = figures.to_svg(figures.embedding_scatter(cells, "UMAP"), "cells")
    assert first == figures.to_svg(figures.embedding_scatter(cells, "UMAP"), "cells")
    ElementTree.fromstring(first)
    ids = re.findall(r'\bid="([^"]*)"', first)
    assert ids
    assert all(name.startswith("cells-") for name in ids)
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]*)', first))
    assert used <= set(ids)
    assert "<script" not in first


def test_nothing_is_left_in_matplotlibs_global_state(cells):
    before = dict(mpl.rcParams)
    figures.to_svg(figures.embedding_scatter(cells))
    assert dict(mpl.rcParams) == before
    assert not mpl._pylab_helpers.Gcf.get_all_fig_managers()


def test_scatter_names_every_label_and_split(cells):
    found = text_of(figures.embedding_scatter(cells, "PCA"))
    assert {"a", "b", "PCA (one)", "PCA (two)"} <= found
    many = cells.assign(label=[f"type {i}" for i in range(60)]).drop(columns="split")  # no room in a legend
    assert {"type 0", "type 59"} <= text_of(figures.embedding_scatter(many))


def test_training_curves_draw_loss_and_skill_first():
    metrics = pd.DataFrame({"step": [1, 2, 2], "epoch": 0, "train/zeta": [3.0, 2.0, np.nan]})
    metrics["train/loss"], metrics["val/skill"] = [1.0, 0.5, np.nan], [np.nan, np.nan, 0.1]
    metrics["val/ce"] = metrics["val/skill/0"] = metrics["train/cells_per_second"] = metrics["val/skill"]
    assert figures.curve_terms(metrics) == ["loss", "skill", "zeta"]
    assert {"loss", "skill", "zeta", "training", "validation"} <= text_of(figures.training_curves(metrics))
    assert figures.training_curves(pd.DataFrame({"step": [1]})) is None


def test_a_curve_leaves_out_steps_that_did_not_log():
    metrics = pd.DataFrame({"step": [10, 20, 20, 30], "val/loss": [1.0, np.nan, 0.5, np.nan]})
    line = figures.curve(metrics, "val/loss")
    assert line.to_dict() == {10: 1.0, 20: 0.5}
    assert figures.curve(metrics, "val/nothing").empty


def test_stratum_bars_show_zero_even_where_every_skill_is_high():
    table = pd.DataFrame({"group": "true count", "stratum": ["0", "1"], "skill": [0.5, 0.6]})
    figure = figures.stratum_bars(table)
    low, high = figure.axes[0].get_ylim()
    assert low <= 0 < 0.6 < high
    assert {"+0.50", "+0.60", "true count"} <= text_of(figure)


def test_exposure_of_genes_never_seen():
    exposure = np.zeros((50, 3), dtype=np.int64)
    exposure[:20] = 5000
    figures.to_svg(figures.exposure_histogram(exposure))
    figures.to_svg(figures.exposure_histogram(np.zeros((50, 3), dtype=np.int64)))


def test_confusion_shows_shares_of_the_truth_and_missing_calls():
    table = pd.DataFrame({"method": "pca_knn", "truth": ["a", "a", "b"], "predicted": ["a", None, "c"], "n": [3, 1, 7]})
    found = text_of(figures.confusion_matrices(table))
    assert {"PCA-kNN", "75", "25", "100", "(none)", "c"} <= found


def test_rare_labels_share_a_row_where_there_are_too_many():
    names = [f"t{i:03d}" for i in range(80)]
    table = pd.DataFrame({"method": "m", "truth": names, "predicted": names, "n": np.arange(80, 0, -1)})
    axis = figures.confusion_matrices(table).axes[0]
    shown = [label.get_text() for label in axis.get_yticklabels()]
    assert len(shown) == 61
    assert shown[0] == "t000"
    assert shown[-1] == "(others)"
    np.testing.assert_allclose(np.diag(axis.images[0].get_array()), 1)


def test_method_bars_average_over_seeds():
    table = pd.DataFrame({"method": ["knn", "knn", "other"], "level": "type"})
    table["accuracy"], table["macro_f1"] = [0.8, 0.9, 0.7], [0.5, 0.7, 0.4]
    assert {"0.850", "0.600", "0.700", "lexicell kNN", "other", "type"} <= text_of(figures.method_bars(table))
