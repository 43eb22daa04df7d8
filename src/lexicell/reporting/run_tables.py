"""What a report is made from: the tables and texts of a run folder, each of which may be missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError

_Value = TypeVar("_Value")
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


@dataclass(frozen=True, eq=False)
class RunTables:
    """A run folder, read.

    Attributes
    ----------
    name
        The folder's name.
    facts
        ``run.json``: versions, stores, sizes, speed. Empty where there is none.
    config
        ``config.json``: the model's settings. Empty where there is none.
    recipe
        Text of ``recipe.yaml``.
    metrics
        ``metrics.csv``: one row a logged step.
    exposure
        ``exposure.npy`` (n_genes, 3): how often each gene was seen as expressed, as zero, as query.
    lexicon
        ``lexicon.parquet``: species, gene_id, symbol.
    tables
        ``report/NAME.parquet`` or ``report/NAME.csv`` by NAME.
    faults
        Files that are there but could not be read, and why.
    """

    name: str
    facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    recipe: str | None = None
    metrics: pd.DataFrame | None = None
    exposure: npt.NDArray[Any] | None = None
    lexicon: pd.DataFrame | None = None
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    def table(self, name: str, *columns: str) -> pd.DataFrame | None:
        """Return a table if it is there, has these columns and at least one row."""
        found = self.tables.get(name)
        if found is None or not len(found) or not set(columns) <= set(found.columns):
            return None
        return found


def read_run(folder: str | Path) -> RunTables:
    """Read what a run folder holds; what is missing stays empty, what is damaged is named in `faults`.

    Raises
    ------
    InputError
        When there is no such folder, or it holds nothing that a report could show.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such run folder; name one that `lexicell pretrain` wrote.")
    faults: list[str] = []

    def read(path: Path, how: Callable[[Path], _Value]) -> _Value | None:
        if not path.is_file():
            return None
        try:
            return how(path)
        except Exception as error:  # whatever is wrong with one file, the others are still worth showing
            faults.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}".strip())
            return None

    tables: dict[str, pd.DataFrame] = {}
    for suffix, reader in _READERS.items():
        for path in sorted((folder / "report").glob(f"*{suffix}")):
            table = read(path, reader)
            if table is not None:
                tables[path.stem] = table
    run = RunTables(
        name=folder.resolve().name,
        facts=read(folder / "run.json", _json_object) or {},
        config=read(folder / "config.json", _json_object) or {},
        recipe=read(folder / "recipe.yaml", lambda path: path.read_text(encoding="utf-8")),
        metrics=read(folder / "metrics.csv", pd.read_csv),
        exposure=read(folder / "exposure.npy", _exposure),
        lexicon=read(folder / "lexicon.parquet", pd.read_parquet),
        tables=tables,
        faults=tuple(faults),
    )
    empty = not run.tables and not run.facts and run.recipe is None
    if empty and run.metrics is None and run.exposure is None:
        raise InputError(
            f"{folder}: holds nothing to report (no run.json, recipe.yaml, metrics.csv, exposure.npy or "
            "report/ tables that can be read); name a folder that `lexicell pretrain` wrote."
        )
    return run


def _json_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    return value


def _exposure(path: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"expected the shape (genes, 3), found {array.shape}")
    return array
