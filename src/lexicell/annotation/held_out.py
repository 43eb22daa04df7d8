"""What held-out reference cells tell of a method: temperatures, calibration, rules for abstaining, likely scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.annotation.abstention import PROMISE_FROM, Abstention, choose_rules
from lexicell.annotation.calibration import (
    Temperatures,
    called_right,
    expected_calibration_error,
    fit_temperatures,
    reliability,
)
from lexicell.annotation.methods import HeldOut
from lexicell.annotation.scores import accuracy, macro_f1
from lexicell.annotation.tree import Calls, Tables, call_labels
from lexicell.annotation.unknown import doubt
from lexicell.labels import LabelTree


@dataclass(frozen=True, eq=False)
class HeldOutReport:
    """How a method did on reference cells that it had not learned from.

    Attributes
    ----------
    temperatures
        One a level.
    rules
        When to abstain; None where no limit was asked for.
    levels
        One row a level: level, n_cells, accuracy, macro_f1, calibration_error_raw, calibration_error.
    reliability
        Bins of confidence: level, calibrated, low, high, n_cells, confidence, accuracy.
    n_cells, n_donors
        What it is measured on; 0 donors where none are known.
    by_donor
        Whether whole donors were held out.
    """

    temperatures: Temperatures
    rules: Abstention | None
    levels: pd.DataFrame
    reliability: pd.DataFrame
    n_cells: int
    n_donors: int
    by_donor: bool

    @property
    def promise(self) -> bool:
        """Whether its error bounds are a promise, or else an estimate."""
        if self.rules is not None:
            return self.by_donor and self.rules.promise
        return self.by_donor and self.n_donors >= PROMISE_FROM

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        found: dict[str, Any] = {
            "cells": self.n_cells,
            "donors": self.n_donors,
            "whole_donors_held_out": self.by_donor,
            "temperatures": list(self.temperatures.values),
            "levels": {row.pop("level"): row for row in self.levels.to_dict("records")},
        }
        if self.rules is not None:
            found["max_error"] = self.rules.max_error
            found["is"] = "a promise" if self.promise else "an estimate"
            found["deepest_level"] = self.rules.deepest
            found["rules"] = [
                {
                    "level": rule.level,
                    "holds": rule.holds,
                    "is": "a promise" if rule.promise else "an estimate",
                    "threshold": rule.threshold,
                    "coverage": rule.coverage,
                    "error": rule.bound.error,
                    "upper_bound": rule.bound.upper,
                    "cells": rule.bound.n_cells,
                    "donors": rule.bound.n_donors,
                    "effective_cells": rule.bound.effective,
                }
                for rule in self.rules.rules
            ]
        return found


def judge(
    tree: LabelTree,
    held_out: HeldOut,
    codes: npt.NDArray[np.int64],
    donors: npt.NDArray[np.object_] | None,
    *,
    by_donor: bool,
    max_error: float | None = None,
) -> HeldOutReport:
    """Fit temperatures and rules on held-out cells, and score them there.

    Temperatures are a number a level, so that fitting and judging them on the same cells flatters them but a little.

    Parameters
    ----------
    tree
        The label tree.
    held_out
        Held-out cells and their probabilities.
    codes, donors
        Truth (n_cells, n_levels) and donors of all the reference's cells.
    by_donor
        Whether whole donors were held out.
    max_error
        Limit for `choose_rules`; None for no abstention.
    """
    truth = codes[held_out.rows]
    whose = None if donors is None else donors[held_out.rows]
    temperatures = fit_temperatures(tree, held_out.tables, truth)
    raw = call_labels(tree, held_out.tables)
    calibrated = call_labels(tree, temperatures.apply(tree, held_out.tables))
    rows, bins = [], []
    for place, level in enumerate(tree.levels):
        known = truth[:, place] >= 0
        called = calibrated.codes[known, place]
        rows.append(
            {
                "level": level,
                "n_cells": int(known.sum()),
                "accuracy": accuracy(truth[known, place], called),
                "macro_f1": macro_f1(truth[known, place], called),
                "calibration_error_raw": expected_calibration_error(*called_right(raw, truth, place)),
                "calibration_error": expected_calibration_error(*called_right(calibrated, truth, place)),
            }
        )
        for name, calls in (("raw", raw), ("calibrated", calibrated)):
            table = reliability(*called_right(calls, truth, place))
            bins.append(table.assign(level=level, calibrated=name == "calibrated"))
    rules = None
    if max_error is not None:
        rules = choose_rules(tree.levels, calibrated, truth, whose if by_donor else None, max_error)
    n_donors = 0 if whose is None else len({donor for donor in whose if donor is not None})
    return HeldOutReport(
        temperatures,
        rules,
        pd.DataFrame(rows),
        pd.concat(bins, ignore_index=True),
        len(truth),
        n_donors,
        by_donor,
    )


def final_calls(tree: LabelTree, tables: Tables, report: HeldOutReport | None) -> Calls:
    """Call labels from raw probabilities, calibrated and with what is not sure enough taken back."""
    if report is None:
        return call_labels(tree, tables)
    calls = call_labels(tree, report.temperatures.apply(tree, tables))
    return calls if report.rules is None else report.rules.apply(calls)


def held_out_doubts(tree: LabelTree, held_out: HeldOut, report: HeldOutReport, n_cells: int) -> npt.NDArray[np.float32]:
    """Return how much was doubted of each of a reference's cells (n_cells,); NaN of those that were not held out."""
    doubts = np.full(n_cells, np.nan, dtype=np.float32)
    doubts[held_out.rows] = doubt(final_calls(tree, held_out.tables, report))
    return doubts
