from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from lexicell.reporting.gene_figures import coherence_dots, save_figure, volcano


@pytest.mark.parametrize("n_collections", [1, 4])
def test_coherence_is_drawn_and_saved_twice_alike(tmp_path: Path, n_collections: int) -> None:
    rows = [
        {"collection": f"c{i}", "method": m, "auroc": 0.6, "auroc_matched": 0.58, "null_auroc": 0.5}
        for i in range(n_collections)
        for m in ("lexicell", "pca", "my_own")
    ]
    figure = coherence_dots(pd.DataFrame(rows))
    svg, png = save_figure(figure, tmp_path / "dots")
    first = svg.read_bytes()
    ElementTree.fromstring(first)
    assert png.read_bytes().startswith(b"\x89PNG")
    save_figure(coherence_dots(pd.DataFrame(rows)), tmp_path / "dots")
    assert svg.read_bytes() == first
    assert {path.name for path in tmp_path.iterdir()} == {"dots.svg", "dots.png"}


def test_a_volcano_names_the_foremost() -> None:
    p = np.array([1e-4, 0.5, np.nan, 0.01])
    fdr, names = np.array([1e-3, 0.9, np.nan, 0.02]), np.array(["A", "B", "C", "D"], dtype=object)
    figure = volcano(np.array([2.0, 0.1, 1.0, -1.0]), p, fdr, names, x_label="effect", floor=1e-4, n_named=2)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["A", "D"]
    assert len(axis.collections[1].get_offsets()) == 2
