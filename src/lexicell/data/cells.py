"""The cells of one or several stores, in the indices of one lexicon.

Indices in a store are local. Here they are mapped to the run's lexicon by (species, gene id), so that stores which
were prepared apart are read as one collection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.gene_sampler import SparseRows
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree, clean_labels

Int64 = npt.NDArray[np.int64]

COVARIATES = ("species", "assay", "tissue")


def merge_lexicons(stores: Sequence[Store]) -> Lexicon:
    """Return one lexicon of all stores' genes, in the order in which they join."""
    lexicon = stores[0].lexicon
    for store in stores[1:]:
        lexicon = lexicon.extend(store.lexicon.table)
    return lexicon


def covariate_levels(stores: Sequence[Store]) -> dict[str, tuple[str, ...]]:
    """Return the levels of every covariate that some store knows, sorted; covariates of one level are left out."""
    levels = {}
    for name in COVARIATES:
        seen: set[str] = set()
        for store in stores:
            if name in store.columns:
                seen.update(map(str, store.obs_columns([name])[name].dropna().unique()))
        if len(seen) > 1:
            levels[name] = tuple(sorted(seen))
    return levels


def merge_label_trees(stores: Sequence[Store]) -> LabelTree | None:
    """Return the label tree over all stores that carry labels; their levels must have the same names."""
    labelled = [store for store in stores if store.label_levels]
    if not labelled:
        return None
    levels = labelled[0].label_levels
    for store in labelled[1:]:
        if store.label_levels != levels:
            raise InputError(
                f"{store.path}: its label levels are {list(store.label_levels)}, but {labelled[0].path} has "
                f"{list(levels)}; prepare both with the same `labels`, coarse to fine"
            )
    frames = [store.obs_columns(levels).drop_duplicates().astype(object) for store in labelled]
    return LabelTree.from_frame(pd.concat(frames, ignore_index=True), levels, source="the stores' labels")


@dataclass(frozen=True, eq=False)
class CodedColumn:
    """A column of text about cells.

    Attributes
    ----------
    names
        The values that occur, sorted.
    codes
        (n_cells,) int32, place of each cell's value in `names`; -1 where it is unknown.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]

    def texts(self) -> npt.NDArray[np.object_]:
        """Return the values as text (n_cells,), None where unknown."""
        return np.array([*self.names, None], dtype=object)[self.codes]


class CellCollection:
    """Cells of several stores, numbered one store after the other.

    Of the stores' cell annotation only the columns that are needed are read, one at a time, and kept as codes.

    Parameters
    ----------
    stores
        Opened stores.
    lexicon
        The run's lexicon; a store's genes that it lacks are not read.
    label_tree
        Label tree for `labels`, or None.
    covariates
        Levels of each covariate for `covariates`.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        lexicon: Lexicon,
        *,
        label_tree: LabelTree | None = None,
        covariates: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.stores = tuple(stores)
        self.lexicon = lexicon
        self._gene_maps = [lexicon.map_from(store.lexicon).astype(np.int32) for store in stores]
        # The first store's genes mostly are the run's: then there is nothing to map.
        self._maps = [None if _is_identity(gene_map) else gene_map for gene_map in self._gene_maps]
        self._lacks = [bool((gene_map < 0).any()) for gene_map in self._gene_maps]
        self._starts = np.concatenate([[0], np.cumsum([store.n_cells for store in stores])])
        self.n_cells = int(self._starts[-1])
        self.panels, self.panel = self._collect_panels()
        depths = [store.obs_columns(["depth"])["depth"].to_numpy(np.float32) for store in stores]
        self.depth = np.concatenate(depths)
        self.covariates = self._encode_covariates(covariates or {})
        self.labels = self._encode_labels(label_tree)

    def _collect_panels(self) -> tuple[list[Int64], Int64]:
        """Panels in lexicon indices, equal ones merged, and the panel of each cell."""
        panels: dict[bytes, int] = {}
        arrays: list[Int64] = []
        of_cell = np.empty(self.n_cells, np.int64)
        for store, gene_map, start in zip(self.stores, self._gene_maps, self._starts, strict=False):
            for source in store.sources:
                mapped = gene_map[np.asarray(source.panel)].astype(np.int64)
                mapped = np.sort(mapped[mapped >= 0])
                key = mapped.tobytes()
                if key not in panels:
                    panels[key] = len(arrays)
                    arrays.append(mapped)
                of_cell[start + source.start : start + source.stop] = panels[key]
        return arrays, of_cell

    def coded(self, name: str) -> CodedColumn:
        """Return one column of the cell annotation of all stores; ``store`` names the store of each cell."""
        if name == "store":
            parts: list[Any] = [pd.Categorical([store.name]).repeat(store.n_cells) for store in self.stores]
        else:
            parts = [_categories(store, name) for store in self.stores]
        names = tuple(sorted({str(level) for part in parts for level in part.categories}))
        places = pd.Index(names, dtype=object)
        codes = [_looked_up(places.get_indexer(part.categories.astype(str)), part.codes) for part in parts]
        return CodedColumn(names, np.concatenate(codes))

    def column(self, name: str) -> npt.NDArray[np.object_]:
        """Return one column of the cell annotation of all stores as text (n_cells,), None where it is unknown."""
        return self.coded(name).texts()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that `coded` knows: those of any store, and ``store``."""
        names = dict.fromkeys(name for store in self.stores for name in store.columns)
        return ("store", *(name for name in names if name not in ("depth", "n_genes")))

    def _encode_covariates(self, covariates: Mapping[str, Sequence[str]]) -> npt.NDArray[np.int32]:
        codes = np.zeros((self.n_cells, len(covariates)), np.int32)
        for place, (name, levels) in enumerate(covariates.items()):
            column = self.coded(name)
            known = pd.Index(list(levels), dtype=object).get_indexer(pd.Index(column.names, dtype=object)) + 1
            codes[:, place] = _looked_up(known, column.codes, missing=0)
        return codes

    def _encode_labels(self, tree: LabelTree | None) -> npt.NDArray[np.int32]:
        levels = () if tree is None else tree.levels
        labels = np.full((self.n_cells, len(levels)), -1, np.int32)
        if tree is not None:
            for store, start in zip(self.stores, self._starts.tolist(), strict=False):
                if not all(level in store.columns for level in levels):
                    continue
                for place, level in enumerate(levels):
                    column = clean_labels(store.obs_columns([level])[level])
                    known = pd.Index(tree.names[place], dtype=object)
                    codes = _looked_up(known.get_indexer(pd.Index(column.categories, dtype=object)), column.codes)
                    labels[start : start + store.n_cells, place] = codes
        return labels

    def rows(self, cells: Int64) -> SparseRows:
        """Copy out the expressed genes and raw counts of some cells, in lexicon indices.

        Both come in the smallest type that holds them, so mind overflow when you calculate.
        """
        which = np.searchsorted(self._starts, cells, side="right") - 1
        parts = np.unique(which)
        begin, end = np.empty(len(cells), np.int64), np.empty(len(cells), np.int64)
        genes: list[npt.NDArray[np.integer[Any]]] = []
        counts: list[npt.NDArray[np.integer[Any]]] = []
        offset = 0
        for index in parts.tolist():
            mine = slice(None) if len(parts) == 1 else np.flatnonzero(which == index)
            read = self.stores[index].rows(cells[mine] - self._starts[index], self._maps[index], narrow=True)
            mapped, indptr, values = read.genes, read.indptr, read.counts
            if self._lacks[index] and len(mapped) and mapped.min() < 0:
                keep = mapped >= 0
                indptr = np.concatenate([[0], np.cumsum(keep)])[indptr]
                mapped, values = mapped[keep], values[keep]
            begin[mine], end[mine] = indptr[:-1] + offset, indptr[1:] + offset
            genes.append(mapped)
            counts.append(values)
            offset += len(mapped)
        if not genes:  # no cell was asked for
            return SparseRows(begin, end, np.empty(0, np.int64), np.empty(0, np.int64))
        if len(genes) == 1:
            return SparseRows(begin, end, genes[0], counts[0])
        return SparseRows(begin, end, np.concatenate(genes), np.concatenate(counts))

    def rows_in_place(self, cells: Int64) -> SparseRows:
        """Return the expressed genes and raw counts of some cells where they lie, if that can be, else copied out.

        `genes` and `counts` may then be those of a whole store: only look at ``begin:end``.
        """
        index = int(np.searchsorted(self._starts, cells[0], side="right")) - 1 if len(cells) else -1
        if index >= 0 and self._maps[index] is None:
            start, stop = self._starts[index], self._starts[index + 1]
            if cells.min() >= start and cells.max() < stop:
                store = self.stores[index]
                found = store.in_place(cells - start)
                if found is not None:
                    begin, counts = found
                    return SparseRows(begin, store.indptr[cells - start + 1], store.genes, counts)
        return self.rows(cells)


def _is_identity(gene_map: npt.NDArray[np.int32]) -> bool:
    return bool((gene_map == np.arange(len(gene_map))).all())


def _looked_up(
    places: npt.NDArray[np.integer[Any]], codes: npt.NDArray[np.integer[Any]], missing: int = -1
) -> npt.NDArray[np.int32]:
    """Return `places` of some codes in 32 bits, for millions of cells; `missing` where a code is -1."""
    found: npt.NDArray[np.int32] = np.append(places, missing).astype(np.int32)[codes]
    return found


def _categories(store: Store, name: str) -> Any:
    """Return a column of a store's cell annotation; all missing where it has none of that name."""
    if name not in store.columns:
        return pd.Categorical.from_codes(np.full(store.n_cells, -1), categories=pd.Index([], dtype=object))
    values = store.obs_columns([name])[name]
    coded = values.array if isinstance(values.dtype, pd.CategoricalDtype) else pd.Categorical(values)
    return coded.remove_unused_categories()


def split_validation(
    donor: npt.NDArray[np.object_],
    species: npt.NDArray[np.object_],
    *,
    donors: Sequence[str],
    fraction: float,
    rng: np.random.Generator,
) -> tuple[Int64, Int64, str]:
    """Split cells into training and validation cells, by donor where that can be.

    Parameters
    ----------
    donor, species
        (n,) donor and species of each cell, None where unknown.
    donors
        Donors to hold out; empty to draw them within each species.
    fraction
        Share of a species' donors, or of its cells where fewer than three donors are known, to hold out.
    rng
        Draws the donors or cells.

    Returns
    -------
    training cells, validation cells, and what was held out in words.
    """
    if donors:
        known = _known(donor)
        missing = sorted(set(donors) - set(known))
        if missing:
            raise InputError(
                f"validation.donors: {missing} are not among the donors of the stores ({known[:10]}); "
                "correct the names or leave the option out"
            )
        held_out, words = pd.Series(donor).isin(list(donors)).to_numpy(), [f"donors {', '.join(donors)}"]
        if held_out.all():
            raise InputError("validation.donors: every cell is of these donors; leave one out, to train on")
    else:
        held_out, words = np.zeros(len(donor), bool), []
        codes, kinds = pd.factorize(species, use_na_sentinel=False)
        for kind in np.argsort([str(name) for name in kinds]):
            cells = np.flatnonzero(codes == kind)
            own, said = _hold_out_some(donor[cells], fraction, rng)
            held_out[cells[own]] = True
            words.append(said)
    if held_out.all() or not held_out.any():
        raise InputError(f"{len(donor)} cells are too few to train on some and hold out others; prepare more cells")
    return np.flatnonzero(~held_out), np.flatnonzero(held_out), "; ".join(words)


def _hold_out_some(
    donor: npt.NDArray[np.object_], fraction: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], str]:
    """Draw donors of one species, always leaving one; or cells, where hardly any donor is known."""
    known = _known(donor)
    if len(known) < 3:
        drawn = rng.permutation(len(donor))[: max(1, round(fraction * len(donor)))]
        return np.isin(np.arange(len(donor)), drawn), f"{len(drawn)} cells drawn at random"
    n_held_out = min(max(1, round(fraction * len(known))), len(known) - 1)
    names = sorted(rng.choice(np.array(known, dtype=object), n_held_out, replace=False))
    return pd.Series(donor).isin(names).to_numpy(), f"donors {', '.join(names)}"


def _known(values: npt.NDArray[np.object_]) -> list[str]:
    return sorted(value for value in pd.unique(values) if value is not None)
