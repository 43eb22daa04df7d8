"""What a data set of the registry is: its facts, its files, and how these are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lexicell.errors import InputError, listing


class Source(Protocol):
    """A way of getting a data set's files."""

    @property
    def size(self) -> int:
        """Bytes to download."""

    @property
    def how(self) -> str:
        """How it is fetched, in a few words."""

    def fetch(self, names: Sequence[str], folder: Path) -> None:
        """Write the files called `names`, whole and verified, into `folder`."""


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    Parameters
    ----------
    name
        File name.
    part
        What ``subset`` calls it; "" for a file that comes with every subset.
    size
        Bytes on disk, about.
    also
        Other names by which ``subset`` may ask for it alone.
    """

    name: str
    part: str
    size: int
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """An entry of the registry.

    Parameters
    ----------
    name
        What the user types.
    title
        One line: tissue, protocol, what was taken.
    species
        Latin names.
    cells
        Number of cells.
    licence
        Licence of the data and of its carrier; shown before a download.
    citation
        Whom to cite.
    files
        The files that it consists of.
    source
        How they are fetched.
    """

    name: str
    title: str
    species: tuple[str, ...]
    cells: int
    licence: str
    citation: str
    files: tuple[DataFile, ...]
    source: Source

    @property
    def parts(self) -> tuple[str, ...]:
        """Names that ``subset`` may take."""
        return tuple(dict.fromkeys(file.part for file in self.files if file.part))

    def select(self, subset: Sequence[str] | None) -> tuple[DataFile, ...]:
        """Return the files of the named parts; all files where `subset` is None.

        Raises
        ------
        InputError
            When a part does not exist.
        """
        if subset is None:
            return self.files
        asked = {part.casefold(): part for part in subset}
        names = {file: {name.casefold() for name in (file.part, *file.also) if name} for file in self.files}
        unknown = [asked[part] for part in asked if not any(part in known for known in names.values())]
        if unknown or not subset:
            what = f"no such part: {listing(unknown)}" if unknown else "no part named"
            single = next((f" (or single files, such as {file.also[0]})" for file in self.files if file.also), "")
            raise InputError(f"{self.name}: {what}; --subset takes among {listing(self.parts, 40)}{single}")
        return tuple(file for file in self.files if not file.part or names[file] & set(asked))
