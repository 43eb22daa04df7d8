import numpy as np
import pytest
from scipy import stats

from lexicell.annotation.abstention import choose_rules, error_bound
from lexicell.annotation.tree import SIBLINGS, Calls


def test_independent_cells_give_the_clopper_pearson_bound():
    wrong = np.zeros(100, dtype=bool)
    wrong[:3] = True
    bound = error_bound(wrong, None)
    # The bound is the error rate at which 3 errors or fewer have a chance of 5%.
    assert stats.binom.cdf(3, 100, bound.upper) == pytest.approx(0.05, abs=1e-6)
    assert (bound.error, bound.effective, bound.n_donors) == (0.03, 100, 0)
    assert error_bound(np.zeros(59, bool), None).upper == pytest.approx(1 - 0.05 ** (1 / 59))
    assert error_bound(np.ones(5, bool), None).upper == 1
    assert error_bound(np.zeros(0, bool), None).upper == 1


def test_errors_that_cluster_by_donor_count_as_fewer_cells():
    donors = np.repeat([f"d{i}" for i in range(10)], 50).astype(object)
    spread, clustered = np.zeros((2, 500), dtype=bool)
    spread[::20] = True  # 25 errors, 2 or 3 a donor
    clustered[:25] = True  # 25 errors of one donor
    even, lumped = error_bound(spread, donors), error_bound(clustered, donors)
    assert even.error == lumped.error == 0.05
    assert lumped.effective < 50 < even.effective < 500
    assert lumped.upper > 2 * even.upper
    # By hand: variance over donors 10/9 * (9 * 2.5**2 + 22.5**2) / 500**2 against .05 * .95 / 500.
    effect = 10 / 9 * (9 * 2.5**2 + 22.5**2) / 500**2 / (0.05 * 0.95 / 500)
    caution = stats.t.ppf(0.95, 9) / stats.t.ppf(0.95, 499)
    assert lumped.effective == pytest.approx(500 / effect / caution**2)


def _calls(probs: np.ndarray, codes: np.ndarray) -> Calls:
    nothing = np.full(codes.shape, -1)
    others = np.full((*codes.shape, SIBLINGS), -1, np.int32)
    shown, unlikely = probs.astype(np.float32), np.zeros(codes.shape, np.float32)
    return Calls(codes, shown, nothing, unlikely, others, np.zeros(others.shape, np.float32))


def test_thresholds_keep_the_error_below_the_limit_on_new_donors():
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Calls, np.ndarray, np.ndarray]:
        probs = rng.uniform(0.4, 1, size=(n, 1))
        wrong = rng.uniform(size=n) > probs[:, 0]
        return _calls(probs, np.zeros((n, 1), int)), wrong[:, None].astype(int), rng.integers(8, size=n).astype(object)

    calls, truth, donors = draw(4000)
    chosen = choose_rules(("type",), calls, truth, donors, 0.1)
    assert chosen.promise
    assert chosen.deepest == "type"
    (rule,) = chosen.rules
    assert 0.75 < rule.threshold < 0.95
    new, actual, _ = draw(4000)
    called = chosen.apply(new).codes[:, 0]
    assert actual[called >= 0].mean() < 0.1
    assert rule.coverage == pytest.approx((called >= 0).mean(), abs=0.05)


def test_it_stops_at_the_deepest_level_that_holds():
    n = 600
    probs = np.stack([np.full(n, 0.99), np.linspace(0.5, 0.9, n), np.full(n, 0.4)], axis=1)
    truth = np.zeros((n, 3), dtype=int)
    truth[::2, 1] = 1  # the second level is right half of the time, whatever its probability
    calls = _calls(probs, np.zeros((n, 3), dtype=int))
    chosen = choose_rules(("a", "b", "c"), calls, truth, None, 0.05)
    assert not chosen.promise
    assert [(rule.level, rule.holds) for rule in chosen.rules] == [("a", True), ("b", False)]
    assert chosen.deepest == "a"
    assert chosen.rules[0].threshold == pytest.approx(
        0.99
    )  # a cell less sure than all that were judged is not vouched for
    kept = chosen.apply(calls)
    assert (kept.codes == [0, -1, -1]).all()
    np.testing.assert_array_equal(kept.probs, calls.probs)
    few = choose_rules(("a",), _calls(np.ones((20, 1)), np.zeros((20, 1), int)), np.zeros((20, 1), int), None, 0.05)
    assert few.deepest is None  # 20 cells without an error show no more than an error below 14%
    with pytest.raises(ValueError, match="between 0 and 1"):
        choose_rules(("a",), calls, truth, None, 0)


def test_a_donors_cells_are_worth_no_more_than_a_hundred():
    donors = np.repeat(np.arange(8), 5000).astype(object)
    bound = error_bound(np.zeros(40_000, dtype=bool), donors)
    assert bound.effective < 8 * 100  # no error was seen, so that nothing is known of how errors cluster
    assert 0.003 < bound.upper < 0.01


def test_cells_of_one_donor_among_several_show_nothing_of_another():
    assert error_bound(np.zeros(1000, dtype=bool), np.full(1000, "a", dtype=object)).upper == 1
    # All six donors bear coarse labels, the first one alone fine ones.
    n = 600
    donors = np.repeat([f"d{i}" for i in range(6)], 100).astype(object)
    truth = np.zeros((n, 2), dtype=int)
    truth[100:, 1] = -1
    calls = _calls(np.full((n, 2), 0.99), np.zeros((n, 2), dtype=int))
    chosen = choose_rules(("class", "type"), calls, truth, donors, 0.05)
    assert [(rule.holds, rule.bound.n_donors) for rule in chosen.rules] == [(True, 6), (False, 1)]
    assert chosen.promise
    truth[100:300, 1] = 0
    estimate = choose_rules(("class", "type"), calls, truth, donors, 0.05).rules[1]
    assert not estimate.promise


@pytest.mark.parametrize(
    ("n_donors", "correlation", "broken"),
    # It should break in .05 of the draws: measured .01, .03, .05; and .14 where donors differ wildly, and are few.
    [(5, 0.03, 0.05), (12, 0.024, 0.07), (20, 0.05, 0.09), (5, 0.167, 0.2)],
)
def test_how_often_the_bound_breaks(n_donors, correlation, broken):
    rng = np.random.default_rng(1)
    size, total = 80, 1 / correlation - 1  # of the beta distribution that donors' error rates are of; mean .05
    donors = np.repeat(np.arange(n_donors), size).astype(object)
    found = 0
    for _ in range(300):
        rates = rng.beta(0.05 * total, 0.95 * total, size=n_donors)
        found += error_bound(rng.uniform(size=n_donors * size) < np.repeat(rates, size), donors).upper < 0.05
    assert found / 300 < broken
