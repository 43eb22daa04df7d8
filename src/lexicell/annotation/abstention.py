"""Which calls can be trusted: a threshold per level whose error on held-out donors is bounded, or no call at all.

- The bound is Clopper & Pearson's one-sided upper bound of a share of errors, at an effective number of cells: cells
  of one donor err together, so they count as fewer. As in surveys (Korn & Graubard 1998) the number is divided by the
  design effect, which is the variance of the share over donors (linearised ratio estimator) against that of
  independent cells; and by the square of the t quantile at donors - 1 degrees of freedom against that at cells - 1.
  Where errors are few, their spread tells nothing: the effect is never below that of an intraclass correlation of
  `CORRELATION`, so that a donor's cells are worth at most 1 / `CORRELATION` independent ones.
- Thresholds of a level are tested in a fixed order, from strict to lax, and the first that fails ends the search, so
  that looking at many does not void the bound (fixed-sequence testing; Angelopoulos et al. 2021). Levels are tested
  in the same way from coarse to fine; the first level where none holds ends the annotation.
- With few donors the spread over donors is hardly known: then it is an estimate, not a promise. What counts is the
  donors that a level's calls are of: the cells of one donor among several show nothing of another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import stats

from lexicell.annotation.tree import Calls

PROMISE_FROM = 5  # donors
CORRELATION = 0.01  # of errors within a donor, at least
CONFIDENCE = 0.95
_STEPS = 40  # thresholds tested a level
_STRICTEST = 0.1  # share of the cells that the strictest threshold keeps
_POWER = 0.75  # of the limit: a threshold is not tested where even no error at all would be bounded higher


@dataclass(frozen=True)
class Bound:
    """How often calls were wrong on held-out cells.

    Attributes
    ----------
    error
        Share of wrong calls.
    upper
        Its upper confidence bound.
    n_cells, n_donors
        What it is measured on.
    effective
        Independent cells that these are worth.
    """

    error: float
    upper: float
    n_cells: int
    n_donors: int
    effective: float


@dataclass(frozen=True)
class LevelRule:
    """What a level's calls need.

    Attributes
    ----------
    level
        Its name.
    holds
        Whether the error stays below the limit at some threshold; if not, nothing is called here and below.
    threshold
        Least probability of a call.
    bound
        Error on the held-out cells that pass; for a level that does not hold, at the strictest threshold.
    coverage
        Share of held-out cells that pass, this level and all above.
    """

    level: str
    holds: bool
    threshold: float
    bound: Bound
    coverage: float

    @property
    def promise(self) -> bool:
        """Whether its calls were of `PROMISE_FROM` donors or more; else the bound is an estimate."""
        return self.bound.n_donors >= PROMISE_FROM


@dataclass(frozen=True)
class Abstention:
    """Rules from coarse to fine.

    Attributes
    ----------
    max_error
        The limit.
    rules
        One a level, up to the first that does not hold.
    """

    max_error: float
    rules: tuple[LevelRule, ...]

    @property
    def promise(self) -> bool:
        """Whether all levels that hold (the coarsest where none does) do so by a promise."""
        return all(rule.promise for rule in self.rules if rule.holds or rule is self.rules[0])

    @property
    def deepest(self) -> str | None:
        """The finest level that holds; None where none does."""
        held = [rule.level for rule in self.rules if rule.holds]
        return held[-1] if held else None

    def apply(self, calls: Calls) -> Calls:
        """Take back what is below its threshold, and everything under it; runners-up of such cells stay."""
        kept = np.ones(len(calls.codes), dtype=bool)
        codes = np.full_like(calls.codes, -1)
        for place, rule in enumerate(self.rules):
            kept &= rule.holds & (calls.codes[:, place] >= 0) & (calls.probs[:, place] >= rule.threshold)
            codes[kept, place] = calls.codes[kept, place]
        return replace(calls, codes=codes)


def error_bound(
    wrong: npt.NDArray[np.bool_], donors: npt.NDArray[np.object_] | None, confidence: float = CONFIDENCE
) -> Bound:
    """Return the share of wrong calls and its upper bound, clustered by donor.

    Parameters
    ----------
    wrong
        (n_cells,) whether each call was wrong.
    donors
        (n_cells,) whose cells they are; where it is None, cells count as independent. Cells of a single donor bound
        nothing (by 1).
    confidence
        Of the bound.
    """
    n = len(wrong)
    if n == 0:
        return Bound(float("nan"), 1.0, 0, 0, 0.0)
    error = float(np.mean(wrong))
    n_donors, effective = 0, float(n)
    if donors is not None:
        sizes, errors = _by_donor(wrong, donors)
        n_donors = len(sizes)
        if n_donors == 1:
            return Bound(error, 1.0, n, 1, 0.0)
        spread = n_donors / (n_donors - 1) * float(((errors - error * sizes) ** 2).sum()) / n**2
        independent = error * (1 - error) / n
        least = 1 + CORRELATION * (float((sizes**2).sum()) / n - 1)
        effect = max(least, spread / independent) if independent > 0 else least
        caution = stats.t.ppf(confidence, n_donors - 1) / stats.t.ppf(confidence, n - 1)
        effective = n / effect / max(1.0, float(caution)) ** 2
    hits = error * effective
    upper = 1.0 if hits >= effective else float(stats.beta.ppf(confidence, hits + 1, effective - hits))
    return Bound(error, upper, n, n_donors, effective)


def choose_rules(
    levels: tuple[str, ...],
    calls: Calls,
    codes: npt.NDArray[np.int64],
    donors: npt.NDArray[np.object_] | None,
    max_error: float,
    confidence: float = CONFIDENCE,
) -> Abstention:
    """Choose a threshold for each level on held-out cells.

    Parameters
    ----------
    levels
        Level names, coarse to fine.
    calls
        What was called for the held-out cells, calibrated.
    codes
        Their truth (n_cells, n_levels); -1 is missing, and such cells do not count on that level. A label that the
        method could not have learned counts as wrong.
    donors
        (n_cells,) donors, or None.
    max_error
        Share of wrong calls that is allowed.
    confidence
        Of the bounds.

    Raises
    ------
    ValueError
        When `max_error` does not lie between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise ValueError(f"max_error: expected a share between 0 and 1, got {max_error}.")
    kept = np.ones(len(codes), dtype=bool)
    rules: list[LevelRule] = []
    for place, level in enumerate(levels):
        judged = kept & (codes[:, place] >= 0) & (calls.codes[:, place] >= 0)
        rule = _level_rule(
            level,
            calls.probs[judged, place],
            calls.codes[judged, place] != codes[judged, place],
            None if donors is None else donors[judged],
            max_error,
            confidence,
        )
        passed = kept & (calls.probs[:, place] >= rule.threshold) & (calls.codes[:, place] >= 0)
        known = codes[:, place] >= 0
        share = float(passed[known].mean()) if rule.holds and known.any() else 0.0
        rules.append(LevelRule(level, rule.holds, rule.threshold, rule.bound, share))
        if not rule.holds:
            break
        kept = passed
    return Abstention(max_error, tuple(rules))


def _level_rule(
    level: str,
    probs: npt.NDArray[np.float32],
    wrong: npt.NDArray[np.bool_],
    donors: npt.NDArray[np.object_] | None,
    max_error: float,
    confidence: float,
) -> LevelRule:
    order = np.argsort(-probs, kind="stable")
    best: LevelRule | None = None
    strictest: LevelRule | None = None
    # Which thresholds are tried depends on probabilities and donors, never on an error: that keeps the bound.
    for share in np.linspace(_STRICTEST, 1.0, _STEPS):
        threshold = float(probs[order[max(0, int(np.ceil(share * len(order))) - 1)]]) if len(order) else 1.0
        taken = probs >= threshold  # equal probabilities pass together
        whose = None if donors is None else donors[taken]
        if share < 1 and error_bound(np.zeros(taken.sum(), dtype=bool), whose, confidence).upper > _POWER * max_error:
            continue
        rule = LevelRule(level, True, threshold, error_bound(wrong[taken], whose, confidence), 0.0)
        strictest = strictest or replace(rule, holds=False)
        if rule.bound.upper > max_error:
            break
        best = rule
    found = best or strictest
    assert found is not None
    return found


def _by_donor(
    wrong: npt.NDArray[np.bool_], donors: npt.NDArray[np.object_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return cells and errors of each donor; cells of an unknown donor are one donor together."""
    names = np.array(["" if donor is None else str(donor) for donor in donors], dtype=object)
    place = np.unique(names, return_inverse=True)[1]
    return np.bincount(place).astype(np.float64), np.bincount(place, wrong.astype(np.float64)).astype(np.float64)
