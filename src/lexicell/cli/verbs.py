"""The verbs: each is a function whose signature and docstring are its command line, and which calls one workflow.

Workflows are imported inside, so that a verb's help comes without waiting for torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from lexicell.reporting.text import Table


class Result(Protocol):
    """What every workflow returns."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs, JSON-able."""

    def tables(self) -> list[Table]:
        """Return the tables for people."""


def demo(*, out: Path = Path("demo")) -> Result:
    """Go the whole way on real data: fetch, prepare, pretrain, embed, annotate, report. Minutes on a laptop.

    Mouse pancreas cells (baron-mouse): one donor is the reference, the other one is held out and annotated.

    Parameters
    ----------
    out
        Folder for the store, the run, metrics.json and report.html.
    """
    from lexicell.workflows.demo import demo

    return demo(out)


def data_list() -> Result:
    """List the public data sets that lexicell can fetch."""
    from lexicell.workflows.public_data import list_data

    return list_data()


def data_get(
    name: str,
    *,
    subset: tuple[str, ...] | None = None,
    to: Path | None = None,
    dry_run: bool = False,
    release: str | None = None,
    mirror: str | None = None,
) -> Result:
    """Fetch a public data set. Its licence is shown first; what comes is checked by its checksum and kept.

    Parameters
    ----------
    name
        Name of the data set: see `lexicell data list`.
    subset
        Fetch only these parts, with commas between.
    to
        Folder for the files. Default: lexicell's cache folder, which the variable LEXICELL_CACHE can name.
    dry_run
        Only show what would be fetched, and where to.
    release
        Release of a data set that has releases (allen-2023), such as 20231215. Default: the one that lexicell knows.
    mirror
        Address that has the same files as the data set's own server.
    """
    from lexicell.workflows.public_data import get_data

    return get_data(name, to, subset, dry_run=dry_run, release=release, mirror=mirror)


def prepare(
    corpus: Path,
    *,
    out: Path,
    workers: int = 1,
    balance: str | None = None,
    seed: int = 0,
    dry_run: bool = False,
    overwrite: bool = False,
) -> Result:
    """Check a corpus of count matrices and write it as a store that training reads fast.

    All faults of all files are reported at once; nothing is written before the check is passed.

    Parameters
    ----------
    corpus
        A corpus.yaml that names the files, their species, counts, donors and labels.
    out
        Folder of the store to write.
    workers
        Processes that read files side by side.
    balance
        LEVEL:N keeps at most N cells of every label of that level, drawn at random.
    seed
        Seed of that draw.
    dry_run
        Only check, and say what would be written.
    overwrite
        Replace a store that is already there.
    """
    from lexicell.workflows.prepare import prepare

    return prepare(corpus, out, workers=workers, dry_run=dry_run, overwrite=overwrite, balance=balance, seed=seed)


def store_info(store: Path) -> Result:
    """Show what a store holds: cells by input file, species, tissue, donor and label level.

    Parameters
    ----------
    store
        Folder of the store.
    """
    from lexicell.workflows.store_inspection import store_info

    return store_info(store)


def store_verify(store: Path) -> Result:
    """Read every byte of a store and list every problem. Exit code 2 where there is one.

    Parameters
    ----------
    store
        Folder of the store.
    """
    from lexicell.workflows.store_inspection import store_verify

    return store_verify(store)


def store_export(store: Path, *, out: Path, where: str | None = None, overwrite: bool = False) -> Result:
    """Write cells of a store to an h5ad file, raw counts in X.

    Parameters
    ----------
    store
        Folder of the store.
    out
        The h5ad to write.
    where
        Which cells: a pandas query on the store's obs columns, such as "donor == 'mouse1' and depth > 1000".
        Default: all.
    overwrite
        Replace a file that is already there.
    """
    from lexicell.workflows.store_inspection import store_export

    return store_export(store, out, where=where, overwrite=overwrite)


def pretrain(
    recipe: str, *, store: list[Path], out: Path, resume: bool = False, overrides: dict[str, object] | None = None
) -> Result:
    """Pretrain a model on one or more stores. Interrupted with Ctrl-C, it stops at a step from which it can resume.

    Parameters
    ----------
    recipe
        Name of a recipe that comes with lexicell, or path of a YAML file.
    store
        Folder of a store; give it once for every store.
    out
        Folder of the run: model, logs, checkpoints.
    resume
        Go on from the run's last checkpoint.
    overrides
        Fields of the recipe, by dotted name.
    """
    from lexicell.workflows.pretrain import pretrain

    return pretrain(recipe, store, out, resume=resume, overrides=overrides)


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


def report(run: Path, *, out: Path | None = None) -> Result:
    """Write a run's report: what was trained on what, curves, skill, exposure, annotation beside baselines.

    Parameters
    ----------
    run
        Folder of a trained run.
    out
        HTML file to write. Default: report.html in the run's folder.
    """
    from lexicell.workflows.report import report

    return report(run, out)
