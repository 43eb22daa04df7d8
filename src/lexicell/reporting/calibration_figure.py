"""The reliability plot: how often calls were right, against how sure they were, before and after calibration."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lexicell.reporting.figures import INK, MUTED, PALETTE, STYLE

_COLUMNS = 4


def draw_reliability(bins: pd.DataFrame, levels: pd.DataFrame) -> str:
    """Draw one panel a level, as SVG text.

    Parameters
    ----------
    bins
        level, calibrated, n_cells, confidence, accuracy.
    levels
        level, calibration_error_raw, calibration_error.
    """
    shown = list(levels["level"])
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * columns, 2.9 * rows + 0.3), layout="constrained")
        for place, (level, raw, after) in enumerate(
            levels[["level", "calibration_error_raw", "calibration_error"]].itertuples(index=False)
        ):
            axes = figure.add_subplot(rows, columns, place + 1)
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
            for calibrated, colour, words, error in (
                (False, PALETTE[4], "raw", raw),
                (True, PALETTE[0], "calibrated", after),
            ):
                part = bins[(bins["level"] == level) & (bins["calibrated"] == calibrated)]
                size = 8 + 60 * np.sqrt(part["n_cells"] / max(part["n_cells"].max(), 1)) if len(part) else 8
                axes.plot(part["confidence"], part["accuracy"], color=colour, linewidth=1.2)
                label = f"{words}, error {error:.3f}"
                axes.scatter(part["confidence"], part["accuracy"], s=size, color=colour, label=label, zorder=3)
            axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability", ylabel="share right")
            axes.set_title(str(level), color=INK)
            axes.legend(loc="upper left")
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()
