"""Which labels a pretrained model has learned already: a benchmark that asks for them again would flatter it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lexicell.data.store import Store
from lexicell.errors import InputError, listing
from lexicell.evaluation.runner import Task
from lexicell.labels import clean_labels
from lexicell.model.checkpoint import load_spec
from lexicell.training.run_folder import RUN, read_json
from lexicell.workflows.held_out import split_of

Int64 = npt.NDArray[np.int64]
_DONORS_NAMED = 5


def learned_cells(run: Path, store: Store) -> Int64:
    """Return the cells of a store whose labels a run was trained on, as far as its run folder tells.

    None where it has no label head, or was trained on other stores. Where a further store of the run is gone, its
    held-out cells cannot be told, and all cells count.
    """
    if load_spec(run).label_tree is None or not (run / RUN).is_file():
        return np.empty(0, dtype=np.int64)
    if store.fingerprint not in [entry["fingerprint"] for entry in read_json(run / RUN)["stores"]]:
        return np.empty(0, dtype=np.int64)
    try:
        data = split_of(run)
    except InputError:
        return np.arange(store.n_cells)
    stores = data.collection.stores
    place = [each.fingerprint for each in stores].index(store.fingerprint)
    own = data.training_cells - sum(each.n_cells for each in stores[:place])
    return own[(own >= 0) & (own < store.n_cells)]


def check_unseen(run: Path, store: Store, tasks: Sequence[Task]) -> None:
    """Refuse a run that was trained on labels of the test cells.

    Raises
    ------
    InputError
        When it was; says what to do instead.
    """
    learned = learned_cells(run, store)
    if not len(learned):
        return
    tested = np.unique(np.concatenate([fold.test for task in tasks for fold in task.folds]))
    seen = np.intersect1d(tested, learned)
    if not len(seen):
        return
    raise InputError(
        f"{run}: this model learned the labels of {len(seen):,} of the {len(tested):,} cells that it would be tested "
        f"on, so that the comparison would flatter it. {_way_out(store, learned)}, let a model be pretrained on each "
        "fold without labels (pretrain: a recipe), or give a run that was trained without labels (objectives.labels 0)."
    )


def _way_out(store: Store, learned: Int64) -> str:
    """Say how to test on what was held out."""
    if "donor" in store.obs:
        donors = np.asarray(clean_labels(store.obs["donor"]), dtype=object)
        unseen = sorted(set(np.delete(donors, learned)) - set(donors[learned]) - {None, np.nan})
        if 0 < len(unseen) <= _DONORS_NAMED:
            return f"Test on what it held out (split donor={'+'.join(unseen)})"
        if unseen:
            return f"Test on donors that it held out (split donor=NAME+NAME, such as {listing(unseen)})"
    return "Test on other cells"
