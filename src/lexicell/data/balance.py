"""Keeping at most N cells of each label, so that a reference can be cut from an atlas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.corpus_check import CheckedCorpus, CheckedSource, joined_lexicon, read_obs, with_rows
from lexicell.data.obs_tables import open_dataset
from lexicell.errors import InputError, listing
from lexicell.randomness import generator


def parse_balance(text: str, levels: tuple[str, ...]) -> tuple[str, int]:
    """Read ``LEVEL:N``; raise InputError where it is not that or the corpus has no such level."""
    level, _, number = text.rpartition(":")
    if not level or not number.isdigit() or int(number) < 1:
        raise InputError(f"balance: expected LEVEL:N such as subclass:1000, got {text!r}.")
    if level not in levels:
        raise InputError(f"balance: no label level '{level}'; the corpus has {listing(levels, 20) or 'none'}.")
    return level, int(number)


def balanced(checked: CheckedCorpus, level: str, most: int, *, seed: int) -> CheckedCorpus:
    """Return the corpus with at most `most` cells of each label of `level`, over all its sources.

    Cells without a label count as one label more. Sources that lose all cells are left out.

    Parameters
    ----------
    checked
        The corpus.
    level
        One of its label levels.
    most
        Cells to keep of a label.
    seed
        Seed of the draw.
    """
    labels = [_labels_of(source, level) for source in checked.sources]
    edges = np.cumsum([0, *map(len, labels)])
    codes, _ = pd.factorize(np.concatenate(labels))
    order = generator(seed, "balance").permutation(len(codes))
    rank = np.empty(len(codes), dtype=np.int64)
    rank[order] = pd.Series(codes[order]).groupby(codes[order]).cumcount()
    kept = rank < most
    sources = []
    for place, source in enumerate(checked.sources):
        mine = np.flatnonzero(kept[edges[place] : edges[place + 1]])
        rows = mine if source.rows is None else source.rows[mine]
        if len(rows):
            sources.append(with_rows(source, rows))
    return replace(checked, sources=tuple(sources), lexicon=joined_lexicon(sources))


def _labels_of(source: CheckedSource, level: str) -> npt.NDArray[np.object_]:
    if level not in {label.level for label in source.dataset.labels}:
        return np.full(source.n_cells, "", dtype=object)
    with open_dataset(source.dataset, source.name) as file:
        column = read_obs(file, source.dataset, source.rows)[level]
    return column.astype(object).where(column.notna(), "").to_numpy(dtype=object)
