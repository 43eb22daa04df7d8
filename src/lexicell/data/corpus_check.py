"""Opening every input of a corpus before anything is written: all faults of all of them, together.

What comes out is small, whatever the size of the inputs: cell annotation is read again when its part is
written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.corpus import CorpusConfig, Dataset, Field
from lexicell.data.gene_ids import GeneMatch, match_genes
from lexicell.data.matrix_choice import choose_matrix
from lexicell.data.obs_tables import notes_of, open_dataset, rows_to_take
from lexicell.data.readers import MatrixSource
from lexicell.errors import InputError, listing, raise_all
from lexicell.genes.annotations import GeneAnnotations
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.species import find_species
from lexicell.labels import LabelTree, clean_labels

_T = TypeVar("_T")
_LoadTable = Callable[[Path, str], GeneAnnotations]


@dataclass(frozen=True, eq=False)
class CheckedSource:
    """The cells of one species in one input, ready to be written.

    Attributes
    ----------
    dataset
        Its entry in the corpus.
    name
        What the store calls it.
    species
        Species key.
    matrix
        Matrix with the raw counts.
    rows
        Cells to take, ascending; None takes all.
    n_cells
        Number of cells to take.
    n_entries
        About how many non-zero counts they hold.
    genes
        What became of the genes.
    labels
        Each combination of labels that occurs, one column a level of this data set, as text.
    notes
        What was chosen and what is odd, in words.
    seconds
        About how long reading takes.
    """

    dataset: Dataset
    name: str
    species: str
    matrix: str
    rows: npt.NDArray[np.int64] | None
    n_cells: int
    n_entries: int
    genes: GeneMatch
    labels: pd.DataFrame
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class CheckedCorpus:
    """A corpus without faults.

    Attributes
    ----------
    config
        The corpus.
    sources
        Its sources, in the order of their cells in the store.
    lexicon
        Every gene that a source measured.
    label_levels
        Label levels, coarse to fine.
    """

    config: CorpusConfig
    sources: tuple[CheckedSource, ...]
    lexicon: Lexicon
    label_levels: tuple[str, ...]


def check(corpus: CorpusConfig) -> CheckedCorpus:
    """Open every input and look for faults: damage, wrong values, missing columns, genes, labels.

    Raises
    ------
    InputError
        With every fault of every input.
    """
    faults: list[str] = []
    sources: list[CheckedSource] = []
    load_table = cache(GeneAnnotations.load)  # one table often serves many files
    for dataset in corpus.datasets:
        found, wrong = _check_dataset(dataset, load_table)
        sources += found
        faults += wrong
    levels = corpus.label_levels
    if levels and not faults:
        faults += _check_tree(sources, levels)
    raise_all(faults, f"{corpus.name}: nothing was written, because of:")
    return CheckedCorpus(corpus, tuple(sources), joined_lexicon(sources), levels)


def read_obs(source: MatrixSource, dataset: Dataset, rows: npt.NDArray[np.int64] | None) -> pd.DataFrame:
    """Read the cell annotation of a data set as the store keeps it.

    Returns
    -------
    DataFrame
        Indexed by cell name; ``donor``, ``tissue``, ``assay`` where they are known, the label levels under
        their own names (categorical text, missing where there is no label), and the columns to keep.
    """
    fields = {name: getattr(dataset, name) for name in ("donor", "tissue", "assay")}
    wanted = [field.column for field in fields.values() if field is not None and field.column]
    wanted += [label.column for label in dataset.labels] + list(dataset.keep)
    table = source.obs(sorted(set(wanted)))
    columns: dict[str, object] = {}
    for name, field in fields.items():
        if field is not None:
            columns[name] = _field_values(field, table)
    for label in dataset.labels:
        values = clean_labels(table[label.column])
        columns[label.level] = values.remove_categories([c for c in values.categories if c in dataset.unlabelled])
    for name in dataset.keep:
        columns.setdefault(name, table[name].array)
    obs = pd.DataFrame(columns, index=table.index.astype(str))
    return obs if rows is None else obs.iloc[rows]


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what a damaged file makes its reader raise into InputError."""
    try:
        yield
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{name}: cannot be read: {reason[0] if reason else type(error).__name__}. "
            "It is cut short or damaged; fetch it again."
        ) from error


def joined_lexicon(sources: list[CheckedSource]) -> Lexicon:
    """Return the lexicon of every gene that the sources measured, in the order in which they bring them."""
    tables = []
    for source in sources:
        kept = [(gene, symbol) for gene, symbol in zip(source.genes.ids, source.genes.symbols, strict=True) if gene]
        table = pd.DataFrame(kept, columns=["gene_id", "symbol"]).drop_duplicates("gene_id")
        tables.append(table.assign(species=source.species))
    joined = pd.concat(tables, ignore_index=True)
    return Lexicon(joined.drop_duplicates(["species", "gene_id"]))


def _check_dataset(dataset: Dataset, load_table: _LoadTable) -> tuple[list[CheckedSource], list[str]]:
    label = label_of(dataset)
    try:
        with reading(label), open_dataset(dataset, label) as source:
            return _DatasetCheck(dataset, source, load_table).run()
    except InputError as error:
        return [], [str(error)]


class _DatasetCheck:
    """Looks one open input over and collects its faults."""

    def __init__(self, dataset: Dataset, source: MatrixSource, load_table: _LoadTable) -> None:
        self._load_table = load_table
        self.dataset = dataset
        self.source = source
        self.faults: list[str] = []

    def run(self) -> tuple[list[CheckedSource], list[str]]:
        source, dataset = self.source, self.dataset
        if source.n_cells == 0:
            return [], [f"{source.name}: holds no cells."]
        if self._missing_columns():
            # Without its columns nothing more can be said of the cells; counts and genes still can.
            self._attempt(lambda: choose_matrix(source, dataset.counts))
            return [], self.faults
        obs = read_obs(source, dataset, None)
        self._check_obs(obs)
        choice = self._attempt(lambda: choose_matrix(source, dataset.counts))
        species = self._attempt(self._rows_by_species) or {}
        annotated = self._attempt(lambda: self._annotations(list(species)))
        if choice is None or annotated is None:
            return [], self.faults
        matrix = source.matrix(choice.matrix)
        found = []
        for name, rows in species.items():
            genes = self._attempt(partial(self._genes, choice.matrix, name, annotated.get(name)))
            if genes is None:
                continue
            n_cells = source.n_cells if rows is None else len(rows)
            share = n_cells / source.n_cells
            labels = obs[[label.level for label in dataset.labels]]
            found.append(
                CheckedSource(
                    dataset=dataset,
                    name=dataset.name if len(species) == 1 else f"{dataset.name}-{name}",
                    species=name,
                    matrix=choice.matrix,
                    rows=rows,
                    n_cells=n_cells,
                    n_entries=int(matrix.n_entries * choice.look.filled * share),
                    genes=genes,
                    labels=(labels if rows is None else labels.iloc[rows]).drop_duplicates(),
                    notes=(choice.said, *genes.notes, *notes_of(source)),
                    seconds=choice.look.seconds_per_entry * matrix.n_entries * share,
                )
            )
        return ([], self.faults) if self.faults else (found, [])

    def _attempt(self, step: Callable[[], _T]) -> _T | None:
        try:
            return step()
        except InputError as error:
            self.faults += [str(error)]
            return None

    def _missing_columns(self) -> bool:
        dataset, columns = self.dataset, self.source.obs_columns
        wanted = {
            "species": dataset.species,
            "donor": dataset.donor,
            "tissue": dataset.tissue,
            "assay": dataset.assay,
        }
        asked = [(key, field.column) for key, field in wanted.items() if field is not None and field.column]
        asked += [("labels", label.column) for label in dataset.labels] + [("keep", name) for name in dataset.keep]
        for key, column in asked:
            if column not in columns:
                self.faults.append(
                    f"{self.source.name}: {key}: no column '{column}' in the cell annotation; it has "
                    f"{listing(map(repr, columns), 20) or 'none'}."
                )
        return bool(self.faults)

    def _check_obs(self, obs: pd.DataFrame) -> None:
        name = self.source.name
        twice = obs.index[obs.index.duplicated()].unique()
        if len(twice):
            self.faults.append(
                f"{name}: {len(twice):,} cell names stand more than once ({listing(twice, 3)}); "
                "make them unique (adata.obs_names_make_unique()), or take the repeated cells out."
            )
        levels = [label.level for label in self.dataset.labels]
        for level in levels:
            if obs[level].isna().all():
                self.faults.append(f"{name}: labels: the column of '{level}' holds no label (all are missing).")

    def _rows_by_species(self) -> dict[str, npt.NDArray[np.int64] | None]:
        field = self.dataset.species
        known = rows_to_take(self.source)
        if field.value is not None:
            return {field.value: known}
        column = str(field.column)
        values = clean_labels(self.source.obs([column])[column])
        if known is not None:
            values = values[known]
        missing = int((values.codes < 0).sum())
        if missing:
            raise InputError(f"{self.source.name}: species: {missing:,} cells have none in the column '{column}'.")
        kinds = np.array([find_species(str(text)).name for text in values.categories])
        by_cell = kinds[values.codes]
        names = list(pd.unique(by_cell))
        if len(names) == 1:
            return {names[0]: known}
        cells = np.arange(len(by_cell)) if known is None else known
        return {name: cells[by_cell == name] for name in names}

    def _annotations(self, species: list[str]) -> dict[str, GeneAnnotations]:
        path = self.dataset.genes
        if path is None:
            return {}
        if len(species) > 1:
            raise InputError(
                f"{self.source.name}: genes: one gene table cannot serve {listing(species)}; split the file by species."
            )
        return {name: self._load_table(path, name) for name in species}

    def _genes(self, matrix: str, species: str, annotations: GeneAnnotations | None) -> GeneMatch:
        dataset = self.dataset
        return match_genes(
            self.source.name,
            self.source.var(matrix),
            find_species(species),
            gene_ids=dataset.gene_ids,
            symbols=dataset.symbols,
            annotations=annotations,
            keep_unmatched=dataset.unmatched == "keep",
            min_matched=dataset.min_matched,
        )


def _field_values(field: Field, table: pd.DataFrame) -> pd.Categorical:
    if field.column:
        return clean_labels(table[field.column])
    return pd.Categorical([field.value]).repeat(len(table))


def _check_tree(sources: list[CheckedSource], levels: tuple[str, ...]) -> list[str]:
    """Check each source's own labels, then, where these are sound, all of them as one tree."""
    faults: list[str] = []
    for source in sources:
        own = tuple(label.level for label in source.dataset.labels)
        if own:
            faults += _tree_faults(source.labels, own, label_of(source.dataset))
    if not faults and len(sources) > 1:
        frame = pd.concat([source.labels.astype(object) for source in sources], ignore_index=True)
        faults = _tree_faults(frame.reindex(columns=list(levels)), levels, "labels of all data sets together")
        if faults:
            faults.append("levels that mean the same must bear one name; 'labels: {level: column}' gives it.")
    return faults


def _tree_faults(frame: pd.DataFrame, levels: tuple[str, ...], where: str) -> list[str]:
    try:
        LabelTree.from_frame(frame, levels, source=where)
    except InputError as error:
        _, *faults = str(error).splitlines()
        return [fault.removeprefix("  - ") for fault in faults]
    return []


def label_of(dataset: Dataset) -> str:
    """Return what messages call a data set: its path, or its name where it is in memory."""
    return str(dataset.source) if isinstance(dataset.source, Path) else dataset.name


def with_rows(source: CheckedSource, rows: npt.NDArray[np.int64]) -> CheckedSource:
    """Return the source with fewer of its cells; its genes stay."""
    share = len(rows) / max(source.n_cells, 1)
    return replace(
        source,
        rows=rows,
        n_cells=len(rows),
        n_entries=int(source.n_entries * share),
        seconds=source.seconds * share,
    )
