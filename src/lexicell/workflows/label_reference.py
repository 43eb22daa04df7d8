"""A labelled reference, opened but not read: its label tree, codes, donors and genes, and its cells in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData

from lexicell.data.query import Query, open_query, store_queries
from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree, clean_labels

Reference: TypeAlias = AnnData | Store | str | Path
Int64 = npt.NDArray[np.int64]

_FEWEST_LABELLED = 3
_DONOR_COLUMNS = ("donor", "donor_id", "donor_label")


@dataclass(frozen=True, eq=False)
class LabelledReference:
    """The labelled cells of a reference.

    Attributes
    ----------
    name
        What to call it.
    tree
        Its label tree.
    codes
        Labels (n_cells, n_levels) of the labelled cells.
    donors
        (n_cells,) donor of each, None where unknown; None as a whole where nothing says it.
    genes
        The lexicon's genes that all of these cells measured, ascending.
    n_measured
        Genes that they measured, those that the lexicon lacks included (the fewest of any source).
    parts
        ``parts(n)`` yields the cells in order, n at a time at most.
    """

    name: str
    tree: LabelTree
    codes: Int64
    donors: npt.NDArray[np.object_] | None
    genes: Int64
    n_measured: int
    parts: Callable[[int], Iterator[Query]]

    @property
    def n_cells(self) -> int:
        """Number of labelled cells."""
        return len(self.codes)

    @property
    def n_donors(self) -> int:
        """Number of known donors; 0 where nothing says it."""
        return 0 if self.donors is None else len({donor for donor in self.donors if donor is not None})


def open_reference(
    reference: Reference,
    lexicon: Lexicon,
    levels: Sequence[str] | None = None,
    *,
    taxonomy: str | Path | pd.DataFrame | None = None,
    usual_levels: Sequence[str] = (),
    species: str | None = None,
    donor: str | None = None,
) -> LabelledReference:
    """Open a reference.

    Parameters
    ----------
    reference
        A store, AnnData or a file.
    lexicon
        The genes of the model.
    levels
        Label columns, coarse to fine. Default: those of the store, or `usual_levels` where the reference has them.
    taxonomy
        Table of the label tree (`LabelTree.from_taxonomy`); without it, the tree is read off the cells. Levels without
        a column in the reference are then filled in from finer ones.
    usual_levels
        Level names to look for.
    species
        Species of the cells, where the reference does not say it.
    donor
        obs column of the donor. Default: ``donor``, ``donor_id`` or ``donor_label``, where there is one.

    Raises
    ------
    InputError
        When there are no labels, they are no tree, or hardly a gene is known.
    """
    if isinstance(reference, str | Path) and Path(reference).is_dir() and (Path(reference) / "meta.json").exists():
        reference = Store.open(reference)
    if isinstance(reference, Store):
        return _open_store(reference, lexicon, levels, taxonomy, donor)
    name = "the reference AnnData" if isinstance(reference, AnnData) else str(reference)
    with open_query(reference, lexicon, species=species) as cells:
        usual = usual_levels if set(usual_levels) <= set(cells.obs.columns) else ()
        tree, codes = _labels(cells.obs, levels or usual, taxonomy, name)
        labelled = np.flatnonzero(codes[:, 0] >= 0)
        donors = _donors(cells.obs, donor, name)
        genes, n_measured = cells.genes, len(cells.gene_index)

    def parts(cells_at_once: int) -> Iterator[Query]:
        known = codes[:, 0] >= 0
        at = 0
        with open_query(reference, lexicon, species=species) as again:
            for part in again.parts(cells_at_once):
                here = np.flatnonzero(known[at : at + part.n_cells])
                at += part.n_cells
                if len(here):
                    yield part if len(here) == part.n_cells else part.take(here)

    _check_labelled(labelled, tree, name)
    return LabelledReference(
        name, tree, codes[labelled], None if donors is None else donors[labelled], genes, n_measured, parts
    )


def _open_store(
    store: Store,
    lexicon: Lexicon,
    levels: Sequence[str] | None,
    taxonomy: str | Path | pd.DataFrame | None,
    donor: str | None,
) -> LabelledReference:
    name = f"the store {store.path}"
    wanted = {*(levels or store.label_levels), *([donor] if donor else _DONOR_COLUMNS)}
    obs = store.obs_columns([column for column in wanted if column in store.columns])
    tree, codes = _labels(obs, levels or store.label_levels, taxonomy, name)
    labelled = np.flatnonzero(codes[:, 0] >= 0)
    _check_labelled(labelled, tree, name)
    donors = _donors(obs, donor, name)
    index = lexicon.map_from(store.lexicon)
    sources = [s for s in store.sources if ((labelled >= s.start) & (labelled < s.stop)).any()]
    panels = [np.asarray(source.panel) for source in sources]
    known = [np.unique(index[panel][index[panel] >= 0]) for panel in panels]
    genes: Int64 = reduce(np.intersect1d, known)
    if not any(map(len, known)):
        raise InputError(
            f"{name}: the model knows none of its genes (the store holds {listing(store.lexicon.species)}, the model "
            f"{listing(lexicon.species)})."
        )
    return LabelledReference(
        str(store.path),
        tree,
        codes[labelled],
        None if donors is None else donors[labelled],
        genes,
        min(map(len, panels)),
        lambda cells_at_once: store_queries(store, labelled, lexicon, cells_at_once),
    )


def _labels(
    obs: pd.DataFrame, levels: Sequence[str] | None, taxonomy: str | Path | pd.DataFrame | None, name: str
) -> tuple[LabelTree, Int64]:
    if taxonomy is not None:
        tree = LabelTree.from_taxonomy(taxonomy, levels or None)
        present = [level for level in tree.levels if level in obs.columns]
        if not present:
            raise InputError(
                f"{name}: has none of the taxonomy's levels {listing(map(repr, tree.levels), 10)} as a column; its "
                f"columns are {listing(map(repr, obs.columns), 20)}."
            )
        _check_known(obs, tree, present, name)
        return tree, tree.complete(tree.encode(obs), name)
    if not levels:
        raise InputError(f"{name}: which columns hold its labels? Name them coarse to fine (--levels, levels=...).")
    tree = LabelTree.from_frame(obs, levels, name)
    return tree, tree.encode(obs)


def _check_known(obs: pd.DataFrame, tree: LabelTree, present: Sequence[str], name: str) -> None:
    faults = []
    for level in present:
        unknown = sorted(set(clean_labels(obs[level]).categories) - set(tree.names[tree.levels.index(level)]))
        if unknown:
            faults.append(f"{name}: '{level}' holds labels that the taxonomy lacks: {listing(map(repr, unknown))}.")
    if faults:
        raise InputError("\n".join(["The reference's labels are not those of the taxonomy:", *faults]))


def _donors(obs: pd.DataFrame, asked: str | None, name: str) -> npt.NDArray[np.object_] | None:
    if asked is not None and asked not in obs.columns:
        raise InputError(f"{name}: no donor column '{asked}'; its columns are {listing(map(repr, obs.columns), 20)}.")
    column = asked or next((column for column in _DONOR_COLUMNS if column in obs.columns), None)
    if column is None:
        return None
    donors = clean_labels(obs[column])
    if not len(donors.categories):
        return None
    names = np.array([*donors.categories, None], dtype=object)
    found: npt.NDArray[np.object_] = names[donors.codes]
    return found


def _check_labelled(labelled: Int64, tree: LabelTree, name: str) -> None:
    if len(labelled) < _FEWEST_LABELLED:
        raise InputError(
            f"{name}: {len(labelled) or 'no'} cell{'s have' if len(labelled) > 1 else ' has'} a label on the level "
            f"'{tree.levels[0]}'; it takes {_FEWEST_LABELLED} to learn from some and to try it on another."
        )
