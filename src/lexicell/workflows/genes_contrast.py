"""Which genes' neighbourhoods are alike within a group of species, beyond what their tree explains?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.progress import track

from lexicell.data.cells import CellCollection
from lexicell.errors import InputError
from lexicell.gene_space.contrast import Labellings, contrast_genes
from lexicell.gene_space.displacement import split_parts
from lexicell.gene_space.gene_views import half_whitened
from lexicell.genes.gene_groups import join_pairs, number_species
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.orthologs import read_orthologs
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure, volcano
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.genes_cells import FOLDER, cells_of_species, measured, open_cells
from lexicell.workflows.genes_points import Points, points_of_cells
from lexicell.workflows.species_groups import SpeciesGroups, read_groups

Int64 = npt.NDArray[np.int64]
ContrastTable = Literal["rows", "contextual", "responses", "coexpression"]

_FEWEST = 30  # matched genes


@dataclass(frozen=True)
class GenesContrastResult:
    """Genes by how much more alike they are within the group."""

    groups: SpeciesGroups
    table: str
    genes: pd.DataFrame
    """One row a matched gene: one column of gene ids a species, symbol (in the first), and the columns of
    `lexicell.gene_space.contrast.contrast_genes`; foremost first."""
    labellings: Labellings
    replicates: int
    line: npt.NDArray[np.float64]
    """Slope and intercept of similarity on distance."""
    written: tuple[Path, ...]

    @property
    def least_p(self) -> float:
        """Smallest p-value that the null contrasts of all genes can give."""
        return 1.0 / (1 + len(self.labellings.others) * len(self.genes))

    def power(self) -> str:
        """Return in words what this design can show."""
        lab, n = self.labellings, len(self.groups.species)
        kind = "a random part of " if lab.sampled else ""
        tree = (
            f"{lab.equivalent} of them keep the tree's distances"
            if lab.keeps_distances
            else "none other keeps the tree's distances, so all count"
            if self.groups.tree is not None
            else "no tree was given, so nothing is corrected"
        )
        caution = "" if lab.least_p <= 0.05 else ": too coarse to call any gene on its own"
        return (
            f"{len(self.groups.group)} of {n} species: {kind}{lab.possible} labellings, {tree}; smallest p of one gene "
            f"alone {lab.least_p:.3g}{caution}; smallest p from the null contrasts of all genes {self.least_p:.2g}, "
            "which supposes that genes vary alike"
        )

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "group": list(self.groups.group),
            "others": list(self.groups.others),
            "table": self.table,
            "genes": len(self.genes),
            "replicates": self.replicates,
            "called_fdr05": int((self.genes["fdr"] <= 0.05).sum()),
            "labellings": {
                "possible": self.labellings.possible,
                "equivalent": self.labellings.equivalent,
                "null": len(self.labellings.others),
                "keeps_distances": self.labellings.keeps_distances,
                "sampled": self.labellings.sampled,
            },
            "least_p_of_a_gene": self.labellings.least_p,
            "least_p_of_all": self.least_p,
            "similarity_on_distance": {"slope": float(self.line[0]), "intercept": float(self.line[1])},
            "power": self.power(),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [
            ("group", ", ".join(self.groups.group)),
            ("others", ", ".join(self.groups.others)),
            ("matched genes", len(self.genes)),
            ("replicates", self.replicates),
            ("called at an FDR of .05", int((self.genes["fdr"] <= 0.05).sum())),
            ("power", self.power()),
        ]
        columns = ["symbol", "contrast", "within", "between", "positive_share", "p_labels", "p", "fdr"]
        first = self.genes.head(15)[columns]
        words = ("gene", "contrast", "within", "between", "replicates > 0", "p, gene alone", "p", "FDR")
        return [
            Table("Contrast between groups of species", ("", ""), tuple(rows)),
            Table("Foremost genes", words, tuple(tuple(row) for row in first.itertuples(index=False))),
        ]


def genes_contrast(
    model: CellModel | str | Path,
    groups: str | Path | SpeciesGroups,
    *,
    seeds: Sequence[CellModel | str | Path] = (),
    store: str | Path | Sequence[str | Path] | None = None,
    table: ContrastTable = "rows",
    replicates: int = 1,
    donor: str = "donor",
    least: int = 10,
    cells: int = 1000,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> GenesContrastResult:
    """Contrast genes between a group of species and others, given their phylogeny.

    Parameters
    ----------
    model
        A run folder, or a model, that knows all species.
    groups
        YAML file (see `lexicell.workflows.species_groups.read_groups`), or what it says.
    seeds
        More runs of the same species: replicates.
    store
        Stores with the cells; the run's own when None.
    table
        ``rows`` (the gene table), or a table from cells: see `lexicell.workflows.genes_points.points_of_cells`.
    replicates
        Parts, by donor, into which each species' cells are split for tables from cells: replicates.
    donor
        Column that names donors.
    least
        Genes expressed in fewer of a species' chosen cells are left out.
    cells
        At most so many cells of a species, drawn at random.
    seed
        Draws cells, parts and labellings.
    out
        Folder for table and pictures; ``report`` in the run's folder when None.
    progress
        Show a progress bar.

    Raises
    ------
    InputError
        When a file or an option cannot be used, or too few genes are matched.
    """
    if table not in get_args(ContrastTable):
        raise InputError(f"--table {table}: expected {', '.join(get_args(ContrastTable))}")
    if replicates < 1 or (replicates > 1 and table == "rows"):
        raise InputError("--replicates splits cells by donor: 1 or more, and 1 with --table rows, which has no donors")
    known = groups if isinstance(groups, SpeciesGroups) else read_groups(groups)
    chosen: list[list[Points]] = []
    matched: Int64 | None = None
    about = pd.DataFrame()
    models = [model, *seeds]
    for one in track(models, description="runs", disable=not progress or len(models) == 1):
        loaded = load(one)
        collection = open_cells(one, loaded, store)
        rng = generator(seed, "contrast cells")
        found = match_genes(loaded.lexicon, known)
        parts = [_cells_of(collection, species, cells, replicates, donor, rng) for species in known.species]
        if matched is None:
            keep = _expressed(collection, found, parts, least)
            matched, about = found[keep], _names(loaded.lexicon, found[keep], known)
        names = _names(loaded.lexicon, found, known).set_index(list(known.species))
        place = pd.Series(np.arange(len(found)), index=names.index).reindex(
            pd.MultiIndex.from_frame(about[list(known.species)])
        )
        if place.isna().any():
            raise InputError(f"{one}: does not know all matched genes of {model}; replicates share their genes")
        own = found[place.to_numpy(np.int64)]
        for r in range(replicates):
            chosen.append(
                [_points(loaded, collection, own[:, s], parts[s][r], table, seed) for s in range(own.shape[1])]
            )
    observed = np.array([species in known.group for species in known.species])
    compared, labellings, line = contrast_genes(
        chosen, observed, known.distances(), generator(seed, "contrast labellings")
    )
    whole = pd.concat([about, compared], axis=1)
    order = np.lexsort((-whole["contrast"], whole["p"]))
    result = GenesContrastResult(
        known, table, whole.iloc[order].reset_index(drop=True), labellings, len(chosen), line, ()
    )
    folder = Path(out) if out is not None else None if isinstance(model, CellModel) else Path(model) / FOLDER
    return result if folder is None else _write(result, folder)


def match_genes(lexicon: Lexicon, groups: SpeciesGroups) -> Int64:
    """Return the lexicon indices of matched genes, (n_genes, n_species).

    Raises
    ------
    InputError
        When the model lacks a species, or too few genes are matched in all of them.
    """
    missing = [species for species in groups.species if species not in lexicon.species]
    if missing:
        raise InputError(f"{groups.source}: the model knows no genes of {', '.join(missing)}")
    rows = {species: lexicon.rows_of(species) for species in groups.species}
    pairs = []
    for a, b in combinations(groups.species, 2):
        if groups.orthologs is not None:
            tables = [lexicon.table.iloc[rows[one]].reset_index(drop=True) for one in (a, b)]
            found = read_orthologs(groups.orthologs, a, b).match(*tables)
            pairs.append(np.column_stack([rows[a][found[:, 0]], rows[b][found[:, 1]]]))
    for match in groups.matches:
        listed = match.read()
        ends = [lexicon.index_of(match.source, listed["gene_id"]), lexicon.index_of(match.target, listed["match_id"])]
        both = np.column_stack(ends)
        pairs.append(both[(both >= 0).all(axis=1)])
    species = number_species(lexicon.table["species"].tolist(), groups.species)
    found_groups = join_pairs(len(lexicon), species, pairs, len(groups.species))
    if len(found_groups) < _FEWEST:
        raise InputError(
            f"{groups.source}: {len(found_groups)} genes are matched in all of {', '.join(groups.species)}; at least "
            f"{_FEWEST} are needed: do the matches name genes as the stores do, and join every species?"
        )
    return found_groups


def _names(lexicon: Lexicon, matched: Int64, groups: SpeciesGroups) -> pd.DataFrame:
    table = lexicon.table
    ids = {species: table["gene_id"].to_numpy()[matched[:, s]] for s, species in enumerate(groups.species)}
    return pd.DataFrame({**ids, "symbol": table["symbol"].to_numpy()[matched[:, 0]]})


def _cells_of(
    collection: CellCollection, species: str, most: int, replicates: int, donor: str, rng: np.random.Generator
) -> list[Int64]:
    """Return some cells of a species, ascending, in parts."""
    cells = np.sort(rng.permutation(cells_of_species(collection, species))[:most])
    if len(cells) < 2 * replicates:
        raise InputError(f"{species}: {len(cells)} cells in the stores; at least {2 * replicates} are needed")
    donors = collection.column(donor)[cells] if donor in collection.columns else None
    known = None if donors is None or any(d is None for d in donors) else donors
    part = split_parts(known, len(cells), rng, replicates)
    return [cells[part == r] for r in range(replicates)]


def _expressed(
    collection: CellCollection, matched: Int64, parts: list[list[Int64]], least: int
) -> npt.NDArray[np.bool_]:
    """Say which matched genes are measured and expressed in enough cells of every species."""
    keep = np.ones(len(matched), bool)
    for s, of_species in enumerate(parts):
        cells = np.sort(np.concatenate(of_species))
        expressed = np.bincount(collection.rows(cells).genes, minlength=len(collection.lexicon))
        keep &= (expressed[matched[:, s]] >= least) & (measured(collection, cells)[matched[:, s]] > 0)
    if keep.sum() < _FEWEST:
        raise InputError(
            f"{int(keep.sum())} matched genes are expressed in at least {least} cells of every species; {_FEWEST} are "
            "needed: take more cells (--cells), or a smaller --least"
        )
    return keep


def _points(
    model: CellModel, collection: CellCollection, genes: Int64, cells: Int64, table: ContrastTable, seed: int
) -> Points:
    """Return the matched genes' embedding in one species, half whitened."""
    if table == "rows":
        return half_whitened(model.network.genes.weight.detach().float().cpu().numpy()[genes])
    return half_whitened(points_of_cells(model, collection, cells, genes, table, seed)[0])


def _write(result: GenesContrastResult, folder: Path) -> GenesContrastResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "genes_contrast.csv"]
    result.genes.to_csv(written[0], index=False)
    figure = volcano(
        result.genes["contrast"].to_numpy(),
        result.genes["p"].to_numpy(),
        result.genes["fdr"].to_numpy(),
        result.genes["symbol"].to_numpy(dtype=object),
        x_label="neighbourhood similarity, within less between",
        title=f"{len(result.groups.group)} species against {len(result.groups.others)}",
        floor=result.least_p,
    )
    written += save_figure(figure, folder / "genes_contrast")
    return GenesContrastResult(
        result.groups,
        result.table,
        result.genes,
        result.labellings,
        result.replicates,
        result.line,
        tuple(written),
    )
