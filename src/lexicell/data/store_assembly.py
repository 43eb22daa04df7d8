"""Joining the parts of a store into its final arrays, hashed while they are written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lexicell.data import store_format as fmt
from lexicell.data import store_parts as parts
from lexicell.data.store_parts import as_bytes
from lexicell.genes.lexicon import Lexicon

_COPY_BYTES = 1 << 24


def assemble(
    draft: Path,
    folders: Sequence[Path],
    lexicon: Lexicon,
    label_levels: tuple[str, ...],
    details: Mapping[str, Any],
) -> None:
    """Write the store whose sources are the parts in `folders` into the folder `draft`.

    Parameters
    ----------
    draft
        An empty folder.
    folders
        The parts, in the order of their cells.
    lexicon
        The genes.
    label_levels
        Columns of obs with labels, coarse to fine.
    details
        Further facts for ``meta.json``.
    """
    entries = [json.loads((folder / parts.ENTRY).read_bytes()) for folder in folders]
    cells = np.concatenate([[0], np.cumsum([entry["n_cells"] for entry in entries], dtype=np.int64)])
    nnz = np.concatenate([[0], np.cumsum([entry["nnz"] for entry in entries], dtype=np.int64)])
    int64, n_genes = np.dtype(np.int64), fmt.gene_dtype(len(lexicon))
    over_at = [np.load(folder / fmt.OVERFLOW_AT) + nnz[i] for i, folder in enumerate(folders)]
    over = [np.load(folder / fmt.OVERFLOW_COUNTS) for folder in folders]
    n_overflow = sum(map(len, over))
    pieces: dict[str, tuple[np.dtype[Any], int, Iterable[bytes | memoryview]]] = {
        fmt.INDPTR: (int64, int(cells[-1]) + 1, _indptr_pieces(folders)),
        fmt.OVERFLOW_AT: (int64, n_overflow, _array_pieces(over_at)),
        fmt.OVERFLOW_COUNTS: (int64, n_overflow, _array_pieces(over)),
    }
    with ThreadPoolExecutor(2) as pool:  # waiting for the disk and hashing leave Python's lock to others
        written = {
            name: pool.submit(_join_npy, draft / name, dtype, int(nnz[-1]), [folder / name for folder in folders])
            for name, dtype in ((fmt.GENES, n_genes), (fmt.COUNTS, np.dtype(np.uint16)))
        } | {name: pool.submit(_write_npy, draft / name, *spec) for name, spec in pieces.items()}
        checksums = {name: done.result() for name, done in written.items()}
    panels, panel_sums = _write_panels(draft, folders)
    _join_obs([folder / fmt.OBS for folder in folders], label_levels, draft / fmt.OBS)
    lexicon.save(draft / fmt.LEXICON)
    for name in (fmt.OBS, fmt.LEXICON):
        flush(draft / name)
        checksums[name] = fmt.checksum_of(draft / name)
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
    flush(draft / fmt.META)


def _indptr_pieces(folders: Sequence[Path]) -> Iterator[memoryview]:
    yield from _array_pieces([np.zeros(1, dtype=np.int64)])
    end = 0
    for folder in folders:
        edges = end + np.cumsum(np.load(folder / parts.LENGTHS), dtype=np.int64)
        yield from _array_pieces([edges])
        end = int(edges[-1]) if len(edges) else end


def _write_panels(draft: Path, folders: Sequence[Path]) -> tuple[list[str], dict[str, str]]:
    """Write each distinct panel once; return the file of every source's panel, and the files' checksums."""
    (draft / fmt.PANELS).mkdir()
    names: dict[bytes, str] = {}
    checksums: dict[str, str] = {}
    files = []
    for folder in folders:
        panel = np.load(folder / parts.PANEL)
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
    try:
        frames = frames.unify_dictionaries()
    except pa.ArrowInvalid:  # together the parts have more names than the small codes of each can tell apart
        frames = frames.cast(_with_wide_codes(frames.schema)).unify_dictionaries()
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


def _with_wide_codes(schema: pa.Schema) -> pa.Schema:
    kinds = {field.name: pa.dictionary(pa.int32(), field.type.value_type) for field in schema if _is_coded(field.type)}
    return pa.schema([field.with_type(kinds.get(field.name, field.type)) for field in schema])


def _is_coded(kind: pa.DataType) -> bool:
    return bool(pa.types.is_dictionary(kind))


class _HashedFile:
    """A file that is hashed while it is written."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("wb")
        self._hash = fmt.new_checksum()

    def write(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._file.write(data)

    def close(self) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


def _write_npy(path: Path, dtype: np.dtype[Any], length: int, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a one-dimensional .npy file from pieces of its bytes; return its checksum."""
    out = _HashedFile(path)
    out.write(fmt.npy_header(dtype, length))
    for piece in pieces:
        out.write(piece)
    return out.close()


def _join_npy(path: Path, dtype: np.dtype[Any], length: int, sources: Sequence[Path]) -> str:
    """Join .npy files of one type into one, without copying where there is but one; return its checksum."""
    if len(sources) == 1 and _linked(sources[0], path):
        flush(path)
        return fmt.checksum_of(path)
    return _write_npy(path, dtype, length, _contents(sources, len(fmt.npy_header(dtype, 0))))


def _linked(source: Path, path: Path) -> bool:
    """Give a file a second name, where the file system can; the part stays whole until the store is."""
    try:
        os.link(source, path)
    except OSError:  # not on this file system; were it something worse, copying says so
        return False
    return True


def _contents(paths: Iterable[Path], header: int) -> Iterator[bytes]:
    """Yield what the files hold behind their headers, in pieces."""
    for path in paths:
        with path.open("rb") as handle:
            handle.seek(header)
            while piece := handle.read(_COPY_BYTES):
                yield piece


def _array_pieces(arrays: Iterable[npt.NDArray[Any]]) -> Iterator[memoryview]:
    for array in arrays:
        yield as_bytes(array)


def flush(path: Path) -> None:
    """Make sure that a file or folder is on the disk before its name is trusted."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
