"""What is checked before a species joins: its genes, the old stores, and how far its cells are from the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.model.checkpoint import ModelSpec
from lexicell.training.extension import Growth, Lineage

_LEAST_SHARED = 0.05  # of the smaller gene set: below it, names are rather of another kind
_FAR = 3.0  # times deeper or shallower


def check_growth(growth: Growth, spec: ModelSpec, new: Sequence[Store], *, disjoint: bool) -> list[str]:
    """Return what is wrong with the genes that new stores bring.

    Parameters
    ----------
    growth, spec
        The grown model and the old one.
    new
        The new stores.
    disjoint
        Whether stores of a species that the model knows may share hardly a gene with it.
    """
    faults = []
    for store in new:
        for species in store.lexicon.species:
            known, own = spec.lexicon.rows_of(species), store.lexicon.rows_of(species)
            if not len(known) or disjoint:
                continue
            ids = store.lexicon.table["gene_id"].to_numpy()[own]
            shared = int((spec.lexicon.index_of(species, ids) >= 0).sum())
            if shared < _LEAST_SHARED * min(len(own), len(known)):
                old = spec.lexicon.table["gene_id"].iloc[known[:2]].tolist()
                faults.append(
                    f"{store.path}: the model knows {species} already, with {len(known):,} genes (such as "
                    f"{', '.join(old)}), but of the store's {len(own):,} genes (such as {', '.join(ids[:2])}) it knows "
                    f"{shared:,}. If these are other names of the same genes, prepare the store with a gene table "
                    "(`genes:`) that gives ids of the model's kind; if it is another species, give it its own name; "
                    "if it is a panel of other genes of the same species, say so with --disjoint-panels"
                )
    if not faults and len(growth.lexicon) == growth.n_genes:
        faults.append(
            "the stores bring no gene that the model lacks, so there is nothing to extend; `lexicell annotate` and "
            "`lexicell embed` take such cells as they are"
        )
    return faults


def open_replay(line: Lineage, given: Sequence[Path], run: Path) -> list[Store]:
    """Open a line's old stores, at the paths given or else where run.json says.

    Raises
    ------
    InputError
        When a store is not there, or its fingerprint is not that of any store of the line. All faults are told at
        once.
    """
    found: dict[str, Store] = {}
    faults = []
    for path in given:
        store = Store.open(path)
        if store.fingerprint not in {entry["fingerprint"] for entry in line.stores}:
            faults.append(
                f"{path}: the fingerprint of this store ({store.fingerprint[:12]}) is not that of a store that {run} "
                "was trained on; give the very stores, or prepare them anew from the same files"
            )
        found[store.fingerprint] = store
    for entry in line.stores:
        if entry["fingerprint"] in found or faults:
            continue
        path = Path(entry["path"])
        if not path.is_dir():
            faults.append(
                f"{path}: this store, which {run} was trained on ({entry['name']}, {entry['cells']:,} cells), is not "
                "there. Say where it is with --replay STORE; or go without old cells with --no-replay: then rows "
                "begin from mean expression alone, and forgetting is neither held back nor measured"
            )
            continue
        store = Store.open(path)
        if store.fingerprint != entry["fingerprint"]:
            faults.append(
                f"{path}: this is not the store that {run} was trained on: its fingerprint is "
                f"{store.fingerprint[:12]}, the run's {entry['fingerprint'][:12]}; name the right one with --replay"
            )
        found[store.fingerprint] = store
    if faults:
        raise InputError("\n".join(faults))
    return [found[entry["fingerprint"]] for entry in line.stores]


def tell_distance(old: Sequence[Store], new: Sequence[Store], spec: ModelSpec) -> list[str]:
    """Return warnings about new cells that were measured another way than the old ones.

    Without old stores depths cannot be compared, which is said, and assays only where they are a covariate of the old
    model.
    """
    assays = {assay for store in old for assay in _assays(store)} or set(spec.covariates.get("assay", ()))
    notes = []
    for store in new:
        if old:
            notes += _tell_depth(store, old)
        own = _assays(store)
        if own and assays and not own & assays:
            notes.append(
                f"{store.path}: measured by {', '.join(sorted(own))}, the old cells by {', '.join(sorted(assays))}: "
                "what differs between protocols (nuclei hold intronic and few mitochondrial counts) can pass for a "
                "difference between species"
            )
    if not old:
        notes.append(
            "without the old stores nobody can tell whether the new cells are much deeper or shallower than the old "
            f"ones{'' if assays else ', or measured by another assay'}: theirs have "
            f"{np.median(_joined(new)):,.0f} counts in the median; compare it with "
            "what you know of the reference"
        )
    return notes


def _tell_depth(store: Store, old: Sequence[Store]) -> list[str]:
    depth, reference = (float(np.median(_joined(part))) for part in ([store], old))
    ratio = depth / max(reference, 1.0)
    if 1 / _FAR <= ratio <= _FAR:
        return []
    return [
        f"{store.path}: its cells have {depth:,.0f} counts in the median, the old stores' cells {reference:,.0f}: with "
        f"so {'shallow' if ratio < 1 else 'deep'} cells, trust the types that differ by many genes, and look at the "
        "confidence of the others"
    ]


def _joined(stores: Sequence[Store]) -> np.ndarray:
    return np.concatenate([_depths(store) for store in stores])


def _depths(store: Store) -> np.ndarray:
    return store.obs_columns(["depth"])["depth"].to_numpy(np.float64)


def _assays(store: Store) -> set[str]:
    if "assay" not in store.columns:
        return set()
    return set(map(str, store.obs_columns(["assay"])["assay"].dropna().unique()))
