"""What is checked of a run folder before anything is trained, and the checkpoint that a run goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch
import yaml

from lexicell.data.store import Store
from lexicell.errors import InputError, listing, raise_all
from lexicell.training.engine import is_child
from lexicell.training.recipe import Recipe, parse_recipe
from lexicell.training.run_folder import CHECKPOINTS, RECIPE, RUN, read_json
from lexicell.training.start import Start


def check_folder(
    out: Path, recipe: Recipe, stores: Sequence[Store], start: Start, *, resume: bool
) -> tuple[Path | None, int | None]:
    """Return the checkpoint to go on from and its step, or None twice for a new run; refuse what cannot be right."""
    if not stores:
        raise InputError("no store given; make one with `lexicell prepare` and pass it with --store")
    last = out / CHECKPOINTS / "last.ckpt"
    if not resume:
        if is_child():  # the first process has checked, and begun to write
            return None, None
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(
                f"{out}: already there, and not empty; choose another --out"
                + (", or --resume to go on with that run" if last.is_file() else ", or remove what is there")
            )
        return None, None
    if not last.is_file():
        raise InputError(f"{out}: nothing to resume: {last} not found; start the run without --resume")
    _check_same_run(out, recipe, stores, start)
    return last, _step_of(last)


def _check_same_run(out: Path, recipe: Recipe, stores: Sequence[Store], start: Start) -> None:
    """Refuse to go on with another recipe, other stores or another start."""
    old = parse_recipe(yaml.safe_load((out / RECIPE).read_text(encoding="utf-8")), str(out / RECIPE))
    faults = []
    was, now = asdict(old), asdict(recipe)
    changed = [section for section in was if section != "trainer" and was[section] != now[section]]
    if changed:
        faults.append(
            f"the recipe differs from the run's in {listing(changed)}; only `trainer` may change when resuming. "
            f"Pass {out / RECIPE} as the recipe"
        )
    facts = read_json(out / RUN)
    if [entry["fingerprint"] for entry in facts["stores"]] != [store.fingerprint for store in stores]:
        faults.append("the stores are not those of the run (their fingerprints differ); give the same, in order")
    if facts.get("start", {}) != dict(start.facts()):
        faults.append(
            f"the run began from {facts.get('start') or 'scratch'}, not from {dict(start.facts()) or 'scratch'}; "
            "go on with the command that began it"
        )
    raise_all(faults, f"{out}: cannot resume")


def _step_of(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was written; nothing in it is run."""
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{checkpoint}: not a checkpoint that lexicell wrote, or damaged ({reason}); "
            f"put a whole one in its place ({checkpoint.with_name('best.ckpt').name} may be whole), or start anew"
        ) from None
