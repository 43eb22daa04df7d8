"""Pretrain a model on stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lexicell.data.store import Store
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table
from lexicell.training.fit import FitResult, fit
from lexicell.training.recipe import Recipe, load_recipe, override_recipe


@dataclass(frozen=True)
class PretrainResult:
    """A pretraining run."""

    run: Path
    """The run folder."""
    fitted: FitResult
    """What training came to."""

    def model(self) -> CellModel:
        """Load the trained model."""
        return CellModel.load(self.run)

    def unless_stopped(self) -> Self:
        """Return itself, for what would go on with the model.

        Raises
        ------
        KeyboardInterrupt
            When a signal stopped the run: it stops what comes after, too.
        """
        if not self.fitted.finished:
            raise KeyboardInterrupt
        return self

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        metrics, facts = self.fitted.metrics, self.fitted.facts
        skill = {name.removeprefix("val/skill/"): value for name, value in metrics.items() if "skill/" in name}
        return {
            "run": str(self.run),
            "finished": self.fitted.finished,
            "steps": self.fitted.steps,
            "parameters": facts["parameters"]["total"],
            "cells_per_second": facts.get("cells_per_second"),
            "loss": metrics.get("val/loss"),
            "ce": metrics.get("val/ce"),
            "baseline_ce": metrics.get("val/baseline_ce"),
            "skill": {"overall": metrics.get("val/skill")} | skill,
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        facts, metrics = self.fitted.facts, self.fitted.metrics
        state = "finished" if self.fitted.finished else "stopped by a signal; go on with --resume"
        rows: list[tuple[object, ...]] = [
            ("state", f"{state}, {self.fitted.steps:,} steps"),
            ("parameters", f"{facts['parameters']['total']:,}"),
            ("training cells", f"{facts['training_cells']:,}"),
            ("held out", f"{facts['validation_cells']:,} cells ({facts['held_out']})"),
            ("tokens, queries a cell", f"{facts['tokens']}, {facts['queries']}"),
            ("cells/s", facts.get("cells_per_second", "")),
        ]
        if metrics:
            rows += [
                ("held-out count cross-entropy", metrics["val/ce"]),
                ("the gene marginals' cross-entropy", metrics["val/baseline_ce"]),
                ("held-out count skill", metrics["val/skill"]),
            ]
        rows += [("note", note) for note in facts.get("notes", ())]
        rows.append(("run folder", str(self.run)))
        return [Table("Pretraining", ("", ""), tuple(rows))]


def pretrain(
    recipe: str | Path | Recipe,
    store: str | Path | Store | Sequence[str | Path | Store],
    out: str | Path,
    *,
    resume: bool = False,
    overrides: Mapping[str, object] | None = None,
    progress: bool = True,
) -> PretrainResult:
    """Pretrain a model on one or several stores.

    Parameters
    ----------
    recipe
        A shipped recipe's name (``tiny``, ``small``, ``base``, ``large``), a YAML file, or a `Recipe`.
    store
        Folders that `prepare` wrote.
    out
        Run folder to make.
    resume
        Go on from the last checkpoint in `out`.
    overrides
        Dotted fields of the recipe to change, such as ``{"optim.lr": 3e-4}``.
    progress
        Show a progress line.

    Returns
    -------
    PretrainResult
        Its ``run`` is the folder; ``model()`` loads the model with the lowest held-out loss.

    Raises
    ------
    InputError
        When the recipe, a store or the run folder cannot be used.
    """
    recipe = override_recipe(recipe, overrides or {}) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    given = [store] if isinstance(store, str | Path | Store) else list(store)
    stores = [item if isinstance(item, Store) else Store.open(item) for item in given]
    fitted = fit(recipe, stores, Path(out), resume=resume, progress=progress)
    return PretrainResult(Path(out), fitted)
