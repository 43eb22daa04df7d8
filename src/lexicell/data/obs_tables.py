"""Cell annotation that stands beside the counts: a table of cells, and tables of what its columns name.

Design choices
- The table of cells is streamed, and only the rows of the input's own cells are kept: an atlas has one table of
  millions of cells for many files of counts.
- All values are text, as they stand in the table; empty ones are missing.
- What comes out is a source like any other one, so that nothing else has to know of tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pcsv

from lexicell.data.corpus import Dataset, JoinedTable, ObsTable
from lexicell.data.readers import MatrixSource, open_source
from lexicell.data.readers.matrices import Matrix
from lexicell.errors import InputError, listing

_BLOCK_BYTES = 1 << 25
_HEAD_BYTES = 1 << 20

Rows = npt.NDArray[np.int64]


class AnnotatedSource:
    """A source whose cell annotation is joined with a table; see `lexicell.data.readers.source.MatrixSource`.

    Parameters
    ----------
    source
        The input.
    table
        The table.
    columns
        Columns that will be asked for; others of the table are not read.

    Attributes
    ----------
    rows
        Cells to take, ascending; None takes all.
    notes
        What was joined and what is left out, in words.

    Raises
    ------
    InputError
        When a table cannot be read, lacks a column, has a key twice, or knows none of the cells.
    """

    def __init__(self, source: MatrixSource, table: ObsTable, columns: Sequence[str]) -> None:
        self.name = source.name
        self.n_cells = source.n_cells
        self.matrices = source.matrices
        self.species = source.species
        self._source = source
        where = f"{source.name}: obs"
        keys = _keys_of(source, table)
        joins = [_Lookup(where, join) for join in table.joins]
        own = _column_names(table.path, where)
        joined = [column for join in joins for column in join.frame.columns]
        wanted = list(dict.fromkeys([*columns, *(join.on for join in joins)]))
        known, self._table = _matching_rows(table, where, own, keys, [c for c in wanted if c in own])
        n_left = int((~known).sum())
        self.notes: tuple[str, ...] = (_said(table, len(known), n_left),)
        for join in joins:
            self.notes += join.add_to(self._table, known, wanted, self.name)
        self.obs_columns = tuple(dict.fromkeys([*source.obs_columns, *own, *joined]))
        self.rows: Rows | None = np.flatnonzero(known) if n_left and table.missing == "drop" else None

    def obs(self, columns: Sequence[str] = ()) -> pd.DataFrame:
        """Return the named columns of the cell annotation, indexed by cell name."""
        frame = self._source.obs([column for column in columns if column not in self._table])
        for column in columns:
            if column in self._table:
                frame[column] = self._table[column].array
        return frame[list(columns)]

    def var(self, matrix: str) -> pd.DataFrame:
        """Return the gene annotation of a matrix, indexed by gene name."""
        return self._source.var(matrix)

    def matrix(self, name: str) -> Matrix:
        """Return a matrix."""
        return self._source.matrix(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)


def open_dataset(dataset: Dataset, name: str) -> MatrixSource:
    """Open the input of a data set, joined with its table of cells where it has one.

    Raises
    ------
    InputError
        When the input or a table cannot be used.
    """
    source = open_source(dataset.source, name)
    if dataset.obs is None:
        return source
    try:
        return AnnotatedSource(source, dataset.obs, dataset.columns)
    except BaseException:
        source.__exit__(None, None, None)
        raise


def rows_to_take(source: MatrixSource) -> Rows | None:
    """Return the cells of a source that its table knows; None takes all."""
    return source.rows if isinstance(source, AnnotatedSource) else None


def notes_of(source: MatrixSource) -> tuple[str, ...]:
    """Return what became of the cells when a source was joined with its table, in words."""
    return source.notes if isinstance(source, AnnotatedSource) else ()


def table_files(dataset: Dataset) -> tuple[Path, ...]:
    """Return the tables that a data set is joined with."""
    return () if dataset.obs is None else (dataset.obs.path, *(join.path for join in dataset.obs.joins))


class _Lookup:
    """A joined table in memory, one row a key."""

    def __init__(self, where: str, join: JoinedTable) -> None:
        self._where = f"{where}: {join.path}"
        names = _column_names(join.path, where)
        key = join.key or names[0]
        wanted = list(names) if join.names is None else [key, str(join.names), str(join.values)]
        _require(self._where, names, [key, *wanted])
        self.on = join.on or key
        table = pd.concat(
            [batch.to_pandas() for batch in _batches(join.path, self._where, list(dict.fromkeys(wanted)))]
        )
        unique = [key] if join.names is None else [key, str(join.names)]
        twice = table[unique][table.duplicated(unique)]
        if len(twice):
            examples = [" of ".join(row[::-1]) for row in twice.drop_duplicates().head(3).itertuples(index=False)]
            raise InputError(f"{self._where}: {len(twice):,} rows have a key that stood before ({listing(examples)}).")
        if join.names is None:
            self.frame = table.set_index(key)
        else:
            self.frame = table.pivot(index=key, columns=join.names, values=join.values).fillna("")  # noqa: PD010

    def add_to(
        self, table: dict[str, pd.Series], known: npt.NDArray[np.bool_], columns: Sequence[str], name: str
    ) -> tuple[str, ...]:
        """Add the wanted columns to the annotation of the cells; return what is to be said of it."""
        if self.on not in table:
            raise InputError(
                f"{self._where}: is joined on '{self.on}', but the table of cells has no such column; "
                "name the right one with 'on:'."
            )
        keys = table[self.on].cat
        places = self.frame.index.get_indexer(keys.categories)
        codes = np.append(places, -1)[keys.codes]
        if known.any() and (codes[known] < 0).all():
            raise InputError(
                f"{self._where}: has none of the keys that the cells of {name} have in '{self.on}' "
                f"({listing(keys.categories, 3)}); it has {listing(self.frame.index, 3)}."
            )
        for column in columns:
            if column in self.frame.columns and column not in table:
                values = self.frame[column].to_numpy(dtype=object)
                texts = np.append(values, "")[codes]
                table[column] = _categorical(pd.Series(texts, dtype=object))
        lost = int((codes[known] < 0).sum())
        return (f"{lost:,} cells have a '{self.on}' that {Path(self._where).name} does not know",) if lost else ()


def _keys_of(source: MatrixSource, table: ObsTable) -> pd.Series:
    if table.on is None:
        return pd.Series(source.obs([]).index.astype(str).to_numpy(dtype=object), dtype=object)
    if table.on not in source.obs_columns:
        raise InputError(
            f"{source.name}: obs: on: no column '{table.on}' in the cell annotation of the file; it has "
            f"{listing(map(repr, source.obs_columns), 20) or 'none'}."
        )
    return pd.Series(source.obs([table.on])[table.on].astype(str).to_numpy(dtype=object), dtype=object)


def _matching_rows(
    table: ObsTable, where: str, names: Sequence[str], keys: pd.Series, needed: Sequence[str]
) -> tuple[npt.NDArray[np.bool_], dict[str, pd.Series]]:
    """Return which cells have a row, and for every cell its values in the columns `needed`."""
    key = table.key or names[0]
    where = f"{where}: {table.path}"
    _require(where, names, [key])
    codes, uniques = pd.factorize(keys)
    wanted = pd.Index(uniques)  # its hash table is built once, that of pyarrow's index_in for every batch
    row_of = np.full(len(wanted), -1, dtype=np.int64)
    kept: dict[str, list[pa.DictionaryArray]] = {column: [] for column in needed}
    n_kept, first, repeated = 0, "", []
    for batch in _batches(table.path, where, list(dict.fromkeys([key, *needed]))):
        first = first or (batch.column(0)[0].as_py() if len(batch) else "")
        found = wanted.get_indexer(batch.column(0).to_numpy(zero_copy_only=False))
        hits = np.flatnonzero(found >= 0)
        old = (row_of[found[hits]] >= 0) | pd.Series(found[hits]).duplicated().to_numpy()
        repeated += wanted[found[hits[old]]].tolist()
        row_of[found[hits]] = n_kept + np.arange(len(hits))
        for column, chunks in kept.items():
            chunks.append(batch.column(column).take(pa.array(hits)).dictionary_encode())
        n_kept += len(hits)
    if repeated:
        raise InputError(
            f"{where}: {len(repeated):,} rows repeat a '{key}' that stood before ({listing(repeated, 3)}); "
            "every cell must have one row."
        )
    if not n_kept:
        raise InputError(
            f"{where}: knows none of the {len(keys):,} cells: they are called {listing(keys[:3])}, its column "
            f"'{key}' holds {first!r} and the like. Name the right column with 'key:', or with 'on:' the column of "
            "the file that holds the keys."
        )
    rows = row_of[codes]
    return rows >= 0, {column: _expanded(chunks, rows) for column, chunks in kept.items()}


def _expanded(chunks: list[pa.DictionaryArray], rows: Rows) -> pd.Series:
    encoded = pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    encoded = encoded.chunk(0) if isinstance(encoded, pa.ChunkedArray) else encoded
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    codes = np.append(encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), -1)[rows]
    return _categorical(pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype=object))))


def _categorical(values: pd.Series) -> pd.Series:
    """Return texts as a categorical in which empty ones are missing."""
    column = values.astype("category")
    return column.cat.remove_categories("") if "" in column.cat.categories else column


def _said(table: ObsTable, n_cells: int, n_left: int) -> str:
    said = f"cell annotation from {table.path.name}"
    if not n_left:
        return said
    fate = "left out" if table.missing == "drop" else "kept without it"
    return f"{said}: {n_left:,} of {n_cells:,} cells have no row in it and are {fate}"


def _require(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in dict.fromkeys(columns) if column not in names]
    if missing:
        raise InputError(f"{where}: has no column {listing(map(repr, missing))}; it has {listing(names, 30)}.")


def _column_names(path: Path, where: str) -> list[str]:
    with _reading(f"{where}: {path}"), _open(path, None) as reader:
        names = list(reader.schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{where}: {path}: the columns {listing(map(repr, twice))} stand more than once.")
    return names


def _batches(path: Path, where: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with _reading(where), _open(path, columns) as reader:
        yield from reader


def _open(path: Path, columns: Sequence[str] | None) -> pcsv.CSVStreamingReader:
    stem = path.name.lower().removesuffix(".gz")
    delimiter = "\t" if stem.endswith((".tsv", ".txt")) else ","
    return pcsv.open_csv(
        str(path),
        read_options=pcsv.ReadOptions(
            use_threads=False,  # which also reads no further ahead than it must
            block_size=_HEAD_BYTES if columns is None else _BLOCK_BYTES,
        ),
        parse_options=pcsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pcsv.ConvertOptions(
            include_columns=columns,
            column_types=None if columns is None else dict.fromkeys(columns, pa.string()),
            strings_can_be_null=False,
        ),
    )


@contextmanager
def _reading(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{where}: there is no such file.") from None
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{where}: cannot be read as a table ({reason[0] if reason else type(error).__name__})."
        ) from None
