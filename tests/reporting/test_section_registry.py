from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lexicell.reporting.page import build_page, render
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.section_registry import ENTRIES, Entry, sections_of_tables
from lexicell.reporting.sections import Section, table_of

RNG = np.random.default_rng(0)


def genes(n: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame({"symbol": [f"G{i}" for i in range(n)], **columns})


def tables() -> dict[str, pd.DataFrame]:
    """Small tables of every kind, as the verbs write them."""
    spots = {"x": RNG.random(12), "y": RNG.random(12)}
    p = np.linspace(0.001, 1, 12)
    made = {
        "annotation_reliability": pd.DataFrame(
            {"method": "knn", "level": "type", "n_cells": [3, 9], "confidence": [0.4, 0.9], "accuracy": [0.3, 1.0]}
        ),
        "annotation_coverage": pd.DataFrame(
            {"method": "knn", "level": "type", "threshold": [0.9, 0.4], "coverage": [0.5, 1.0], "error": [0.0, 0.2]}
        ),
        "genes_map": genes(12, species="a", method="PCA", set=["S", ""] * 6, seen=range(12), **spots),
        "genes_neighbours": genes(
            3, species=["a", "a", "b"], kind=["gene", "neighbour", "match"], similarity=[1, 0.8, 0.7], x=[0, 1, 2], y=1
        ),
        "genes_neighbours_edges": pd.DataFrame(
            {"source": [0, 0], "target": [1, 2], "similarity": [0.8, 0.7], "kind": ["within", "between"]}
        ),
        "genes_coherence": pd.DataFrame(
            {"collection": "GO", "method": ["lexicell", "pca"], "sets": 9, "auroc": [0.7, 0.6]}
        ).assign(auroc_matched=0.6, null_auroc=0.5),
        "genes_coherence_differences": pd.DataFrame(
            {"collection": "GO", "baseline": "pca", "kind": ["auroc", "auroc_matched"], "difference": 0.1}
        ).assign(low=0.05, high=0.15),
        "genes_probes": pd.DataFrame({"task": "receptor", "method": ["lexicell", "pca"], "auroc": [0.8, 0.7]}).assign(
            low=0.6, high=0.9, auroc_matched=0.7, positives=20, negatives=90
        ),
        "genes_contextual": pd.DataFrame(
            {"a": ["T1", "T1", "T2"], "b": ["T2", "T3", "T3"], "distance": [0.5, np.nan, 0.8], "genes": [9, 0, 9]}
        ),
        "genes_contextual_genes": genes(12, species="a", gene_id=[f"g{i}" for i in range(12)]).assign(
            group=["T1", "T2", "T3"] * 4, n=9, distance=p, spread=p[::-1]
        ),
        "genes_tissue": genes(12, a="x", b="y", displacement_p=p, displacement_fdr=p).assign(
            displacement_effect=p, displacement_excess=p, rbo_effect=p, rbo_fdr=p
        ),
        "genes_contrast": genes(12, contrast=p, within=p, between=p, p_labels=0.5, p=p, fdr=p),
        "interpret_counts": pd.DataFrame(
            {"class": range(5), "count": [0, 1, 2, 3, 6], "from_count": [0, 1, 2, 3, 5]}
        ).assign(seen=[True, True, True, False, False], first=range(5), step_share=[np.nan, 0.5, 0.2, 0.1, np.nan]),
        "interpret_counts_distances": pd.DataFrame({"class": [0, 0, 1], "other": [1, 2, 2], "distance": [1.0, 2, 1]}),
        "interpret_counts_caps": pd.DataFrame({"max_count": [1, 2], "share_above": [0.2, 0.1], "moved": [0.1, 0.05]}),
        "interpret_attention_map": pd.DataFrame({"gene": ["A", "A", "B", "B"], "partner": ["A", "B", "A", "B"]}).assign(
            attention=[np.nan, 2.0, 0.5, np.nan]
        ),
        "interpret_attention_read": genes(12, group=["x", "y"] * 6, rollout=p),
        "interpret_attention_checks": pd.DataFrame(
            {"known": "GO", "score": ["rollout", "layer 1, head 1", "co-expression"], "kind": "attention", "genes": 9}
        ).assign(auroc=0.5, low=0.4, high=0.6, auroc_matched=0.5),
        "interpret_attribution": genes(12, group="alpha", attribution=p[::-1], marker=[True, False] * 6),
        "interpret_attribution_markers": pd.DataFrame(
            {"group": ["alpha"], "markers": 6, "recall": 0.5, "de_recall": 0.4, "auroc": 0.7, "de_auroc": 0.6}
        ).assign(fold_recall=0.4, fold_auroc=0.6),
        "interpret_knockout": genes(12, group="alpha", level=p, level_controls=p, shift=p, shift_controls=0.1).assign(
            shift_p=p, shift_fdr=p
        ),
        "interpret_knockout_responses": genes(12, group="alpha", responding=["R", "Q"] * 6, change=p, z=p),
    }
    return made


def test_every_table_makes_its_section_and_the_page_holds_them() -> None:
    made = tables()
    found, faults = sections_of_tables(RunTables("run", tables=made))
    assert faults == []
    assert set(found) == {entry.table for entry in ENTRIES} - {"extension_steps"}
    page = build_page(RunTables("run", tables=made))
    assert {section.key for section in page.sections} == {section.key for section in found.values()}
    html = render(page)
    assert html.count("<svg") == sum(len(section.pictures) for section in page.sections) >= 13
    assert "Attention says what the model looked at" in html
    names = [picture.caption for section in page.sections for picture in section.pictures]
    assert all(names)


def test_coherence_shows_differences_and_probes_where_they_are() -> None:
    made = tables()
    found, _ = sections_of_tables(RunTables("run", tables=made))
    sets, differences, probes = found["genes_coherence"].tables
    assert len(differences.rows) == len(probes.rows) == len(sets.rows) == 2
    del made["genes_probes"], made["genes_coherence_differences"]["low"]
    found, _ = sections_of_tables(RunTables("run", tables=made))
    assert len(found["genes_coherence"].tables) == 1


@pytest.mark.parametrize("name", [entry.table for entry in ENTRIES])
def test_a_table_without_its_columns_makes_no_section(name: str) -> None:
    found, faults = sections_of_tables(RunTables("run", tables={name: pd.DataFrame({"other": [1]})}))
    assert (found, faults) == ({}, [])


def test_a_table_that_cannot_be_drawn_takes_nothing_else_with_it() -> None:
    made = tables()
    made["genes_map"]["x"] = "far away"
    page = build_page(RunTables("run", tables=made))
    (fault,) = page.faults
    assert fault.startswith("report/genes_map: ")
    assert "genes-contrast" in {section.key for section in page.sections}


def test_one_entry_makes_a_section() -> None:
    def made(run: RunTables) -> Section | None:
        table = run.table("mine", "a")
        return None if table is None else Section("mine", "Mine", tables=(table_of(table, "Mine", ["a"]),))

    run = RunTables("run", tables={"mine": pd.DataFrame({"a": [1.0, np.nan]})})
    found, _ = sections_of_tables(run, [Entry("mine", made)])
    assert found["mine"].tables[0].rows == ((1.0,), (None,))
