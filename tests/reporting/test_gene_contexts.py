from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lexicell.reporting.gene_contexts import FOREMOST, contexts_figure
from lexicell.reporting.gene_figures import save_figure


def tables(n_groups: int, n_genes: int = 30) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Groups in two families, even and odd, and genes of which the last differ most."""
    names = [f"T{i}" for i in range(n_groups)]
    pairs = pd.DataFrame(list(combinations(names, 2)), columns=["a", "b"])
    pairs["distance"] = [0.1 if (int(a[1:]) - int(b[1:])) % 2 == 0 else 1.0 for a, b in pairs.to_numpy()]
    rows = [
        {"species": "s", "gene_id": f"g{g}", "symbol": f"G{g}", "group": t, "distance": g / 10, "spread": float(g)}
        for g in range(n_genes)
        for t in names
    ]
    return pairs, pd.DataFrame(rows)


def test_groups_that_are_alike_stand_together() -> None:
    groups, genes = tables(6)
    figure = contexts_figure(groups, genes)
    left, right = figure.axes[2], figure.axes[3]
    shown = [label.get_text() for label in left.get_xticklabels()]
    assert len({int(name[1:]) % 2 for name in shown[:3]}) == 1
    assert [label.get_text() for label in right.get_xticklabels()] == shown
    assert [label.get_text() for label in right.get_yticklabels()] == [f"G{29 - i}" for i in range(FOREMOST)]
    assert np.isnan(np.ma.filled(left.images[0].get_array(), np.nan)).sum() == 6  # the diagonal


@pytest.mark.parametrize("n_groups", [2, 40])
def test_few_groups_and_many_are_drawn(tmp_path: Path, n_groups: int) -> None:
    groups, genes = tables(n_groups)
    groups.loc[0, "distance"] = np.nan if n_groups > 2 else 0.0
    svg, png = save_figure(contexts_figure(groups, genes[genes["group"] != "T1"]), tmp_path / "contexts")
    assert svg.read_text().startswith("<svg")
    assert png.read_bytes().startswith(b"\x89PNG")
