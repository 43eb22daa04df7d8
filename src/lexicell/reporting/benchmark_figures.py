"""Pictures of the annotation benchmark: macro-F1 of each competitor with its interval; learning curves."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lexicell.reporting.figures import INK, MUTED, PALETTE, STYLE, pretty_method

_PANELS_A_ROW = 3
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def competitor_intervals(scores: pd.DataFrame, intervals: pd.DataFrame, baseline: str) -> Figure:
    """Draw macro-F1 of every competitor, one panel a task and level, best on top.

    Parameters
    ----------
    scores
        Columns task, level, competitor, seed, macro_f1.
    intervals
        Columns task, level, competitor, baseline_score, low, high: the gap to the baseline; drawn as a line around
        the competitor's score.
    baseline
        Its score is drawn across as a dashed line.
    """
    panels = list(scores.groupby(["task", "level"], sort=False))
    lines = max(part["competitor"].nunique() for _, part in panels)
    columns = min(len(panels), _PANELS_A_ROW)
    rows = -(-len(panels) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * columns + 1.2, (0.3 * lines + 1.0) * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis, ((task, level), part) in zip(axes, panels, strict=False):
            own = intervals[(intervals["task"] == task) & (intervals["level"] == level)]
            _panel(axis, part, {row["competitor"]: row for row in own.to_dict("records")}, baseline)
            axis.set_title(f"{task}, {level}")
            axis.set_xlabel("macro-F1")
    return figure


def _panel(axis: Axes, part: pd.DataFrame, intervals: Mapping[Hashable, Any], baseline: str) -> None:
    mean = part.groupby("competitor")["macro_f1"].mean().sort_values()
    for place, (name, score) in enumerate(mean.items()):
        colour = MUTED if name == baseline else PALETTE[0] if ", " in str(name) else PALETTE[1]
        if name in intervals:
            row = intervals[name]
            ends = [row["baseline_score"] + row["low"], row["baseline_score"] + row["high"]]
            axis.plot(ends, [place, place], color=colour, linewidth=1.2)
        dots = part.loc[part["competitor"] == name, "macro_f1"]
        if len(dots) > 1:
            axis.plot(dots, np.full(len(dots), place), "|", color=colour, markersize=6)
        axis.plot(score, place, "o", color=colour, markersize=5)
    if baseline in mean.index:
        axis.axvline(float(mean[baseline]), color=MUTED, linestyle="--", linewidth=0.8)
    axis.set_yticks(range(len(mean)), [pretty_method(str(name)) for name in mean.index])
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def learning_curves(scores: pd.DataFrame, labelled: Sequence[int]) -> Figure:
    """Draw macro-F1 against the number of labelled cells a label, one panel a level, one line a competitor.

    Parameters
    ----------
    scores
        Columns task, level, competitor, seed, macro_f1; tasks are named ``NAME, N a label``.
    labelled
        The numbers N, for the ticks.
    """
    table = scores.assign(n=scores["task"].str.extract(r", (\d+) a label$")[0].astype(int))
    levels = list(dict.fromkeys(table["level"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * len(levels) + 1.6, 3.6), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(levels), sharey=True))
        for axis, level in zip(axes, levels, strict=True):
            part = table[table["level"] == level]
            for place, (name, own) in enumerate(part.groupby("competitor", sort=False)):
                mean = own.groupby("n")["macro_f1"].mean()
                dashed = "--" if ", " not in str(name) else "-"
                axis.plot(
                    mean.index,
                    mean,
                    dashed,
                    color=PALETTE[place % len(PALETTE)],
                    marker=_MARKERS[place % len(_MARKERS)],
                    markersize=4,
                    label=pretty_method(str(name)),
                )
            axis.set_xscale("log")
            axis.set_xticks(sorted(labelled), [str(n) for n in sorted(labelled)], color=INK)
            axis.minorticks_off()
            axis.set_xlabel("labelled cells a label, at most")
            axis.set_title(level)
        axes[0].set_ylabel("macro-F1")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
    return figure
