from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lexicell.reporting.page import build_page, render
from lexicell.reporting.run_tables import read_run
from lexicell.reporting.species_section import species_section


def joined(run: Path) -> Path:
    """Give a made-up run the tables of an extension."""
    folder = run / "report"
    steps = {"figure": ["new species: count skill", "orthologs: AUC"], "rows set": [-0.1, None], "after": [0.05, 0.8]}
    pd.DataFrame(steps).to_csv(folder / "extension_steps.csv", index=False)
    pd.DataFrame({"note": ["a <shallow> store"]}).to_csv(folder / "extension_notes.csv", index=False)
    genes = pd.DataFrame({"symbol": [f"LOC{i}" for i in range(40)], "few_exposures": [True] * 30 + [False] * 10})
    genes.to_csv(folder / "extension_genes.csv", index=False)
    rng = np.random.default_rng(0)
    cells = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"])
    cells["species"] = ["mus_musculus", "nyctus_fictus"] * 30
    cells["what"], cells["label"], cells["method"] = ["reference", "new"] * 30, ["alpha", None] * 30, "PCA"
    cells.to_csv(folder / "extension_cells.csv", index=False)
    return run


def test_a_run_without_an_extension_has_no_such_section(made_up_run: Path) -> None:
    assert species_section(read_run(made_up_run)) is None


def test_steps_notes_genes_and_pictures_are_shown(made_up_run: Path) -> None:
    labels = pd.DataFrame({"cell": list("abcd"), "type": "alpha", "type_prob": 1.0, "unknown": [0.1, 0.9, 0.2, 0.3]})
    joined(made_up_run)
    labels.to_csv(made_up_run / "report" / "species_labels.csv", index=False)
    section = species_section(read_run(made_up_run))
    assert section is not None
    assert any("all 4 new cells" in text and "of 25% of them" in text for text in section.text)
    (table,) = section.tables
    assert table.columns == ("figure", "rows set", "after")
    assert table.rows == (("new species: count skill", -0.1, 0.05), ("orthologs: AUC", None, 0.8))
    assert len(section.pictures) == 2  # by species, and by label beside each other
    assert any("30 of 40 new genes" in text and "and 10 more" in text for text in section.text)
    page = render(build_page(read_run(made_up_run)))
    assert "A species joined" in page
    assert "a &lt;shallow&gt; store" in page


def test_cells_without_labels_are_drawn_by_species_alone(made_up_run: Path) -> None:
    path = joined(made_up_run) / "report" / "extension_cells.csv"
    pd.read_csv(path).assign(label=None).to_csv(path, index=False)
    section = species_section(read_run(made_up_run))
    assert section is not None
    assert len(section.pictures) == 1
