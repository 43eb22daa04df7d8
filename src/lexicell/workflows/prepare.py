"""`lexicell prepare`: files of raw counts -> one store."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lexicell.data import store_format as fmt
from lexicell.data.balance import balanced, parse_balance
from lexicell.data.conversion import SourceJob, make_job, write_source
from lexicell.data.corpus import CorpusConfig
from lexicell.data.corpus_check import CheckedCorpus, CheckedSource, check
from lexicell.data.corpus_file import load_corpus
from lexicell.data.store import Store
from lexicell.data.store_writer import StoreWriter, check_target, explained
from lexicell.datasets import registry
from lexicell.datasets.gene_tables import GENE_TABLES
from lexicell.errors import InputError, raise_all
from lexicell.reporting.text import Table

_BASE_MEMORY = 300_000_000
_WORKER_MEMORY = 400_000_000


@dataclass(frozen=True, eq=False)
class PrepareResult:
    """What `prepare` wrote, or would write.

    Attributes
    ----------
    store
        The store; None after a dry run.
    out
        Its path.
    sources
        One dictionary a source: name, species, matrix, cells, entries, genes, match of genes, notes; after
        writing also donors, median counts a cell, median genes a cell, and cells without counts.
    labels
        Number of labels on each level.
    n_cells, n_genes
        Size of the store.
    disk_bytes, memory_bytes, seconds
        Expected size, peak memory and time; of a dry run only.
    """

    store: Store | None
    out: Path
    sources: tuple[dict[str, Any], ...]
    labels: dict[str, int]
    n_cells: int
    n_genes: int
    disk_bytes: int | None = None
    memory_bytes: int | None = None
    seconds: float | None = None

    def figures(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "store": str(self.out),
            "fingerprint": None if self.store is None else self.store.fingerprint,
            "n_cells": self.n_cells,
            "n_genes": self.n_genes,
            "labels": self.labels,
            "sources": [dict(source) for source in self.sources],
            "disk_bytes": self.disk_bytes,
            "memory_bytes": self.memory_bytes,
            "seconds": self.seconds,
        }

    def tables(self) -> list[Table]:
        """Return the tables for people."""
        written = self.store is not None
        columns = ["source", "species", "cells", "genes"]
        columns += ["counts/cell", "genes/cell", "donors"] if written else []
        rows = []
        for source in self.sources:
            row = [source["name"], source["species"], source["cells"], source["genes"]]
            if written:
                row += [source["counts_per_cell"], source["genes_per_cell"], source["donors"] or None]
            rows.append(tuple(row))
        title = f"store {self.out}" if written else f"store {self.out} (dry run: nothing was written)"
        tables = [Table(title, tuple(columns), tuple(rows))]
        if self.labels:
            tables.append(Table("labels", ("level", "labels"), tuple(self.labels.items())))
        remarks = tuple((source["name"], "; ".join(_remarks(source))) for source in self.sources)
        tables.append(Table("how they were read", ("source", "how"), remarks))
        if not written:
            expected = (
                ("cells", self.n_cells),
                ("genes", self.n_genes),
                ("disk (MB)", (self.disk_bytes or 0) / 1e6),
                ("disk while writing (MB)", 2 * (self.disk_bytes or 0) / 1e6),
                ("peak memory (MB)", (self.memory_bytes or 0) / 1e6),
                ("time (s)", self.seconds),
            )
            tables.append(Table("to expect", ("what", "about"), expected))
        return tables


def prepare(
    corpus: str | Path | Mapping[str, Any] | CorpusConfig,
    out: str | Path,
    *,
    workers: int = 1,
    dry_run: bool = False,
    overwrite: bool = False,
    balance: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> PrepareResult:
    """Write a store from files of raw counts, or from AnnData in memory.

    The corpus is checked first, and all faults of all inputs are reported together. Then the inputs are streamed,
    one part each, into a staging folder beside `out`, which an interrupted run goes on from; the store bears its
    name only when it is whole.

    Parameters
    ----------
    corpus
        Path of a ``corpus.yaml``, or a mapping of the same shape, in which a data set may have ``adata`` (an
        AnnData) in place of ``path``: ``prepare({"datasets": [{"adata": adata, "species": "mouse"}]}, out)``.
    out
        The store's folder.
    workers
        Inputs that are read at once, each in a process of its own.
    dry_run
        Check the corpus and say what to expect; write nothing.
    overwrite
        Replace a store that stands at `out`.
    balance
        ``LEVEL:N`` keeps at most N cells of each label of a level, drawn at random.
    seed
        Seed of that draw.
    progress
        Show progress bars where the output is a terminal.

    Raises
    ------
    InputError
        When the corpus has faults, a value is not a raw count, or the store cannot be written.
    """
    out = Path(out)
    if workers < 1:
        raise InputError(f"workers: expected a whole number from 1 on, got {workers}.")
    config = _with_gene_tables(load_corpus(corpus))
    wanted = parse_balance(balance, config.label_levels) if balance is not None else None
    if not dry_run:
        with explained(out):
            check_target(out, overwrite=overwrite)
    checked = check(config)
    if wanted is not None:
        checked = balanced(checked, *wanted, seed=seed)
    if dry_run:
        return _expectation(checked, out, workers)
    with StoreWriter(out, checked.lexicon, checked.label_levels, overwrite=overwrite) as writer:
        jobs = [
            make_job(source, checked.lexicon, writer.part_folder(place)) for place, source in enumerate(checked.sources)
        ]
        waiting = [job for place, job in enumerate(jobs) if not writer.has(place, job.key)]
        _write_all(waiting, checked.sources, workers, shown=progress)
        for place in range(len(jobs)):
            writer.adopt(place)
        writer.finish({"corpus": Path(config.name).name})
    return _outcome(Store.open(out))


def _with_gene_tables(config: CorpusConfig) -> CorpusConfig:
    """Put the registry's gene tables in place of their names; fetch those that are not in the cache."""
    known = {entry.name for entry in GENE_TABLES}
    datasets = []
    for dataset in config.datasets:
        path = dataset.genes
        if path is not None and path.name in known and not path.exists():
            dataset = replace(dataset, genes=registry.get(path.name)[0])
        datasets.append(dataset)
    return replace(config, datasets=tuple(datasets))


def _write_all(jobs: Sequence[SourceJob], sources: Sequence[CheckedSource], workers: int, *, shown: bool) -> None:
    """Write the parts; go on after a fault, so that all faults are reported together."""
    cells = {source.name: source.n_cells for source in sources}
    faults = []
    in_memory = [job for job in jobs if not isinstance(job.dataset.source, Path)]
    from_files = [job for job in jobs if isinstance(job.dataset.source, Path)]
    if workers == 1 or len(from_files) < 2:
        in_memory, from_files = list(jobs), []
    total = sum(cells[job.name] for job in jobs)
    with _progress_bar(shown, total) as (bar, task), _pool(workers if from_files else 0) as pool:
        pending: dict[Future[Any], SourceJob] = {}
        if pool is not None:
            pending = {pool.submit(write_source, job): job for job in from_files}
        for job in in_memory:
            bar.update(task, description=job.name)
            try:
                write_source(job, partial(bar.advance, task))
            except InputError as error:
                faults.append(str(error))
        for future in as_completed(pending):
            try:
                future.result()
            except InputError as error:
                faults.append(str(error))
            bar.advance(task, cells[pending[future].name])
    raise_all(faults, "No store was written, because of:")


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor | None]:
    if not workers:
        yield None
        return
    # Fresh processes: a fork would copy the locks of HDF5, torch and their threads in whatever state they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _progress_bar(shown: bool, total: int) -> Iterator[tuple[Progress, TaskID]]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        yield bar, bar.add_task("cells", total=total)


def _expectation(checked: CheckedCorpus, out: Path, workers: int) -> PrepareResult:
    entries = sum(source.n_entries for source in checked.sources)
    n_cells = sum(source.n_cells for source in checked.sources)
    width = fmt.gene_dtype(len(checked.lexicon)).itemsize + 2
    combinations = pd.concat([source.labels.astype(object) for source in checked.sources])
    labels = {level: int(combinations[level].nunique()) for level in checked.label_levels}
    sources = tuple(
        {
            "name": source.name,
            "species": source.species,
            "matrix": source.matrix,
            "cells": source.n_cells,
            "entries": source.n_entries,
            "genes": len({gene for gene in source.genes.ids if gene is not None}),
            "match": source.genes.report.figures(),
            "notes": list(source.notes),
        }
        for source in checked.sources
    )
    # What is read is also sorted, narrowed, written twice and hashed: about as long again.
    seconds = 2 * sum(source.seconds for source in checked.sources) / workers
    return PrepareResult(
        store=None,
        out=out,
        sources=sources,
        labels=labels,
        n_cells=n_cells,
        n_genes=len(checked.lexicon),
        disk_bytes=entries * width + n_cells * 40,
        memory_bytes=_BASE_MEMORY + workers * _WORKER_MEMORY + n_cells * 150,
        seconds=seconds,
    )


def _outcome(store: Store) -> PrepareResult:
    wanted = ["depth", "n_genes"]
    has_donor = "donor" in store.columns
    obs = store.obs_columns([*wanted, "donor"] if has_donor else wanted)
    sources = []
    for entry, source in zip(store.meta["sources"], store.sources, strict=True):
        part = obs.iloc[source.start : source.stop]
        donors = int(pd.Series(part["donor"]).nunique()) if has_donor else 0
        sources.append(
            {
                "name": source.name,
                "species": source.species,
                "cells": source.stop - source.start,
                "entries": int(store.indptr[source.stop] - store.indptr[source.start]),
                "genes": len(source.panel),
                "donors": donors,
                "counts_per_cell": float(np.median(part["depth"])),
                "genes_per_cell": float(np.median(part["n_genes"])),
                **entry["details"],
            }
        )
    tree = store.label_tree()
    labels = {} if tree is None else dict(zip(tree.levels, tree.sizes, strict=True))
    return PrepareResult(store, store.path, tuple(sources), labels, store.n_cells, store.n_genes)


def _remarks(source: Mapping[str, Any]) -> list[str]:
    """Return what a person should know of a source, in words."""
    match = source["match"]
    share = match["n_matched"] / max(match["n_genes"], 1)
    remarks = [*map(str, source["notes"]), f"{share:.1%} of the genes matched"]
    for kind in ("ambiguous", "unmatched"):
        if match[f"n_{kind}"]:
            share = match[f"{kind}_count_share"]
            counts = "" if share is None else f", {share:.2%} of the counts"
            names = ", ".join(match[f"examples_{kind}"][:3])
            remarks.append(f"{match[f'n_{kind}']:,} genes {kind}{counts} ({names}, ...)")
    if match["n_duplicates"]:
        remarks.append(f"{match['n_duplicates']:,} genes stand more than once: their counts were summed")
    if source.get("empty_cells"):
        remarks.append(f"{source['empty_cells']:,} cells hold no counts at all")
    return remarks
