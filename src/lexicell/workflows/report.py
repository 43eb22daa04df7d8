"""Write a run's report: one HTML page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lexicell.errors import InputError
from lexicell.reporting.page import build_page, last_value, render, skill_strata
from lexicell.reporting.run_tables import RunTables, read_run
from lexicell.reporting.text import Table
from lexicell.workflows.held_out import EMBEDDING, FOLDER, compare_run, outdated

NAME = "report.html"


@dataclass(frozen=True)
class ReportResult:
    """A written report."""

    path: Path
    """The page."""
    sections: tuple[str, ...]
    """Titles of its sections."""
    skill: dict[str, float]
    """Count skill at the last validation: ``overall`` and each stratum."""
    annotation: dict[str, dict[str, float]]
    """Method -> accuracy and macro_f1 on the finest level, averaged over seeds."""
    faults: tuple[str, ...]
    """What could not be shown, and why."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return {
            "report": str(self.path),
            "sections": list(self.sections),
            "skill": self.skill,
            "annotation": self.annotation,
            "faults": list(self.faults),
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rows: list[tuple[object, ...]] = [("page", str(self.path)), ("sections", ", ".join(self.sections))]
        rows += [("could not be shown", fault) for fault in self.faults]
        tables = [Table("Report", ("", ""), tuple(rows))]
        if self.skill:
            tables.append(Table("Count skill, held-out cells", ("stratum", "skill"), tuple(self.skill.items())))
        if self.annotation:
            scores = tuple((name, s["accuracy"], s["macro_f1"]) for name, s in self.annotation.items())
            tables.append(Table("Annotation", ("method", "accuracy", "macro-F1"), scores))
        return tables


def report(run: str | Path, out: str | Path | None = None, *, progress: bool = True) -> ReportResult:
    """Write one self-contained HTML page of what a run folder holds.

    Where ``report/`` does not hold them yet and the run's stores are still there, the tables on held-out cells
    (annotation beside the baselines, a picture of the embedding) are made first, and kept; they are made anew after
    the run was resumed and its model changed.

    Parameters
    ----------
    run
        Run folder. Sections appear for what is there: ``recipe.yaml``, ``run.json``, ``metrics.csv``,
        ``exposure.npy``, and the tables in ``report/``.
    out
        File to write; ``report.html`` in the run folder by default.
    progress
        Show progress bars while held-out cells are embedded.

    Raises
    ------
    InputError
        When there is no such folder, or nothing in it to report.
    """
    tables = _with_held_out_tables(Path(run), read_run(run), progress=progress)
    page = build_page(tables)
    path = Path(out) if out is not None else Path(run) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(render(page), encoding="utf-8")
    part.replace(path)
    overall = last_value(tables, "val/skill")
    scores = tables.table("annotation_scores", "method", "level", "accuracy", "macro_f1")
    annotation: dict[str, dict[str, float]] = {}
    if scores is not None:
        finest = scores[scores["level"] == scores["level"].iloc[-1]]
        for method, part_of in finest.groupby("method", sort=False):
            means = part_of[["accuracy", "macro_f1"]].mean()
            annotation[str(method)] = {name: float(value) for name, value in means.items()}
    return ReportResult(
        path,
        tuple(section.title for section in page.sections),
        ({"overall": overall} if overall is not None else {}) | skill_strata(tables),
        annotation,
        page.faults,
    )


def _with_held_out_tables(run: Path, tables: RunTables, *, progress: bool) -> RunTables:
    """Make the tables on held-out cells where they are not there, or of an older model; say why that cannot be."""
    there, old = any((run / FOLDER).glob(f"{EMBEDDING}.*")), outdated(run)
    if (there and not old) or not tables.facts.get("stores"):
        return tables
    try:
        compare_run(run, progress=progress).write(run)
    except InputError as error:
        shown = " (shown are those of the model before it was trained on)" if old else ""
        fault = f"annotation and embedding of held-out cells{shown}: {error}"
        return replace(tables, faults=(*tables.faults, fault))
    return read_run(run)
