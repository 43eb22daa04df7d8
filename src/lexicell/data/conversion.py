"""One checked source -> one part of a store, block by block."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lexicell.allocator import return_freed_memory
from lexicell.data import store_format as fmt
from lexicell.data.corpus import Dataset
from lexicell.data.corpus_check import CheckedSource, label_of, read_obs, reading
from lexicell.data.counts import Block, NotCountsError, RawRows, block_of, integers_of
from lexicell.data.gene_ids import AMBIGUOUS, MATCHED, UNMATCHED
from lexicell.data.matrix_choice import not_counts, remedy
from lexicell.data.obs_tables import open_dataset, table_files
from lexicell.data.read_ahead import read_ahead
from lexicell.data.readers import MatrixSource
from lexicell.data.readers.bands import turned
from lexicell.data.readers.matrices import Matrix
from lexicell.data.store_writer import Part, write_part
from lexicell.errors import InputError
from lexicell.genes.annotations import MatchReport
from lexicell.genes.lexicon import Lexicon

_CODE_VERSION = 2  # raise it when parts come out differently, so that parts of an older run are not taken


@dataclass(frozen=True, eq=False)
class SourceJob:
    """What a process needs to write one source.

    Attributes
    ----------
    folder
        Where the part will stand.
    dataset, name, species, matrix, rows, notes
        As in `CheckedSource`.
    gene_map
        (n_file_genes,) int32 store-local index, -1 for genes to leave out.
    status
        (n_file_genes,) int8 as in `lexicell.data.gene_ids`.
    report
        The match of names, before the counts were seen.
    n_genes
        Number of genes of the store.
    key
        Says what the part is made from; empty for data in memory, which cannot be told apart.
    """

    folder: Path
    dataset: Dataset
    name: str
    species: str
    matrix: str
    rows: npt.NDArray[np.int64] | None
    notes: tuple[str, ...]
    gene_map: npt.NDArray[np.int32]
    status: npt.NDArray[np.int8]
    report: MatchReport
    n_genes: int
    key: str


def make_job(source: CheckedSource, lexicon: Lexicon, folder: Path) -> SourceJob:
    """Return the job that writes `source` into a store with the genes of `lexicon`."""
    ids = source.genes.ids
    gene_map = np.full(len(ids), -1, dtype=np.int32)
    present = np.array([gene is not None for gene in ids])
    gene_map[present] = lexicon.index_of(source.species, [gene for gene in ids if gene is not None])
    job = SourceJob(
        folder=folder,
        dataset=source.dataset,
        name=source.name,
        species=source.species,
        matrix=source.matrix,
        rows=source.rows,
        notes=source.notes,
        gene_map=gene_map,
        status=source.genes.status,
        report=source.genes.report,
        n_genes=len(lexicon),
        key="",
    )
    return replace(job, key=_key(job))


def write_source(job: SourceJob, progress: Callable[[int], object] = int) -> dict[str, Any]:
    """Write a source as a part of a store; runs in any process.

    Parameters
    ----------
    job
        The source and the place.
    progress
        Called with the number of cells after each block.

    Raises
    ------
    InputError
        When a value is not a raw count, or the file cannot be read to its end.
    """
    return_freed_memory()
    dataset = job.dataset
    label = label_of(dataset)
    scratch = job.folder.with_name(job.folder.name + ".scratch")
    try:
        with reading(label):
            source = open_dataset(dataset, label)
        with source:
            with reading(label):
                obs = read_obs(source, dataset, job.rows)
            conversion = _Conversion(job, source, scratch, progress)
            details: dict[str, Any] = {"matrix": job.matrix, "notes": list(job.notes)}
            panel = job.gene_map[job.gene_map >= 0].astype(np.int64)
            part = Part(job.name, job.species, panel, job.key, details)
            return write_part(job.folder, part, job.n_genes, conversion.blocks(), obs, conversion.details)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Conversion:
    """Reads blocks of cells, checks them, and keeps count of what the genes' kinds hold."""

    def __init__(self, job: SourceJob, source: MatrixSource, scratch: Path, progress: Callable[[int], object]) -> None:
        self._job = job
        self._source = source
        self._scratch = scratch
        self._progress = progress
        self._sums = np.zeros(3, dtype=np.int64)
        self._plain = bool((job.status == MATCHED).all())
        self._empty_cells = 0

    def blocks(self) -> Iterator[Block]:
        """Return the source's cells in the store's form."""
        job = self._job
        with reading(self._source.name):
            matrix = turned(self._source.matrix(job.matrix), self._scratch)
            edges = matrix.edges()
        spans = [(start, stop, self._chosen(start, stop)) for start, stop in pairwise(edges.tolist())]
        spans = [span for span in spans if span[2] is None or len(span[2])]
        read = read_ahead(self._read(matrix, start, stop) for start, stop, _ in spans)
        for rows, (start, _, chosen) in zip(read, spans, strict=True):
            taken = rows if chosen is None else _take(rows, chosen)
            yield self._convert(taken, start, chosen)
            self._progress(len(taken.indptr) - 1)

    def _read(self, matrix: Matrix, start: int, stop: int) -> RawRows:
        with reading(self._source.name):
            return matrix.read(start, stop)

    def details(self) -> dict[str, Any]:
        """Return what only reading could tell: shares of counts, cells without counts."""
        matched, ambiguous, unmatched = self._sums.tolist()
        report = self._job.report.with_counts(matched, ambiguous, unmatched)
        return {"match": report.figures(), "empty_cells": self._empty_cells}

    def _chosen(self, start: int, stop: int) -> npt.NDArray[np.int64] | None:
        rows = self._job.rows
        if rows is None:
            return None
        low, high = np.searchsorted(rows, [start, stop])
        return rows[low:high] - start

    def _convert(self, rows: RawRows, start: int, chosen: npt.NDArray[np.int64] | None) -> Block:
        try:
            block = block_of(rows, self._job.gene_map, self._job.n_genes)
        except NotCountsError as fault:
            raise self._refusal(rows, start, chosen, fault) from None
        self._empty_cells += int((block.lengths == 0).sum())
        kept = int(block.depths.sum())
        self._sums[MATCHED] += kept
        if not self._plain:
            kinds = self._job.status[rows.genes]
            counts = integers_of(rows.data)
            for kind in (AMBIGUOUS, UNMATCHED):
                held = int(counts[kinds == kind].sum(dtype=np.int64))
                self._sums[kind] += held
            if self._job.dataset.unmatched == "keep":
                self._sums[MATCHED] -= int(counts[kinds == UNMATCHED].sum(dtype=np.int64))
        return block

    def _refusal(
        self, rows: RawRows, start: int, chosen: npt.NDArray[np.int64] | None, fault: NotCountsError
    ) -> InputError:
        matrix = self._job.matrix
        try:
            integers_of(rows.data)
        except NotCountsError:
            row = int(np.searchsorted(rows.indptr, fault.position, side="right")) - 1
            cell = start + (row if chosen is None else int(chosen[row]))
            text = not_counts(self._source, matrix, cell, int(rows.genes[fault.position]), fault)
            return InputError(f"{text}; expected non-negative whole numbers. {remedy(self._source, matrix)}")
        return InputError(
            f"{self._source.name}: {matrix}: counts of one gene that stands more than once in a cell sum to "
            f"{fault.value}, more than {fmt.MAX_COUNT}; these are no molecule counts."
        )


def _take(rows: RawRows, chosen: npt.NDArray[np.int64]) -> RawRows:
    """Return some rows of a block."""
    lengths = np.diff(rows.indptr)
    keep = np.zeros(len(lengths), dtype=bool)
    keep[chosen] = True
    entries = np.repeat(keep, lengths)
    edges = np.zeros(len(chosen) + 1, dtype=np.int64)
    np.cumsum(lengths[chosen], out=edges[1:])
    return RawRows(rows.data[entries], rows.genes[entries], edges)


def _key(job: SourceJob) -> str:
    source = job.dataset.source
    if not isinstance(source, Path):
        return ""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    files += table_files(job.dataset)
    stats = [(str(file.name), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    rows = None if job.rows is None else hashlib.sha256(job.rows.tobytes()).hexdigest()
    genes = hashlib.sha256(job.gene_map.tobytes() + job.status.tobytes()).hexdigest()
    dataset = repr(replace(job.dataset, source=source.resolve(), genes=None))
    content = [_CODE_VERSION, stats, dataset, job.name, job.species, job.matrix, rows, genes, job.n_genes]
    return hashlib.sha256(fmt.canonical_json(content)).hexdigest()
