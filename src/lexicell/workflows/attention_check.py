"""Does attention know gene pairs, and better than co-expression does?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.gene_space.coherence import expression_bins
from lexicell.gene_space.gene_pairs import mean_interval, partner_auroc, product_corrected, symmetric
from lexicell.gene_space.gene_views import standardised
from lexicell.inference.attention import AttentionSums
from lexicell.randomness import generator
from lexicell.workflows.genes_cells import Expression
from lexicell.workflows.known_pairs import KnownPairs

Float64 = npt.NDArray[np.float64]

BASELINE = "co-expression"
BEST = "best head, chosen on other genes"


def check_attention(
    attention: AttentionSums, seen: Expression, known: Sequence[KnownPairs], least: int, seed: int
) -> pd.DataFrame:
    """Score attention, co-expression and expression level by how far up known partners of a gene come.

    Parameters
    ----------
    attention
        Sums over all cells.
    seen
        Expression of the same genes, in the same order.
    known
        Known pairs among them.
    least
        Pairs that met in fewer cells are left out, of the baselines too.
    seed
        Of halves and intervals.

    Returns
    -------
    DataFrame
        One row a source of pairs and score: known, score, kind (``attention`` or ``baseline``), genes (that have a
        known partner), pairs, auroc with a 95% interval over genes (low, high), auroc_matched (among partners of alike
        expression), and the difference from co-expression, gene by gene, with its interval.
    """
    bins = expression_bins(seen.level)
    met = attention.pairs >= least
    rows: list[dict[str, object]] = []
    for one in known:
        asked = one.asked & met
        tables = {
            name: partner_auroc(score, one.partners, asked, bins)
            for name, score in {**_attention(attention, least, one.directed), **_baselines(seen)}.items()
        }
        tables[BEST] = _best_head([tables[name] for name in attention.maps[:-1]], seed)
        order = [BEST, *(name for name in tables if name != BEST)]
        for name in order:
            row = {"known": one.name, "score": name, "kind": "baseline" if name in _BASELINES else "attention"}
            rows.append(row | _summary(tables[name], tables[BASELINE], generator(seed, "pairs", one.name)))
    return pd.DataFrame(rows)


_BASELINES = (BASELINE, "co-expression, either sign", "expression level")


def _attention(attention: AttentionSums, least: int, directed: bool) -> Mapping[str, Float64]:
    mean, rolled = attention.head_mean(least), attention.mean(len(attention.maps) - 1, least)
    scores = {
        "all heads": symmetric(mean),
        "all heads, corrected": product_corrected(symmetric(mean)),
        "rollout": symmetric(rolled),
        "rollout, corrected": product_corrected(symmetric(rolled)),
    }
    if directed:
        scores |= {
            "all heads, source reads target": mean.astype(float),
            "all heads, target reads source": mean.T.astype(float),
        }
    return scores | {name: symmetric(attention.mean(m, least)) for m, name in enumerate(attention.maps[:-1])}


def _baselines(seen: Expression) -> Mapping[str, Float64]:
    scaled = standardised(seen.counts, seen.is_measured).astype(np.float64)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    correlation = np.asarray(scaled @ scaled.T)
    level = np.broadcast_to(seen.level, correlation.shape)
    return dict(zip(_BASELINES, (correlation, np.abs(correlation), level), strict=True))


def _best_head(tables: Sequence[pd.DataFrame], seed: int) -> pd.DataFrame:
    """Take for each half of the genes the head that does best on the other half."""
    n = len(tables[0])
    half = generator(seed, "halves").permutation(n) < n // 2
    means = [[np.nanmean(np.append(t.loc[own, "auroc"], 0.5)) for t in tables] for own in (half, ~half)]
    chosen = [tables[int(np.argmax(mean))] for mean in means]
    out = chosen[0].copy()
    out.loc[half] = chosen[1].loc[half]
    return out


def _summary(table: pd.DataFrame, baseline: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    auroc = table["auroc"].to_numpy(np.float64)
    mean, low, high = mean_interval(auroc, rng)
    matched, _, _ = mean_interval(table["auroc_matched"].to_numpy(np.float64), rng, 1)
    gap, gap_low, gap_high = mean_interval(auroc - baseline["auroc"].to_numpy(np.float64), rng)
    known = ~np.isnan(auroc)
    return {
        "genes": int(known.sum()),
        "pairs": int(table.loc[known, "partners"].sum()),
        "auroc": mean,
        "low": low,
        "high": high,
        "auroc_matched": matched,
        "difference": gap,
        "difference_low": gap_low,
        "difference_high": gap_high,
    }
