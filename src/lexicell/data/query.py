"""A user's cells as raw counts over a lexicon: what `embed` and `annotate` work on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from lexicell.data.corpus_check import reading
from lexicell.data.counts import NotCountsError, integers_of
from lexicell.data.gene_ids import name_columns, texts_of
from lexicell.data.matrix_choice import choose_matrix, not_counts, remedy
from lexicell.data.readers import MatrixSource, open_source
from lexicell.data.readers.bands import turned
from lexicell.data.readers.matrices import Matrix
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.genes.annotations import GeneAnnotations, MatchReport, Resolution
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.species import find_species, species_of_ids
from lexicell.labels import clean_labels

_SPECIES_COLUMNS = ("species", "organism")
_MIN_MATCHED = 0.05
_CELLS_AT_ONCE = 50_000  # cells of a store that are read at a time


@dataclass(frozen=True, eq=False)
class Query:
    """Cells to embed or annotate.

    Attributes
    ----------
    counts
        (n_cells, n_genes) CSR int32, raw counts of all genes of the file; genes that stand for one gene of the
        lexicon are summed in the first of them and taken out of the others.
    gene_index
        (n_genes,) index in the lexicon, -1 for genes outside it; every other index occurs once.
    species
        Species key.
    report
        How many genes, and which share of the counts, the lexicon holds.
    obs
        The cell annotation of the file, indexed by cell name.
    matrix
        Which matrix the counts are from.
    notes
        What was chosen, in words for the user.
    """

    counts: sp.csr_matrix
    gene_index: npt.NDArray[np.int64]
    species: str
    report: MatchReport
    obs: pd.DataFrame
    matrix: str
    notes: tuple[str, ...]

    @classmethod
    def of_counts(cls, counts: sp.csr_matrix, gene_index: npt.NDArray[np.int64], species: str) -> Query:
        """Return cells that are in memory as raw counts (n_cells, n_genes), by lexicon index of the genes."""
        known = int((gene_index >= 0).sum())
        report = MatchReport(len(gene_index), known, 0, len(gene_index) - known)
        obs = pd.DataFrame(index=pd.RangeIndex(counts.shape[0]).astype(str))
        return cls(sp.csr_matrix(counts), gene_index, species, report, obs, "counts in memory", ())

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self.counts.shape[0])

    def take(self, rows: npt.NDArray[np.int64]) -> Query:
        """Return some of the cells; the report stays that of all."""
        return replace(self, counts=sp.csr_matrix(self.counts[rows]), obs=self.obs.iloc[rows])

    def over(self, genes: npt.NDArray[np.int64]) -> Query:
        """Return the same cells over some genes (ascending lexicon indices) alone, in that order.

        A gene that the cells' file did not measure must not be asked for.
        """
        order = np.argsort(self.gene_index, kind="stable")
        columns = order[np.searchsorted(self.gene_index, genes, sorter=order)]
        return replace(self, counts=sp.csr_matrix(self.counts[:, columns]), gene_index=genes)


@dataclass(frozen=True, eq=False)
class QueryCells:
    """Cells of an open input, not yet read: what they are, and `parts` to read them in pieces.

    `report` knows the genes but not yet the counts; see `Query` for the rest.
    """

    n_cells: int
    gene_index: npt.NDArray[np.int64]
    species: str
    report: MatchReport
    obs: pd.DataFrame
    matrix: str
    notes: tuple[str, ...]
    _source: MatrixSource
    _kinds: npt.NDArray[np.int64]
    _sums: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))

    @property
    def genes(self) -> npt.NDArray[np.int64]:
        """The lexicon's genes that these cells measured, ascending."""
        return np.unique(self.gene_index[self.gene_index >= 0])

    def parts(self, cells_at_once: int, every: int = 1) -> Iterator[Query]:
        """Yield all cells in order, at most `cells_at_once` at a time (a part's report counts its own cells).

        With `every` above 1 only each so-manieth part is read.
        """
        self._sums[:] = 0
        with TemporaryDirectory(prefix="lexicell-") as scratch:  # for a matrix that lies gene by gene
            matrix = turned(self._source.matrix(self.matrix), Path(scratch))
            for start in range(0, self.n_cells, cells_at_once * every):
                yield self._part(matrix, start, min(start + cells_at_once, self.n_cells))

    def _part(self, matrix: Matrix, start: int, stop: int) -> Query:
        counts = _read_rows(self._source, matrix, self.matrix, start, stop)
        sums = np.asarray(counts.sum(axis=0, dtype=np.int64)).ravel()
        kinds = [self._kinds >= 0, self._kinds == -2, self._kinds == -1]
        of_kinds = [float(sums[kind].sum()) for kind in kinds]
        self._sums[:] += of_kinds
        report = self.report.with_counts(*of_kinds)
        counts, index = _summed(counts, self.gene_index)
        return Query(counts, index, self.species, report, self.obs.iloc[start:stop], self.matrix, self.notes)

    def counted(self) -> MatchReport:
        """Return the report with the shares of the counts that `parts` has read by now."""
        return self.report.with_counts(*map(float, self._sums))


@contextmanager
def open_query(
    query: AnnData | str | Path, lexicon: Lexicon, species: str | None = None, counts: str | None = None
) -> Iterator[QueryCells]:
    """Open cells to be read in parts, in bounded memory; parameters and errors as of `read_query`."""
    label = str(query) if not isinstance(query, AnnData) else "query AnnData"
    with reading(label), open_source(query, label) as source:
        if source.n_cells == 0:
            raise InputError(f"{source.name}: holds no cells.")
        choice = choose_matrix(source, counts)
        var = source.var(choice.matrix)
        name, how = _species(source, var, lexicon, species)
        resolution, place = _resolve(source, var, GeneAnnotations.from_lexicon(lexicon, name))
        notes = (choice.said, f"species {name} ({how})", f"genes by {place}")
        index = np.append(lexicon.rows_of(name), -1)[np.where(resolution.rows >= 0, resolution.rows, -1)]
        _check_matched(source, resolution, name, guessed=how.startswith("the only"))
        obs = source.obs(source.obs_columns)
        obs.index = pd.Index(obs.index.astype(str))
        yield QueryCells(
            source.n_cells, index, name, resolution.report, obs, choice.matrix, notes, source, resolution.rows
        )


def read_query(
    query: AnnData | str | Path, lexicon: Lexicon, species: str | None = None, counts: str | None = None
) -> Query:
    """Read cells as raw counts over a lexicon.

    Parameters
    ----------
    query
        AnnData, or a file of a format that `lexicell.prepare` reads.
    lexicon
        The genes of the model.
    species
        Species of the cells. Without it: ``uns["species"]``, an obs column ``species`` or ``organism`` with one
        value, gene ids that tell it, or the lexicon's only species.
    counts
        Matrix with the raw counts (``X``, ``layers/NAME``, ``raw``); None takes the one that holds them.

    Raises
    ------
    InputError
        When there are no raw counts, the species is not clear or not in the lexicon, or hardly a gene is known.
    """
    with open_query(query, lexicon, species, counts) as cells:
        (whole,) = cells.parts(cells.n_cells)
    return whole


def store_queries(
    store: Store, cells: npt.NDArray[np.int64], lexicon: Lexicon, cells_at_once: int | None = None
) -> Iterator[Query]:
    """Yield cells of a store as queries that fit into memory, each of one source and over the genes it measured.

    Parameters
    ----------
    store
        An opened store.
    cells
        (n,) rows of the store, ascending; so come the cells of the queries, one after the other.
    lexicon
        The genes of the model.
    cells_at_once
        Most cells of a query; 50,000 unless given.

    Raises
    ------
    InputError
        When the lexicon holds no gene that these cells measured.
    """
    index = lexicon.map_from(store.lexicon)
    step = cells_at_once or _CELLS_AT_ONCE
    found = False
    for source in store.sources:
        own = cells[(cells >= source.start) & (cells < source.stop)]
        found |= bool(len(own) and (index[source.panel] >= 0).any())
        for start in range(0, len(own), step):
            here = own[start : start + step]
            rows = store.rows(here)
            counts = sp.csr_matrix(
                (rows.counts, rows.genes.astype(np.int64), rows.indptr), shape=(len(here), store.n_genes)
            )
            yield Query.of_counts(counts[:, source.panel], index[source.panel], source.species)
    if not found:
        raise InputError(
            f"the store {store.path}: the model knows none of its genes (the store holds "
            f"{listing(store.lexicon.species)}, the model {listing(lexicon.species)})."
        )


def _species(source: MatrixSource, var: pd.DataFrame, lexicon: Lexicon, asked: str | None) -> tuple[str, str]:
    """Return the species key, and how it was found."""
    held = listing(lexicon.species, 20)
    if asked is not None:
        name, how = find_species(asked).name, "as asked"
    elif source.species:
        name, how = find_species(source.species).name, "from uns"
    else:
        found = _species_of_obs(source)
        guess = species_of_ids(list(map(str, var.index)))
        if found is not None:
            name, how = found, "from obs"
        elif guess is not None:
            name, how = guess.name, "from the gene ids"
        elif len(lexicon.species) == 1:
            name, how = lexicon.species[0], "the only one of the model; nothing else says it"
        else:
            raise InputError(
                f"{source.name}: says nothing of its species. Give it (--species, or species=...), one of {held}."
            )
    if name not in lexicon.species:
        raise InputError(
            f"{source.name}: the species is {name} ({how}), which the model does not know; it knows {held}. "
            "Name the right one with --species (species=...), or extend the model to it."
        )
    return name, how


def _species_of_obs(source: MatrixSource) -> str | None:
    for column in _SPECIES_COLUMNS:
        if column in source.obs_columns:
            names = {find_species(text).name for text in clean_labels(source.obs([column])[column]).categories}
            if len(names) > 1:
                raise InputError(
                    f"{source.name}: holds cells of {listing(sorted(names))} (obs column '{column}'); "
                    "give one species at a time."
                )
            if names:
                return names.pop()
    return None


def _resolve(source: MatrixSource, var: pd.DataFrame, annotations: GeneAnnotations) -> tuple[Resolution, str]:
    """Look the genes up by whichever names of the file the lexicon knows best."""
    columns = {"the index of var": [str(name).strip() for name in var.index]}
    columns |= {f"var['{column}']": texts_of(var[column]) for column in name_columns(var)[:8]}
    if not len(var):
        raise InputError(f"{source.name}: holds no genes.")
    found = {place: annotations.resolve(names) for place, names in columns.items()}
    best = max(found, key=lambda place: found[place].report.n_matched)
    return found[best], best


def _check_matched(source: MatrixSource, resolution: Resolution, species: str, *, guessed: bool) -> None:
    report = resolution.report
    aside = sum(n for kind, n in report.by if kind.endswith("aside"))
    if report.gene_share < _MIN_MATCHED:
        raise InputError(
            f"{source.name}: the model knows {report.n_matched:,} of its {report.n_genes:,} genes as genes of "
            f"{species} (unknown: {listing(report.examples_unmatched, 3)}). Is the species right (--species)? "
            "Are the gene names of the kind that the model was trained on (ids or symbols)?"
        )
    if guessed and aside > report.n_matched / 2:
        raise InputError(
            f"{source.name}: says nothing of its species, and its gene names match those of {species} only "
            "without regard to case. Give the species (--species, or species=...)."
        )


def _read_rows(source: MatrixSource, matrix: Matrix, name: str, start: int, stop: int) -> sp.csr_matrix:
    """Read the cells ``start:stop``, in pieces that the matrix reads in one go."""
    edges = matrix.edges()
    inside = edges[(edges > start) & (edges < stop)].tolist()
    data, genes, lengths = [], [], [np.zeros(1, dtype=np.int64)]
    for first, last in pairwise([start, *inside, stop]):
        rows = matrix.read(first, last)
        try:
            data.append(integers_of(rows.data))
        except NotCountsError as fault:
            cell = first + int(np.searchsorted(rows.indptr, fault.position, side="right")) - 1
            text = not_counts(source, name, cell, int(rows.genes[fault.position]), fault)
            raise InputError(f"{text}; expected raw counts. {remedy(source, name)}") from None
        genes.append(rows.genes.astype(np.int32))
        lengths.append(np.diff(rows.indptr))
    indptr = np.cumsum(np.concatenate(lengths))
    shape = (stop - start, matrix.n_genes)
    counts = sp.csr_matrix((np.concatenate(data), np.concatenate(genes), indptr), shape=shape)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def _summed(counts: sp.csr_matrix, index: npt.NDArray[np.int64]) -> tuple[sp.csr_matrix, npt.NDArray[np.int64]]:
    """Add genes of one lexicon index up in the first of them, and drop the others."""
    _, first, place = np.unique(index, return_index=True, return_inverse=True)
    target = np.where(index >= 0, first[place], np.arange(len(index)))
    kept = np.unique(target)
    if len(kept) == len(index):
        return counts, index
    columns = np.searchsorted(kept, target)
    add = sp.csr_matrix(
        (np.ones(len(index), dtype=counts.dtype), (np.arange(len(index)), columns)), shape=(len(index), len(kept))
    )
    return sp.csr_matrix(counts @ add), index[kept]
