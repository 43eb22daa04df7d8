"""Gene sets in GMT files: one line a set, tab-separated: name, description, genes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from lexicell.errors import InputError, listing, raise_all
from lexicell.genes.text_files import read_text


@dataclass(frozen=True)
class GeneSet:
    """A named set of genes.

    Parameters
    ----------
    name
        Such as ``GO:0000002``; unique in its collection.
    description
        The file's second column: a title or a link.
    genes
        Symbols or ids, each once, in the file's order.
    """

    name: str
    description: str
    genes: tuple[str, ...]


@dataclass(frozen=True)
class GeneSets:
    """A collection of gene sets, in the file's order.

    Parameters
    ----------
    name
        Name of the collection.
    sets
        The sets.
    """

    name: str
    sets: tuple[GeneSet, ...]

    def __len__(self) -> int:
        return len(self.sets)

    def __iter__(self) -> Iterator[GeneSet]:
        return iter(self.sets)

    def __getitem__(self, name: str) -> GeneSet:
        for one in self.sets:
            if one.name == name:
                return one
        raise KeyError(name)

    def membership(self, names: pd.Series | list[str], *, ignore_case: bool = False) -> sparse.csr_matrix:
        """Say which gene is in which set.

        Parameters
        ----------
        names
            Name of each gene, symbols or ids, as the sets have them. A name may occur more than once: all its
            genes are members.
        ignore_case
            Match names whatever their case (sets in human symbols, genes in mouse symbols).

        Returns
        -------
        csr_matrix of bool, (sets, genes)
            Sorted indices; genes of a set that are not in `names` are left out.
        """
        listed = pd.Series(list(names), dtype=object)
        listed = listed.str.upper() if ignore_case else listed
        places = {str(gene): np.asarray(rows) for gene, rows in listed.groupby(listed, sort=False).indices.items()}
        rows, columns = [], []
        for row, one in enumerate(self.sets):
            genes = {gene.upper() for gene in one.genes} if ignore_case else set(one.genes)
            hits = [places[gene] for gene in genes if gene in places]
            columns.append(np.sort(np.concatenate(hits)) if hits else np.zeros(0, dtype=np.int64))
            rows.append(np.full(len(columns[-1]), row))
        index = (np.concatenate(rows), np.concatenate(columns)) if rows else (np.zeros(0, int), np.zeros(0, int))
        values = np.ones(len(index[0]), dtype=bool)
        return sparse.csr_matrix((values, index), shape=(len(self.sets), len(listed)))

    def of_size(self, least: int = 1, most: int | None = None) -> GeneSets:
        """Return the sets that have at least `least` and at most `most` genes."""
        kept = (one for one in self.sets if len(one.genes) >= least and (most is None or len(one.genes) <= most))
        return GeneSets(self.name, tuple(kept))


def read_gene_sets(path: str | Path, name: str | None = None) -> GeneSets:
    """Read a GMT file, plain or gzip.

    Parameters
    ----------
    path
        The file.
    name
        Name of the collection; by default the file's name without its suffixes.

    Returns
    -------
    GeneSets
        The sets, in the file's order; a gene that a line repeats counts once.

    Raises
    ------
    InputError
        When the file cannot be read, holds no set, or has lines without a gene or names used twice: all
        listed.
    """
    path = Path(path)
    sets: list[GeneSet] = []
    lines: dict[str, int] = {}
    faults = []
    for number, line in enumerate(read_text(path, "a GMT file of gene sets"), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
        genes = tuple(dict.fromkeys(gene for gene in fields[2:] if gene))
        if len(fields) < 3 or not fields[0] or not genes:
            faults.append(f"line {number}: expected name, description and genes with tabs between, got {line[:60]!r}")
        elif fields[0] in lines:
            faults.append(f"line {number}: the name {fields[0]!r} was used on line {lines[fields[0]]}")
        else:
            lines[fields[0]] = number
            sets.append(GeneSet(fields[0], fields[1], genes))
    raise_all([listing(faults, 5)] if faults else [], f"{path}: not a GMT file of gene sets:")
    if not sets:
        raise InputError(f"{path}: holds no gene set; expected lines of name, description and genes, with tabs between")
    return GeneSets(name or path.name.removesuffix(".gz").removesuffix(".gmt"), tuple(sets))
