from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lexicell.workflows.species_measures import forgetting, mixing, score_shared


def test_only_shared_types_are_scored_by_hand() -> None:
    truth = pd.Series(["a", "a", "b", "new", "new", np.nan, "a", "b"])
    called = pd.Series(["a", "b", "b", "a", "old", "a", "a", "old"])
    doubt = np.array([0.1, 0.2, 0.3, 0.9, 0.15, 1.0, 0.1, 0.2])
    found = score_shared(truth, called, ["a", "b", "old"], {"unsure": doubt})
    assert found["cells"] == 5
    assert found["accuracy"] == pytest.approx(3 / 5)
    f1_a, f1_b = 2 * 2 / (3 + 2), 2 * 1 / (2 + 2)  # hits doubled, over cells and calls
    assert found["macro_f1"] == pytest.approx((f1_a + f1_b) / 2)
    assert found["new_types"] == ["new"]
    assert found["new_type_cells"] == 2
    # .9 is above all five shared cells, .15 above two of them.
    assert found["unknown"]["unsure"]["auroc"] == pytest.approx(7 / 10)
    assert found["unknown"]["unsure"]["found"] == pytest.approx(1 / 2)


def test_without_new_types_there_is_nothing_to_find() -> None:
    truth = pd.Series(["a", "b"])
    assert "unknown" not in score_shared(truth, truth, ["a", "b"], {"unsure": np.zeros(2)})


def test_mixing_is_one_by_chance_and_zero_apart() -> None:
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((900, 8)).astype(np.float32)
    assert mixing(cells[:600], cells[600:]) == pytest.approx(1.0, abs=0.05)
    assert mixing(cells[:100], cells[100:]) == pytest.approx(1.0, abs=0.1)
    apart = np.concatenate([cells[:600] + 20, cells[600:] - 20])
    assert mixing(apart[:600], apart[600:]) == 0


def test_what_was_lost_is_before_less_after() -> None:
    def step(skill: float, score: float) -> dict:
        scores = {"accuracy": score, "macro_f1": score / 2}
        return {"old_species": {"skill": skill, "methods": {"knn": {"type": scores}}}}

    lost = forgetting(step(0.1, 0.9), step(0.08, 0.95))
    assert lost["skill"] == pytest.approx(0.02)
    assert lost["methods"]["knn"]["type"]["accuracy"] == pytest.approx(-0.05)
    assert forgetting({}, step(0.1, 0.9)) == {}
