"""What a store looks like on disk: file names, dtypes, checksums and the fingerprint.

A store is a folder that numpy, pandas and a JSON reader can open without lexicell:

    meta.json            what the store holds, the checksum of every other file, its fingerprint
    indptr.npy           int64 (n_cells + 1,): cell i has the entries indptr[i]:indptr[i + 1]
    genes.npy            smallest unsigned type (nnz,): row of lexicon.parquet, ascending within a cell
    counts.npy           uint16 (nnz,): 65535 stands for "look in the overflow table"
    overflow_at.npy      int64: entries whose count is 65535 or more, ascending
    overflow_counts.npy  int64: their counts
    obs.parquet          one row a cell
    lexicon.parquet      the genes
    panels/NNN.npy       int64: the genes that a source measured, ascending; others are missing, not zero

Checksums are XXH3 of 128 bits (`xxh128sum` of xxHash gives them too): they find damage, not forgery, and as fast as a
disk reads. SHA-256 took a fifth of the time of writing a store where the processor has no instruction for it.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

new_checksum = xxhash.xxh3_128

FORMAT = "lexicell-store"
VERSION = 2

META = "meta.json"
INDPTR = "indptr.npy"
GENES = "genes.npy"
COUNTS = "counts.npy"
OVERFLOW_AT = "overflow_at.npy"
OVERFLOW_COUNTS = "overflow_counts.npy"
OBS = "obs.parquet"
LEXICON = "lexicon.parquet"
PANELS = "panels"

OVERFLOW = 65535  # the uint16 that stands for "this count is in the overflow table"
MAX_COUNT = 2**31 - 1  # more molecules of one gene than this in one cell is no count

STANDARD_COLUMNS = ("source", "species", "donor", "tissue", "assay", "depth", "n_genes")


def gene_dtype(n_genes: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the smallest unsigned type that holds the indices of `n_genes` genes."""
    return np.dtype(np.min_scalar_type(max(n_genes - 1, 0)))


def npy_header(dtype: np.dtype[Any], length: int) -> bytes:
    """Return the header of the .npy file of a one-dimensional array; it is as long for every length."""
    header = io.BytesIO()
    shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()


def panel_file(number: int) -> str:
    """Return the name, relative to the store, of the file of a panel."""
    return f"{PANELS}/{number:03d}.npy"


def checksum_of(path: Path) -> str:
    """Return the checksum of a file, in hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, new_checksum).hexdigest()


def canonical_json(data: Any) -> bytes:
    """Return the one JSON text that stands for `data`: keys sorted, indented, no NaN."""
    text = json.dumps(data, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=True)
    return text.encode() + b"\n"


def fingerprint_of(meta: dict[str, Any]) -> str:
    """Return the fingerprint of a store's content: the same cells, genes and labels give the same one.

    The name, the date and the reports in `meta` do not enter it.
    """
    content = {
        "version": meta["version"],
        "checksums": meta["checksums"],
        "lexicon": meta["lexicon_fingerprint"],
        "label_levels": meta["label_levels"],
        "sources": [
            {key: source[key] for key in ("name", "species", "start", "stop", "panel")} for source in meta["sources"]
        ],
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()


def seal(meta: dict[str, Any]) -> dict[str, Any]:
    """Return `meta` with its fingerprint and the checksum of all the rest added."""
    sealed = {**meta, "fingerprint": fingerprint_of(meta)}
    sealed.pop("checksum", None)
    return {**sealed, "checksum": hashlib.sha256(canonical_json(sealed)).hexdigest()}


def seal_holds(meta: dict[str, Any]) -> bool:
    """Say whether `meta` is as `seal` left it."""
    try:
        return seal({key: meta[key] for key in meta if key not in ("fingerprint", "checksum")}) == meta
    except (KeyError, TypeError, ValueError):
        return False
