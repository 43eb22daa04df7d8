"""The on-disk store of raw counts: open, read rows, give back as AnnData.

Design choices
- Plain memory-mapped CSR: opening costs nothing, processes share the page cache, and a batch is a few copies.
- Indices in a store are local, rows of its own lexicon; `Lexicon.map_from` takes them to a run's lexicon.
- Opening checks everything that is cheap, so that damage shows as an error and not as wrong numbers; `verify`
  reads every byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from anndata import AnnData

from lexicell.data import store_format as fmt
from lexicell.data.gather import find_rows, gather_rows
from lexicell.data.store_verify import find_problems
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree


@dataclass(frozen=True, eq=False)
class Source:
    """The cells of one input file (and one species of it) in a store.

    Attributes
    ----------
    name
        Name of the file or data set.
    species
        Species key.
    start, stop
        Its cells are the rows ``start:stop``.
    panel
        (n_panel,) store-local indices of the genes it measured, ascending. Other genes are missing, not zero.
    """

    name: str
    species: str
    start: int
    stop: int
    panel: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Counts of some cells as CSR.

    Attributes
    ----------
    indptr
        (n + 1,) int64; row i has the entries ``indptr[i]:indptr[i + 1]``.
    genes
        (nnz,) unsigned, store-local gene indices, ascending within a row (or what they were mapped to).
    counts
        (nnz,) int32 (uint16 where asked for), all above 0.
    """

    indptr: npt.NDArray[np.int64]
    genes: npt.NDArray[np.integer[Any]]
    counts: npt.NDArray[Any]


class Store:
    """A store of raw counts, opened for reading. Make one with `lexicell.prepare`, open it with `Store.open`.

    Attributes
    ----------
    path, name
        The folder, and the name that the store was written under.
    meta
        The content of ``meta.json``.
    lexicon
        The genes; a gene's row here is its index in this store.
    sources
        The input files, in the order of their cells.
    label_levels
        Obs columns with labels, coarse to fine; empty when there are none.
    fingerprint
        SHA-256 of the content.
    indptr, genes
        Memory maps of the CSR arrays, (n_cells + 1,) and (nnz,).
    """

    def __init__(self, path: Path, meta: dict[str, Any], lexicon: Lexicon, arrays: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.name: str = meta["name"]
        self.lexicon = lexicon
        self.label_levels: tuple[str, ...] = tuple(meta["label_levels"])
        self.fingerprint: str = meta["fingerprint"]
        self.indptr: npt.NDArray[np.int64] = arrays[fmt.INDPTR]
        self.genes: npt.NDArray[np.unsignedinteger[Any]] = arrays[fmt.GENES]
        self._counts: npt.NDArray[np.uint16] = arrays[fmt.COUNTS]
        self._overflow_at: npt.NDArray[np.int64] = arrays[fmt.OVERFLOW_AT]
        self._overflow_counts: npt.NDArray[np.int64] = arrays[fmt.OVERFLOW_COUNTS]
        self.sources: tuple[Source, ...] = tuple(
            Source(entry["name"], entry["species"], entry["start"], entry["stop"], arrays[entry["panel"]])
            for entry in meta["sources"]
        )

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store.

        Raises
        ------
        InputError
            When `path` is not a store, has another format version, or is damaged in a way that shows cheaply
            (`verify` looks at every byte).
        """
        path = Path(path)
        meta = _read_meta(path)
        lexicon = Lexicon.load(path / fmt.LEXICON)
        if lexicon.fingerprint != meta["lexicon_fingerprint"]:
            raise InputError(
                f"{path}: {fmt.LEXICON} is not the lexicon that this store was written with. "
                "Take an intact copy, or prepare the store anew."
            )
        arrays = {name: _load(path, name) for name in (fmt.INDPTR, fmt.GENES, fmt.COUNTS)}
        arrays |= {name: _load(path, name) for name in (fmt.OVERFLOW_AT, fmt.OVERFLOW_COUNTS)}
        arrays |= {name: _load(path, name) for name in {entry["panel"] for entry in meta["sources"]}}
        _check_arrays(path, meta, lexicon, arrays)
        return cls(path, meta, lexicon, arrays)

    def __reduce__(self) -> tuple[Callable[[Path], Store], tuple[Path]]:
        # Worker processes open the store anew: a pickled memory map would carry all its data along.
        return (Store.open, (self.path,))

    def __repr__(self) -> str:
        size = f"{self.n_cells:,} cells x {self.n_genes:,} genes, {len(self.sources)} sources"
        return f"Store({self.name!r}, {size})"

    def __len__(self) -> int:
        return self.n_cells

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.indptr) - 1

    @property
    def n_genes(self) -> int:
        """Number of genes in the store's lexicon."""
        return len(self.lexicon)

    @property
    def nnz(self) -> int:
        """Number of non-zero counts."""
        return len(self.genes)

    @cached_property
    def obs(self) -> pd.DataFrame:
        """One row a cell, indexed by cell name (names may repeat between sources).

        Columns: ``source``, ``species`` and, where known, ``donor``, ``tissue`` and ``assay`` (categorical);
        the label levels under their own names (categorical, NaN where missing); ``depth`` (int64, sum of the
        cell's counts); ``n_genes`` (int64, genes with a count); the columns that the corpus asked to keep.
        """
        obs: pd.DataFrame = _read_parquet(self.path / fmt.OBS).to_pandas()
        return obs

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of `obs`, without reading it."""
        names = _schema(self.path / fmt.OBS)
        return tuple(name for name in names if name != "cell")

    def obs_columns(self, columns: Sequence[str]) -> pd.DataFrame:
        """Read some columns of `obs` only, with a plain row number as index: cheap on millions of cells."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise KeyError(f"{self.path}: obs has no column {missing}; it has {list(self.columns)}.")
        if "obs" in self.__dict__:
            return self.obs[list(columns)].reset_index(drop=True)
        table = _read_parquet(self.path / fmt.OBS, list(columns))
        frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
        return frame

    def rows(
        self, indices: npt.ArrayLike, gene_map: npt.NDArray[np.int32] | None = None, *, narrow: bool = False
    ) -> Rows:
        """Return the counts of the cells `indices` (n,), in that order; cells may repeat.

        Parameters
        ----------
        indices
            Cells.
        gene_map
            (n_genes,) what to put in place of each gene's index, such as its index in a run's lexicon.
        narrow
            Leave the counts in uint16, as they are stored, unless one of these cells has a larger one: half as much
            to write.

        Raises
        ------
        IndexError
            When an index lies outside 0 ... n_cells - 1.
        """
        starts, offsets = self._stretches(np.asarray(indices, dtype=np.int64))
        if narrow and not self._overflows(starts, offsets):
            return Rows(offsets, *gather_rows(starts, offsets, self.genes, self._counts, gene_map, np.uint16))
        genes, counts = gather_rows(starts, offsets, self.genes, self._counts, gene_map)
        if len(self._overflow_at):
            self._resolve_overflow(counts, starts, offsets)
        return Rows(offsets, genes, counts)

    def in_place(self, indices: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]] | None:
        """Return where the cells `indices` (n,) begin in `genes`, and all counts as they lie in the store.

        So rows can be read without a copy. None where one of these cells has a count that stands in the overflow
        table: then use `rows`.
        """
        starts, offsets = self._stretches(np.asarray(indices, dtype=np.int64))
        return None if self._overflows(starts, offsets) else (starts, self._counts)

    def _stretches(self, index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return where the entries of some cells begin, here and (n + 1,) when they follow each other."""
        if index.ndim != 1:
            raise ValueError(f"indices: expected one dimension, got the shape {index.shape}.")
        if len(index) and (index.min() < 0 or index.max() >= self.n_cells):
            raise IndexError(
                f"{self.path}: cells run from 0 to {self.n_cells - 1}, got {index.min()} to {index.max()}."
            )
        found = find_rows(index, self.indptr, self.nnz)
        if found is None:
            raise InputError(f"{self.path}: {fmt.INDPTR} is damaged. Run `lexicell store verify` on the store.")
        return found

    def _overflows(self, starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> bool:
        """Say whether a count of these stretches stands in the overflow table."""
        if not len(self._overflow_at):
            return False
        low, high = np.searchsorted(self._overflow_at, [starts, starts + np.diff(offsets)])
        return bool((low != high).any())

    def slice(self, start: int, stop: int) -> Rows:
        """Return the counts of the cells ``start:stop``; bounds are clipped as in a list."""
        start, stop, _ = slice(start, stop).indices(self.n_cells)
        stop = max(start, stop)
        begin, end = int(self.indptr[start]), int(self.indptr[stop])
        counts = self._counts[begin:end].astype(np.int32)
        if len(self._overflow_at):
            low, high = np.searchsorted(self._overflow_at, [begin, end])
            counts[self._overflow_at[low:high] - begin] = self._overflow_counts[low:high]
        return Rows(self.indptr[start : stop + 1] - begin, self.genes[begin:end].copy(), counts)

    def _resolve_overflow(
        self, counts: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]
    ) -> None:
        places = np.flatnonzero(counts == fmt.OVERFLOW)
        if len(places):
            row = np.searchsorted(offsets, places, side="right") - 1
            entry = starts[row] + places - offsets[row]
            counts[places] = self._overflow_counts[np.searchsorted(self._overflow_at, entry)]

    def to_anndata(self, indices: npt.ArrayLike | None = None) -> AnnData:
        """Return cells as AnnData: ``X`` CSR int32 counts, ``var`` the genes, ``obs`` as here.

        Parameters
        ----------
        indices
            (n,) cells in the wanted order; all cells when None.

        Returns
        -------
        AnnData
            ``var`` is indexed by gene id (by ``species:gene_id`` where two species share an id), with the
            columns ``gene_id``, ``symbol`` and ``species``. Cells are named by `cell_names`.
        """
        chosen = np.arange(self.n_cells) if indices is None else np.asarray(indices, dtype=np.int64)
        rows = self.slice(0, self.n_cells) if indices is None else self.rows(chosen)
        narrow = np.int32 if len(rows.genes) <= np.iinfo(np.int32).max else np.int64
        counts = sp.csr_matrix(
            (rows.counts, rows.genes.astype(narrow), rows.indptr.astype(narrow)),
            shape=(len(chosen), self.n_genes),
        )
        obs = self.obs.iloc[chosen].copy()
        obs.index = self.cell_names()[chosen]
        if not obs.index.is_unique:
            obs.index = _numbered(obs.index)
        var = self.lexicon.table[["gene_id", "symbol", "species"]]
        ids = var["gene_id"]
        var.index = pd.Index(ids if ids.is_unique else var["species"] + ":" + ids, name=None)
        adata = AnnData(X=counts, obs=obs, var=var)
        if len(self.lexicon.species) == 1:
            adata.uns["species"] = self.lexicon.species[0]
        return adata

    def cell_names(self) -> pd.Index:
        """Return unique cell names (n_cells,): those of the files, ``source:name`` for all where some repeat."""
        names = pd.Index(self.obs.index.astype(str), name=None)
        if not names.is_unique:
            names = pd.Index(self.obs["source"].astype(str).to_numpy(dtype=object) + ":" + names.to_numpy(dtype=object))
        return names if names.is_unique else _numbered(names)

    def label_tree(self) -> LabelTree | None:
        """Return the tree of this store's labels, or None where it has no label levels."""
        if not self.label_levels:
            return None
        return LabelTree.from_frame(self.obs_columns(self.label_levels), self.label_levels, source=str(self.path))

    def verify(self) -> list[str]:
        """Read every byte and return every problem found: checksums, CSR invariants, fingerprints, obs."""
        return find_problems(self.path)

    @staticmethod
    def problems(path: str | Path) -> list[str]:
        """Verify the store at `path`, which may be too damaged to open."""
        return find_problems(Path(path))


def _read_meta(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        kind = "a file" if path.exists() else "not there"
        raise InputError(f"{path}: expected a store (a folder that `lexicell prepare` wrote), but it is {kind}.")
    try:
        meta = json.loads((path / fmt.META).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: this folder is not a store: it has no {fmt.META}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}/{fmt.META}: cannot be read ({error}). Take an intact copy.") from None
    if not isinstance(meta, dict) or meta.get("format") != fmt.FORMAT:
        raise InputError(f"{path}: this folder is not a lexicell store ({fmt.META} says so).")
    if meta.get("version") != fmt.VERSION:
        raise InputError(
            f"{path}: store format {meta.get('version')!r}, but this lexicell reads {fmt.VERSION}. "
            "Prepare the store anew, or install the version of lexicell that wrote it."
        )
    if not fmt.seal_holds(meta):
        raise InputError(f"{path}/{fmt.META}: is damaged: it does not bear out its own checksum.")
    return meta


def _load(path: Path, name: str) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.load(path / name, mmap_mode="r", allow_pickle=False)
        return array.view(np.ndarray)
    except FileNotFoundError:
        raise InputError(f"{path}: the store is incomplete: {name} is missing.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}/{name}: is damaged or not a plain array ({error}).") from None


def _check_arrays(path: Path, meta: dict[str, Any], lexicon: Lexicon, arrays: dict[str, Any]) -> None:
    n_cells, nnz, n_over = meta["n_cells"], meta["nnz"], meta["n_overflow"]
    expected = {
        fmt.INDPTR: (np.dtype(np.int64), n_cells + 1),
        fmt.GENES: (fmt.gene_dtype(len(lexicon)), nnz),
        fmt.COUNTS: (np.dtype(np.uint16), nnz),
        fmt.OVERFLOW_AT: (np.dtype(np.int64), n_over),
        fmt.OVERFLOW_COUNTS: (np.dtype(np.int64), n_over),
    }
    for name, array in arrays.items():
        dtype, length = expected.get(name, (np.dtype(np.int64), len(array)))
        if array.dtype != dtype or array.shape != (length,):
            raise InputError(
                f"{path}/{name}: expected {dtype} ({length},), found {array.dtype} {array.shape}. "
                "The store is damaged; take an intact copy."
            )
    indptr = arrays[fmt.INDPTR]
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise InputError(f"{path}/{fmt.INDPTR}: is damaged: it does not run from 0 to {nnz}.")


def _numbered(names: pd.Index) -> pd.Index:
    """Return names with ``-1``, ``-2`` ... behind what came before."""
    again = names.to_series().groupby(level=0).cumcount().astype(str).to_numpy(dtype=object)
    plain = names.to_numpy(dtype=object)
    return pd.Index(np.where(again == "0", plain, plain + "-" + again))


def _schema(path: Path) -> list[str]:
    try:
        names: list[str] = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}). Take an intact copy.") from None
    return names


def _read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}). Take an intact copy.") from None
