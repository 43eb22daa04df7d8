"""Verbs that bring data in: data, prepare, store."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


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
