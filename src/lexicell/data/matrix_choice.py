"""Which matrix of an input holds the raw counts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lexicell.data.counts import NotCountsError, integers_of
from lexicell.data.readers.source import MatrixSource
from lexicell.errors import InputError, listing

SAMPLE_ENTRIES = 2_000_000
_LIKELY_LAYERS = ("layers/counts", "layers/raw_counts", "layers/raw", "layers/umi", "layers/UMIs")


@dataclass(frozen=True)
class Look:
    """What a sample of a matrix shows: what is wrong (None for raw counts), how full it is, how fast to read."""

    fault: str | None
    empty: bool
    filled: float
    seconds_per_entry: float


@dataclass(frozen=True)
class Choice:
    """The matrix to take, what was seen of it, and why, in words for the user."""

    matrix: str
    look: Look
    said: str


def not_counts(source: MatrixSource, matrix: str, cell: int, gene: int, fault: NotCountsError) -> str:
    """Describe a value that is not a count: file, matrix, cell, gene, value."""
    cells, genes = source.obs().index, source.var(matrix).index
    return (
        f"{source.name}: {matrix} holds no raw counts: {fault.kind} value {fault.value} "
        f"(cell '{cells[cell]}', gene '{genes[gene]}')"
    )


def look_at(source: MatrixSource, name: str, limit: int = SAMPLE_ENTRIES) -> Look:
    """Look at up to `limit` entries of a matrix, from places all over it.

    Raises
    ------
    InputError
        When the matrix cannot be read.
    """
    matrix = source.matrix(name)
    if matrix.n_genes == 0:
        raise InputError(f"{source.name}: holds no genes.")
    began = time.perf_counter()
    entries = matrix.sample(limit)
    seen = max(1, min(matrix.n_entries, max(limit, matrix.n_genes)))
    seconds = (time.perf_counter() - began) / seen
    n_filled = int(np.count_nonzero(entries.values))
    fault = None
    try:
        integers_of(entries.values)
    except NotCountsError as wrong:
        cell, gene = int(entries.cells[wrong.position]), int(entries.genes[wrong.position])
        fault = not_counts(source, name, cell, gene, wrong)
    return Look(fault, n_filled == 0, min(1.0, n_filled / seen), seconds)


def choose_matrix(source: MatrixSource, wanted: str | None, limit: int = SAMPLE_ENTRIES) -> Choice:
    """Choose the matrix with raw counts.

    Parameters
    ----------
    source
        An open input.
    wanted
        The matrix that the user named, or None: then ``X`` if it holds raw counts, else the first layer that
        does (those with a likely name first), else ``raw``.
    limit
        Entries to look at. Every entry is looked at again when the matrix is read.

    Raises
    ------
    InputError
        When the wanted matrix, or every matrix, holds something else; with an example, and the matrices that
        do hold raw counts.
    """
    if wanted is not None:
        look = look_at(source, wanted, limit)
        if look.fault is None:
            return Choice(wanted, look, f"counts from {wanted}, as asked")
        raise InputError(f"{look.fault}; expected non-negative whole numbers. {remedy(source, wanted, limit)}")
    order = sorted(source.matrices, key=lambda name: (name != "X", name == "raw", name not in _LIKELY_LAYERS))
    faults = []
    empty = None
    for matrix in order:
        look = look_at(source, matrix, limit)
        if look.fault is not None:
            faults.append(look.fault)
        elif look.empty:
            empty = empty or Choice(matrix, look, f"counts from {matrix}")
        else:
            return Choice(matrix, look, f"counts from {matrix}" + ("" if matrix == "X" else ", X holds none"))
    if empty is not None and not faults:
        raise InputError(f"{source.name}: {empty.matrix} holds nothing but zeros.")
    others = (
        f" {listing(order[1:], 10)} {'holds' if len(order) == 2 else 'hold'} none either." if len(order) > 1 else ""
    )
    raise InputError(
        f"{faults[0]}; expected non-negative whole numbers.{others} "
        "Give the file with the raw counts, or add them as a layer."
    )


def remedy(source: MatrixSource, wrong: str, limit: int = SAMPLE_ENTRIES) -> str:
    """Say which other matrices hold raw counts."""
    good = []
    for matrix in source.matrices:
        try:
            if matrix != wrong and look_at(source, matrix, limit).fault is None:
                good.append(matrix)
        except InputError:
            continue
    if good:
        return f"{listing(good)} {'holds' if len(good) == 1 else 'hold'} raw counts: write 'counts: {good[0]}'."
    return "No other matrix of the file holds raw counts; give the file with the raw counts."
