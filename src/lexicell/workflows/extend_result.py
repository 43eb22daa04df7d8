"""What an extension came to: its figures, read from the run folder, and its tables in the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from lexicell.inference.cell_model import CellModel
from lexicell.reporting.figures import pretty_method
from lexicell.reporting.text import Table
from lexicell.training.extension import EXTENSION
from lexicell.training.run_folder import EXPOSURE, read_json
from lexicell.workflows.held_out import FOLDER, plane
from lexicell.workflows.species_labels import labels_table
from lexicell.workflows.species_measures import HEAD, KNN, Yardstick, forgetting

ROWS, PHASES = "rows", ("phase1", "phase2")
JOINED = "extension_rows.json"  # what setting the rows told
NAMES = {ROWS: "rows set, before training", PHASES[0]: "after phase 1", PHASES[1]: "after phase 2"}


@dataclass(frozen=True, eq=False)
class ExtendResult:
    """An extended run."""

    run: Path
    """The run folder."""
    finished: bool
    """False when a signal stopped it; ``resume`` goes on."""
    facts: Mapping[str, Any]
    """What extension.json tells."""
    steps: Mapping[str, Any]
    """Figures of each step that is done, by name: ``rows``, ``phase1``, ``phase2``."""
    rarely_seen: tuple[int, int]
    """New genes that were shown while expressed fewer times than the recipe's ``few_exposures``, and all new genes."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """What setting the rows told: ``notes``; and figures of the coupling's own labels, as ``coupled_labels``."""

    @classmethod
    def read(cls, run: Path, *, finished: bool = True) -> Self:
        """Read what lies in a run folder."""
        facts, path = read_json(run / EXTENSION), run / "extension_steps.json"
        rarely = (0, 0)
        if finished and (run / EXPOSURE).is_file():  # a further process may be done before the first one has written
            new = np.load(run / EXPOSURE, allow_pickle=False)[facts["n_genes"] :]
            rarely = int((new[:, 0] < facts["recipe"]["few_exposures"]).sum()), len(new)
        told = read_json(run / JOINED) if (run / JOINED).is_file() else {}
        return cls(run, finished, facts, read_json(path) if path.is_file() else {}, rarely, told)

    def model(self) -> CellModel:
        """Load the extended model."""
        return CellModel.load(self.run)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should mind."""
        notes = [str(note) for note in (*self.facts["notes"], *self.told.get("notes", ()))]
        few, n_new = self.rarely_seen
        if few:
            notes.append(
                f"{few:,} of {n_new:,} new genes were shown fewer than {self.facts['recipe']['few_exposures']} times "
                "while expressed: their rows are hardly learned. `lexicell genes table` marks them (few_exposures)"
                + ("; more cells or more steps would help" if few > n_new / 2 else "")
            )
        return tuple(notes)

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        last = self.steps[list(self.steps)[-1]] if self.steps else {}
        figures: dict[str, Any] = {
            "run": str(self.run),
            "finished": self.finished,
            "species": self.facts["species"],
            "new_species": _headline(last, self.facts) | {"skill": last.get("new_species", {}).get("skill")},
        }
        if "orthologs" in last:
            figures |= {"ortholog_auc": last["orthologs"]["auc"], "ortholog_top10": last["orthologs"]["top10"]}
        if "coupled_labels" in self.told:
            figures["coupled_labels"] = self.told["coupled_labels"]
        few, n_new = self.rarely_seen
        return figures | {
            "forgetting": self._forgetting(),
            "genes": {"new": n_new, "few_exposures": few},
            "notes": list(self.notes),
            "steps": {name: {k: v for k, v in step.items() if k != "marks"} for name, step in self.steps.items()},
        }

    def _forgetting(self) -> dict[str, Any]:
        if ROWS not in self.steps:
            return {}
        first, last = self.steps[ROWS], self.steps[list(self.steps)[-1]]
        found: dict[str, Any] = {"lost": forgetting(first, last)}
        if PHASES[0] in self.steps:
            marks = first["marks"], self.steps[PHASES[0]]["marks"]
            found["old_rows_equal_after_phase1"] = marks[0]["rows"] == marks[1]["rows"]
            found["old_model_equal_after_phase1"] = marks[0]["old"] == marks[1]["old"]
        for when, step in (("before", first), ("after", last)):
            if "old_species" in step:
                found[when] = step["old_species"]
        return found

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [
            ("state", "finished" if self.finished else "stopped by a signal; go on with --resume"),
            ("joined", ", ".join(self.facts["species"])),
            ("run folder", str(self.run)),
            *(("note", note) for note in self.notes),
        ]
        tables = [Table("Extension", ("", ""), tuple(rows))]
        if "coupled_labels" in self.told:
            tables.append(labels_table(self.run, self.told["coupled_labels"]))
        if self.steps:
            columns, lines = step_lines(self.steps, self.facts)
            tables.append(Table("New species, and what the old ones lost", columns, lines))
        return tables


def _headline(step: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return accuracy and macro-F1 on the finest truth level, by the label head where there is one."""
    methods = step.get("new_species", {}).get("methods", {})
    method = next((name for name in (HEAD, KNN) if name in methods), None)
    if method is None or not facts["truth_levels"]:
        return {}
    level = facts["truth_levels"][-1]
    scores = methods[method][level]
    return {"method": method, "level": level} | {k: v for k, v in scores.items() if k != "new_types"}


def step_lines(
    steps: Mapping[str, Any], facts: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...]]:
    """Return the columns and rows of the table of steps: one column a step, one row a figure that any step has."""
    level = facts["truth_levels"][-1] if facts["truth_levels"] else None
    found = [_step_figures(step, level) for step in steps.values()]
    rows = dict.fromkeys(name for figures in found for name in figures)
    return (
        ("figure", *(NAMES[name] for name in steps)),
        tuple((row, *(figures.get(row) for figures in found)) for row in rows),
    )


def _step_figures(step: Mapping[str, Any], level: str | None) -> dict[str, float]:
    found = {"new species: count skill": step["new_species"]["skill"]}
    for method, levels in step["new_species"].get("methods", {}).items():
        scores, name = levels[level], pretty_method(method)
        found |= {f"new species: {name}, accuracy": scores["accuracy"]}
        found |= {f"new species: {name}, macro-F1": scores["macro_f1"]}
        unknown = scores.get("unknown", {})
        if "unsure" in unknown:
            found[f"types only the new species has: unsure call ({name}), AUROC"] = unknown["unsure"]["auroc"]
        if "far" in unknown:
            found["types only the new species has: far from the reference, AUROC"] = unknown["far"]["auroc"]
    if "alignment" in step:
        found["mixing of species"] = step["alignment"]["mixing"]
    if "orthologs" in step:
        found |= {
            "orthologs: AUC": step["orthologs"]["auc"],
            "orthologs: among the 10 nearest": step["orthologs"]["top10"],
        }
    if "old_species" in step:
        found["old species: count skill"] = step["old_species"]["skill"]
        for method, levels in step["old_species"]["methods"].items():
            finest, name = levels[list(levels)[-1]], pretty_method(method)
            found[f"old species: {name}, accuracy"] = finest["accuracy"]
            found[f"old species: {name}, macro-F1"] = finest["macro_f1"]
    return found


def write_tables(run: Path, yardstick: Yardstick, model: CellModel, steps: Mapping[str, Any]) -> None:
    """Put the tables where `report` finds them: the steps, the new genes, and where cells of all species lie."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    facts = read_json(run / EXTENSION)
    columns, lines = step_lines(steps, facts)
    frames = {"extension_steps": pd.DataFrame(list(lines), columns=list(columns))}
    cells = yardstick.embedding(model)
    numbers = cells.filter(regex=r"^e\d+$").to_numpy(np.float32)
    method, points = plane(numbers)
    frames["extension_cells"] = cells[["species", "label", "what"]].assign(
        x=points[:, 0], y=points[:, 1], method=method
    )
    genes = model.lexicon.table.iloc[facts["n_genes"] :].reset_index(drop=True)
    exposure = np.load(run / EXPOSURE, allow_pickle=False)[facts["n_genes"] :]
    genes["match_confidence"] = np.load(run / "match_confidence.npy", allow_pickle=False)
    genes["shown_expressed"] = exposure[:, 0]
    genes["few_exposures"] = exposure[:, 0] < facts["recipe"]["few_exposures"]
    frames["extension_genes"] = genes
    notes = [*facts["notes"], *(note for note in ExtendResult.read(run).notes if note not in facts["notes"])]
    frames["extension_notes"] = pd.DataFrame({"note": notes})
    for name, frame in frames.items():
        part = folder / f".{name}.csv.part"
        frame.to_csv(part, index=False)
        part.replace(folder / f"{name}.csv")
