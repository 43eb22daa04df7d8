"""corpus.yaml: which inputs, and where species, counts, genes, donors, tissue and labels stand in them.

`lexicell.data.corpus_file` reads it, `lexicell.data.corpus_check` opens and checks the inputs themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anndata import AnnData

from lexicell.errors import InputError, listing


@dataclass(frozen=True)
class Field:
    """A fact about cells: a column of the cell annotation, or one value for all of them."""

    column: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class LabelColumn:
    """A label level and the column of the cell annotation that holds it."""

    level: str
    column: str


@dataclass(frozen=True)
class JoinedTable:
    """A table of facts about what a column of the cell annotation names: clusters, donors, libraries.

    Attributes
    ----------
    path
        CSV (or TSV), read into memory.
    key
        Its column of keys; None takes the first one.
    on
        The column of the cell annotation that holds the keys; None takes one of the name of `key`.
    names, values
        Columns of a long table, which has one row for each key and name: `names` says which column a value belongs
        to. None for a wide table, which has one row for each key.
    """

    path: Path
    key: str | None = None
    on: str | None = None
    names: str | None = None
    values: str | None = None


@dataclass(frozen=True)
class ObsTable:
    """Cell annotation that stands in a table of its own, beside the counts.

    Attributes
    ----------
    path
        CSV (or TSV); it is streamed, so that its size does not matter.
    key
        Its column of keys; None takes the first one.
    on
        The column of the file's own cell annotation that holds the keys; None takes the names of the cells.
    joins
        Tables to join to it, in this order.
    missing
        ``drop`` or ``keep``: what to do with cells that have no row in it.
    """

    path: Path
    key: str | None = None
    on: str | None = None
    joins: tuple[JoinedTable, ...] = ()
    missing: str = "drop"


@dataclass(frozen=True, eq=False)
class Dataset:
    """One input of a corpus.

    Attributes
    ----------
    source
        A path, or an AnnData in memory.
    name
        What the store calls it.
    species
        Species of all cells, or the column that says it cell by cell.
    counts
        The matrix of raw counts: ``X``, ``layers/NAME`` or ``raw``; None takes the one that holds raw counts.
    gene_ids
        Where gene ids stand: ``auto``, ``index``, or a column of the gene annotation.
    symbols
        Column of the gene annotation with symbols, where it is not found by itself.
    donor, tissue, assay
        Where they stand, or None.
    labels
        Label levels, coarse to fine.
    unlabelled
        Labels that mean "no label", such as ``(none)``.
    genes
        A gene table (TSV) through which names become ids.
    unmatched
        ``drop`` or ``keep``: what to do with genes that the gene table does not know.
    min_matched
        Share of genes that the gene table must know; below it the input is refused.
    keep
        Further columns of the cell annotation to carry along.
    obs
        A table of cell annotation outside the file; its columns come before the file's own ones of the same name.
    """

    source: Path | AnnData
    name: str
    species: Field
    counts: str | None = None
    gene_ids: str = "auto"
    symbols: str | None = None
    donor: Field | None = None
    tissue: Field | None = None
    assay: Field | None = None
    labels: tuple[LabelColumn, ...] = ()
    unlabelled: tuple[str, ...] = ()
    genes: Path | None = None
    unmatched: str = "drop"
    min_matched: float = 0.5
    keep: tuple[str, ...] = ()
    obs: ObsTable | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the cell annotation that are asked for."""
        fields = (self.species, self.donor, self.tissue, self.assay)
        asked = [field.column for field in fields if field is not None and field.column]
        return tuple(dict.fromkeys([*asked, *(label.column for label in self.labels), *self.keep]))


@dataclass(frozen=True, eq=False)
class CorpusConfig:
    """The inputs of a store.

    Attributes
    ----------
    datasets
        The inputs, in the order in which their cells will lie in the store.
    name
        What to call the corpus in messages.
    """

    datasets: tuple[Dataset, ...]
    name: str = "corpus"

    @property
    def label_levels(self) -> tuple[str, ...]:
        """All label levels, coarse to fine, in an order that agrees with every data set."""
        return joined_levels([[label.level for label in dataset.labels] for dataset in self.datasets])


def joined_levels(orders: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Join orders of levels into one that agrees with all of them."""
    waiting = [list(order) for order in orders if order]
    joined: list[str] = []
    while waiting:
        later = {level for order in waiting for level in order[1:]}
        free = [order[0] for order in waiting if order[0] not in later]
        if not free:
            raise InputError(
                f"labels: the data sets name the levels {listing(sorted(later))} in contradicting orders; "
                "give them from coarse to fine everywhere."
            )
        joined.append(free[0])
        waiting = [rest for order in waiting if (rest := [level for level in order if level != free[0]])]
    return tuple(joined)
