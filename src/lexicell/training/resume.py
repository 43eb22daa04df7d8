"""What is checked of a run folder before anything is trained, and the checkpoint that a run goes on from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from lexicell.data.store import Store
from lexicell.errors import InputError, listing, raise_all
from lexicell.model.checkpoint import FORMAT as MODEL_FORMAT
from lexicell.processes import is_child
from lexicell.training.checkpoints import find_last, step_of
from lexicell.training.recipe import Recipe, parse_recipe
from lexicell.training.run_folder import CHECKPOINTS, RECIPE, RUN, read_json
from lexicell.training.start import Start


def check_folder(
    out: Path, recipe: Recipe, stores: Sequence[Store], start: Start, *, resume: bool
) -> tuple[Path | None, int | None]:
    """Return the checkpoint to go on from and its step, or None twice for a run from its first step on.

    Refuses what cannot be right; damaged checkpoints are passed over, with a warning.
    """
    if not stores:
        raise InputError("no store given; make one with `lexicell prepare` and pass it with --store")
    begun = (out / RECIPE).is_file()
    if not resume:
        if is_child():  # the first process has checked, and begun to write
            return None, None
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out}: already there, and not empty; choose another --out"
                + (", or --resume to go on with that run" if begun else ", or remove what is there")
            )
        return None, None
    if not begun:
        raise InputError(f"{out}: nothing to resume: {out / RECIPE} not found; start the run without --resume")
    _check_same_run(out, recipe, stores, start)
    last = find_last(out / CHECKPOINTS)
    if last is None:  # it was stopped before its first checkpoint
        return None, None
    return last, step_of(last)


def _check_same_run(out: Path, recipe: Recipe, stores: Sequence[Store], start: Start) -> None:
    """Refuse to go on with another recipe, other stores or another start."""
    old = parse_recipe(yaml.safe_load((out / RECIPE).read_text(encoding="utf-8")), str(out / RECIPE))
    faults = []
    changed = list(_changes(asdict(replace(old, trainer=recipe.trainer)), asdict(recipe)))
    if changed:
        faults.append(
            f"the recipe differs from the run's in {listing(changed)}; only `trainer` may change when resuming. "
            f"Pass {out / RECIPE} as the recipe, which also says what the run took for `auto`"
        )
    facts = read_json(out / RUN) if (out / RUN).is_file() else {}  # it may have been stopped between the two
    if facts and facts.get("model_format") != MODEL_FORMAT:
        faults.append("it was begun by another version of lexicell, whose models are made otherwise; begin it anew")
    if facts and [entry["fingerprint"] for entry in facts["stores"]] != [store.fingerprint for store in stores]:
        faults.append("the stores are not those of the run (their fingerprints differ); give the same, in order")
    if facts and facts.get("start", {}) != dict(start.facts()):
        faults.append(
            f"the run began from {facts.get('start') or 'scratch'}, not from {dict(start.facts()) or 'scratch'}; "
            "go on with the command that began it"
        )
    raise_all(faults, f"{out}: cannot resume")


def _changes(was: Mapping[str, Any], now: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the fields that differ, with both values."""
    for name, value in was.items():
        other = now[name]
        if isinstance(value, Mapping) and isinstance(other, Mapping) and value.keys() == other.keys():
            yield from _changes(value, other, f"{above}{name}.")
        elif value != other:
            yield f"{above}{name} ({value}, now {other})"
