"""The run folder: what a run leaves behind, and the logger that writes its metrics."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lexicell.errors import InputError

RECIPE, RUN, METRICS, EXPOSURE, CHECKPOINTS = (
    "recipe.yaml",
    "run.json",
    "metrics.csv",
    "exposure.npy",
    "checkpoints",
)


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is whole or not there."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that it is whole or not there."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the run folder."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; restore the file")
    return value


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file so that it is whole or not there."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
    part.replace(path)


def last_look(folder: Path) -> dict[str, float]:
    """Return the held-out figures that metrics.csv holds last, ``val/...`` by name; none where there are none."""
    if not (folder / METRICS).is_file():
        return {}
    with (folder / METRICS).open(newline="", encoding="utf-8") as file:
        looks = [row for row in csv.DictReader(file) if row.get("val/loss")]
    return {k: float(v) for k, v in looks[-1].items() if k.startswith("val/") and v} if looks else {}


class MetricsTable(Logger):
    """Writes metrics.csv: one row a logged step, one column a metric.

    A resumed run keeps the rows up to the step it goes on from, and writes on.
    """

    def __init__(self, folder: Path, *, keep_to_step: int | None = None) -> None:
        super().__init__()
        self._path = folder / METRICS
        self._rows: dict[int, dict[str, float | int | str]] = {}
        if keep_to_step is not None and self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) <= keep_to_step:
                        self._rows[int(row["step"])] = {k: v for k, v in row.items() if v and k != "step"}

    @property
    def name(self) -> str:
        """Name for Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """Version for Lightning."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the recipe is in recipe.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep metrics of a step; NaN is kept as such."""
        row = self._rows.setdefault(int(step or 0), {})
        row.update({name: value for name, value in metrics.items() if name != "epoch"})
        if "val/loss" in metrics:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        """Write the table."""
        columns: dict[str, None] = {}
        for row in self._rows.values():
            columns.update(dict.fromkeys(row))
        lines = [",".join(["step", *columns])]
        for step in sorted(self._rows):
            values = (self._rows[step].get(column, "") for column in columns)
            lines.append(",".join([str(step), *(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values)]))
        write_whole(self._path, "\n".join(lines) + "\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table at the end."""
        if self._rows:
            self.save()
