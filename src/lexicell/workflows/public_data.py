"""Public data for the user: what there is, and fetching it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lexicell.datasets import registry
from lexicell.datasets.entries import Dataset
from lexicell.reporting.text import Table


@dataclass(frozen=True)
class DataListing:
    """The data sets that can be fetched.

    Parameters
    ----------
    entries
        The registry's entries.
    here
        Names of those that are in the cache, whole.
    """

    entries: tuple[Dataset, ...]
    here: frozenset[str]

    def figures(self) -> dict[str, Any]:
        """Return the listing as a JSON-able dictionary."""
        return {
            "datasets": [
                {
                    "name": entry.name,
                    "title": entry.title,
                    "species": list(entry.species),
                    "cells": entry.cells,
                    "download_bytes": entry.source.size,
                    "licence": entry.licence,
                    "citation": entry.citation,
                    "source": entry.source.how,
                    "parts": list(entry.parts),
                    "cached": entry.name in self.here,
                }
                for entry in self.entries
            ]
        }

    def tables(self) -> list[Table]:
        """Return the listing as a table."""
        rows = tuple(
            (
                entry.name,
                entry.title,
                entry.cells,
                _megabytes(entry.source.size),
                entry.licence.partition(" (")[0],
                entry.name in self.here,
            )
            for entry in self.entries
        )
        return [Table("Public data", ("name", "what", "cells", "download", "licence", "cached"), rows)]


@dataclass(frozen=True)
class DataFiles:
    """The files of a data set, fetched or (on a dry run) as they would be.

    Parameters
    ----------
    entry
        The data set.
    paths
        Where its files are.
    dry_run
        Whether nothing was fetched.
    """

    entry: Dataset
    paths: tuple[Path, ...]
    dry_run: bool

    def figures(self) -> dict[str, Any]:
        """Return the files as a JSON-able dictionary."""
        return {
            "name": self.entry.name,
            "licence": self.entry.licence,
            "citation": self.entry.citation,
            "source": self.entry.source.how,
            "dry_run": self.dry_run,
            "files": [{"path": str(path), "bytes": self._size(path)} for path in self.paths],
        }

    def tables(self) -> list[Table]:
        """Return the files as a table."""
        title = f"{self.entry.name} ({self.entry.licence.partition(' (')[0]})" + (
            ", dry run: nothing fetched" if self.dry_run else ""
        )
        sizes = {str(path): self._size(path) for path in self.paths}
        rows = [(path, _megabytes(size)) for path, size in sizes.items()]
        if len(rows) > 1:
            rows.append(("together", _megabytes(sum(sizes.values()))))
        return [Table(title, ("file", "size"), tuple(rows))]

    def _size(self, path: Path) -> int:
        if path.is_file():
            return path.stat().st_size
        return next(file.size for file in self.entry.files if path.as_posix().endswith(f"/{file.name}"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def list_data() -> DataListing:
    """List the data sets that `get_data` can fetch."""
    entries = registry.available()
    here = (entry.name for entry in entries if registry.is_whole(entry))
    return DataListing(entries, frozenset(here))


def get_data(
    name: str,
    to: str | Path | None = None,
    subset: Sequence[str] | None = None,
    *,
    dry_run: bool = False,
    release: str | None = None,
    mirror: str | None = None,
) -> DataFiles:
    """Fetch a public data set: checked by its checksums, and only once.

    Parameters
    ----------
    name
        Name of the data set: see `list_data`.
    to
        Folder for its files; by default lexicell's cache (``LEXICELL_CACHE``).
    subset
        Parts to fetch; by default all.
    dry_run
        Only say what would be fetched, and where to.
    release
        Release of a data set that has releases, such as ``20231215``; by default the one that lexicell knows.
    mirror
        Address that has the same files as the data set's own server.

    Returns
    -------
    DataFiles
        ``paths`` holds the files.

    Raises
    ------
    InputError
        When there is no such data set or part, or it cannot be fetched whole.
    """
    entry = registry.resolve(name, release=release, mirror=mirror)
    return DataFiles(entry, registry.get_files(entry, to, subset, dry_run), dry_run)
