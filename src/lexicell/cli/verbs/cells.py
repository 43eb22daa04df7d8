"""Verbs that use a trained model on cells: embed, annotate."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lexicell.cli.verbs.result import Result


def embed(
    run: Path,
    query: Path,
    *,
    out: Path,
    species: str | None = None,
    counts: str | None = None,
    samples: int | None = None,
) -> Result:
    """Embed cells: writes the query with obsm["X_lexicell"].

    Parameters
    ----------
    run
        Folder of a trained run.
    query
        h5ad with raw counts in X, layers["counts"] or raw.
    out
        The h5ad to write.
    species
        Species of the query, where the file does not say it (uns["species"], or an obs column species or
        organism).
    counts
        Where the raw counts are: X, layers/NAME or raw. Default: what holds them.
    samples
        At most so many gene samples of a cell are averaged: faster, but not every expressed gene is seen. Default: as
        many as it takes.
    """
    from lexicell.workflows.embed import embed

    return embed(run, query, out=out, species=species, counts=counts, samples=samples)


def annotate(
    run: Path,
    query: Path,
    *,
    reference: Path | None = None,
    levels: tuple[str, ...] | None = None,
    method: Literal["knn", "head"] = "knn",
    species: str | None = None,
    reference_species: str | None = None,
    counts: str | None = None,
    k: int | None = None,
    samples: int | None = None,
    out: Path,
) -> Result:
    """Annotate cells with the labels of a reference; with the truth in the query, print accuracy and macro-F1.

    Parameters
    ----------
    run
        Folder of a trained run.
    query
        h5ad with raw counts in X, layers["counts"] or raw.
    reference
        Store or h5ad of labelled cells, for knn; head needs none.
    levels
        Label columns, coarse to fine, with commas between. Default: those of the reference or of the run.
    method
        knn: vote of the nearest reference cells in the model's embedding; head: the label head, where one was trained.
    species
        Species of the query, where the file does not say it (uns["species"], or an obs column species or organism).
    reference_species
        Species of the reference, likewise.
    counts
        Where the query's raw counts are: X, layers/NAME or raw. Default: what holds them.
    k
        Neighbours that vote, for knn.
    samples
        At most so many gene samples of a cell are averaged: faster, but not every expressed gene is seen. Default: as
        many as it takes.
    out
        File to write: an h5ad, with a CSV of the labels beside it; or a CSV alone.
    """
    from lexicell.workflows.annotate import annotate

    return annotate(
        run,
        query,
        reference,
        levels,
        method=method,
        species=species,
        reference_species=reference_species,
        counts=counts,
        out=out,
        k=k,
        samples=samples,
    )
