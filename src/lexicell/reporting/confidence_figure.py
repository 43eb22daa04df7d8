"""How sure a model was, how rightly, and what error is left when the least sure calls are."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lexicell.reporting.figures import MUTED, PALETTE, STYLE, pretty_method


def confidence_curves(bins: pd.DataFrame, curve: pd.DataFrame) -> Figure:
    """Draw reliability and error against coverage, one row a level.

    Parameters
    ----------
    bins
        Columns method, level, n_cells, confidence and accuracy.
    curve
        Columns method, level, coverage and error.
    """
    levels = list(dict.fromkeys(bins["level"].astype(str)))
    methods = list(dict.fromkeys(bins["method"].astype(str)))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.4, 3.3 * len(levels) + 0.4), layout="constrained")
        axes = np.atleast_2d(figure.subplots(len(levels), 2))
        for (sure, left), level in zip(axes, levels, strict=True):
            sure.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
            for place, method in enumerate(methods):
                colour = PALETTE[place % len(PALETTE)]
                own = bins[(bins["level"].astype(str) == level) & (bins["method"] == method)]
                size = 8 + 60 * np.sqrt(own["n_cells"] / max(float(own["n_cells"].max()), 1.0)) if len(own) else 8
                sure.plot(own["confidence"], own["accuracy"], color=colour, linewidth=1.2)
                sure.scatter(own["confidence"], own["accuracy"], s=size, color=colour, zorder=3)
                own = curve[(curve["level"].astype(str) == level) & (curve["method"] == method)]
                left.plot(own["coverage"], own["error"], color=colour, label=pretty_method(method))
            sure.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability", ylabel="share right", title=level)
            left.set(xlim=(0, 1.02), ylim=(0, None), xlabel="share of cells called", ylabel="error among them")
        axes[0, 1].legend(loc="best")
    return figure
