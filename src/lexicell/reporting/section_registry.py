"""Which tables of ``report/`` make which section of the page.

A verb that leaves a table in a run's ``report`` folder joins the page by one entry here: the table's name (of the file,
without its ending) and a function that makes the section. The function asks `RunTables.table` for the columns that it
needs, and returns None where they are not there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lexicell.reporting.gene_sections import (
    coherence_section,
    contextual_section,
    contrast_section,
    map_section,
    neighbours_section,
    tissue_section,
)
from lexicell.reporting.interpret_sections import (
    attention_section,
    attribution_section,
    confidence_section,
    counts_section,
    knockout_section,
)
from lexicell.reporting.run_tables import RunTables
from lexicell.reporting.sections import Section
from lexicell.reporting.species_section import species_section

Maker = Callable[[RunTables], Section | None]


@dataclass(frozen=True)
class Entry:
    """A section and the table without which it is not made.

    Parameters
    ----------
    table
        Name of a file in ``report/``, without its ending (.csv or .parquet).
    make
        Makes the section.
    """

    table: str
    make: Maker


ENTRIES = (
    Entry("extension_steps", species_section),
    Entry("annotation_reliability", confidence_section),
    Entry("genes_map", map_section),
    Entry("genes_neighbours", neighbours_section),
    Entry("genes_coherence", coherence_section),
    Entry("genes_contextual", contextual_section),
    Entry("genes_tissue", tissue_section),
    Entry("genes_contrast", contrast_section),
    Entry("interpret_counts", counts_section),
    Entry("interpret_attention_map", attention_section),
    Entry("interpret_attribution", attribution_section),
    Entry("interpret_knockout", knockout_section),
)


def sections_of_tables(run: RunTables, entries: Sequence[Entry] = ENTRIES) -> tuple[dict[str, Section], list[str]]:
    """Return the sections whose tables are there, by table, and what went wrong with others.

    A table that cannot be drawn takes nothing but its own section from the page.
    """
    found: dict[str, Section] = {}
    faults = []
    for entry in entries:
        if entry.table not in run.tables:
            continue
        try:
            section = entry.make(run)
        except Exception as error:  # a table by another hand or an older version: the others are still worth showing
            faults.append(f"report/{entry.table}: {type(error).__name__}: {error}".strip())
            continue
        if section is not None:
            found[entry.table] = section
    return found, faults
