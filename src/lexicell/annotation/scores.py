"""How right an annotation is: pure functions of two label columns, truth and prediction.

What holds for every score here:

- Labels are text or whole-number codes. Missing is NaN, None or the empty text; in codes, a negative number.
- A cell whose truth is missing is left out.
- A cell whose prediction is missing (the method abstained) counts as wrong: `coverage` says how many were
  predicted at all.
- Means over classes run over the classes that occur in the truth. A predicted class that never occurs there
  costs recall where it was wrong, and gets no F1 of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

Labels = npt.ArrayLike | pd.Series | pd.Categorical


def accuracy(truth: Labels, predicted: Labels) -> float:
    """Return the share of cells whose prediction is the truth; NaN where no cell has a truth."""
    actual, guess, _ = _paired(truth, predicted)
    return float(np.mean(actual == guess)) if len(actual) else float("nan")


def coverage(truth: Labels, predicted: Labels) -> float:
    """Return the share of cells that got a prediction at all; NaN where no cell has a truth."""
    _, guess, _ = _paired(truth, predicted)
    return float(np.mean(guess >= 0)) if len(guess) else float("nan")


def macro_f1(truth: Labels, predicted: Labels) -> float:
    """Return the mean F1 over the classes present in the truth; NaN where no cell has a truth."""
    scores = class_f1(truth, predicted)["f1"]
    return float(scores.mean()) if len(scores) else float("nan")


def class_f1(truth: Labels, predicted: Labels) -> pd.DataFrame:
    """Return one row a class of the truth (sorted by name): label, n_cells, precision, recall, f1.

    A class that was never predicted has precision and F1 of 0.
    """
    actual, guess, names = _paired(truth, predicted)
    n_cells, n_guessed, hits = class_counts(actual, guess, len(names))
    present = np.flatnonzero(n_cells)
    n_cells, n_guessed, hits = n_cells[present], n_guessed[present], hits[present]
    return pd.DataFrame(
        {
            "label": names[present],
            "n_cells": n_cells,
            "precision": hits / np.maximum(n_guessed, 1),
            "recall": hits / n_cells,
            "f1": 2 * hits / (n_cells + n_guessed),
        }
    )


def confusion(truth: Labels, predicted: Labels) -> pd.DataFrame:
    """Return how often each truth was called what, as a tidy table: truth, predicted, n (n > 0 only).

    A missing prediction stands in `predicted` as NaN.
    """
    actual, guess, names = _paired(truth, predicted)
    pairs, n = np.unique(np.stack([actual, guess], axis=1), axis=0, return_counts=True)
    called = np.append(names, np.array([np.nan], dtype=object))
    return pd.DataFrame({"truth": names[pairs[:, 0]], "predicted": called[pairs[:, 1]], "n": n})


def class_counts(
    actual: npt.NDArray[np.int64], guess: npt.NDArray[np.int64], n_classes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return per class the cells of it, the cells called it, and the cells that are both; codes below 0 skip.

    These three counts are all that F1 needs: 2 * hits / (cells + called).
    """
    n_cells = np.bincount(actual[actual >= 0], minlength=n_classes)
    n_guessed = np.bincount(guess[guess >= 0], minlength=n_classes)
    hits = np.bincount(actual[(actual == guess) & (actual >= 0)], minlength=n_classes)
    return n_cells, n_guessed, hits


def encode_pair(
    truth: Labels, predicted: Labels
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Return both columns as codes of one sorted list of names, which comes third; missing is -1."""
    columns = [_objects(truth), _objects(predicted)]
    if len(columns[0]) != len(columns[1]):
        raise ValueError(f"truth: {len(columns[0])} labels, but predicted has {len(columns[1])}.")
    codes, names = pd.factorize(np.concatenate(columns), sort=True)
    codes = codes.astype(np.int64)
    return codes[: len(columns[0])], codes[len(columns[0]) :], np.asarray(names, dtype=object)


def _paired(
    truth: Labels, predicted: Labels
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.object_]]:
    """Return codes and names as `encode_pair`, without the cells whose truth is missing."""
    actual, guess, names = encode_pair(truth, predicted)
    known = actual >= 0
    return actual[known], guess[known], names


def _objects(labels: Labels) -> npt.NDArray[np.object_]:
    values = np.asarray(labels)
    if values.ndim != 1:
        raise ValueError(f"labels: expected one label a cell, got the shape {values.shape}.")
    found = values.astype(object)
    if np.issubdtype(values.dtype, np.number):
        found[np.isnan(values) | (values < 0)] = None
    else:
        found[pd.isna(found) | (found == "")] = None
    return found
