"""Verbs that read a model's genes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lexicell.cli.verbs.result import Result


def genes_table(run: Path, *, out: Path | None = None) -> Result:
    """Write the gene embeddings as a table: species, id, symbol, exposure and one column a dimension.

    Parameters
    ----------
    run
        Folder of a trained run.
    out
        File to write (.parquet, .csv or .tsv). Default: genes.parquet in the run's folder.
    """
    from lexicell.workflows.genes import genes_table

    return genes_table(run, out or run / "genes.parquet")


def genes_coherence(
    run: Path,
    *,
    sets: list[Path],
    store: list[Path] | None = None,
    species: str | None = None,
    table: Literal["rows", "responses", "both"] = "rows",
    embeddings: list[Path] | None = None,
    probes: Path | None = None,
    least: int = 10,
    most: int = 500,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Measure how well nearness in the gene embedding recovers gene sets, beside PCA, co-expression and chance.

    Parameters
    ----------
    run
        Folder of a trained run.
    sets
        GMT file of gene sets, a collection; can be given several times.
    store
        Store whose cells give expression levels and baselines; can be given several times. Default: the run's own.
    species
        Whose genes, where the model knows several species.
    table
        rows: the gene table; responses: what the count decoder expects of a gene in cells; both beside each other.
    embeddings
        Another embedding to judge in the same way: a table with gene_id or symbol and numeric columns (.parquet, .csv,
        .tsv); can be given several times.
    probes
        Classes of genes to read by logistic regression: a GMT file, or a table with the columns task, gene, label.
    least
        Smallest set, counted in genes that are there.
    most
        Largest set.
    seed
        Draws cells, random sets and folds.
    out
        Folder for tables and picture. Default: report in the run's folder.
    """
    from lexicell.workflows.genes_coherence import genes_coherence

    return genes_coherence(
        run,
        sets,
        store=store,
        species=species,
        table=table,
        embeddings=embeddings or [],
        probes=probes,
        least=least,
        most=most,
        seed=seed,
        out=out,
    )


def genes_contextual(
    run: Path,
    store: Path,
    *,
    by: str,
    out: Path,
    groups: tuple[str, ...] = (),
    least_cells: int = 10,
    cells: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Result:
    """Write means and variances of every gene's token state in each group of cells.

    Parameters
    ----------
    run
        Folder of a trained run.
    store
        Store with the cells.
    by
        Column of the cell annotation: cell_type, tissue, donor ...
    out
        What to write: .h5ad or .zarr (genes as rows, two layers a group), or .parquet (one row a group and gene).
    groups
        Groups wanted, with commas between. Default: all.
    least_cells
        Groups with fewer cells are left out.
    cells
        At most so many cells of a group, drawn at random. Default: all.
    samples
        At most so many gene samples a cell: faster, but not every expressed gene of a cell is seen. Default: as many
        as it takes.
    seed
        Draws the cells.
    """
    from lexicell.workflows.genes_contextual import genes_contextual

    return genes_contextual(
        run,
        store,
        by=by,
        out=out,
        groups=groups,
        least_cells=least_cells,
        cells=cells,
        samples=samples,
        seed=seed,
    )


def genes_tissue(
    run: Path,
    store: Path,
    *,
    by: str,
    a: str | None = None,
    b: str | None = None,
    table: Literal["contextual", "responses", "coexpression"] = "contextual",
    species: str | None = None,
    donor: str = "donor",
    least: int = 5,
    cells: int = 1000,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Find genes whose place among the others differs between tissues or cell types.

    Parameters
    ----------
    run
        Folder of a trained run.
    store
        Store with the cells.
    by
        Column of the cell annotation: tissue, cell_type ...
    a
        A group. Without a and b, all pairs of groups are compared.
    b
        The group to compare it with.
    table
        contextual: mean token states; responses: what the count decoder expects of a gene in the group's cells;
        coexpression: PCA loadings of log-CPM, which needs no model, for comparison.
    species
        Whose genes, where the model knows several species.
    donor
        Column that names donors or batches, by which groups are split for the null distribution.
    least
        Genes expressed in fewer cells of any of a group's four parts are left out.
    cells
        At most so many cells of a group, drawn at random.
    seed
        Draws cells and parts.
    out
        Folder for tables and pictures. Default: report in the run's folder.
    """
    from lexicell.workflows.genes_tissue import genes_tissue

    return genes_tissue(
        run,
        store,
        by=by,
        pair=(a, b),
        table=table,
        species=species,
        donor=donor,
        least=least,
        cells=cells,
        seed=seed,
        out=out,
    )


def genes_contrast(
    run: Path,
    *,
    groups: Path,
    seeds: list[Path] | None = None,
    store: list[Path] | None = None,
    table: Literal["rows", "contextual", "responses", "coexpression"] = "rows",
    replicates: int = 1,
    donor: str = "donor",
    least: int = 10,
    cells: int = 1000,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Find genes whose neighbourhood is more alike within a group of species than between groups, given their tree.

    Parameters
    ----------
    run
        Folder of a trained run that knows all species.
    groups
        YAML file: group and others (lists of species), matches (ortholog table, or tables of genes match), and tree
        (Newick, optional).
    seeds
        Another run of the same species, as a replicate; can be given several times.
    store
        Store with cells; can be given several times. Default: the run's own.
    table
        rows: the gene table; contextual: mean token states; responses: what the count decoder expects of a gene in
        cells; coexpression: PCA loadings of log-CPM, which needs no model, for comparison.
    replicates
        Parts by donor into which each species' cells are split, as replicates; not for rows.
    donor
        Column that names donors.
    least
        Genes expressed in fewer of the cells looked at are left out.
    cells
        At most so many cells of a species, drawn at random.
    seed
        Draws cells, parts and labellings.
    out
        Folder for table and pictures. Default: report in the run's folder.
    """
    from lexicell.workflows.genes_contrast import genes_contrast

    return genes_contrast(
        run,
        groups,
        seeds=seeds or [],
        store=store,
        table=table,
        replicates=replicates,
        donor=donor,
        least=least,
        cells=cells,
        seed=seed,
        out=out,
    )
