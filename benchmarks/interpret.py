"""Why the model says so, measured: markers by attribution, known pairs by attention, order of count classes.

Usage:
  python benchmarks/interpret.py attribution --runs RUN [RUN ...] --data DIR [--cells N] [--draws N ...] [--json FILE]
  python benchmarks/interpret.py attention --runs RUN [RUN ...] --data DIR [--genes N] [--cells N] [--json FILE]
  python benchmarks/interpret.py counts --runs RUN [RUN ...] [--cells N] [--json FILE]
  python benchmarks/interpret.py calibration --runs RUN [RUN ...] [--json FILE]

Runs are of pancreas cells labelled `cell_type1` for `attribution` (markers: PanglaoDB), of mouse cells for `attention`
(GO, Reactome, Gene2vec's gene pairs); DIR holds the reference tables. `calibration` knocks out genes drawn at random,
which are like their controls: their p-values should be uniform.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.workflows.genes_cells import expression, one_species, open_cells
from lexicell.workflows.interpret_attention import interpret_attention
from lexicell.workflows.interpret_attribution import interpret_attribution
from lexicell.workflows.interpret_cells import gene_names
from lexicell.workflows.interpret_counts import interpret_counts
from lexicell.workflows.interpret_knockout import interpret_knockout
from lexicell.workflows.interpret_options import AttributionOptions, KnockoutOptions

LABEL = "cell_type1"
PANGLAO = {  # labels of the Baron pancreas -> cell types of PanglaoDB
    "acinar": "Acinar cells",
    "activated_stellate": "Pancreatic stellate cells",
    "alpha": "Alpha cells",
    "B_cell": "B cells",
    "beta": "Beta cells",
    "delta": "Delta cells",
    "ductal": "Ductal cells",
    "endothelial": "Endothelial cells",
    "epsilon": "Epsilon cells",
    "gamma": "Gamma (PP) cells",
    "macrophage": "Macrophages",
    "mast": "Mast cells",
    "quiescent_stellate": "Pancreatic stellate cells",
    "schwann": "Schwann cells",
    "T_cell": "T cells",
}


def panglao_markers(data: Path, out: Path, species: str = "Mm") -> Path:
    """Write PanglaoDB's markers of pancreatic types as a GMT file."""
    with gzip.open(data / "markers" / "panglaodb_markers_2020-03-27.tsv.gz", "rt") as file:
        table = pd.read_csv(file, sep="\t")
    table = table[table["species"].str.contains(species, na=False)]
    lines = []
    for label, name in PANGLAO.items():
        genes = table.loc[table["cell type"] == name, "official gene symbol"].tolist()
        lines.append("\t".join([label, f"PanglaoDB {name}", *genes]))
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return out


def attribution(options: argparse.Namespace) -> dict[str, Any]:
    """Compare ways to attribute labels to genes, and differential expression, by the markers they find."""
    ways = {
        "integrated, average": AttributionOptions(),
        "integrated, silent": AttributionOptions(baseline="silent"),
        "gradient, average": AttributionOptions(method="gradient"),
        "probe, integrated, average": AttributionOptions(through="probe"),
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        markers = panglao_markers(options.data, Path(folder) / "markers.gmt")
        for run in options.runs:
            for draw in options.draws:
                for name in options.ways or ways:
                    way = ways[name]
                    found = interpret_attribution(
                        run, by=LABEL, markers=markers, cells=options.cells, options=way, seed=draw, out=folder
                    )
                    scores = found.summary()
                    row = {"run": str(run), "draw": draw, "way": name, "gap": float(found.groups["gap"].mean())}
                    rows.append(row | scores)
                    print(row, {key: np.round(values, 3).tolist() for key, values in scores.items()}, flush=True)
    return {"attribution": rows}


def attention(options: argparse.Namespace) -> dict[str, Any]:
    """Check attention against known pairs, beside co-expression."""
    sets = [options.data / "genesets" / name for name in ("go_bp_mouse_goa2019_noiea.gmt.gz",)]
    sets.append(options.data / "genesets" / "reactome_mouse_symbols_tosica.gmt.gz")
    pairs = [options.data / "markers" / "ggipnn_gene_pairs.tsv.gz"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in options.runs:
            found = interpret_attention(
                run, genes=options.genes, cells=options.cells, known=(pairs, sets), out=folder
            ).checks
            rows.append(found.assign(run=str(run)))
            print(found[["known", "score", "auroc", "low", "high", "auroc_matched"]].round(3).to_string(), flush=True)
    return {"attention": pd.concat(rows).to_dict("records")}


def counts(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the order of count classes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in options.runs:
            rows.append({"run": str(run)} | interpret_counts(run, cells=options.cells, out=folder).figures())
            print({k: v for k, v in rows[-1].items() if k not in {"caps", "written"}}, flush=True)
    return {"counts": rows}


def calibration(options: argparse.Namespace) -> dict[str, Any]:
    """Knock out genes drawn at random, and look at their p-values."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for run in options.runs:
            model = CellModel.load(run)
            cells = open_cells(run, model, None)
            species = one_species(cells, None)
            seen = expression(cells, species, least_cells=40, most_cells=200, rng=generator(0, "calibration"))
            drawn = generator(1, "calibration").permutation(seen.genes)[:60]
            names = gene_names(model.lexicon, np.sort(drawn))
            way = KnockoutOptions(cells=15, controls=15, responding=50)
            found = interpret_knockout(run, genes=names, options=way, out=folder)
            for table, columns in ((found.genes, ["shift_p", "response_p"]), (found.responses, ["p"])):
                for column in columns:
                    p = table[column].dropna().to_numpy()
                    shares = {f"below_{level:g}": float((p <= level).mean()) for level in (0.01, 0.05, 0.2, 0.5)}
                    rows.append({"run": str(run), "p": column, "tests": len(p)} | shares)
                    print(rows[-1], flush=True)
    return {"calibration": rows}


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("attribution", "attention", "counts", "calibration"):
        verb = verbs.add_parser(name)
        verb.add_argument("--runs", type=Path, nargs="+", required=True)
        verb.add_argument("--json", type=Path, help="file for the figures")
        if name in {"attribution", "attention"}:
            verb.add_argument("--data", type=Path, required=True, help="folder with the reference tables")
        if name != "calibration":
            verb.add_argument("--cells", type=int, default=20 if name == "attribution" else 100)
        if name == "attribution":
            verb.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="seeds of draws of cells")
            verb.add_argument("--ways", nargs="+", help="which ways to attribute; all unless given")
        if name == "attention":
            verb.add_argument("--genes", type=int, default=1000)
    options = parser.parse_args()
    found = {"attribution": attribution, "attention": attention, "counts": counts, "calibration": calibration}
    result = found[options.verb](options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
