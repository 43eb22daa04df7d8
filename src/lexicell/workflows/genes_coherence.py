"""Is it biology? Gene sets in a model's gene embedding, beside PCA, co-expression and chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track
from scipy.sparse import csr_matrix

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError, listing
from lexicell.gene_space.coherence import expression_bins, set_coherence
from lexicell.gene_space.gene_views import (
    centred,
    half_whitened,
    pca_loadings,
    side_by_side,
    standardised,
    without_level,
)
from lexicell.gene_space.probes import probe
from lexicell.gene_space.profiles import expression_profile
from lexicell.genes.gene_sets import GeneSets, read_gene_sets
from lexicell.genes.text_files import read_table
from lexicell.inference.cell_model import CellModel
from lexicell.inference.gene_response import count_response
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import coherence_dots, save_figure
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import FOLDER, Expression, expression, one_species, open_cells, queries

Points = npt.NDArray[np.floating[Any]]
GeneTable = Literal["rows", "responses", "both"]

LEAST_CELLS = 10  # genes expressed in fewer of the cells looked at are left out
MOST_CELLS = 2000  # for expression and co-expression
RESPONSE_CELLS = 300  # whose expected counts make a gene's response
_PROBE_COLUMNS = ("task", "gene", "label")


@dataclass(frozen=True)
class GenesCoherenceResult:
    """Coherence of gene sets."""

    species: str
    n_genes: int
    sets: pd.DataFrame
    """One row a collection, method and set: see `lexicell.gene_space.coherence.set_coherence`."""
    summary: pd.DataFrame
    """One row a collection and method."""
    differences: pd.DataFrame
    """lexicell less each other method: mean over sets with a bootstrap interval over sets."""
    probes: pd.DataFrame
    """One row a task and method; empty where no probes were given."""
    written: tuple[Path, ...]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        collections: dict[str, dict[str, float]] = {}
        details: dict[str, dict[str, dict[str, float]]] = {}
        for row in self.summary.to_dict("records"):
            name, method = str(row.pop("collection")), str(row.pop("method"))
            collections.setdefault(name, {})[method] = float(row["auroc"])
            details.setdefault(name, {})[method] = {str(k): float(v) for k, v in row.items()}
        return {
            "species": self.species,
            "genes": self.n_genes,
            "collections": collections,
            "details": details,
            "differences": self.differences.to_dict("records"),
            "probes": self.probes.to_dict("records"),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        columns = ("sets", "auroc", "auroc_matched", "null_auroc", "share_fdr05", "nn_fold_matched", "nn_share_fdr05")
        words = ("method", "sets", "AUROC", "in bins", "random sets", "FDR<.05", "neighbours, fold", "FDR<.05")
        tables = [
            Table(f"{name}: nearness recovers gene sets", words, _rows(part, "method", columns))
            for name, part in self.summary.groupby("collection", sort=False)
        ]
        if len(self.differences):
            rows = _rows(self.differences, "collection", ("baseline", "kind", "difference", "low", "high"))
            less = ("collection", "less", "AUROC", "difference", "95% from", "to")
            tables.append(Table("lexicell less the others, resampling sets", less, rows))
        if len(self.probes):
            columns = ("method", "auroc", "low", "high", "auroc_matched", "positives", "negatives")
            rows = _rows(self.probes, "task", columns)
            heads = ("task", "method", "AUROC", "95% from", "to", "in bins", "positives", "negatives")
            tables.append(Table("Probes: logistic regression, 5-fold", heads, rows))
        return tables


def _rows(table: pd.DataFrame, first: str, columns: Sequence[str]) -> tuple[tuple[object, ...], ...]:
    return tuple(tuple(row) for row in table[[first, *columns]].itertuples(index=False))


def genes_coherence(
    model: CellModel | str | Path,
    sets: str | Path | Sequence[str | Path],
    *,
    store: str | Path | Sequence[str | Path] | None = None,
    species: str | None = None,
    table: GeneTable = "rows",
    embeddings: Sequence[str | Path] = (),
    probes: str | Path | None = None,
    least: int = 10,
    most: int = 500,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> GenesCoherenceResult:
    """Measure how well nearness in the gene embedding recovers gene sets.

    Parameters
    ----------
    model
        A run folder, or a model.
    sets
        GMT files, one collection each; names or ids are matched without regard to case.
    store
        Stores whose cells give expression levels and baselines; the run's own when None.
    species
        Whose genes; not needed where the model knows one species.
    table
        The model's embedding: ``rows`` (the gene table), ``responses`` (what the decoder expects in cells), or
        both beside each other.
    embeddings
        Other embeddings to judge in the same way: tables with ``gene_id`` or ``symbol`` and numeric columns.
    probes
        Classes of genes to read by logistic regression: a GMT file (each set against all other genes), or a table
        with the columns task, gene and label (1 or 0).
    least, most
        Smallest and largest set, counted in genes that are there.
    seed
        Draws cells, random sets and folds.
    out
        Folder for tables and picture; ``report`` in the run's folder when None. A model alone writes nothing
        without it.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a file or an option cannot be used.
    """
    if table not in get_args(GeneTable):
        raise InputError(f"--table {table}: expected {', '.join(get_args(GeneTable))}")
    collections = [read_gene_sets(path) for path in ([sets] if isinstance(sets, str | Path) else sets)]
    names = [one.name for one in collections]
    if not names or len(set(names)) < len(names):
        raise InputError(f"--sets: expected GMT files of different names, got {listing(names) or 'none'}")
    loaded = load(model)
    cells = open_cells(model, loaded, store)
    name = one_species(cells, species)
    seen = expression(
        cells, name, least_cells=LEAST_CELLS, most_cells=MOST_CELLS, rng=generator(seed, "coherence cells")
    )
    genes = loaded.lexicon.table.iloc[seen.genes].reset_index(drop=True)
    tasks = read_probes(probes, genes) if probes is not None else {}
    methods = {
        "lexicell": model_points(loaded, cells, seen, table, seed),
        **{Path(path).stem: _read_embedding(Path(path), genes) for path in embeddings},
        **baseline_points(seen, seed),
    }
    bins = expression_bins(seen.level)
    parts = []
    for collection in collections:
        members, kept = _members(collection, genes, least, most)
        for method, points in track(
            methods.items(), description=collection.name[:30], disable=not progress, total=len(methods)
        ):
            found = set_coherence(points, members, bins, generator(seed, "random sets", collection.name))
            found.insert(0, "set", kept)
            found.insert(0, "method", method)
            found.insert(0, "collection", collection.name)
            parts.append(found)
    scored = pd.concat(parts, ignore_index=True)
    probed = [
        {"task": task, "method": method, "auroc": s.auroc, "auroc_matched": s.matched, "positives": s.positives}
        | {"negatives": s.negatives, "low": s.low, "high": s.high}
        for task, classes in tasks.items()
        for method, points in methods.items()
        for s in [probe(points, classes, bins, seed)]
    ]
    result = GenesCoherenceResult(
        name, len(genes), scored, summarise(scored), differences(scored, seed), pd.DataFrame(probed), ()
    )
    folder = Path(out) if out is not None else None if isinstance(model, CellModel) else Path(model) / FOLDER
    return result if folder is None else _write(result, folder)


def model_points(model: CellModel, cells: CellCollection, seen: Expression, table: GeneTable, seed: int = 0) -> Points:
    """Return the model's embedding of genes, as it is judged: without the expression level, half whitened.

    See LOG.md for the tables and treatments that were compared.
    """
    weight = model.network.genes.weight.detach().float().cpu().numpy()[seen.genes]
    rows: Points = half_whitened(without_level(weight, seen.level))
    if table == "rows":
        return rows
    drawn = np.sort(generator(seed, "response cells").permutation(cells.n_cells)[:RESPONSE_CELLS])
    cls = np.concatenate([model.run(query).embedding for query in queries(cells, drawn)])
    response: Points = count_response(model, cls, seen.genes)
    response = half_whitened(without_level(side_by_side(response - response.mean(axis=1, keepdims=True)), seen.level))
    return response if table == "responses" else side_by_side(rows, response)


def baseline_points(seen: Expression, seed: int) -> dict[str, Points]:
    """Return PCA loadings, co-expression, the expression profile and random vectors, for the same genes and cells.

    PCA loadings are treated like the model's embedding (level removed, half whitened), which betters them.
    """
    scaled = standardised(seen.counts, seen.is_measured)
    loadings = pca_loadings(scaled, seed=seed)
    return {
        "pca": half_whitened(without_level(loadings, seen.level)),
        "coexpression": scaled,
        "expression": centred(expression_profile(seen.counts)),
        "random": generator(seed, "random embedding").standard_normal((len(seen.genes), 64)),
    }


def _members(collection: GeneSets, genes: pd.DataFrame, least: int, most: int) -> tuple[csr_matrix, list[str]]:
    """Return the sets of a fitting size over the genes, and their names; by symbol, or by id where that finds more."""
    found = [collection.membership(genes[column], ignore_case=True) for column in ("symbol", "gene_id")]
    members = max(found, key=lambda matrix: matrix.nnz)
    size = np.diff(members.indptr)
    keep = np.flatnonzero((size >= least) & (size <= most))
    if not len(keep):
        raise InputError(
            f"{collection.name}: no set has {least} to {most} of the {len(genes):,} genes (the largest has "
            f"{size.max(initial=0)}); are its genes named as in the store ({listing(genes['symbol'][:3])})?"
        )
    return members[keep], [collection.sets[row].name for row in keep]


def read_probes(path: str | Path, genes: pd.DataFrame) -> dict[str, npt.NDArray[np.int64]]:
    """Read classes of genes: task -> 1, 0, or -1 (not asked about) for each gene.

    Parameters
    ----------
    path
        A GMT file, or a table with the columns task, gene and label.
    genes
        Columns ``symbol`` and ``gene_id``.
    """
    if ".gmt" in Path(path).name:
        collection = read_gene_sets(path)
        members = max(
            (collection.membership(genes[c], ignore_case=True) for c in ("symbol", "gene_id")), key=lambda m: m.nnz
        )
        dense = np.asarray(members.todense(), dtype=np.int64)
        return {one.name: dense[row] for row, one in enumerate(collection)}
    listed = read_table(path, "a table of gene classes")
    missing = [column for column in _PROBE_COLUMNS if column not in listed.columns]
    strange = [] if missing else sorted(set(listed["label"]) - {"0", "1"})
    if missing or strange:
        raise InputError(
            f"{path}: expected the columns {listing(_PROBE_COLUMNS)} with labels 1 and 0; "
            + (f"there is no {listing(missing)}" if missing else f"found the labels {listing(strange)}")
        )
    tasks: dict[str, npt.NDArray[np.int64]] = {}
    for task, part in listed.groupby("task", sort=False):
        label = dict(zip(part["gene"].str.upper(), part["label"].astype(int), strict=True))
        by: list[pd.Series] = [genes[column].str.upper().map(label) for column in ("symbol", "gene_id")]
        tasks[str(task)] = np.asarray(by[0].fillna(by[1]).fillna(-1), dtype=np.int64)
    return tasks


def _read_embedding(path: Path, genes: pd.DataFrame) -> Points:
    """Read an embedding from elsewhere; genes that it lacks are at its mean, which is near nothing."""
    if not path.is_file():
        raise InputError(f"--embeddings {path}: there is no such file")
    table = pd.read_parquet(path) if path.suffix == ".parquet" else read_table(path, "a table of gene embeddings")
    key = next((name for name in ("gene_id", "symbol") if name in table.columns), None)
    if key is None:
        raise InputError(f"{path}: expected a column gene_id or symbol; found {listing(table.columns, 8)}")
    names = table[key].astype(str)
    values = table.drop(columns=[c for c in ("species", "gene_id", "symbol") if c in table.columns])
    numbers = values.apply(pd.to_numeric, errors="coerce").dropna(axis=1, how="any")
    alone = ~names.duplicated(keep=False)
    place = genes[key].map(pd.Series(np.arange(len(table)), index=names)[alone.to_numpy()])
    if place.isna().mean() > 0.5 or not numbers.shape[1]:
        raise InputError(
            f"{path}: knows {int(place.notna().sum()):,} of {len(genes):,} genes in {numbers.shape[1]} numeric "
            f"columns; expected most of them, named by {key} as {listing(genes[key][:3])}"
        )
    points = numbers.to_numpy(np.float64)
    filled = np.vstack([points, points.mean(axis=0)])[place.fillna(len(points)).astype(int)]
    return centred(filled)


def summarise(scored: pd.DataFrame) -> pd.DataFrame:
    """Return one row a collection and method: sets, means, and shares of sets called at an FDR of .05."""
    grouped = scored.groupby(["collection", "method"], sort=False)
    means = grouped[["auroc", "auroc_matched", "null_auroc", "null_matched", "nn_fold", "nn_fold_matched"]].mean()
    means.insert(0, "sets", grouped.size())
    called = {"share_fdr05": "fdr", "nn_share_fdr05": "nn_fdr_matched"}
    for name, column in called.items():
        means[name] = (scored[column] <= 0.05).groupby([scored["collection"], scored["method"]], sort=False).mean()
    return means.reset_index()


def differences(scored: pd.DataFrame, seed: int = 0, resamples: int = 1000) -> pd.DataFrame:
    """Return the mean difference between lexicell and each other method, with a bootstrap interval over sets.

    Sets share genes, so that the interval is narrower than one over independent sets would be.
    """
    rows = []
    for name, part in scored.groupby("collection", sort=False):
        for kind in ("auroc", "auroc_matched"):
            wide = part.pivot_table(index="set", columns="method", values=kind, sort=False)
            draws = generator(seed, "sets", str(name)).integers(len(wide), size=(resamples, len(wide)))
            for method in [m for m in dict.fromkeys(part["method"]) if m != "lexicell"]:
                gap = (wide["lexicell"] - wide[method]).to_numpy()
                low, high = np.nanpercentile(np.nanmean(gap[draws], axis=1), [2.5, 97.5])
                row = {"collection": name, "baseline": method, "kind": kind, "difference": float(np.nanmean(gap))}
                rows.append(row | {"low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def _write(result: GenesCoherenceResult, folder: Path) -> GenesCoherenceResult:
    folder.mkdir(parents=True, exist_ok=True)
    tables: Mapping[str, pd.DataFrame] = {
        "genes_coherence": result.summary,
        "genes_coherence_differences": result.differences,
        "genes_probes": result.probes,
    }
    written = [folder / "genes_coherence_sets.parquet"]
    result.sets.to_parquet(written[0], index=False)
    for name, table in tables.items():
        if len(table):
            written.append(folder / f"{name}.csv")
            table.to_csv(written[-1], index=False)
    written += save_figure(coherence_dots(result.summary), folder / "genes_coherence")
    return GenesCoherenceResult(
        result.species, result.n_genes, result.sets, result.summary, result.differences, result.probes, tuple(written)
    )
