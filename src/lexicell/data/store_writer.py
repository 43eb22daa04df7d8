"""Writing a store: in parts, from a staging folder, and visible only when whole.

Design choices
- Beside the target ``NAME`` stands ``.NAME.staging`` while it is written. Each source becomes one part in
  there, renamed when whole, so an interrupted writer goes on behind the last whole part.
- A part bears a key that says what it was made from; a part with another key is made anew.
- A lock in the staging folder keeps a second writer out; it dies with its process.
- The parts are joined into the final arrays, flushed to disk, and renamed to the target in one step.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp
from filelock import FileLock, Timeout

from lexicell.data import store_format as fmt
from lexicell.data.counts import Block, NotCountsError, RawRows, block_of, row_sums
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

_COPY_BYTES = 1 << 24
_USER_ERRNOS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing there is not permitted",
    errno.EPERM: "writing there is not permitted",
    errno.ENOTDIR: "a part of the path is a file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "the path runs in a circle of links",
    errno.EFBIG: "the file system does not hold files of this size",
}


@dataclass(frozen=True, eq=False)
class Part:
    """What a writer has to know of one source.

    Attributes
    ----------
    name, species
        As in `lexicell.data.store.Source`.
    panel
        Store-local indices of the genes that the source measured, in any order.
    key
        Says what the part is made from: what an interrupted writer left is used when its key is the same.
    details
        Further facts for ``meta.json`` (JSON-able).
    """

    name: str
    species: str
    panel: npt.NDArray[np.int64]
    key: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def write_part(
    folder: Path,
    part: Part,
    n_genes: int,
    blocks: Iterable[Block],
    obs: pd.DataFrame,
    afterwards: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Write one source as a part of a store; runs in any process.

    Parameters
    ----------
    folder
        Where the part will stand once it is whole.
    part
        Name, species, panel and key.
    n_genes
        Number of genes of the store.
    blocks
        The source's cells in order.
    obs
        One row a cell, in the same order; `depth` and `n_genes` are added here.
    afterwards
        Called when all blocks are written; returns further details.

    Returns
    -------
    dict
        What ``part.json`` holds.
    """
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    dtype = fmt.gene_dtype(n_genes)
    lengths, depths, overflow_at, overflow = [], [], [], []
    nnz = 0
    with (draft / "genes.bin").open("wb") as genes, (draft / "counts.bin").open("wb") as counts:
        for block in blocks:
            genes.write(_bytes(block.genes.astype(dtype)))
            narrow = block.counts
            if len(narrow) and narrow.max() >= fmt.OVERFLOW:
                places = np.flatnonzero(narrow >= fmt.OVERFLOW)
                overflow_at.append(places + nnz)
                overflow.append(narrow[places].astype(np.int64))
                narrow = np.minimum(narrow, fmt.OVERFLOW)
            counts.write(_bytes(narrow.astype(np.uint16)))
            lengths.append(block.lengths)
            depths.append(row_sums(block))
            nnz += len(narrow)
    n_genes_per_cell = _join(lengths)
    if len(n_genes_per_cell) != len(obs):
        raise ValueError(f"{part.name}: {len(n_genes_per_cell)} cells were written, but obs has {len(obs)} rows.")
    np.save(draft / "lengths.npy", n_genes_per_cell)
    np.save(draft / fmt.OVERFLOW_AT, _join(overflow_at))
    np.save(draft / fmt.OVERFLOW_COUNTS, _join(overflow))
    np.save(draft / "panel.npy", np.unique(part.panel).astype(np.int64))
    _obs_table(obs, part, _join(depths), n_genes_per_cell, draft / fmt.OBS)
    entry: dict[str, Any] = {"name": part.name, "species": part.species, "details": {**part.details, **afterwards()}}
    entry |= {"key": part.key, "n_cells": len(obs), "nnz": nnz, "n_genes": n_genes}
    (draft / "part.json").write_bytes(fmt.canonical_json(entry))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return entry


class StoreWriter:
    """Writes a store; use it as a context manager.

    >>> with StoreWriter(path, lexicon, label_levels=("class", "type")) as writer:
    ...     writer.add(Part("a", "mus_musculus", panel), chunks, obs)
    ...     writer.finish()

    Parameters
    ----------
    out
        The store's folder. Nothing stands there before `finish`.
    lexicon
        The genes of the store.
    label_levels
        Columns of every `obs` that hold labels, coarse to fine; a source may lack some.
    overwrite
        Replace a store that stands at `out`. Anything else that stands there is never replaced.

    Raises
    ------
    InputError
        When something stands at `out`, another process writes there, or writing is not possible. What can be
        used again stays in the staging folder, which the message names.
    """

    def __init__(
        self, out: str | Path, lexicon: Lexicon, label_levels: Sequence[str] = (), *, overwrite: bool = False
    ) -> None:
        self.out = Path(out)
        self.lexicon = lexicon
        self.label_levels = tuple(label_levels)
        self.overwrite = overwrite
        self.staging = staging_folder(self.out)
        self._parts: list[Path] = []
        self._finished = False

    def __enter__(self) -> Self:
        check_target(self.out, overwrite=self.overwrite)
        with explained(self.out):
            (self.staging / "parts").mkdir(parents=True, exist_ok=True)
            # No thread-local bookkeeping, so that two writers of one process exclude each other as well.
            self._lock = FileLock(self.staging / "lock", timeout=0, thread_local=False)
            try:
                self._lock.acquire()
            except Timeout:
                raise InputError(
                    f"{self.out}: another process is writing this store (it holds {self.staging / 'lock'}). "
                    "Wait for it, or choose another name."
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worth_keeping = not self._finished and any((self.staging / "parts").glob("*/part.json"))
        if not worth_keeping:
            shutil.rmtree(self.staging, ignore_errors=True)
        self._lock.release()
        if isinstance(error, OSError):
            with explained(self.out):
                raise error

    def part_folder(self, place: int) -> Path:
        """Return where the part of source number `place` will stand."""
        return self.staging / "parts" / f"{place:05d}"

    def has(self, place: int, key: str) -> bool:
        """Say whether an earlier run left source number `place` whole, made from the same `key`."""
        entry = _part_entry(self.part_folder(place))
        return bool(key) and entry is not None and entry["key"] == key and entry["n_genes"] == len(self.lexicon)

    def add(self, part: Part, chunks: Iterable[sp.csr_matrix], obs: pd.DataFrame) -> None:
        """Write the next source from chunks of rows with one column per gene of the lexicon.

        Parameters
        ----------
        part
            Name, species, panel.
        chunks
            CSR matrices (n, n_genes of the lexicon) of raw counts; their rows follow each other.
        obs
            One row a cell.
        """
        identity = np.arange(len(self.lexicon), dtype=np.int32)
        folder = self.part_folder(len(self._parts))
        try:
            blocks = (block_of(_raw_rows(chunk), identity, len(self.lexicon)) for chunk in chunks)
            write_part(folder, part, len(self.lexicon), blocks, obs)
        except NotCountsError as fault:
            raise InputError(f"{part.name}: {fault.kind} value {fault.value}; expected raw counts.") from None
        self._parts.append(folder)

    def adopt(self, place: int) -> None:
        """Take the whole part of source number `place`, which `write_part` wrote, as the next one."""
        self._parts.append(self.part_folder(place))

    def finish(self, details: Mapping[str, Any] | None = None) -> Path:
        """Join the parts and give the store its name; return its path.

        Parameters
        ----------
        details
            Further facts for ``meta.json`` (JSON-able); they do not enter the fingerprint.
        """
        draft = self.staging / "store"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        _assemble(draft, self._parts, self.lexicon, self.label_levels, {**(details or {}), "name": self.out.name})
        if self.overwrite and self.out.exists():
            self.out.rename(self.staging / "replaced")
        draft.replace(self.out)
        _flush(self.out.parent)
        self._finished = True
        return self.out


def _raw_rows(chunk: sp.csr_matrix) -> RawRows:
    matrix = sp.csr_matrix(chunk)
    return RawRows(matrix.data, matrix.indices, matrix.indptr.astype(np.int64))


def staging_folder(out: Path) -> Path:
    """Return the folder in which the store `out` is built."""
    return out.parent / f".{out.name}.staging"


def check_target(out: Path, *, overwrite: bool) -> None:
    """Raise InputError when a store may not be written to `out`."""
    if not out.name:
        raise InputError(f"{out}: give the store a name.")
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError(f"{out}: is a file or a link; give a new folder name for the store.")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / fmt.META).is_file():
        raise InputError(f"{out}: this folder holds other things and is not a store; give a new name.")
    if not overwrite:
        raise InputError(f"{out}: a store stands there already; give another name, or overwrite it on purpose.")


@contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn operating-system errors that are not ours (disk full, no permission, ...) into InputError."""
    try:
        yield
    except OSError as error:
        reason = _USER_ERRNOS.get(error.errno or 0)
        if reason is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        kept = staging_folder(out)
        left = f" What was written so far is kept in {kept}: run the same again to go on." if kept.exists() else ""
        raise InputError(f"{out}: the store cannot be written: {reason}{where}.{left}") from None


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).view(np.uint8).data


def _join(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays]).astype(np.int64, copy=False)


def _obs_table(
    obs: pd.DataFrame, part: Part, depth: npt.NDArray[np.int64], n_genes: npt.NDArray[np.int64], path: Path
) -> None:
    rest = [name for name in obs.columns if name not in fmt.STANDARD_COLUMNS]
    columns: dict[str, Any] = {
        "source": pd.Categorical([part.name]).repeat(len(obs)),
        "species": pd.Categorical([part.species]).repeat(len(obs)),
    }
    for name in [*(name for name in ("donor", "tissue", "assay") if name in obs.columns), *rest]:
        text = obs[name].dtype == object or pd.api.types.is_string_dtype(obs[name].dtype)
        columns[name] = pd.Categorical(obs[name]) if text else obs[name].array
    index = pd.Index(obs.index.astype(str), name="cell")
    frame = pd.DataFrame({**columns, "depth": depth, "n_genes": n_genes}, index=index)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=True), path)


def _part_entry(folder: Path) -> dict[str, Any] | None:
    try:
        entry = json.loads((folder / "part.json").read_bytes())
    except (OSError, ValueError):
        return None
    return entry if isinstance(entry, dict) and {"key", "n_genes", "n_cells", "nnz"} <= set(entry) else None


class _HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)

    def close(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


def _write_npy(path: Path, dtype: np.dtype[Any], length: int, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a one-dimensional .npy file from pieces of its bytes; return its SHA-256."""
    header = io.BytesIO()
    shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, shape)
    out = _HashedFile(path)
    out.write(header.getvalue())
    for piece in pieces:
        out.write(piece)
    return out.close()


def _file_pieces(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as handle:
            while piece := handle.read(_COPY_BYTES):
                yield piece


def _array_pieces(arrays: Iterable[npt.NDArray[Any]]) -> Iterator[memoryview]:
    for array in arrays:
        yield _bytes(array)


def _assemble(
    draft: Path,
    folders: Sequence[Path],
    lexicon: Lexicon,
    label_levels: tuple[str, ...],
    details: Mapping[str, Any],
) -> None:
    entries = [json.loads((folder / "part.json").read_bytes()) for folder in folders]
    cells = np.concatenate([[0], np.cumsum([entry["n_cells"] for entry in entries], dtype=np.int64)])
    nnz = np.concatenate([[0], np.cumsum([entry["nnz"] for entry in entries], dtype=np.int64)])
    int64, n_genes = np.dtype(np.int64), fmt.gene_dtype(len(lexicon))
    over_at = [np.load(folder / fmt.OVERFLOW_AT) + nnz[i] for i, folder in enumerate(folders)]
    over = [np.load(folder / fmt.OVERFLOW_COUNTS) for folder in folders]
    n_overflow = sum(map(len, over))
    pieces: dict[str, tuple[np.dtype[Any], int, Iterable[bytes | memoryview]]] = {
        fmt.INDPTR: (int64, int(cells[-1]) + 1, _indptr_pieces(folders)),
        fmt.GENES: (n_genes, int(nnz[-1]), _file_pieces(folder / "genes.bin" for folder in folders)),
        fmt.COUNTS: (np.dtype(np.uint16), int(nnz[-1]), _file_pieces(f / "counts.bin" for f in folders)),
        fmt.OVERFLOW_AT: (int64, n_overflow, _array_pieces(over_at)),
        fmt.OVERFLOW_COUNTS: (int64, n_overflow, _array_pieces(over)),
    }
    checksums = {name: _write_npy(draft / name, *spec) for name, spec in pieces.items()}
    panels, panel_sums = _write_panels(draft, folders)
    _join_obs([folder / fmt.OBS for folder in folders], label_levels, draft / fmt.OBS)
    lexicon.save(draft / fmt.LEXICON)
    for name in (fmt.OBS, fmt.LEXICON):
        _flush(draft / name)
        checksums[name] = fmt.sha256_of(draft / name)
    sources = [
        {
            **{key: entry[key] for key in ("name", "species", "details")},
            "start": int(cells[place]),
            "stop": int(cells[place + 1]),
            "panel": panels[place],
        }
        for place, entry in enumerate(entries)
    ]
    meta = {
        **details,
        "format": fmt.FORMAT,
        "version": fmt.VERSION,
        "n_cells": int(cells[-1]),
        "n_genes": len(lexicon),
        "nnz": int(nnz[-1]),
        "n_overflow": n_overflow,
        "label_levels": list(label_levels),
        "lexicon_fingerprint": lexicon.fingerprint,
        "sources": sources,
        "checksums": checksums | panel_sums,
    }
    (draft / fmt.META).write_bytes(fmt.canonical_json(fmt.seal(meta)))
    _flush(draft / fmt.META)


def _indptr_pieces(folders: Sequence[Path]) -> Iterator[memoryview]:
    yield from _array_pieces([np.zeros(1, dtype=np.int64)])
    end = 0
    for folder in folders:
        edges = end + np.cumsum(np.load(folder / "lengths.npy"), dtype=np.int64)
        yield from _array_pieces([edges])
        end = int(edges[-1]) if len(edges) else end


def _write_panels(draft: Path, folders: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Write each distinct panel once; return the file of every source's panel, and the files' SHA-256."""
    (draft / fmt.PANELS).mkdir()
    names: dict[bytes, str] = {}
    checksums: dict[str, str] = {}
    files = []
    for folder in folders:
        panel = np.load(folder / "panel.npy")
        content = panel.tobytes()
        if content not in names:
            name = fmt.panel_file(len(names))
            names[content] = name
            checksums[name] = _write_npy(draft / name, panel.dtype, len(panel), _array_pieces([panel]))
        files.append(names[content])
    return files, checksums


def _join_obs(paths: Sequence[Path], label_levels: tuple[str, ...], out: Path) -> None:
    """Join the obs tables of the parts; a column that a part lacks is missing there."""
    tables = [pq.read_table(path) for path in paths]
    frames = pa.concat_tables([table.replace_schema_metadata(None) for table in tables], promote_options="permissive")
    frames = frames.unify_dictionaries()
    ours = [name for name in fmt.STANDARD_COLUMNS[:5] if name in frames.column_names]
    labels = [name for name in label_levels if name in frames.column_names]
    rest = [n for n in frames.column_names if n not in {*fmt.STANDARD_COLUMNS, *label_levels, "cell"}]
    frames = frames.select([*ours, *labels, *rest, "depth", "n_genes", "cell"])
    index = {"name": "cell", "field_name": "cell", "pandas_type": "unicode", "numpy_type": "object"}
    pandas_metadata = {
        "index_columns": ["cell"],
        "column_indexes": [],
        "columns": [index],
        "pandas_version": pd.__version__,
    }
    stamp = {b"pandas": json.dumps(pandas_metadata).encode()}
    pq.write_table(frames.replace_schema_metadata(stamp), out, row_group_size=1 << 20)


def _flush(path: Path) -> None:
    """Make sure that a file or folder is on the disk before its name is trusted."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
