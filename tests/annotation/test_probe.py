import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from lexicell.annotation.folds import reference_folds
from lexicell.annotation.linear import LinearSettings
from lexicell.annotation.methods import ProbeMethod, SeenCells, cross_fit_choosing
from lexicell.annotation.probe import GeneFeatures, Probe, ProbeSettings, balanced_subset, log_scaled
from lexicell.errors import InputError
from lexicell.evaluation.baselines import log_cpm
from lexicell.labels import LabelTree

GENES_ALONE = ProbeSettings(shares=(1.0, 0.0, 0.0), embedding_share=0.0)


@pytest.fixture
def cells() -> tuple[np.ndarray, sparse.csr_matrix, pd.DataFrame]:
    """Types t0 and t1 differ in genes alone, t2 and t3 in the embedding alone."""
    rng = np.random.default_rng(0)
    place = np.tile(np.arange(4), 40)
    rate = np.full((160, 4), 2.0)
    rate[place == 0, 0] = rate[place == 1, 1] = rate[place >= 2, 2] = 20.0
    embedding = rng.normal(size=(160, 4))
    embedding[:, 0] += np.where(place == 2, 4, 0) - np.where(place == 3, 4, 0)
    obs = pd.DataFrame({"class": np.where(place < 2, "x", "y"), "type": [f"t{i}" for i in place]})
    return embedding.astype(np.float32), sparse.csr_matrix(rng.poisson(rate)), obs


@pytest.mark.parametrize(("family", "genes_know"), [("x", True), ("y", False)])
def test_genes_and_embedding_both_judge(cells, family, genes_know):
    embedding, counts, obs = cells
    here = (obs["class"] == family).to_numpy()
    embedding, counts, obs = embedding[here], counts[here], obs[here]
    tree = LabelTree.from_frame(obs, ["type"])
    codes = tree.encode(obs)
    known, asked = (SeenCells(embedding[half], counts[half]) for half in (slice(40), slice(40, 80)))

    def hits(settings: ProbeSettings) -> float:
        folds, _ = reference_folds(None, codes[:40])
        method, _ = cross_fit_choosing(ProbeMethod(settings), known, codes[:40], tree, folds)
        called = method.fit(known, codes[:40], tree).tables(asked)[0].argmax(axis=1)
        return float((called == codes[40:, 0]).mean())

    assert hits(ProbeSettings()) > 0.85
    assert (hits(GENES_ALONE) > 0.75) == genes_know


def test_by_genes_alone_it_is_a_logistic_regression(cells):
    embedding, counts, obs = cells
    tree = LabelTree.from_frame(obs, ["type"])
    probe = Probe.fit(embedding[:80], counts[:80], tree.encode(obs)[:80], tree, GENES_ALONE)
    depth = np.asarray(counts.sum(axis=1))
    logs = np.log1p(counts.toarray() / depth * np.median(depth[:80]))
    logs -= logs[:80].mean(axis=0)
    same = LogisticRegression(class_weight="balanced").fit(logs[:80], obs["type"][:80]).predict_proba(logs[80:])
    np.testing.assert_allclose(probe.tables(embedding[80:], counts[80:])[0], same, atol=2e-3)
    assert abs(log_scaled(counts, 1e4) - log_cpm(counts)).max() == 0


def test_without_an_embedding_counts_alone_judge(cells):
    _, counts, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    probe = Probe.fit(np.empty((160, 0), np.float32), counts, tree.encode(obs), tree)
    assert probe.pool.shares[3] == 0
    calls = probe.tables(np.empty((160, 0), np.float32), counts)[0].argmax(axis=1)
    assert (calls == tree.encode(obs)[:, 0]).mean() > 0.95


def test_a_cells_answer_is_its_own(cells):
    embedding, counts, obs = cells
    tree = LabelTree.from_frame(obs, ["class", "type"])
    probe = Probe.fit(embedding, counts, tree.encode(obs), tree)
    whole = probe.tables(embedding, counts)
    alone = probe.tables(embedding[5:6], counts[5:6])
    for few, all_cells in zip(alone, whole, strict=True):
        np.testing.assert_allclose(few[0], all_cells[5], atol=1e-5)


def test_memory_bounds_the_genes_to_the_most_variable():
    counts = sparse.csr_matrix(np.array([[9, 0, 5, 1], [0, 0, 5, 2], [9, 0, 5, 1], [0, 0, 5, 2]]))
    assert GeneFeatures.fit(counts, 4 * 1).columns.tolist() == [0]
    assert GeneFeatures.fit(counts, 4 * 9).columns.tolist() == [0, 2, 3]
    with pytest.raises(InputError, match="no gene varies, of 2, between"):
        GeneFeatures.fit(sparse.csr_matrix(np.ones((3, 2), int)), 100)
    with pytest.raises(ValueError, match="the embedding has 3"):
        Probe.fit(
            np.zeros((3, 2), np.float32),
            counts,
            np.zeros((4, 1), int),
            LabelTree.from_dict({"levels": ["t"], "names": [["a"]], "parents": [[]]}),
        )


def test_a_subset_keeps_rare_labels_whole():
    codes = np.repeat([[0, 0], [0, 1], [1, 2], [-1, -1]], [100, 5, 40, 10], axis=0)
    codes[:3, 1] = -1
    rng = np.random.default_rng(0)
    chosen = balanced_subset(codes, 50, rng)
    labels = [tuple(row) for row in codes[chosen]]
    assert {label: labels.count(label) for label in set(labels)} == {(0, -1): 3, (0, 0): 21, (0, 1): 5, (1, 2): 21}
    assert len(balanced_subset(codes, 1000, rng)) == 145
    assert len(balanced_subset(codes, 1, rng)) == 4
    assert LinearSettings().balance == 1


def test_an_embedding_that_knows_nothing_has_nothing_to_say(cells):
    embedding, counts, obs = cells
    noise = np.random.default_rng(1).normal(size=(160, 60)).astype(np.float32)
    donors = np.tile(np.repeat(["d1", "d2"], 4), 20).astype(object)
    types = LabelTree.from_frame(obs, ["class", "type"])
    codes = types.encode(obs)
    folds, _ = reference_folds(donors, codes)

    def share(of: np.ndarray) -> float:
        method, _ = cross_fit_choosing(ProbeMethod(), SeenCells(of, counts), codes, types, folds)
        assert method.pool is not None
        return method.pool.shares[3]

    assert share(noise) == 0
    assert share(embedding) > 0
