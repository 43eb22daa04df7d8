"""The run folder: what a run leaves behind, and the logger that writes its metrics."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from lexicell.errors import InputError
from lexicell.files import is_disk_full, write_bytes, write_text

RECIPE, RUN, METRICS, EXPOSURE, CHECKPOINTS = (
    "recipe.yaml",
    "run.json",
    "metrics.csv",
    "exposure.npy",
    "checkpoints",
)
_LOG = logging.getLogger(__name__)


@contextmanager
def unless_disk_full(what: str) -> Iterator[None]:
    """Warn where a file could not be written for want of room, instead of ending a run for it."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        _LOG.warning("%s could not be written (%s); training goes on", what, error.strerror)


def write_json(path: Path, value: object) -> None:
    """Write JSON so that it is whole or not there."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the run folder."""
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(value).__name__}; restore the file")
    return value


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write a ``.npy`` file so that it is whole or not there."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())


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
        with unless_disk_full(str(self._path)):
            write_text(self._path, "\n".join(lines) + "\n")

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the table at the end."""
        if self._rows:
            self.save()


class Curves(TensorBoardLogger):
    """The same for TensorBoard, which may be without room: metrics.csv holds all of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add points to the curves."""
        with unless_disk_full("TensorBoard's curves"):
            super().log_metrics(dict(metrics), step)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the recipe is in recipe.yaml."""

    @rank_zero_only
    def save(self) -> None:
        """Write what waits."""
        with unless_disk_full("TensorBoard's curves"):
            super().save()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the curves."""
        with unless_disk_full("TensorBoard's curves"):
            super().finalize(status)
