"""Is the loss that `annotate` foretells for a smaller gene panel the loss that comes?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import pandas as pd
from anndata import AnnData

from lexicell.errors import InputError
from lexicell.workflows.annotate import AnnotateOptions, annotate
from lexicell.workflows.labelling import AnnotatingModel

COLUMNS = ("panel", "genes", "level", "said_all", "said", "said_loss", "actual_all", "actual", "actual_loss", "refused")


def compare_panel_losses(
    model: AnnotatingModel,
    query: AnnData,
    reference: AnnData,
    levels: Sequence[str],
    panels: Mapping[str, Sequence[str]],
    *,
    species: str | None = None,
    seed: int = 0,
    **options: Unpack[AnnotateOptions],
) -> pd.DataFrame:
    """Annotate a query by the probe over all of its genes and over smaller panels; compare losses said and suffered.

    Said is what `annotate` tells before the run: macro-F1 of linear trees on held-out reference cells. Actual is the
    probe's macro-F1 on the query.

    Parameters
    ----------
    model
        Embeds the cells.
    query
        Cells with the truth in obs, and all genes of the reference.
    reference
        Labelled cells.
    levels
        Label columns, coarse to fine.
    panels
        Name -> genes (var names of the query) that are left.
    species, seed, options
        As of `annotate`.

    Returns
    -------
    DataFrame
        One row a panel and level: genes (how many are shared), said_all and said (macro-F1 foretold with all and with
        the panel's genes), said_loss, actual_all, actual, actual_loss, refused. Where nearly all genes are shared
        nothing is said (NaN); where annotate refuses, there is nothing actual.
    """

    whole = _scored(model, query, reference, levels, species, seed, options)
    rows = []
    for name, genes in panels.items():
        part, refused = _Scored({}, {}, len(genes)), False
        try:
            part = _scored(model, query[:, list(genes)].copy(), reference, levels, species, seed, options)
        except InputError:
            refused = True
        for level in levels:
            said_all, said = part.said.get(level, (float("nan"), float("nan")))
            before, after = whole.actual[level], part.actual.get(level, float("nan"))
            figures = said_all, said, said_all - said, before, after, before - after
            rows.append((name, part.shared, level, *figures, refused))
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Scored:
    """What was said of a query before the run, and what came of it."""

    actual: dict[str, float]  # level -> macro-F1
    said: dict[str, tuple[float, float]]  # level -> macro-F1 with all genes and with the shared ones
    shared: int


def _scored(
    model: AnnotatingModel,
    query: AnnData,
    reference: AnnData,
    levels: Sequence[str],
    species: str | None,
    seed: int,
    options: AnnotateOptions,
) -> _Scored:
    result = annotate(model, query, reference, list(levels), species=species, seed=seed, progress=False, **options)
    assert result.overlap is not None
    told = [] if result.loss is None else result.loss.levels.to_dict("records")
    said = {str(row["level"]): (float(row["macro_f1_all"]), float(row["macro_f1_shared"])) for row in told}
    return _Scored({level: own["macro_f1"] for level, own in result.scores.items()}, said, result.overlap.shared)
