"""Pairs of genes that are known from elsewhere: listed pairs, or genes that share a set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix

from lexicell.errors import InputError, listing
from lexicell.genes.gene_sets import read_gene_sets
from lexicell.genes.text_files import read_table

Flags = npt.NDArray[np.bool_]

_ENDS = (("gene1", "gene2"), ("source", "target"), ("tf", "target"))
_FEWEST = 20  # pairs between the genes that are there


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """Known pairs among some genes.

    Attributes
    ----------
    name
        Where they are from.
    partners
        (n, n) known pairs.
    asked
        (n, n) pairs that count: known ones, and those that they are told apart from.
    directed
        Whether the row's gene acts on the column's.
    """

    name: str
    partners: Flags
    asked: Flags
    directed: bool

    @property
    def n_partners(self) -> int:
        """Known pairs, each once."""
        return int(self.partners.sum()) if self.directed else int(self.partners.sum()) // 2


def read_known(
    genes: pd.DataFrame,
    pairs: Sequence[str | Path] = (),
    sets: Sequence[str | Path] = (),
    most: int = 100,
) -> list[KnownPairs]:
    """Read known pairs among some genes; names and ids are matched without regard to case.

    Parameters
    ----------
    genes
        Columns ``gene_id`` and ``symbol``.
    pairs
        Tables with the columns gene1 and gene2, and label (1 a pair, 0 not one); or source and target (tf and target),
        without label: then each source is asked about all targets of the table.
    sets
        GMT files: genes that share a set are pairs, genes of two sets that share none are not.
    most
        Larger sets make no pairs; their genes are not asked about together either.

    Raises
    ------
    InputError
        When a file is neither, or has fewer than 20 pairs among the genes.
    """
    found = [_listed(Path(path), genes) for path in pairs] + [_of_sets(Path(path), genes, most) for path in sets]
    poor = [f"{known.name} ({known.n_partners})" for known in found if known.n_partners < _FEWEST]
    if poor:
        raise InputError(
            f"{listing(poor)}: fewer than {_FEWEST} known pairs among the {len(genes):,} genes looked at; are its "
            f"genes named as in the store ({listing(genes['symbol'][:3])})? Or take more genes"
        )
    names = [known.name for known in found]
    if len(set(names)) < len(names):
        raise InputError(f"known pairs: two files are called the same ({listing(names)}); rename one")
    return found


def _listed(path: Path, genes: pd.DataFrame) -> KnownPairs:
    table = read_table(path, "a table of gene pairs")
    ends = next((ends for ends in _ENDS if set(ends) <= set(table.columns)), None)
    if ends is None:
        raise InputError(
            f"{path}: expected the columns gene1 and gene2, or source and target; found {listing(table.columns, 8)}"
        )
    labelled = "label" in table.columns
    strange = sorted(set(table["label"]) - {"0", "1"}) if labelled else []
    if strange:
        raise InputError(f"{path}: expected the labels 1 (a pair) and 0; found {listing(strange)}")
    one, other = (_places(table[end], genes) for end in ends)
    both = (one >= 0) & (other >= 0) & (one != other)
    one, other = one[both], other[both]
    n = len(genes)
    partners, asked = np.zeros((n, n), bool), np.zeros((n, n), bool)
    if labelled:
        truth = (table["label"] == "1").to_numpy()[both]
        partners[one[truth], other[truth]] = True
        asked[one, other] = True
        return KnownPairs(_name(path), partners | partners.T, asked | asked.T, directed=False)
    partners[one, other] = True
    asked[np.ix_(np.unique(one), np.unique(other))] = True
    return KnownPairs(_name(path), partners, asked, directed=True)


def _places(names: pd.Series, genes: pd.DataFrame) -> npt.NDArray[np.int64]:
    upper = names.str.upper()
    found = []
    for column in ("symbol", "gene_id"):
        keys = genes[column].fillna("").astype(str).str.upper()
        places = pd.Series(np.arange(len(genes)), index=keys)
        found.append(upper.map(places[~places.index.duplicated()]))
    return np.asarray(found[0].fillna(found[1]).fillna(-1), dtype=np.int64)


def _of_sets(path: Path, genes: pd.DataFrame, most: int) -> KnownPairs:
    collection = read_gene_sets(path)
    members = max(
        (collection.membership(genes[column], ignore_case=True) for column in ("symbol", "gene_id")),
        key=lambda matrix: matrix.nnz,
    )
    small = np.array([len(one.genes) <= most for one in collection], dtype=bool)
    shared_any = np.asarray((csr_matrix(members, dtype=np.int32).T @ csr_matrix(members, dtype=np.int32)).todense()) > 0
    own = csr_matrix(members[np.flatnonzero(small)], dtype=np.int32)
    partners = np.asarray((own.T @ own).todense()) > 0
    in_small = np.asarray(own.sum(axis=0)).ravel() > 0
    asked = np.outer(in_small, in_small) & (partners | ~shared_any)
    np.fill_diagonal(partners, False)
    np.fill_diagonal(asked, False)
    return KnownPairs(_name(path), partners, asked, directed=False)


def _name(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]
