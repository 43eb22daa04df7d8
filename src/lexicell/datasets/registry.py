"""Public data sets: what there is, under which licence, and how to get it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lexicell.datasets.abc_atlas import ALLEN_2023
from lexicell.datasets.allen_portal import ALLEN_2021
from lexicell.datasets.cache import Announce, Shelf, cache_folder
from lexicell.datasets.entries import DataFile, Dataset, Source
from lexicell.datasets.gene_tables import GENE_TABLES
from lexicell.datasets.hosted import HostedSource, fetch_hosted, planned
from lexicell.datasets.wheel import Member, WheelSource
from lexicell.errors import InputError, listing

__all__ = [
    "DataFile",
    "Dataset",
    "SimulatedSource",
    "Source",
    "available",
    "find",
    "get",
    "get_files",
    "is_whole",
    "resolve",
]

_BARON = (
    "Baron M, Veres A, Wolock SL, et al. A single-cell transcriptomic map of the human and mouse pancreas "
    "reveals inter- and intra-cell population structure. Cell Systems 3, 346-360 (2016). "
    "doi:10.1016/j.cels.2016.08.011. GEO: GSE84133."
)
_CAME = "MIT (the carrier: the PyPI wheel came 0.1.13); counts published by their authors as GEO GSE84133"


def _came(name: str, within: str, size: int, sha256: str) -> WheelSource:
    return WheelSource(
        project="came",
        version="0.1.13",
        size=16_137_262,
        sha256="7fdb1a65006ca668e0cab51576a09bf540f074346e5f120ec654cd4f91627f7d",
        members=(Member(name, ("came/sample_data.zip", within), size, sha256),),
    )


@dataclass(frozen=True)
class SimulatedSource:
    """Makes the default simulation on this machine; nothing is downloaded."""

    size: int = 0
    how: str = "computed here by lexicell.datasets.simulate (seed 0)"

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Simulate, and write the files called `names` into `folder`."""
        from lexicell.datasets.simulate import simulate

        simulation = simulate()
        for adata in simulation.cells.values():  # the columns that the other data sets have
            adata.obs["cell_type1"] = adata.obs["type"]
            adata.obs["cell_ontology_id"] = ("SIM:" + adata.obs["type"].astype(str)).astype("category")
        work = folder / "simulation"
        for path in simulation.write(work):
            if path.name in names:
                path.replace(folder / path.name)
        shutil.rmtree(work)


_SIMULATED_SPECIES = ("simulus_albus", "simulus_niger", "simulus_echo", "simulus_mutus")
_TRUTH = {
    "genes.tsv": 512_122,
    "orthologs.tsv": 519_738,
    "types.tsv": 83,
    "activities.tsv": 2_268,
    "proportions.tsv": 809,
    "phylogeny.nwk": 92,
}

_ENTRIES = (
    Dataset(
        name="baron-mouse",
        title="Mouse pancreas, inDrop: 14,877 genes, 13 cell types, 2 donors",
        species=("Mus musculus",),
        cells=1886,
        licence=_CAME,
        citation=_BARON,
        files=(DataFile("baron-mouse.h5ad", "cells", 7_664_990),),
        source=_came(
            "baron-mouse.h5ad",
            "raw-Baron_mouse.h5ad",
            25_555_548,
            "5b6a0c474990e2968a9c6bbfb882ccb69e063d9c5386011198f099a25bcc31ed",
        ),
    ),
    Dataset(
        name="baron-human",
        title="Human pancreas, inDrop: 20,125 genes, 14 types, 4 donors; a quarter of the published cells",
        species=("Homo sapiens",),
        cells=2142,
        licence=_CAME,
        citation=_BARON,
        files=(DataFile("baron-human.h5ad", "cells", 9_870_322),),
        source=_came(
            "baron-human.h5ad",
            "raw-Baron_human.h5ad",
            33_163_434,
            "c0fca7f46d5ae82d8b5753ed5ce246cded66e2e870face389bd11084aab17700",
        ),
    ),
    Dataset(
        name="simulated",
        title="4 simulated species with known truth: 2,000 genes each, 9 types, orthologs, convergence",
        species=_SIMULATED_SPECIES,
        cells=8000,
        licence="BSD-3-Clause (lexicell)",
        citation="lexicell",
        files=(
            *(DataFile(f"{species}.h5ad", species, 2_300_000) for species in _SIMULATED_SPECIES),
            *(DataFile(name, "", size) for name, size in _TRUTH.items()),
        ),
        source=SimulatedSource(),
    ),
    ALLEN_2021,
    ALLEN_2023,
    *GENE_TABLES,
)


def available() -> tuple[Dataset, ...]:
    """Return all data sets that `get` knows."""
    return _ENTRIES


def find(name: str) -> Dataset:
    """Return the entry called `name`.

    Raises
    ------
    InputError
        When there is none.
    """
    for entry in available():
        if entry.name == name:
            return entry
    names = [entry.name for entry in available()]
    raise InputError(f"no data set is called {name!r}; there are {listing(names, 40)}")


def to_stderr(line: str) -> None:
    """Tell the user something, beside the results."""
    sys.stderr.write(line + "\n")


def resolve(name: str, *, release: str | None = None, mirror: str | None = None) -> Dataset:
    """Return the entry called `name`, as a release or a mirror has it.

    Parameters
    ----------
    name
        Name of an entry: see `available`.
    release
        Release of a data set that has releases; by default the one that lexicell knows.
    mirror
        Address to fetch from in place of the data set's own.

    Raises
    ------
    InputError
        When there is no such entry, it has no releases or no address, or the release cannot be read.
    """
    entry = find(name)
    if isinstance(entry.source, HostedSource):
        return planned(entry, release=release, mirror=mirror)
    if release is not None or mirror is not None:
        what = "releases" if release is not None else "address to replace by a mirror"
        raise InputError(f"{name}: has no {what}")
    return entry


def get(
    name: str,
    to: str | Path | None = None,
    subset: Sequence[str] | None = None,
    dry_run: bool = False,
    *,
    release: str | None = None,
    mirror: str | None = None,
    announce: Announce = to_stderr,
) -> tuple[Path, ...]:
    """Fetch a data set, verify it, and say where it is; what is there and intact is not fetched again.

    Parameters
    ----------
    name
        Name of an entry: see `available`.
    to
        Folder to put the files into; by default a folder of the cache, see `cache_folder`.
    subset
        Parts to fetch; by default all.
    dry_run
        Only say where the files would be.
    release, mirror
        See `resolve`.
    announce
        Called with lines for the user; the licence comes before a download.

    Returns
    -------
    tuple of Path
        The files, in the order of the entry.

    Raises
    ------
    InputError
        When the entry or a part does not exist, the folder cannot be written or holds other files of these
        names, the download fails, or what comes is not the file that is known.
    """
    return get_files(resolve(name, release=release, mirror=mirror), to, subset, dry_run, announce=announce)


def get_files(
    entry: Dataset,
    to: str | Path | None = None,
    subset: Sequence[str] | None = None,
    dry_run: bool = False,
    *,
    announce: Announce = to_stderr,
) -> tuple[Path, ...]:
    """Fetch a data set that was resolved; see `get`."""
    files = entry.select(subset)
    shelf = shelf_of(entry, to)
    paths = tuple(shelf.folder / file.name for file in files)
    if dry_run:
        return paths
    with shelf.locked(announce):
        if isinstance(entry.source, HostedSource):
            fetch_hosted(entry, files, shelf, announce)
            return paths
        missing = [file.name for file in files if not shelf.intact(file.name)]
        if missing:
            _fill(entry, shelf, missing, announce, ours=to is None)
    return paths


def shelf_of(entry: Dataset, to: str | Path | None = None) -> Shelf:
    """Return the folder that holds a data set's files: `to`, or its place in the cache."""
    folder = Path(to).expanduser() if to is not None else cache_folder() / "datasets" / entry.name
    return Shelf(folder, entry.name)


def _fill(entry: Dataset, shelf: Shelf, missing: list[str], announce: Announce, *, ours: bool) -> None:
    present = [name for name in missing if (shelf.folder / name).exists()]
    if present and not ours:
        raise InputError(
            f"{shelf.folder}: {listing(present)}: already there, but not as lexicell put it; "
            "move it away, or choose another folder"
        )
    for name in present:
        announce(f"{shelf.folder / name}: damaged; getting it again")
    needed = 2 * entry.source.size + sum(file.size for file in entry.files if file.name in missing)
    if shutil.disk_usage(shelf.folder).free < needed:
        raise InputError(f"{shelf.folder}: disk too full: {entry.name} needs about {needed / 1e6:,.0f} MB")
    announce(f"{entry.name}: {entry.title}\n  licence: {entry.licence}\n  cite: {entry.citation}")
    cached = shelf_of(entry)
    with shelf.staging() as staging:
        copies = [name for name in missing if not ours and cached.intact(name)]
        for name in copies:
            shutil.copyfile(cached.folder / name, staging / name)
        fetched = [name for name in missing if name not in copies]
        if fetched:
            announce(f"  from: {entry.source.how}")
            entry.source.fetch(fetched, staging)
        shelf.put(
            staging,
            missing,
            {
                "name": entry.name,
                "title": entry.title,
                "licence": entry.licence,
                "citation": entry.citation,
                "source": entry.source.how,
            },
        )


def is_whole(entry: Dataset) -> bool:
    """Say whether all files of a data set are in the cache (by name; `get` looks at their bytes)."""
    shelf = shelf_of(entry)
    noted = shelf.noted()
    return all(file.name in noted and (shelf.folder / file.name).is_file() for file in entry.files)
