"""What a report shows of labelled cells that a model never saw: scores beside baselines, confusion, a picture.

The baselines are computed in the same run, from the same cells: logistic regression on log-CPM, and PCA-kNN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from lexicell.annotation.knn import transfer_labels
from lexicell.annotation.scores import accuracy, confusion, coverage, macro_f1
from lexicell.annotation.tree import Calls, call_labels, consistent
from lexicell.data.query import Query
from lexicell.evaluation.baselines import logistic_regression, pca_knn
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree

FOLDER = "report"
SCORES, CONFUSION, EMBEDDING = "annotation_scores", "confusion", "embedding"


@dataclass(frozen=True, eq=False)
class HeldOutTables:
    """Tidy tables on held-out cells."""

    scores: pd.DataFrame
    """method, level, accuracy, macro_f1, coverage."""
    confusion: pd.DataFrame
    """method, level, truth, predicted, n."""
    embedding: pd.DataFrame
    """x, y, label, split, method: a picture of reference and held-out cells."""

    def write(self, run: Path) -> None:
        """Put the tables where `report` finds them."""
        folder = run / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in ((SCORES, self.scores), (CONFUSION, self.confusion), (EMBEDDING, self.embedding)):
            part = folder / f".{name}.csv.part"
            table.to_csv(part, index=False)
            part.replace(folder / f"{name}.csv")

    def by_method(self, level: str) -> dict[str, dict[str, float]]:
        """Return accuracy and macro-F1 of each method on a level."""
        rows = self.scores[self.scores["level"] == level].set_index("method")[["accuracy", "macro_f1"]]
        return {str(method): {str(k): float(v) for k, v in row.items()} for method, row in rows.iterrows()}


def compare(
    model: CellModel, reference: Query, query: Query, levels: Sequence[str], *, progress: bool = False
) -> HeldOutTables:
    """Annotate held-out cells with the model and with the baselines.

    Parameters
    ----------
    model
        A trained model.
    reference
        Labelled cells that may be learned from.
    query
        Held-out cells with the truth in their obs; the same genes in the same order as `reference`.
    levels
        Label columns of both, coarse to fine.
    progress
        Show progress bars.
    """
    tree = LabelTree.from_frame(reference.obs, levels, "the reference")
    codes = tree.encode(reference.obs)
    known = model.embed(reference, progress=progress)
    asked = model.run(query, progress=progress)
    calls = [("knn", tree.decode(transfer_labels(known, codes, asked.embedding, tree).codes))]
    if model.label_tree is not None and asked.probabilities:
        own = model.label_tree
        called: Calls = call_labels(own, consistent(own, asked.probabilities))
        calls.append(("label_head", own.decode(called.codes)))
    calls += list(_baselines(reference.counts, query.counts, tree.decode(codes)))
    truth = query.obs
    scores, confusions = [], []
    for method, labels in calls:
        for level in levels:
            pair = truth[level], labels[level]
            scores.append((method, level, accuracy(*pair), macro_f1(*pair), coverage(*pair)))
            confusions.append(confusion(*pair).assign(method=method, level=level))
    columns = ["method", "level", "accuracy", "macro_f1", "coverage"]
    return HeldOutTables(
        pd.DataFrame(scores, columns=columns),
        pd.concat(confusions, ignore_index=True)[["method", "level", "truth", "predicted", "n"]],
        picture(known, asked.embedding, reference.obs[levels[-1]], truth[levels[-1]]),
    )


def _baselines(reference: csr_matrix, query: csr_matrix, labels: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Predict each level on its own."""
    for name, method in (("logistic_regression", logistic_regression), ("pca_knn", pca_knn)):
        yield name, pd.DataFrame({str(level): method(reference, labels[level], query).labels for level in labels})


def picture(
    reference: npt.NDArray[np.float32], query: npt.NDArray[np.float32], known: pd.Series, truth: pd.Series
) -> pd.DataFrame:
    """Return coordinates of reference and held-out cells in the plane: UMAP where it is installed, else PCA."""
    both = np.concatenate([reference, query])
    try:
        from umap import UMAP
    except ImportError:
        method, points = "PCA", PCA(2, random_state=0).fit_transform(both)
    else:
        # One thread: UMAP with a seed has no use for more, and says so in a warning.
        method, points = "UMAP", UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(both)
    return pd.DataFrame(
        {
            "x": points[:, 0],
            "y": points[:, 1],
            "label": np.concatenate([known.astype(str), truth.astype(str)]),
            "split": np.repeat(["reference", "held out"], [len(reference), len(query)]),
            "method": method,
        }
    )
