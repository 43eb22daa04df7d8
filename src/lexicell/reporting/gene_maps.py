"""Pictures of where genes lie: the gene space in the plane, and the neighbours of one gene across species."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lexicell.reporting.figures import INK, MUTED, PALETTE, RULE, STYLE

_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
_NAMED = 1  # genes of a set that are named: those in its middle


def gene_map(table: pd.DataFrame) -> Figure:
    """Draw the gene space: one panel each for gene sets, species and how often training saw a gene expressed.

    Parameters
    ----------
    table
        Columns x, y, species, symbol and method; `set` (missing or "" for genes outside the sets) and `seen` (times),
        where they are known. Panels that would show one colour are left out.
    """
    sets = table["set"].fillna("").astype(str) if "set" in table else pd.Series("", index=table.index)
    panels = []
    if (sets != "").any():
        panels.append("gene sets")
    if len(table["species"].unique()) > 1:
        panels.append("species")
    if "seen" in table and table["seen"].notna().any():
        panels.append("seen")
    panels = panels or ["genes"]
    method = str(table["method"].iloc[0])
    with mpl.rc_context(STYLE):
        entries = max(len(set(sets)), len(set(table["species"])), 3)
        figure = Figure(figsize=(4.6 * len(panels) + 0.4, 4.4 + 0.2 * entries), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, len(panels), sharex=True, sharey=True))
        for axis, what in zip(axes, panels, strict=True):
            axis.set(xticks=[], yticks=[], xlabel=f"{method} 1")
            axis.grid(visible=False)
            if what == "seen":
                shade = np.log10(1 + table["seen"].to_numpy(dtype=float))
                dots = axis.scatter(table["x"], table["y"], c=shade, s=5, cmap="cividis", linewidths=0, rasterized=True)
                bar = figure.colorbar(dots, cax=axis.inset_axes((0.15, -0.12, 0.7, 0.03)), orientation="horizontal")
                bar.set_label("log10 of 1 + times seen expressed in training")
                axis.set_title("How often it was seen")
            else:
                _classes(axis, table, sets if what == "gene sets" else table["species"].astype(str), what)
        axes[0].set_ylabel(f"{method} 2")
    return figure


def _classes(axis: Axes, table: pd.DataFrame, classes: pd.Series, what: str) -> None:
    names = [name for name in dict.fromkeys(classes) if name]
    rest = table[classes == ""]
    axis.scatter(rest["x"], rest["y"], s=3, color=RULE, linewidths=0, rasterized=True)
    size = 16 if what == "gene sets" else 5
    for place, name in enumerate(names):
        part = table[classes == name]
        axis.scatter(
            part["x"],
            part["y"],
            s=size,
            marker=_MARKERS[place // len(PALETTE) % len(_MARKERS)],
            color=PALETTE[place % len(PALETTE)],
            linewidths=0,
            alpha=0.85 if what == "gene sets" else 0.5,
            label=f"{_short(name)} ({len(part):,})",
            rasterized=len(part) > 500,
        )
        if what == "gene sets":
            middle = part[["x", "y"]].median()
            near = ((part[["x", "y"]] - middle) ** 2).sum(axis=1).sort_values(kind="stable").index[:_NAMED]
            for symbol, x, y in part.loc[near, ["symbol", "x", "y"]].to_numpy(dtype=object):
                axis.annotate(str(symbol), (x, y), fontsize=6.5, xytext=(3, 2), textcoords="offset points")
    axis.set_title({"gene sets": "Gene sets", "species": "Species"}.get(what, "Genes"))
    if names and what != "genes":
        legend = axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=1 if len(names) < 9 else 2)
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set(sizes=[26.0], alpha=1)


def _short(name: str, most: int = 38) -> str:
    plain = name.replace("_", " ")
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def gene_graph(nodes: pd.DataFrame, edges: pd.DataFrame) -> Figure:
    """Draw the neighbours of a gene, one colour a species; lines between species are dashed.

    Parameters
    ----------
    nodes
        Columns x, y, species, symbol and kind (``gene``, ``neighbour``, ``match``, ``match's neighbour``).
    edges
        Columns source, target (rows of nodes), similarity and kind (``within``, ``between``).
    """
    species = list(dict.fromkeys(nodes["species"].astype(str)))
    spots = nodes[["x", "y"]].to_numpy(dtype=float)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 5.6), layout="constrained")
        axis = figure.subplots()
        axis.set(xticks=[], yticks=[])
        axis.grid(visible=False)
        axis.spines[:].set_visible(False)
        axis.margins(0.12)
        for kind, colour, style in (("within", RULE, "-"), ("between", MUTED, "--")):
            part = edges[edges["kind"] == kind]
            lines = spots[part[["source", "target"]].to_numpy(dtype=int)]
            widths = 0.6 + 2.4 * np.clip(part["similarity"].to_numpy(dtype=float), 0, 1)
            axis.add_collection(LineCollection(list(lines), colors=colour, linewidths=widths, linestyles=style))
        for place, name in enumerate(species):
            part = nodes[nodes["species"].astype(str) == name]
            colour, marker = PALETTE[place % len(PALETTE)], _MARKERS[place % len(_MARKERS)]
            sizes = np.where(part["kind"] == "gene", 190, np.where(part["kind"] == "match", 90, 45))
            axis.scatter(part["x"], part["y"], s=sizes, color=colour, marker=marker, linewidths=0, zorder=3)
            axis.scatter([], [], s=45, color=colour, marker=marker, label=name.replace("_", " "))
        for symbol, kind, spot in zip(nodes["symbol"], nodes["kind"], spots, strict=True):
            note = axis.annotate(str(symbol), (spot[0], spot[1]), fontsize=8, xytext=(5, 4), textcoords="offset points")
            note.set(fontweight="bold" if kind in {"gene", "match"} else "normal", color=INK)
        axis.set_title(f"Around {nodes['symbol'].iloc[0]}")
        if len(species) > 1:
            axis.plot([], [], "--", color=MUTED, label="best matches")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
