"""Read the gene space of a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table
from lexicell.training.extension import EXTENSION
from lexicell.training.run_folder import EXPOSURE, read_json
from lexicell.workflows.embed import load

EXPOSURE_COLUMNS = ("shown_expressed", "shown_silent", "asked")
FEW = "few_exposures"


@dataclass(frozen=True)
class GenesTableResult:
    """Static gene embeddings."""

    table: pd.DataFrame
    """species, gene_id, symbol, exposure (when known) and columns ``e0``, ``e1``, ...; of an extended run also
    ``few_exposures``, which marks genes that were hardly ever shown while expressed."""
    out: Path | None
    """File written, if any."""

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        per_species = self.table["species"].value_counts(sort=False)
        figures: dict[str, Any] = {
            "genes": len(self.table),
            "species": {str(name): int(n) for name, n in per_species.items()},
            "out": str(self.out) if self.out else None,
        }
        if EXPOSURE_COLUMNS[0] in self.table:
            asked, shown = self.table["asked"], self.table["shown_expressed"]
            figures |= {
                "asked_min": int(asked.min()),
                "asked_median": float(asked.median()),
                "never_expressed": int((shown == 0).sum()),
            }
        if FEW in self.table:
            figures[FEW] = int(self.table[FEW].sum())
        return figures

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        names = {
            "genes": "genes",
            "asked_min": "times asked for, least",
            "asked_median": "times asked for, median",
            "never_expressed": "genes never seen expressed",
            FEW: "genes hardly ever seen expressed (marked)",
            "out": "written to",
        }
        figures = self.figures()
        rows = [(words, figures[key]) for key, words in names.items() if figures.get(key) is not None]
        rows += [(f"genes of {name}", n) for name, n in figures["species"].items()]
        return [Table("Gene embeddings", ("", ""), tuple(rows))]


def genes_table(model: CellModel | str | Path, out: str | Path | None = None) -> GenesTableResult:
    """Return the static gene embeddings of a model as a table.

    Parameters
    ----------
    model
        A run folder; or a model, whose table then has no exposure.
    out
        File to write: ``.parquet``, ``.csv`` or ``.tsv``.

    Raises
    ------
    InputError
        When the model cannot be used or the file's ending is none of these.
    """
    path = Path(out) if out is not None else None
    if path is not None:
        check_ending(path)
    table = load(model).gene_table()
    exposure = None if isinstance(model, CellModel) else Path(model) / EXPOSURE
    if exposure is not None and exposure.is_file():
        counted = np.load(exposure, allow_pickle=False)
        for place, name in enumerate(EXPOSURE_COLUMNS):
            table.insert(3 + place, name, counted[:, place])
        extension = Path(str(model)) / EXTENSION
        if extension.is_file():  # rows of a species that joined with too few cells say little: mark them
            least = int(read_json(extension)["recipe"]["few_exposures"])
            table.insert(3 + len(EXPOSURE_COLUMNS), FEW, counted[:, 0] < least)
    if path is not None:
        write_table(table, path)
    return GenesTableResult(table, path)


def check_ending(path: Path) -> None:
    """Refuse a file that `write_table` cannot write."""
    if path.suffix not in {".parquet", ".csv", ".tsv"}:
        raise InputError(f"{path}: a gene table is written as .parquet, .csv or .tsv; choose one of these endings")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as its name's ending says, so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    if path.suffix == ".parquet":
        table.to_parquet(part, index=False)
    else:
        table.to_csv(part, index=False, sep="," if path.suffix == ".csv" else "\t")
    part.replace(path)
