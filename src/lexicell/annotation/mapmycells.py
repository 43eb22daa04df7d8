"""An annotation in the file layout of MapMyCells (the Allen Institute's cell_type_mapper), for notebooks that read it.

- CSV: lines that start with ``#`` (name of the JSON file, levels as a JSON list twice, how it was made), then one row a
  cell: ``cell_id``, and per level ``LEVEL_label``, ``LEVEL_name`` (the finest has ``LEVEL_alias``, too),
  ``LEVEL_bootstrapping_probability``, ``LEVEL_aggregate_probability``, ``LEVEL_runner_up_label``,
  ``LEVEL_runner_up_probability`` (the first of the JSON's); ``unknown``. Text is quoted where any holds a ``#``, which
  readers would else take for the beginning of a comment.
- JSON: ``results`` (a list of one object a cell: ``cell_id``, and per level ``assignment``,
  ``bootstrapping_probability``, ``aggregate_probability``, ``avg_correlation``, ``directly_assigned``, and as lists
  ``runner_up_assignment``, ``runner_up_correlation`` and ``runner_up_probability``, five at most; nothing else, since
  readers take every other key for a level), ``taxonomy_tree`` of the levels reported, with ``hierarchy_mapper`` and
  ``name_mapper``, ``config``, ``metadata``, ``log``, ``marker_genes`` (empty: none are used), ``unknown`` (scores in
  the order of ``results``). Correlations are null: there are none.

``bootstrapping_probability`` holds P(label | parent), which is what the share of bootstrap iterations stands for
there; ``aggregate_probability`` holds P(label), its product down the tree. Runners-up are the next most probable labels
under the same parent, with P(runner-up | parent), as votes are there: with the assignment's they add up to 1 at most.
Where no label was given the label is empty (null in JSON).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.annotation.tree import SIBLINGS, Calls
from lexicell.labels import LabelTree

_CELLS_AT_ONCE = 50_000


def write_csv(
    path: Path,
    cells: pd.Index,
    names: Mapping[str, tuple[str, ...]],
    calls: Calls,
    unknown: npt.NDArray[np.float32] | None,
    settings: Mapping[str, Any],
    extended: str,
) -> None:
    """Write the CSV.

    Parameters
    ----------
    path
        File to write.
    cells
        Cell names (n_cells,).
    names
        Level -> its labels by code, coarse to fine.
    calls
        Calls on these levels.
    unknown
        Unknown scores (n_cells,), or None.
    settings
        How it was made.
    extended
        Name of the JSON file.
    """
    hierarchy = json.dumps(list(names))
    head = [
        f"# metadata = {extended}",
        f"# taxonomy hierarchy = {hierarchy}",
        f"# readable taxonomy hierarchy = {hierarchy}",
        f"# algorithm: '{settings.get('method', 'unknown')}'; codebase: lexicell; version: {version('lexicell')}",
    ]
    given, others = conditional(calls), conditional_siblings(calls)
    hashed = any("#" in str(text) for text in chain(cells, names, *names.values()))
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if hashed else csv.QUOTE_MINIMAL
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("".join(f"{line}\n" for line in head))
        for start in range(0, max(len(cells), 1), _CELLS_AT_ONCE):
            rows = slice(start, start + _CELLS_AT_ONCE)
            table: dict[str, Any] = {}
            for place, (level, labels) in enumerate(names.items()):
                label = _names(labels, calls.codes[rows, place])
                table[f"{level}_label"] = table[f"{level}_name"] = label
                if place + 1 == len(names):
                    table[f"{level}_alias"] = label
                table[f"{level}_bootstrapping_probability"] = given[rows, place]
                table[f"{level}_aggregate_probability"] = calls.probs[rows, place]
                table[f"{level}_runner_up_label"] = _names(labels, calls.siblings[rows, place, 0])
                table[f"{level}_runner_up_probability"] = others[rows, place, 0]
            if unknown is not None:
                table["unknown"] = unknown[rows]
            frame = pd.DataFrame(table, index=pd.Index(cells[rows], name="cell_id"))
            frame.to_csv(file, float_format="%.4f", lineterminator="\n", header=start == 0, quoting=quoting)


def write_json(
    path: Path,
    cells: pd.Index,
    tree: LabelTree,
    levels: tuple[str, ...],
    calls: Calls,
    unknown: npt.NDArray[np.float32] | None,
    settings: Mapping[str, Any],
) -> None:
    """Write the extended JSON, cell by cell; parameters as of `write_csv`, `levels` being those of `calls`."""
    names = [np.array([*tree.names[tree.levels.index(level)], None], dtype=object) for level in levels]
    given, others = conditional(calls), conditional_siblings(calls)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"results": [')
        for row, cell in enumerate(cells):
            one: dict[str, Any] = {"cell_id": str(cell)}
            for place, level in enumerate(levels):
                siblings = calls.siblings[row, place]
                present = siblings >= 0
                one[level] = {
                    "assignment": names[place][calls.codes[row, place]],
                    "bootstrapping_probability": round(float(given[row, place]), 4),
                    "aggregate_probability": round(float(calls.probs[row, place]), 4),
                    "avg_correlation": None,
                    "directly_assigned": True,
                    "runner_up_assignment": names[place][siblings[present]].tolist(),
                    "runner_up_correlation": [None] * int(present.sum()),
                    "runner_up_probability": [round(float(p), 4) for p in others[row, place, present]],
                }
            file.write(("\n" if row == 0 else ",\n") + json.dumps(one))
        readers_need = {"flatten": False, "type_assignment": {"n_runners_up": SIBLINGS}}
        rest: dict[str, Any] = {"taxonomy_tree": taxonomy(tree.keep(levels)), "config": {**settings, **readers_need}}
        rest |= {"metadata": {"codebase": "lexicell", "version": version("lexicell")}, "log": [], "marker_genes": {}}
        if unknown is not None:
            rest["unknown"] = [round(float(score), 4) for score in unknown]
        file.write("\n],\n" + json.dumps(rest)[1:] + "\n")


def taxonomy(tree: LabelTree) -> dict[str, Any]:
    """Return the tree as cell_type_mapper writes it: the hierarchy, names, and per level each label's children."""
    names = {level: {label: {"name": label} for label in tree.names[place]} for place, level in enumerate(tree.levels)}
    for label, named in names[tree.levels[-1]].items():
        named["alias"] = label
    found: dict[str, Any] = {
        "hierarchy": list(tree.levels),
        "hierarchy_mapper": {level: level for level in tree.levels},
        "name_mapper": names,
    }
    for place, level in enumerate(tree.levels):
        if place + 1 == len(tree.levels):
            found[level] = {label: [] for label in tree.names[place]}
        else:
            children: dict[str, list[str]] = {label: [] for label in tree.names[place]}
            for label, parent in zip(tree.names[place + 1], tree.parents[place + 1], strict=True):
                children[tree.names[place][parent]].append(label)
            found[level] = children
    return found


def conditional(calls: Calls) -> npt.NDArray[np.float32]:
    """Return P(label | label above) of the calls (n_cells, n_levels)."""
    return _over(calls.probs, _above(calls))


def conditional_siblings(calls: Calls) -> npt.NDArray[np.float32]:
    """Return P(sibling | label above) of the called labels' siblings (n_cells, n_levels, `SIBLINGS`)."""
    return _over(calls.sibling_probs, _above(calls)[:, :, None])


def _above(calls: Calls) -> npt.NDArray[np.float32]:
    return np.concatenate([np.ones((len(calls.probs), 1), np.float32), calls.probs[:, :-1]], axis=1)


def _over(probs: npt.NDArray[np.float32], above: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = np.divide(probs, above, out=np.zeros_like(probs), where=above > 0)
    return found


def _names(labels: tuple[str, ...], codes: npt.NDArray[np.integer]) -> Any:
    return pd.Categorical.from_codes(codes, categories=pd.Index(labels))
