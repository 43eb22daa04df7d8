"""Verbs that draw the gene space."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


def genes_map(
    run: Path,
    *,
    sets: Path | None = None,
    show: tuple[str, ...] = (),
    species: tuple[str, ...] = (),
    genes: int = 5000,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Lay the gene space out in the plane, coloured by gene set, species and how often training saw a gene.

    UMAP with pip install 'lexicell[umap]', principal components without.

    Parameters
    ----------
    run
        Folder of a trained run.
    sets
        GMT file of gene sets to colour genes by.
    show
        Names of at most 8 sets, with commas between. Default: the first 8 that have 5 to 200 of the genes.
    species
        Whose genes, with commas between. Default: all species of the model.
    genes
        So many genes of each species at most, those that training saw expressed most often.
    seed
        Draws genes where it is not known how often they were seen.
    out
        Folder for table and picture. Default: report in the run's folder.
    """
    from lexicell.workflows.genes_map import genes_map

    return genes_map(run, sets=sets, show=show, species=species, genes=genes, seed=seed, out=out)


def genes_neighbours(
    run: Path,
    gene: str,
    *,
    species: str | None = None,
    others: tuple[str, ...] = (),
    top: int = 8,
    matches: int = 3,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Draw the genes nearest to a gene, and to its best matches in other species.

    Parameters
    ----------
    run
        Folder of a trained run.
    gene
        Symbol or id.
    species
        Whose gene it is, where several species have one of that name.
    others
        Species to look for matches in, with commas between. Default: all others of the model.
    top
        Nearest genes in each species.
    matches
        Best matches in each other species.
    seed
        Draws where the nodes of the picture begin.
    out
        Folder for tables and picture. Default: report in the run's folder.
    """
    from lexicell.workflows.genes_neighbours import genes_neighbours

    return genes_neighbours(run, gene, species=species, others=others, top=top, matches=matches, seed=seed, out=out)
