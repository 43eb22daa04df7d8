"""Simulated atlases of several species whose truth is known.

How a count comes about:

- Cell types are the leaves of a tree; each has an activity for every gene program, which drifts down that
  tree.
- Orthogroups have a mean (natural log) and loadings on the programs. Both drift down the species' phylogeny
  by Brownian motion, so that orthologs of far species agree less. Some genes of a species belong to no
  orthogroup.
- Planted on top: markers of each type, genes that load on another program in one group of species
  (convergence), and genes that load on another program in every tissue but the first (rewiring).
- A cell of type t has programs ``a = activity[t] + noise`` and expects ``depth * softmax(mean + loadings @ a
  + marker + donor + batch)``; its counts are negative binomial with variance ``mean + dispersion * mean**2``.

Every draw is keyed by the seed and by what it is for: raising ``divergence`` stretches the same drift instead
of drawing another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData
from scipy import sparse

from lexicell.datasets.simulated_genomes import SpeciesGenes, draw_genes, evolve, make_plan
from lexicell.errors import listing, raise_all
from lexicell.genes.phylogeny import Phylogeny
from lexicell.randomness import generator

_ROWS_AT_A_TIME = 512

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SimulationConfig:
    """What to simulate. Log units are natural."""

    phylogeny: str = "((simulus_albus:0.15,simulus_niger:0.15):0.35,(simulus_echo:0.15,simulus_mutus:0.15):0.35);"
    """Newick tree; its leaves are the species, its branch lengths scale the divergence."""
    n_cells: int = 2000
    """Cells of each species."""
    n_genes: int = 2000
    """Genes of each species."""
    private_share: float = 0.1
    """Share of a species' genes that have no ortholog in any other species."""
    levels: tuple[str, ...] = ("class", "type")
    """Names of the levels of the cell-type tree, coarse to fine."""
    branching: tuple[int, ...] = (3, 3)
    """Children of every node of the type tree, level by level: (3, 3) makes 3 classes of 3 types each."""
    type_spread: float = 1.0
    """Standard deviation of the program activities' drift on every level of the type tree."""
    n_programs: int = 12
    """Gene programs."""
    housekeeping_share: float = 0.3
    """Share of the genes that belong to no program."""
    baseline_spread: float = 1.2
    """Standard deviation of the genes' log mean."""
    cell_spread: float = 0.3
    """Standard deviation of a program's activity among the cells of one type."""
    markers_per_type: int = 8
    """Planted marker genes of each type; they keep their effect in all species."""
    marker_effect: float = 2.5
    """Log fold change of a marker in its type."""
    divergence: float = 0.5
    """Standard deviation of the drift of a gene's log mean, and of its loadings, over a branch of 1."""
    composition_spread: float = 0.5
    """Standard deviation of the types' log proportions, which all species share."""
    composition_shift: float = 0.0
    """Standard deviation of what each species adds to the types' log proportions."""
    missing_types: tuple[tuple[str, str], ...] = ()
    """(species, type) pairs: types that a species does not have."""
    convergent_species: tuple[str, ...] = ("simulus_albus", "simulus_echo")
    """The species group in which the convergent genes load on another program."""
    n_convergent: int = 20
    """Orthogroups planted as convergent."""
    convergence: float = 1.0
    """How far a convergent gene has moved to its new loadings: 0 not at all, 1 all the way."""
    tissues: tuple[str, ...] = ("tissue_1",)
    """Tissues; every cell is from one of them, all types occur in all."""
    n_rewired: int = 0
    """Orthogroups that load on another program in every tissue but the first."""
    n_donors: int = 4
    """Donors of each species."""
    donor_spread: float = 0.1
    """Standard deviation of a donor's effect on a gene's log mean."""
    n_batches: int = 2
    """Batches of each species, crossed with the donors."""
    batch_spread: float = 0.15
    """Standard deviation of a batch's effect on a gene's log mean, and on its cells' log depth."""
    depth: float = 2000.0
    """Median counts of a cell."""
    depth_spread: float = 0.4
    """Standard deviation of the cells' log depth."""
    species_depth_spread: float = 0.0
    """Standard deviation of the species' log depth."""
    dispersion: float = 0.3
    """Negative-binomial dispersion: the variance is mean + dispersion * mean**2. 0 is Poisson."""
    seed: int = 0
    """Seed of everything."""

    def __post_init__(self) -> None:
        raise_all(_faults(self), "this simulation cannot be made:")

    @property
    def n_housekeeping(self) -> int:
        """Orthogroups that belong to no program."""
        return round(self.housekeeping_share * self.n_genes)

    @property
    def species(self) -> tuple[str, ...]:
        """Names of the species, in the order of the phylogeny's leaves."""
        return Phylogeny.from_newick(self.phylogeny).leaves


def _faults(config: SimulationConfig) -> list[str]:
    species = set(config.species)
    least = {
        "n_cells": 1,
        "n_programs": 2,
        "n_donors": 1,
        "n_batches": 1,
        "markers_per_type": 0,
        "n_convergent": 0,
    }
    faults = [
        f"{name} is {getattr(config, name)}: expected {low} or more"
        for name, low in least.items()
        if getattr(config, name) < low
    ]
    for name in [name for name in config.__dataclass_fields__ if name.endswith(("_spread", "_shift", "_effect"))] + [
        "divergence",
        "dispersion",
    ]:
        if not 0 <= getattr(config, name) < float("inf"):
            faults.append(f"{name} is {getattr(config, name)}: expected a number of 0 or more")
    for name in ("private_share", "housekeeping_share", "convergence"):
        if not 0 <= getattr(config, name) <= 1:
            faults.append(f"{name} is {getattr(config, name)}: expected a number between 0 and 1")
    if not 0 < config.depth < float("inf"):
        faults.append(f"depth is {config.depth}: expected more than 0")
    if (
        not config.levels
        or len(config.levels) != len(config.branching)
        or len(set(config.levels)) != len(config.levels)
    ):
        faults.append(f"levels {config.levels} for branching {config.branching}: expected a distinct name for each")
        return faults
    if min(config.branching) < 1:
        return [*faults, f"branching is {config.branching}: expected 1 or more on every level"]
    moved = config.n_convergent + config.n_rewired
    markers = config.markers_per_type * int(np.prod(config.branching))
    members = config.n_genes - config.n_housekeeping
    if moved > members or moved + markers > config.n_genes:
        faults.append(
            f"n_genes is {config.n_genes}, {members} of them in programs: too few for {moved} convergent or "
            f"rewired genes in programs and {markers} markers beside them"
        )
    strangers = set(config.convergent_species) - species
    if config.n_convergent and strangers:
        faults.append(f"convergent_species: {listing(sorted(strangers))}: not among {listing(sorted(species))}")
    if not config.tissues or (config.n_rewired and len(config.tissues) < 2):
        faults.append(f"tissues is {config.tissues}: expected one, or two with n_rewired above 0")
    types = set(_type_table(config)[config.levels[-1]])
    for name, kind in config.missing_types:
        if name not in species or kind not in types:
            faults.append(
                f"missing_types: ({name}, {kind}): expected one of {listing(sorted(species))} "
                f"and one of {listing(sorted(types))}"
            )
    return faults


@dataclass(frozen=True)
class Simulation:
    """The cells, and the truth about them.

    Parameters
    ----------
    config
        What was asked for.
    cells
        Species -> AnnData; ``X`` is a CSR matrix of counts (int32); ``obs`` has ``organism``, ``donor``,
        ``batch``, ``tissue`` and the levels of the type tree; ``var`` is indexed by gene id and has
        ``symbol``. Of the truth it holds the types alone.
    genes
        One row a gene, in the order of ``cells``' genes: ``species``, ``gene_id``, ``symbol``, ``orthogroup``
        ("" for a private gene), ``program`` (its main program in that species and the first tissue, "" for a
        housekeeping gene), ``marker_of`` (a type or ""), ``convergent`` (planted as such, in whichever
        species), ``rewired``.
    orthologs
        One-to-one pairs: ``species_a``, ``gene_a``, ``species_b``, ``gene_b``.
    types
        The type tree: one row a leaf, one column a level.
    activities
        Program activity of every type: types x programs.
    proportions
        Expected share of every type: species x types; 0 where it is missing.
    loadings
        Species -> genes x programs, in the first tissue.
    profiles
        Species -> types x genes: expected share of a cell's counts in the first tissue, without donor, batch
        and cell effects.
    phylogeny
        The species tree.
    """

    config: SimulationConfig
    cells: Mapping[str, AnnData]
    genes: pd.DataFrame
    orthologs: pd.DataFrame
    types: pd.DataFrame
    activities: pd.DataFrame
    proportions: pd.DataFrame
    loadings: Mapping[str, Floats]
    profiles: Mapping[str, pd.DataFrame]
    phylogeny: Phylogeny

    def write(self, folder: str | Path) -> list[Path]:
        """Write one h5ad a species and the truth as TSV (and Newick) into `folder`; return the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for species, adata in self.cells.items():
            written.append(folder / f"{species}.h5ad")
            adata.write_h5ad(written[-1], compression="gzip")
        tables = {"genes": self.genes, "orthologs": self.orthologs, "types": self.types}
        indexed = {"activities": self.activities, "proportions": self.proportions}
        for name, table in {**tables, **indexed}.items():
            written.append(folder / f"{name}.tsv")
            table.to_csv(written[-1], sep="\t", index=name in indexed)
        written.append(folder / "phylogeny.nwk")
        written[-1].write_text(self.config.phylogeny + "\n", encoding="utf-8")
        return written


def simulate(config: SimulationConfig | None = None) -> Simulation:
    """Simulate an atlas of several species.

    Parameters
    ----------
    config
        What to simulate; the default makes 4 species of 2,000 cells and 2,000 genes.

    Returns
    -------
    Simulation
        Cells and truth; the same config gives the same numbers.
    """
    config = config or SimulationConfig()
    phylogeny = Phylogeny.from_newick(config.phylogeny)
    types = _type_table(config)
    leaf_names = types[config.levels[-1]].tolist()
    activities = _activities(config)
    proportions = _proportions(config, leaf_names)
    ancestor, programs = draw_genes(
        config.n_genes,
        config.n_programs,
        config.n_housekeeping,
        config.baseline_spread,
        generator(config.seed, "ancestor"),
    )
    plan = make_plan(
        ancestor,
        programs,
        n_markers=config.markers_per_type,
        n_types=len(types),
        n_convergent=config.n_convergent,
        n_rewired=config.n_rewired,
        seed=config.seed,
    )
    cells, loadings, profiles, tables = {}, {}, {}, []
    for number, (species, genome) in enumerate(
        evolve(ancestor, phylogeny, config.divergence, config.seed).items(), start=1
    ):
        genes = SpeciesGenes.draw(
            genome,
            plan,
            private_share=config.private_share,
            mean_spread=config.baseline_spread,
            seed=config.seed,
            species=species,
        )
        if species in config.convergent_species:
            genes = genes.moved(genes.plan.convergent, config.convergence)
        table = genes.table(species, number, leaf_names)
        cells[species] = _cells(config, species, genes, table, activities, proportions.loc[species].to_numpy(), types)
        loadings[species] = genes.genome.loadings
        shares = _softmax(_log_means(config, genes, activities, np.arange(len(types))))
        profiles[species] = pd.DataFrame(shares, index=leaf_names, columns=table["gene_id"].to_list())
        tables.append(table)
    return Simulation(
        config=config,
        cells=cells,
        genes=pd.concat(tables, ignore_index=True),
        orthologs=_orthologs(tables),
        types=types,
        activities=pd.DataFrame(
            activities, index=leaf_names, columns=[f"program_{p + 1}" for p in range(config.n_programs)]
        ),
        proportions=proportions,
        loadings=loadings,
        profiles=profiles,
        phylogeny=phylogeny,
    )


def _type_table(config: SimulationConfig) -> pd.DataFrame:
    """One row a leaf type; ``T2.3`` is the third child of ``T2``."""
    paths: list[tuple[int, ...]] = [()]
    for children in config.branching:
        paths = [(*path, child + 1) for path in paths for child in range(children)]
    names = [["T" + ".".join(map(str, path[:depth])) for depth in range(1, len(path) + 1)] for path in paths]
    return pd.DataFrame(names, columns=list(config.levels))


def _activities(config: SimulationConfig) -> Floats:
    """Program activity of every leaf type (types, programs): Brownian motion down the type tree."""
    activities = np.zeros((1, config.n_programs))
    for level, children in zip(config.levels, config.branching, strict=True):
        parents = np.repeat(activities, children, axis=0)
        drift = generator(config.seed, "type tree", level).standard_normal(parents.shape)
        activities = parents + config.type_spread * drift
    return activities


def _proportions(config: SimulationConfig, types: list[str]) -> pd.DataFrame:
    """Expected share of every type: species x types, rows sum to 1."""
    shared = config.composition_spread * generator(config.seed, "composition").standard_normal(len(types))
    rows = {}
    for species in config.species:
        own = generator(config.seed, "composition", species).standard_normal(len(types))
        present = np.array([(species, name) not in config.missing_types for name in types])
        weights = np.where(present, np.exp(shared + config.composition_shift * own), 0.0)
        rows[species] = weights / weights.sum()
    return pd.DataFrame.from_dict(rows, orient="index", columns=types)


def _log_means(config: SimulationConfig, genes: SpeciesGenes, activities: Floats, types: Integers) -> Floats:
    """Unnormalised log expression (rows, genes) of cells with these program activities and types."""
    marked = types[:, None] == genes.plan.markers[None, :]
    expected = genes.genome.means + activities @ genes.genome.loadings.T + config.marker_effect * marked
    return np.asarray(expected)


def _softmax(logits: Floats) -> Floats:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _cells(
    config: SimulationConfig,
    species: str,
    genes: SpeciesGenes,
    table: pd.DataFrame,
    activities: Floats,
    proportions: Floats,
    types: pd.DataFrame,
) -> AnnData:
    rng = generator(config.seed, "cells", species)
    n = config.n_cells
    kind = rng.choice(len(types), size=n, p=proportions)
    donor, batch, tissue = (rng.integers(k, size=n) for k in (config.n_donors, config.n_batches, len(config.tissues)))
    programs = activities[kind] + config.cell_spread * rng.standard_normal((n, config.n_programs))
    donor_effect = config.donor_spread * rng.standard_normal((config.n_donors, config.n_genes))
    batch_effect = config.batch_spread * rng.standard_normal((config.n_batches, config.n_genes))
    depth = np.exp(
        np.log(config.depth)
        + config.species_depth_spread * generator(config.seed, "depth", species).standard_normal()
        + config.batch_spread * rng.standard_normal(config.n_batches)[batch]
        + config.depth_spread * rng.standard_normal(n)
    )
    by_tissue = [genes, *[genes.moved(genes.plan.rewired)] * (len(config.tissues) - 1)]
    order = np.argsort(tissue, kind="stable")  # so that a block of rows mostly shares one set of loadings
    blocks = []
    for place, part in enumerate(by_tissue):
        rows = order[tissue[order] == place]
        for block in np.split(rows, range(_ROWS_AT_A_TIME, len(rows), _ROWS_AT_A_TIME)):
            logits = _log_means(config, part, programs[block], kind[block])
            shares = _softmax(logits + donor_effect[donor[block]] + batch_effect[batch[block]])
            blocks.append(sparse.csr_matrix(_draw_counts(shares * depth[block, None], config.dispersion, rng)))
    counts = sparse.vstack(blocks, format="csr")[np.argsort(order)]
    obs = pd.DataFrame(
        {
            "organism": species,
            "donor": [f"{species}_d{i + 1}" for i in donor],
            "batch": [f"{species}_b{i + 1}" for i in batch],
            "tissue": np.array(config.tissues, dtype=object)[tissue],
            **{level: types[level].to_numpy()[kind] for level in config.levels},
        },
        index=[f"{species}_{i + 1:06d}" for i in range(n)],
    )
    var = pd.DataFrame({"symbol": table["symbol"].to_numpy()}, index=pd.Index(table["gene_id"], name="gene_id"))
    return AnnData(counts, obs=obs.astype("category"), var=var)


def _draw_counts(means: Floats, dispersion: float, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw negative-binomial counts as a gamma mixture of Poissons."""
    if dispersion > 0:
        means = means * dispersion * rng.standard_gamma(1.0 / dispersion, size=means.shape, dtype=np.float32)
    return rng.poisson(means).astype(np.int32)


def _orthologs(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Pairs of genes of two species that share an orthogroup."""
    sides = [table.loc[table["orthogroup"] != "", ["species", "gene_id", "orthogroup"]] for table in tables]
    columns = ["species_a", "gene_a", "species_b", "gene_b"]
    pairs = [
        a.merge(b, on="orthogroup", suffixes=("_a", "_b")).rename(
            columns={"gene_id_a": "gene_a", "gene_id_b": "gene_b"}
        )
        for a, b in combinations(sides, 2)
    ]
    return pd.concat(pairs, ignore_index=True)[columns] if pairs else pd.DataFrame(columns=columns, dtype=object)
