"""Pictures of the gene space: coherence of gene sets, volcanoes, calibration; in the style of the report."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from lexicell.reporting.figures import INK, MUTED, PALETTE, RULE, STYLE, to_svg

_METHODS = {
    "lexicell": "lexicell",
    "pca": "PCA loadings",
    "coexpression": "co-expression",
    "expression": "expression profile",
    "random": "random",
}


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write a figure as ``STEM.svg`` and ``STEM.png``, whole or not at all; return the paths."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    svg, png = stem.with_name(f"{stem.name}.svg"), stem.with_name(f"{stem.name}.png")
    part = stem.with_name(f".{stem.name}.part")
    text = to_svg(figure, stem.name)
    if "xmlns=" not in text[: text.index(">")]:
        text = text.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(svg)
    with mpl.rc_context(STYLE):
        figure.savefig(part, format="png", dpi=150, metadata={"Software": None})
    part.replace(png)
    return svg, png


def coherence_dots(summary: pd.DataFrame) -> Figure:
    """Draw the mean AUROC of gene sets, one panel a collection, one row a method.

    Parameters
    ----------
    summary
        Columns collection, method, auroc, auroc_matched and null_auroc.
    """
    collections = list(dict.fromkeys(summary["collection"]))
    methods = list(dict.fromkeys(summary["method"]))
    across = min(3, len(collections))
    down = -(-len(collections) // across)
    kinds = (
        ("null_auroc", "matched random sets", MUTED, "|"),
        ("auroc_matched", "within expression bins", PALETTE[1], "s"),
        ("auroc", "all genes", PALETTE[0], "o"),
    )
    with mpl.rc_context(STYLE):
        size = (max(6.2, 3.2 * across + 1.2), down * (0.32 * len(methods) + 1.0) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        axes = np.atleast_1d(figure.subplots(down, across, sharex=True, sharey=True)).ravel()
        for axis, name in zip(axes, collections, strict=False):
            part = summary[summary["collection"] == name].set_index("method").reindex(methods)
            spots = np.arange(len(methods))
            axis.axvline(0.5, color=INK, linewidth=0.8)
            for column, words, colour, marker in kinds:
                if column in part:
                    axis.scatter(part[column], spots, color=colour, marker=marker, s=30, label=words, zorder=3)
            axis.set_yticks(spots, [_METHODS.get(m, m.replace("_", " ")) for m in methods])
            axis.set_title(str(name) if len(str(name)) <= 34 else f"{str(name)[:33]}…")
            axis.set_xlabel("leave-one-out AUROC")
        axes[0].invert_yaxis()
        for axis in axes[len(collections) :]:
            axis.set_visible(False)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def volcano(
    effect: npt.NDArray[np.floating],
    p: npt.NDArray[np.floating],
    fdr: npt.NDArray[np.floating],
    names: npt.NDArray[np.object_],
    *,
    x_label: str,
    title: str = "",
    floor: float | None = None,
    called: float = 0.05,
    n_named: int = 12,
) -> Figure:
    """Draw effect against p-value; genes called at an FDR are coloured, and the foremost are named.

    Parameters
    ----------
    effect, p, fdr, names
        (n_genes,) what is drawn; genes with a missing p-value are left out.
    x_label, title
        Words.
    floor
        Smallest p-value that the test can give; drawn as a line.
    called
        FDR at which a gene is coloured.
    n_named
        Genes named at most.
    """
    known = np.flatnonzero(~np.isnan(p) & ~np.isnan(effect))
    y = -np.log10(np.maximum(p, 1e-300))
    hit = known[fdr[known] <= called]
    rest = np.setdiff1d(known, hit)
    foremost = known[np.lexsort((-effect[known], p[known]))][:n_named]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 4.4), layout="constrained")
        axis = figure.subplots()
        axis.scatter(effect[rest], y[rest], s=9, color=MUTED, alpha=0.5, linewidths=0, rasterized=True)
        axis.scatter(effect[hit], y[hit], s=14, color=PALETTE[5], linewidths=0, label=f"FDR ≤ {called:g}")
        for gene in foremost:
            spot = (float(effect[gene]), float(y[gene]))
            note = axis.annotate(str(names[gene]), spot, fontsize=7, xytext=(1, 4), textcoords="offset points")
            note.set(rotation=50, rotation_mode="anchor")  # several may have the same, smallest p
        if floor is not None:
            axis.axhline(-np.log10(floor), color=PALETTE[0], linewidth=1, linestyle="--", label="smallest p possible")
        axis.axvline(0, color=RULE, linewidth=0.8, zorder=0)
        axis.margins(y=0.12)
        axis.set_xlabel(x_label)
        axis.set_ylabel("-log10 p")
        axis.set_title(title)
        if len(hit) or floor is not None:
            axis.legend(loc="best")
    return figure
