"""Reading a store byte by byte: every problem it has, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lexicell.data import store_format as fmt
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon

_BLOCK = 1 << 22  # entries looked at in one go, to bound the memory


def find_problems(path: Path) -> list[str]:
    """Return every problem of the store at `path`; an empty list says that all is well.

    Checked are: the seal of ``meta.json``, the checksum of every file, files too many or missing, types and
    lengths, the CSR invariants (``indptr`` rises, genes ascend within a cell, lie in the lexicon and on their
    source's panel, no stored zero), the overflow table, and that ``obs`` agrees with the counts.
    """
    try:
        raw = (path / fmt.META).read_bytes()
        meta = json.loads(raw)
        if meta["format"] != fmt.FORMAT or meta["version"] != fmt.VERSION:
            return [f"{fmt.META}: not a store of format {fmt.VERSION}."]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return [f"{fmt.META}: cannot be read ({error})."]
    problems = []
    if not fmt.seal_holds(meta) or raw != fmt.canonical_json(meta):
        return [f"{fmt.META}: changed since it was written (its checksum does not hold)."]
    problems += _check_files(path, meta)
    if not problems:
        problems += _check_content(path, meta)
    return problems


def _check_files(path: Path, meta: dict[str, Any]) -> list[str]:
    problems = []
    here = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
    for name, expected in meta["checksums"].items():
        if name not in here:
            problems.append(f"{name}: is missing.")
        elif fmt.checksum_of(path / name) != expected:
            problems.append(f"{name}: changed since it was written (its checksum is another).")
    problems += [f"{name}: does not belong to the store." for name in here - set(meta["checksums"]) - {fmt.META}]
    return sorted(problems)


def _check_content(path: Path, meta: dict[str, Any]) -> list[str]:
    try:
        lexicon = Lexicon.load(path / fmt.LEXICON)
        array = {
            name: np.load(path / name, mmap_mode="r", allow_pickle=False)
            for name in meta["checksums"]
            if name.endswith(".npy")
        }
        obs = pq.read_table(path / fmt.OBS, columns=["source", "species", "depth", "n_genes"])
    except (InputError, OSError, ValueError, EOFError, pa.ArrowException) as error:
        return [str(error)]
    indptr, genes, counts = array[fmt.INDPTR], array[fmt.GENES], array[fmt.COUNTS]
    problems = _check_shapes(meta, lexicon, array, obs)
    if problems:
        return problems
    if indptr[0] != 0 or indptr[-1] != len(genes) or (np.diff(indptr) < 0).any():
        return [f"{fmt.INDPTR}: does not rise from 0 to the number of entries."]
    depth = np.zeros(len(indptr) - 1, dtype=np.int64)
    overflow = dict(zip(array[fmt.OVERFLOW_AT].tolist(), array[fmt.OVERFLOW_COUNTS].tolist(), strict=True))
    marked = 0
    for source in meta["sources"]:
        on_panel = np.zeros(len(lexicon) + 1, dtype=bool)
        on_panel[array[source["panel"]]] = True
        for start, stop in _blocks(indptr, source["start"], source["stop"]):
            begin, end = int(indptr[start]), int(indptr[stop])
            block = np.asarray(genes[begin:end]).astype(np.int64)
            values = np.asarray(counts[begin:end]).astype(np.int64)
            edges = np.asarray(indptr[start:stop]) - begin
            problems += _check_block(source["name"], block, values, edges, on_panel, len(lexicon))
            for place in np.flatnonzero(values == fmt.OVERFLOW):
                values[place] = overflow.get(begin + int(place), -1)
                marked += 1
            if (values < 0).any():
                problems.append(f"{fmt.OVERFLOW_AT}: a count of {source['name']} is not in the table.")
            sums = np.concatenate([[0], np.cumsum(values)])
            depth[start:stop] = np.diff(sums[np.asarray(indptr[start : stop + 1]) - begin])
    if marked != len(overflow):
        problems.append(f"{fmt.OVERFLOW_AT}: has {len(overflow)} entries, but {marked} counts point to it.")
    if not np.array_equal(obs["depth"].to_numpy(), depth):
        problems.append(f"{fmt.OBS}: the column depth does not agree with the counts.")
    if not np.array_equal(obs["n_genes"].to_numpy(), np.diff(indptr)):
        problems.append(f"{fmt.OBS}: the column n_genes does not agree with the counts.")
    return sorted(set(problems))


def _check_shapes(
    meta: dict[str, Any], lexicon: Lexicon, array: dict[str, npt.NDArray[Any]], obs: pa.Table
) -> list[str]:
    problems = []
    if lexicon.fingerprint != meta["lexicon_fingerprint"]:
        problems.append(f"{fmt.LEXICON}: is not the lexicon that {fmt.META} names.")
    n_cells, nnz = meta["n_cells"], meta["nnz"]
    lengths = {fmt.INDPTR: n_cells + 1, fmt.GENES: nnz, fmt.COUNTS: nnz}
    lengths |= {fmt.OVERFLOW_AT: meta["n_overflow"], fmt.OVERFLOW_COUNTS: meta["n_overflow"]}
    problems += [
        f"{name}: has the shape {array[name].shape}, expected ({length},)."
        for name, length in lengths.items()
        if array[name].shape != (length,)
    ]
    if obs.num_rows != n_cells:
        problems.append(f"{fmt.OBS}: has {obs.num_rows} rows for {n_cells} cells.")
    edges = [0, *(source["stop"] for source in meta["sources"])]
    starts = [source["start"] for source in meta["sources"]]
    if starts != edges[:-1] or edges[-1] != n_cells:
        problems.append(f"{fmt.META}: the sources do not cover the cells one after the other.")
    for source in meta["sources"]:
        panel = array[source["panel"]]
        inside = len(panel) == 0 or (panel[0] >= 0 and panel[-1] < len(lexicon) and (np.diff(panel) > 0).all())
        if not inside:
            problems.append(f"{source['panel']}: does not ascend within the lexicon.")
    return problems


def _check_block(
    name: str,
    genes: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
    on_panel: npt.NDArray[np.bool_],
    n_genes: int,
) -> list[str]:
    problems = []
    if len(genes) and genes.max() >= n_genes:
        problems.append(f"{fmt.GENES}: a gene of {name} lies outside the lexicon.")
    if not on_panel[np.minimum(genes, n_genes)].all():
        problems.append(f"{fmt.GENES}: {name} counts a gene that is not on its panel.")
    rising = np.diff(genes, prepend=-1) > 0
    rising[edges[edges < len(genes)]] = True
    if not rising.all():
        problems.append(f"{fmt.GENES}: genes of a cell of {name} do not ascend.")
    if (counts == 0).any():
        problems.append(f"{fmt.COUNTS}: {name} stores a zero.")
    return problems


def _blocks(indptr: npt.NDArray[np.int64], start: int, stop: int) -> list[tuple[int, int]]:
    """Cut the cells ``start:stop`` into blocks of about `_BLOCK` entries."""
    blocks = []
    while start < stop:
        end = int(np.searchsorted(indptr, indptr[start] + _BLOCK, side="right")) - 1
        end = min(max(end, start + 1), stop)
        blocks.append((start, end))
        start = end
    return blocks
