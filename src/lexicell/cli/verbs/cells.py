"""Verbs that use a trained model on cells: embed, annotate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lexicell.cli.verbs.result import Result


@dataclass(frozen=True)
class Reading:
    """How query and reference are read.

    Attributes
    ----------
    species
        Species of the query, where the file does not say it (uns["species"], or an obs column species or organism).
    reference_species
        Species of the reference, likewise.
    donor
        obs column of the reference's donors. Default: donor, donor_id or donor_label, where there is one.
    counts
        Where the query's raw counts are: X, layers/NAME or raw. Default: what holds them.
    samples
        At most so many gene samples of a cell are averaged: faster, but not every expressed gene is seen. Default: as
        many as it takes.
    """

    species: str | None = None
    reference_species: str | None = None
    donor: str | None = None
    counts: str | None = None
    samples: int | None = None


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
    method: Literal["probe", "finetune", "knn", "head"] = "probe",
    taxonomy: Path | None = None,
    max_error: float | None = None,
    reading: Reading,
    k: int | None = None,
    seed: int = 0,
    out: Path,
    overrides: dict[str, object] | None = None,
) -> Result:
    """Annotate cells with the labels of a reference; with the truth in the query, print accuracy and macro-F1.

    Parameters
    ----------
    run
        Folder of a trained run.
    query
        Cells with raw counts in X, layers["counts"] or raw; read in parts, however many there are.
    reference
        Store or file of labelled cells; only head needs none.
    levels
        Label columns, coarse to fine, with commas between. Default: those of the reference or of the run.
    method
        probe: four opinions, averaged: a linear model on gene counts, likeness to each type's profile, the counts'
        likelihood in each type, and a linear model on the embedding; finetune: the same with the model trained on first
        (its head then speaks for the embedding), which takes minutes, or hours without a GPU; knn: vote of the nearest
        reference cells in the model's embedding; head: the label head, where one was trained.
    taxonomy
        CSV or TSV of the label tree: columns child and parent, and level where levels share labels. Default: the tree
        is read off the reference's cells.
    max_error
        Largest share of wrong calls, such as 0.05: labels that are not sure enough are left out, so that the upper
        bound of the error on held-out donors of the reference stays below it. Default: every cell gets a label.
    reading
        How the files are read.
    k
        Neighbours that vote, for knn.
    seed
        Draws reference cells where there are more than are looked at.
    out
        File to write: an h5ad with new obs columns, or a CSV. Beside it lie a CSV and a JSON in the layout of
        MapMyCells, and a plot of how far probabilities can be trusted.
    overrides
        Fields of how a model is fine-tuned, in dotted form.
    """
    from lexicell.workflows.annotate import annotate

    return annotate(
        run,
        query,
        reference,
        levels,
        method=method,
        taxonomy=taxonomy,
        max_error=max_error,
        species=reading.species,
        reference_species=reading.reference_species,
        donor=reading.donor,
        counts=reading.counts,
        out=out,
        k=k,
        samples=reading.samples,
        seed=seed,
        overrides=overrides,
    )
