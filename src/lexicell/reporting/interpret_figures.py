"""Pictures of why the model says so: count classes, attention, attribution, knock-outs; in the style of the report."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lexicell.reporting.figures import INK, MUTED, PALETTE, RULE, STYLE, label_cells
from lexicell.reporting.gene_figures import volcano

_PLAIN = FuncFormatter(lambda value, _: f"{value:,.0f}")
_MOST_PANELS = 12


def count_classes_figure(classes: pd.DataFrame, distances: pd.DataFrame, caps: pd.DataFrame) -> Figure:
    """Draw the order of count classes, their distances, what a step does, and what a cap would cost.

    Parameters
    ----------
    classes
        Columns class, count, from_count, first, step_share and seen: classes that training hardly saw are drawn hollow.
    distances
        Columns class, other and distance, each pair once.
    caps
        Columns max_count, share_above and moved.
    """
    seen = classes["seen"].to_numpy(dtype=bool)
    count = classes["count"].to_numpy(dtype=float)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 6.6), layout="constrained")
        (order, matrix), (step, cap) = figure.subplots(2, 2)
        order.scatter(count[seen], classes["first"][seen], s=22, color=PALETTE[0], label="seen often")
        order.scatter(
            count[~seen], classes["first"][~seen], s=22, facecolors="none", edgecolors=MUTED, label="hardly seen"
        )
        order.set(title="Order of the classes", ylabel="first principal coordinate")
        order.legend(loc="best")
        n = len(classes)
        square = np.zeros((n, n))
        one, other = distances["class"].to_numpy(), distances["other"].to_numpy()
        square[one, other] = square[other, one] = distances["distance"].to_numpy()
        image = matrix.imshow(square, cmap="cividis", interpolation="nearest")
        ticks = np.unique(np.linspace(0, n - 1, min(n, 9)).astype(int))
        labels = [f"{int(classes['from_count'].iloc[t]):,}" for t in ticks]
        matrix.set_xticks(ticks, labels, rotation=45)
        matrix.set_yticks(ticks, labels)
        matrix.grid(visible=False)
        matrix.set(title="Distance between classes", xlabel="count", ylabel="count")
        figure.colorbar(image, ax=matrix, shrink=0.8)
        known = classes["step_share"].notna().to_numpy()
        step.plot(count[known], classes["step_share"][known], "o-", color=PALETTE[0], markersize=4)
        step.set(title="One class more, of one token", ylabel="the cell moves, of what removal does", ylim=(0, None))
        cap.plot(caps["max_count"], caps["moved"], "o-", color=PALETTE[0], markersize=4, label="cell moves")
        cap.plot(caps["max_count"], caps["share_above"], "s--", color=PALETTE[1], markersize=4, label="counts above")
        cap.set(title="If counts were capped", ylabel="share", xlabel="largest count", ylim=(0, None))
        cap.legend(loc="best")
        for axis in (order, step, cap):
            _count_axis(axis)
            axis.set_xlabel("largest count told apart" if axis is cap else "count")
    return figure


def _count_axis(axis: Axes) -> None:
    axis.set_xscale("symlog", linthresh=1)
    axis.xaxis.set_major_formatter(_PLAIN)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(left=-0.1)


def heat_map(
    values: npt.NDArray[np.floating],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    bar: str,
    x_label: str = "",
    y_label: str = "",
    signed: bool = False,
) -> Figure:
    """Draw a matrix with named rows and columns; missing values are grey.

    Parameters
    ----------
    values
        (n_rows, n_columns) numbers.
    rows, columns
        Their names.
    title, bar, x_label, y_label
        Words; `bar` says what the colours are.
    signed
        Colour around zero, blue below and orange above.
    """
    with mpl.rc_context(STYLE):
        size = (min(11.0, 0.24 * len(columns) + 2.6), min(11.0, 0.22 * len(rows) + 1.8))
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        finite = values[np.isfinite(values)]
        top = float(np.quantile(np.abs(finite), 0.995)) if len(finite) else 1.0
        low = -top if signed else min(0.0, float(finite.min(initial=0.0)))
        colours = mpl.colormaps["PuOr_r" if signed else "cividis"].with_extremes(bad=RULE)
        image = axis.imshow(
            values,
            cmap=colours,
            vmin=low,
            vmax=max(top, 1e-9),
            interpolation="nearest",
            aspect="auto",
        )
        label_cells(axis, rows, columns)
        axis.set(title=title, xlabel=x_label, ylabel=y_label)
        figure.colorbar(image, ax=axis, shrink=0.7, aspect=30, label=bar)
    return figure


def attention_map(table: pd.DataFrame) -> Figure:
    """Draw attention between genes.

    Parameters
    ----------
    table
        Columns gene, partner and attention (relative to uniform), in the order to draw.
    """
    genes, partners = (list(dict.fromkeys(table[name])) for name in ("gene", "partner"))
    wide = table.pivot_table(index="gene", columns="partner", values="attention", sort=False, dropna=False)
    values = wide.reindex(index=genes, columns=partners).to_numpy(dtype=float)
    logs = np.log2(np.maximum(values, 2.0**-8))
    return heat_map(
        logs,
        [str(g) for g in genes],
        [str(p) for p in partners],
        title="Attention between genes, mean over heads and cells",
        bar="log2 of attention, relative to uniform",
        x_label="is attended to",
        y_label="attends",
        signed=True,
    )


def read_map(table: pd.DataFrame, per_group: int = 6, most: int = 60) -> Figure:
    """Draw which genes CLS reads in which group of cells: the foremost genes of each group.

    Parameters
    ----------
    table
        Columns group, symbol and rollout.
    per_group, most
        Genes of each group, and of all.
    """
    groups = list(dict.fromkeys(table["group"]))
    wide = table.pivot_table(index="symbol", columns="group", values="rollout", sort=False).reindex(columns=groups)
    chosen: dict[str, None] = {}
    for group in groups:
        chosen |= dict.fromkeys(wide[group].sort_values(ascending=False, kind="stable").head(per_group).index)
    part = wide.loc[list(chosen)[:most]]
    return heat_map(
        part.to_numpy(dtype=float),
        [str(g) for g in part.index],
        [str(g) for g in groups],
        title="What CLS reads",
        bar="attention rollout, relative to uniform",
    )


def main_checks(checks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a check of attention that are not of a single head."""
    return checks[~checks["score"].str.startswith("layer ")]


def pair_check_dots(checks: pd.DataFrame) -> Figure:
    """Draw how well each score finds known partners of genes, with intervals; one panel a source of known pairs.

    Parameters
    ----------
    checks
        Columns known, score, kind (``attention`` or ``baseline``), auroc, low, high, auroc_matched.
    """
    sources = list(dict.fromkeys(checks["known"]))
    scores = list(dict.fromkeys(checks["score"]))
    with mpl.rc_context(STYLE):
        size = (3.4 * len(sources) + 1.8, 0.27 * len(scores) + 1.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(sources), sharey=True, sharex=True))
        for axis, source in zip(axes, sources, strict=True):
            part = checks[checks["known"] == source].set_index("score").reindex(scores)
            spots = np.arange(len(scores))
            colours = [PALETTE[0] if kind == "attention" else PALETTE[1] for kind in part["kind"]]
            axis.axvline(0.5, color=INK, linewidth=0.8)
            axis.hlines(spots, part["low"], part["high"], color=colours, linewidth=1.6)
            axis.scatter(part["auroc"], spots, color=colours, s=28, zorder=3)
            axis.scatter(part["auroc_matched"], spots, color="white", edgecolors=colours, marker="s", s=20, zorder=3)
            axis.set_yticks(spots, scores)
            axis.set(title=str(source).replace("_", " "), xlabel="AUROC of a gene's partners")
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axes[0].invert_yaxis()
        for words, colour, marker in (
            ("attention", PALETTE[0], "o"),
            ("needs no model", PALETTE[1], "o"),
            ("in expression bins", "white", "s"),
        ):
            axes[0].scatter([], [], color=colour, edgecolors=MUTED, marker=marker, s=26, label=words)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def top_gene_bars(table: pd.DataFrame, *, value: str, x_label: str, group: str = "group", known: str = "") -> Figure:
    """Draw the foremost genes of each group as bars, one panel a group.

    Parameters
    ----------
    table
        Columns symbol, the group's and the value's, foremost first in each group.
    value, group
        Which columns.
    x_label
        Words.
    known
        Column that tells known genes (coloured), if there is one.
    """
    groups = list(dict.fromkeys(table[group]))[:_MOST_PANELS]
    across = min(4, len(groups))
    down = -(-len(groups) // across)
    longest = max(int((table[group] == g).sum()) for g in groups)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.5 * across + 0.4, down * (0.19 * longest + 0.9)), layout="constrained")
        axes = np.atleast_1d(figure.subplots(down, across)).ravel()
        for axis, name in zip(axes, groups, strict=False):
            part = table[table[group] == name]
            is_known = (part[known] == True).to_numpy(bool) if known else np.zeros(len(part), bool)  # noqa: E712
            colours = np.where(is_known, PALETTE[5], PALETTE[0])
            axis.barh(np.arange(len(part)), part[value], color=colours, height=0.72)
            axis.set_yticks(np.arange(len(part)), part["symbol"].astype(str), fontsize=7.5)
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            axis.tick_params(axis="y", length=0)
            axis.axvline(0, color=RULE, linewidth=0.8)
            axis.set_title(str(name) if len(str(name)) <= 26 else f"{str(name)[:25]}…")
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3))
        for axis in axes[len(groups) :]:
            axis.set_visible(False)
        figure.supxlabel(x_label, fontsize=9)
        if known:
            for words, colour in (("known marker", PALETTE[5]), ("other", PALETTE[0])):
                axes[0].barh([0], [0], color=colour, label=words)
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def paired_scores(table: pd.DataFrame, *, left: str, right: str, names: tuple[str, str], label: str) -> Figure:
    """Draw two scores of each group beside one another, as dots joined by a line.

    Parameters
    ----------
    table
        Columns group and the two scores'.
    left, right
        Which columns.
    names
        What they are called.
    label
        What the scores are.
    """
    part = table.sort_values(left, kind="stable").reset_index(drop=True)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 0.27 * len(part) + 1.3), layout="constrained")
        axis = figure.subplots()
        spots = np.arange(len(part))
        axis.hlines(spots, part[[left, right]].min(axis=1), part[[left, right]].max(axis=1), color=RULE, linewidth=2)
        for column, words, colour, marker in ((right, names[1], PALETTE[1], "s"), (left, names[0], PALETTE[0], "o")):
            axis.scatter(part[column], spots, color=colour, marker=marker, s=32, label=words, zorder=3)
        axis.set_yticks(spots, part["group"].astype(str))
        axis.set(xlabel=label, xlim=(-0.03, 1.03))
        axis.legend(loc="lower right")
    return figure


def knockout_volcano(genes: pd.DataFrame) -> Figure:
    """Draw how far knock-outs move cells, against how seldom genes expressed alike move them as far.

    Parameters
    ----------
    genes
        Columns group, symbol, shift, shift_controls, shift_p and shift_fdr.
    """
    names = _in_groups(genes)
    shift, usual = (genes[name].to_numpy(dtype=float) for name in ("shift", "shift_controls"))
    with np.errstate(divide="ignore", invalid="ignore"):
        fold = np.where((shift > 0) & (usual > 0), np.log2(shift / usual), np.nan)
    return volcano(
        fold,
        genes["shift_p"].to_numpy(dtype=float),
        genes["shift_fdr"].to_numpy(dtype=float),
        names.to_numpy(dtype=object),
        x_label="log2 of the cell's shift, relative to genes expressed alike",
        title="Knock-outs",
    )


def response_map(responses: pd.DataFrame, most: int = 30) -> Figure:
    """Draw how expected counts respond to knock-outs: the responding genes that are furthest out.

    Parameters
    ----------
    responses
        Columns group, symbol, responding, change and z.
    most
        Rows and columns at most.
    """
    table = responses.assign(knocked=_in_groups(responses), far=responses["z"].abs())
    rows = table.groupby("knocked", sort=False)["far"].max().sort_values(ascending=False, kind="stable").index[:most]
    part = table[table["knocked"].isin(rows)]
    first = part.groupby("responding", sort=False)["far"].max().sort_values(ascending=False, kind="stable").index[:most]
    wide = part.pivot_table(index="knocked", columns="responding", values="change", sort=False)
    return heat_map(
        wide.reindex(index=rows, columns=first).to_numpy(dtype=float),
        [str(name) for name in rows],
        [str(name) for name in first],
        title="What knock-outs do to expected counts",
        bar="change of the expected log count",
        y_label="knocked out",
        signed=True,
    )


def _in_groups(table: pd.DataFrame) -> pd.Series:
    """Return symbols, with their group where there are several groups."""
    symbols, groups = table["symbol"].astype(str), table["group"].astype(str)
    return symbols + " in " + groups if len(groups.unique()) > 1 else symbols
