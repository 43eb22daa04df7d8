"""The report's pictures: tidy tables in, SVG text out, all in one style.

matplotlib's object interface is used throughout: no figure is ever known to pyplot, and no global setting changes.
Colours are Okabe and Ito's, which colour-blind readers can tell apart; with more than eight groups, groups are told
apart by the shape of their marks too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A800", "#4D4D4D")
INK, MUTED, RULE = "#1f2933", "#5f6c7b", "#d9dee4"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "lexicell",
}
_SPLITS = {"train": ("training", PALETTE[4], 1.2), "val": ("validation", PALETTE[0], 2.0)}
_MARKERS = ("o", "^", "s", "D", "v", "P")
_MOST_LABELS = 60  # rows of a confusion matrix that can still be read
OWN_METHODS = {"probe": "lexicell probe", "knn": "lexicell kNN", "label_head": "lexicell label head"}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_MOST_POINTS = 20_000


def to_svg(figure: Figure, name: str = "figure") -> str:
    """Return a figure as an ``<svg>`` element: the same bytes for the same figure, without dates.

    All ids in it begin with `name`, so that several figures can stand in one page.
    """
    with mpl.rc_context(STYLE):
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=_NO_METADATA, dpi=180)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    return re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", svg)


def training_curves(metrics: pd.DataFrame) -> Figure | None:
    """Draw the loss and its terms (train thin, validation bold) and the count skill against the step.

    Parameters
    ----------
    metrics
        Wide table with ``step`` and columns such as ``train/loss``, ``val/count_ce``, ``val/skill``; empty
        where a step did not log them.

    Returns
    -------
    Figure or None
        None without any such column.
    """
    terms = curve_terms(metrics)
    if not terms:
        return None
    with mpl.rc_context(STYLE):
        columns = min(3, len(terms))
        rows = -(-len(terms) // columns)
        figure = Figure(figsize=(3.5 * columns, 2.5 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        drawn: dict[str, Line2D] = {}
        for axis, term in zip(axes, terms, strict=False):
            for split, (name, colour, width) in _SPLITS.items():
                line = curve(metrics, f"{split}/{term}")
                if len(line):
                    dot = "o" if len(line) == 1 else None
                    (drawn[name],) = axis.plot(line.index, line, color=colour, linewidth=width, marker=dot)
            axis.set_title(term.replace("_", " "))
            axis.set_xlabel("step")
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            if term == "skill":
                axis.axhline(0, color=MUTED, linewidth=0.8)
        for axis in axes[len(terms) :]:
            axis.set_visible(False)
        axes[0].legend(drawn.values(), drawn.keys())
    return figure


def curve_terms(metrics: pd.DataFrame) -> list[str]:
    """Return the names to draw: ``loss`` and ``skill`` first, then the other terms; no strata or timings."""
    found = {
        name.split("/", 1)[1]
        for name in map(str, metrics.columns)
        if re.fullmatch(r"(train|val)/[a-z_0-9]+", name) and metrics[name].notna().any()
    } - {"ce", "baseline_ce"}  # what the skill is made of
    timing = {name for name in found if re.search(r"second|speed|rate|per_s|epoch|step|lr$", name)}
    return sorted(found - timing, key=lambda name: ({"loss": 0, "skill": 1}.get(name, 2), name))


def curve(metrics: pd.DataFrame, name: str) -> pd.Series:
    """Return one logged quantity by step, without the steps that did not log it; empty where unknown."""
    if name not in metrics.columns or "step" not in metrics.columns:
        return pd.Series(dtype=float)
    known = metrics[["step", name]].dropna()
    return known.groupby("step")[name].last().astype(float)


def stratum_bars(table: pd.DataFrame) -> Figure:
    """Draw skill by stratum as bars from a marked zero.

    Parameters
    ----------
    table
        Columns ``group`` (one panel each), ``stratum`` and ``skill``, in the order to draw.
    """
    groups = list(dict.fromkeys(table["group"]))
    with mpl.rc_context(STYLE):
        widths = [max(2, int((table["group"] == group).sum())) for group in groups]
        size = (min(10.0, 1.6 * len(groups) + 0.6 * sum(widths)), 2.7)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(groups), sharey=True, width_ratios=widths))
        for place, (axis, group) in enumerate(zip(axes, groups, strict=True)):
            part = table[table["group"] == group]
            values = part["skill"].to_numpy(dtype=float)
            colours = [PALETTE[0] if value >= 0 else PALETTE[5] for value in values]
            bars = axis.bar(part["stratum"].astype(str), values, color=colours, width=0.7)
            axis.bar_label(bars, labels=[f"{value:+.2f}" for value in values], fontsize=8, padding=2)
            axis.axhline(0, color=INK, linewidth=1.0)
            axis.set_xlabel(str(group))
            axis.grid(visible=False, axis="x")
            if place == 0:
                axis.set_ylabel("skill")
        axes[0].margins(y=0.18)
    return figure


def exposure_histogram(exposure: npt.NDArray[np.integer]) -> Figure:
    """Draw how often genes were seen; exposure is (n_genes, 3): as expressed, as zero, as query."""
    names = ("as expressed", "as zero", "as query")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 2.6), layout="constrained")
        axes = figure.subplots(1, 3)
        top = max(10.0, float(exposure.max(initial=0)))
        bins = np.concatenate([[0.0, 1.0], np.geomspace(1, top * 1.01, 31)[1:]])
        for axis, name, colour, column in zip(axes, names, PALETTE, exposure.T, strict=False):
            axis.hist(column, bins=bins, color=colour)
            axis.set_xscale("symlog", linthresh=1)
            axis.set_xlim(0, top * 1.05)
            axis.set_title(name)
            axis.set_xlabel("times seen in training")
            axis.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes[0].set_ylabel("genes")
    return figure


def embedding_scatter(table: pd.DataFrame, title: str = "") -> Figure:
    """Draw cells at given coordinates, coloured by label.

    Parameters
    ----------
    table
        Columns ``x``, ``y``, ``label`` (missing: drawn grey) and, where several are to be drawn beside each
        other, ``split``.
    title
        What the coordinates are, such as ``UMAP``.
    """
    splits = list(dict.fromkeys(table["split"].astype(str))) if "split" in table.columns else [""]
    names = table["label"].value_counts().index.astype(str).tolist()
    in_legend = len(names) <= len(PALETTE) * len(_MARKERS)
    if len(table) > _MOST_POINTS:  # more would only make the page heavy
        table = table.iloc[np.linspace(0, len(table) - 1, _MOST_POINTS).astype(int)]
    with mpl.rc_context(STYLE):
        columns = -(-len(names) // 24) if in_legend else 0
        side = 3.9 if len(splits) > 1 else 5.6
        wide = side * len(splits) + 1.6 * columns + 0.4
        figure = Figure(figsize=(min(10.0, wide), min(side, (10.0 - 1.6 * columns) / len(splits)) + 0.3))
        figure.set_layout_engine("constrained")
        axes = np.atleast_1d(figure.subplots(1, len(splits), sharex=True, sharey=True))
        for axis, split in zip(axes, splits, strict=True):
            part = table if split == "" else table[table["split"].astype(str) == split]
            _scatter(axis, part, names, write_names=not in_legend)
            axis.set_title(" ".join(filter(None, [title, split and f"({split})"])))
            axis.set(xticks=[], yticks=[], aspect="equal")
        middle, reach = (table[["x", "y"]].agg(how) for how in (_middle, np.ptp))
        half = max(float(reach.max()) * 0.53, 1e-6)
        axes[0].set_xlim(middle["x"] - half, middle["x"] + half)
        axes[0].set_ylim(middle["y"] - half, middle["y"] + half)
        if in_legend:
            handles, labels = axes[0].get_legend_handles_labels()
            legend = figure.legend(handles, labels, loc="outside right center", ncols=columns)
            for handle in legend.legend_handles:
                if handle is not None:
                    handle.set(sizes=[30.0], alpha=1)
    return figure


def _middle(values: pd.Series) -> float:
    return float(values.min() + values.max()) / 2


def _scatter(axis: Axes, table: pd.DataFrame, names: Sequence[str], *, write_names: bool) -> None:
    """Draw common labels first, so that rare ones lie on top."""
    size = float(np.clip(12000 / max(len(table), 1), 3, 16))
    unknown = table[table["label"].isna()]
    axis.scatter(unknown["x"], unknown["y"], s=size, color=RULE, linewidths=0, rasterized=True)
    label = table["label"].astype(str)
    for place, name in enumerate(names):
        part = table[(label == name) & table["label"].notna()]
        axis.scatter(
            part["x"],
            part["y"],
            s=size if len(part) > 50 else 1.8 * size,
            marker=_MARKERS[place // len(PALETTE) % len(_MARKERS)],
            color=PALETTE[place % len(PALETTE)],
            linewidths=0,
            alpha=0.8,
            label=name,
            rasterized=True,
        )
        if write_names and len(part):
            spot = part[["x", "y"]].median()
            note = axis.annotate(name, (spot["x"], spot["y"]), fontsize=7, ha="center", va="center")
            note.set_bbox({"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.75})


def confusion_matrices(table: pd.DataFrame) -> Figure:
    """Draw one matrix a method side by side: the share of each true label's cells that was called what.

    Parameters
    ----------
    table
        Columns ``method``, ``truth``, ``predicted`` (missing: no call) and ``n``. Common labels come first;
        with more than 60, the rarest are drawn as one.
    """
    methods = list(dict.fromkeys(table["method"]))
    totals = table[table["method"] == methods[0]].groupby("truth", observed=True)["n"].sum()
    common = totals.sort_values(ascending=False, kind="stable").index.astype(str).tolist()
    rows = common[:_MOST_LABELS] + (["(others)"] if len(common) > _MOST_LABELS else [])
    called = table["predicted"].astype(object).where(table["predicted"].notna(), "(none)").astype(str)
    hidden = common[_MOST_LABELS:]
    table = table.assign(
        truth=table["truth"].astype(str).replace(hidden, "(others)"), predicted=called.replace(hidden, "(others)")
    )
    extra = sorted(set(table["predicted"].astype(str)) - set(rows))
    with mpl.rc_context(STYLE):
        across = min(2, len(methods))
        down = -(-len(methods) // across)
        side = float(np.clip(0.21 * len(rows) + 1.7, 3.0, 6.4))
        figure = Figure(figsize=(min(10.4, 5.2 * across), side * down), layout="constrained")
        grid = np.atleast_1d(figure.subplots(down, across, sharey=True, sharex=True)).ravel()
        for axis, method in zip(grid, methods, strict=False):
            part = table[table["method"] == method]
            counts = part.pivot_table(index="truth", columns="predicted", values="n", aggfunc="sum")
            counts.index, counts.columns = counts.index.astype(str), counts.columns.astype(str)
            counts = counts.reindex(index=rows, columns=rows + extra).fillna(0)
            share = counts.to_numpy() / np.maximum(counts.to_numpy().sum(axis=1, keepdims=True), 1)
            image = axis.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
            _name_cells(axis, rows, rows + extra, share)
            axis.set_title(pretty_method(str(method)))
        for axis in grid[len(methods) :]:
            axis.set_visible(False)
        figure.supxlabel("called", fontsize=9)
        figure.supylabel("truth", fontsize=9)
        figure.colorbar(image, ax=grid.tolist(), shrink=0.5, aspect=30, label="share of the true label's cells")
    return figure


def _name_cells(axis: Axes, rows: Sequence[str], columns: Sequence[str], share: npt.NDArray[np.float64]) -> None:
    size = 8 if len(rows) <= 25 else 5
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
    axis.set_yticks(range(len(rows)), rows, fontsize=size)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    if len(rows) <= 20:
        for row, column in zip(*np.nonzero(share >= 0.005), strict=True):
            value = share[row, column]
            colour = "white" if value > 0.55 else INK
            mark = axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6.5)
            mark.set_color(colour)
            mark.set_in_layout(False)  # they lie inside their cells: measuring them only costs time


def label_cells(axis: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Write the names of a heat map's rows and columns beside it, and take grid and frame away."""
    small = 8 if max(len(rows), len(columns)) <= 30 else 6
    axis.set_xticks(range(len(columns)), columns, rotation=90, fontsize=small)
    axis.set_yticks(range(len(rows)), rows, fontsize=small)
    axis.tick_params(length=0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def method_bars(table: pd.DataFrame) -> Figure:
    """Draw accuracy and macro-F1 of each method, one panel a level.

    Parameters
    ----------
    table
        Columns ``method``, ``level``, ``accuracy`` and ``macro_f1``; several rows of a method and level (such
        as seeds) are drawn as their mean, with a dot each.
    """
    levels = list(dict.fromkeys(table["level"].astype(str)))
    methods = list(dict.fromkeys(table["method"].astype(str)))
    scores = (("accuracy", "accuracy", PALETTE[4]), ("macro_f1", "macro-F1", PALETTE[0]))
    with mpl.rc_context(STYLE):
        height = 0.55 * len(methods) + 1.1
        figure = Figure(figsize=(min(10.0, 5.2 * len(levels) + 1), height), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(levels), sharey=True, sharex=True))
        for axis, level in zip(axes, levels, strict=True):
            part = table[table["level"].astype(str) == level]
            own = part.groupby(part["method"].astype(str), sort=False)
            for offset, (column, name, colour) in zip((-0.2, 0.2), scores, strict=True):
                mean = own[column].mean().reindex(methods)
                spots = np.arange(len(methods)) + offset
                bars = axis.barh(spots, mean, height=0.36, color=colour, label=name)
                labels = ["" if np.isnan(value) else f"{value:.3f}" for value in mean]
                axis.bar_label(bars, labels=labels, fontsize=8, padding=3)
                for spot, method in zip(spots, methods, strict=True):
                    dots = part.loc[part["method"].astype(str) == method, column]
                    if len(dots) > 1:
                        axis.plot(dots, np.full(len(dots), spot), "o", color=INK, markersize=2.5)
            axis.set_yticks(range(len(methods)), [pretty_method(method) for method in methods])
            axis.set_xlim(0, 1.12)
            axis.set_xticks(np.linspace(0, 1, 6))
            axis.set_title(level)
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
        axes[0].invert_yaxis()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def pretty_method(name: str) -> str:
    """Return a method's name for people: ``pca_knn`` as ``PCA-kNN``."""
    known = {
        **OWN_METHODS,
        "logistic_regression": "logistic regression",
        "pca_knn": "PCA-kNN",
        "linear_svm": "linear SVM",
        "centroid_mapping": "MapMyCells' method",
        "celltypist": "CellTypist",
        "scanvi": "scANVI",
    }
    return known.get(name, name.replace("_", " "))
