"""Verbs that ask a trained model why it says so."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result
from lexicell.workflows.interpret_options import AttributionOptions, KnockoutOptions


def interpret_counts(
    run: Path,
    *,
    store: list[Path] | None = None,
    species: str | None = None,
    cells: int = 100,
    tokens: int = 32,
    least: int = 20,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Look into the embeddings of count classes: their order, where neighbours become one, what a cap would cost.

    Parameters
    ----------
    run
        Folder of a trained run.
    store
        Store with cells; can be given several times. Default: the run's own.
    species
        Whose cells, where the model knows several species.
    cells
        Cells that are looked at, drawn at random.
    tokens
        Tokens of each class that are changed.
    least
        Classes that occur less often in those cells are left out of the order.
    seed
        Draws cells and tokens.
    out
        Folder for tables and picture. Default: report in the run's folder.
    """
    from lexicell.workflows.interpret_counts import interpret_counts

    return interpret_counts(run, store, species=species, cells=cells, tokens=tokens, least=least, seed=seed, out=out)


def interpret_attention(
    run: Path,
    *,
    by: str | None = None,
    store: list[Path] | None = None,
    species: str | None = None,
    genes: int = 1000,
    show: tuple[str, ...] = (),
    pairs: list[Path] | None = None,
    sets: list[Path] | None = None,
    cells: int = 100,
    top: int = 10,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Average attention between genes over cells, by layer and head, and check it against known pairs.

    Attention is no proof of regulation: beside it stands co-expression in the same cells.

    Parameters
    ----------
    run
        Folder of a trained run.
    by
        Column of the cell annotation whose groups are looked at apart (cell_type, tissue ...). Default: all cells
        together.
    store
        Store with cells; can be given several times. Default: the run's own.
    species
        Whose genes, where the model knows several species.
    genes
        So many genes, those that most of the cells express; memory grows with the square.
    show
        Genes of the heat map, by symbol or id, with commas between. Default: those of the strongest pairs.
    pairs
        Known pairs to check against: a table with gene1, gene2 and label (1 or 0), or with source and target (tf and
        target), in text (.csv, .tsv, .gz); can be given several times.
    sets
        GMT file: genes that share a set of at most 100 genes are pairs; can be given several times.
    cells
        At most so many cells of a group, drawn at random.
    top
        Partners of each gene that are written.
    seed
        Draws cells and intervals.
    out
        Folder for tables and pictures. Default: report in the run's folder.
    """
    from lexicell.workflows.interpret_attention import interpret_attention

    return interpret_attention(
        run,
        store,
        by=by,
        species=species,
        genes=genes,
        show=show,
        known=(pairs or [], sets or []),
        cells=cells,
        top=top,
        seed=seed,
        out=out,
    )


def interpret_attribution(
    run: Path,
    *,
    by: str,
    groups: tuple[str, ...] = (),
    store: list[Path] | None = None,
    species: str | None = None,
    markers: Path | None = None,
    cells: int = 20,
    options: AttributionOptions,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Attribute labels to the genes that made them, beside differential expression in the same cells.

    Parameters
    ----------
    run
        Folder of a trained run.
    by
        Column of the cell annotation with the labels.
    groups
        Labels wanted, with commas between. Default: all.
    store
        Store with the cells; can be given several times. Default: the run's own.
    species
        Whose cells, where the model knows several species.
    markers
        GMT file of known markers, one set a label; names are matched whatever their case, _ and a closing "cells".
    cells
        At most so many cells of a label, drawn at random.
    options
        How it is done.
    seed
        Draws cells, and fits the probe.
    out
        Folder for tables and pictures. Default: report in the run's folder.
    """
    from lexicell.workflows.interpret_attribution import interpret_attribution

    return interpret_attribution(
        run,
        store,
        by=by,
        groups=groups,
        species=species,
        markers=markers,
        cells=cells,
        options=options,
        seed=seed,
        out=out,
    )


def interpret_knockout(
    run: Path,
    *,
    genes: tuple[str, ...] = (),
    by: str | None = None,
    groups: tuple[str, ...] = (),
    store: list[Path] | None = None,
    species: str | None = None,
    options: KnockoutOptions,
    seed: int = 0,
    out: Path | None = None,
) -> Result:
    """Knock genes out in silico: what cells, labels and other genes' expected counts do, beside genes expressed alike.

    Parameters
    ----------
    run
        Folder of a trained run.
    genes
        Genes to knock out, by symbol or id, with commas between.
    by
        Column of the cell annotation whose groups are looked at apart. Default: all cells together.
    groups
        Groups wanted, with commas between. Default: all.
    store
        Store with the cells; can be given several times. Default: the run's own.
    species
        Whose genes, where the model knows several species.
    options
        How it is done.
    seed
        Draws cells.
    out
        Folder for tables and pictures. Default: report in the run's folder.
    """
    from lexicell.workflows.interpret_knockout import interpret_knockout

    return interpret_knockout(
        run,
        store,
        genes=genes,
        by=by,
        groups=groups,
        species=species,
        options=options,
        seed=seed,
        out=out,
    )
