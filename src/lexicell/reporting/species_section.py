"""The part of a report that tells how a species joined: step by step, what was gained and what was forgotten."""

from __future__ import annotations

import pandas as pd

from lexicell.reporting import figures
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.sections import Picture, Section, picture
from lexicell.reporting.text import Table

_GENES_NAMED = 20


def species_section(run: RunTables) -> Section | None:
    """Return the section, where the run is an extended one."""
    steps = run.table("extension_steps", "figure")
    if steps is None:
        return None
    text = [
        "New gene rows were set from rows of old genes that are expressed alike; then they alone were trained (phase "
        "1), then everything, with old cells among the new ones (phase 2). Annotation of the new species is scored "
        "over the types that both species have; the AUROC of new types says how well doubt singles out types that "
        "only the new species has. Mixing is 1 where new cells have as many old neighbours as chance would give, 0 "
        "where the species lie apart. The old species' figures are of cells that no phase was trained on: what falls "
        "there was forgotten."
    ]
    notes = run.table("extension_notes", "note")
    if notes is not None:
        text += [f"Note: {note}" for note in notes["note"]]
    labels = run.table("species_labels", "cell", "unknown")
    if labels is not None:
        text.append(
            f"Labels of matched groups, before any training, of all {len(labels):,} new cells are in "
            f"report/species_labels.csv; of {(labels['unknown'] > 0.5).mean():.0%} of them more than half found no "
            "partner."
        )
    genes = run.table("extension_genes", "symbol", "few_exposures")
    if genes is not None and genes["few_exposures"].any():
        text.append(_seldom(genes))
    tables = (Table("Step by step", tuple(map(str, steps.columns)), _rows(steps)),)
    return Section("species", "A species joined", tuple(text), tuple(_pictures(run)), tables)


def _rows(steps: pd.DataFrame) -> tuple[tuple[object, ...], ...]:
    return tuple(tuple(None if pd.isna(v) else v for v in row) for row in steps.itertuples(index=False))


def _seldom(genes: pd.DataFrame) -> str:
    few = genes[genes["few_exposures"].astype(bool)]
    names = few["symbol"].astype(str).tolist()
    more = f" and {len(names) - _GENES_NAMED:,} more" if len(names) > _GENES_NAMED else ""
    return (
        f"{len(few):,} of {len(genes):,} new genes were hardly ever shown while expressed; their rows say little: "
        f"{', '.join(names[:_GENES_NAMED])}{more}."
    )


def _pictures(run: RunTables) -> list[Picture]:
    """Return cells of all species in one plane: coloured by species, and by label where there are labels."""
    cells = run.table("extension_cells", "x", "y", "species", "label", "what")
    if cells is None:
        return []
    method = str(cells["method"].iloc[0]) if "method" in cells.columns else ""
    by_species = cells[["x", "y"]].assign(label=cells["species"])
    caption = f"{len(cells):,} old and new cells in one embedding ({method}), coloured by species."
    found = [picture(figures.embedding_scatter(by_species, method), "species", caption)]
    if cells["label"].notna().any():
        beside = cells[["x", "y", "label"]].assign(split=cells["what"] + ": " + cells["species"])
        caption = "The same cells, each species by itself, coloured by label; grey where none is known."
        found.append(picture(figures.embedding_scatter(beside, method), "species_labels", caption))
    return found
