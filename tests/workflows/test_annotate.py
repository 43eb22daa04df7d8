import json
from dataclasses import dataclass

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from lexicell.annotation.opinions import LAST_SHARES
from lexicell.data.query import Query
from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.errors import InputError
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree
from lexicell.reporting.text import print_tables
from lexicell.workflows.annotate import annotate

LEVELS = ("class", "type")


@dataclass
class FakeModel:
    """Embeds by log counts over the lexicon; its label head always answers the first label."""

    lexicon: Lexicon
    label_tree: LabelTree | None = None

    def embed(self, query: Query, *, samples=None, progress=False):
        known = query.gene_index >= 0
        values = np.zeros((query.n_cells, len(self.lexicon)), dtype=np.float32)
        values[:, query.gene_index[known]] = query.counts[:, known].toarray()
        values *= 1e4 / np.maximum(values.sum(axis=1, keepdims=True), 1)
        return np.log1p(values)

    def predict_labels(self, query: Query, *, samples=None, progress=False):
        return [np.eye(1, size).repeat(query.n_cells, axis=0) + 0.01 for size in self.label_tree.sizes]


@pytest.fixture
def model(cells) -> FakeModel:
    lexicon = Lexicon.from_genes("simulus_albus", cells.var_names, cells.var["symbol"])
    return FakeModel(lexicon, LabelTree.from_frame(cells.obs, LEVELS))


@pytest.fixture
def halves(cells):
    return cells[::2].copy(), cells[1::2].copy()


def test_labels_come_from_a_reference_anndata(model, halves, capsys):
    reference, query = halves
    before = query.copy()
    result = annotate(model, query, reference, LEVELS, method="knn", progress=False)
    figures = json.loads(json.dumps(result.figures()))
    assert list(figures["levels"]) == list(LEVELS)
    assert set(figures["levels"]["type"]) == {"accuracy", "macro_f1", "coverage"}
    assert figures["levels"]["class"]["accuracy"] > 0.8
    assert figures["levels"]["type"]["coverage"] == 1
    assert {f"lexicell_{level}{end}" for level in LEVELS for end in ("", "_prob", "_runner_up")} <= set(
        result.adata.obs
    )
    settings = result.adata.uns["lexicell"]["annotate"]
    assert settings["method"] == "knn"
    assert settings["reference_cells"] == 60
    assert settings["levels"] == list(LEVELS)
    pd.testing.assert_frame_equal(query.obs, before.obs)
    assert "lexicell" not in query.uns
    print_tables(result.tables())
    assert "Labels called: type" in capsys.readouterr().out


def test_a_store_gives_the_same_labels_as_the_cells_in_it(model, cells, store):
    from_cells = annotate(model, cells, cells, LEVELS, progress=False)
    for reference in (store, store.path):
        from_store = annotate(model, cells, reference, progress=False)
        assert from_store.annotation.levels == LEVELS
        pd.testing.assert_frame_equal(
            from_store.annotation.frame(), from_cells.annotation.frame(), check_exact=False, atol=1e-5
        )


def test_files_in_and_out(model, halves, tmp_path):
    reference, query = halves
    del query.obs["type"]
    reference.write_h5ad(tmp_path / "reference.h5ad")
    query.write_h5ad(tmp_path / "query.h5ad")
    result = annotate(
        model,
        tmp_path / "query.h5ad",
        tmp_path / "reference.h5ad",
        "class,type",
        out=tmp_path / "out" / "annotated.h5ad",
        progress=False,
    )
    assert list(result.figures()["levels"]) == ["class"]
    ends = ["csv", "extended.json", "h5ad", "reliability.svg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"annotated.{end}" for end in ends]
    written = ad.read_h5ad(tmp_path / "out" / "annotated.h5ad")
    table = pd.read_csv(tmp_path / "out" / "annotated.csv", comment="#", index_col="cell_id")
    assert list(written.obs["lexicell_type"]) == list(table["type_name"])
    assert list(table.index) == list(query.obs_names)


def test_a_csv_alone(model, halves, tmp_path):
    reference, query = halves
    result = annotate(model, query, reference, ["type"], out=tmp_path / "labels.csv", progress=False)
    assert [path.name for path in result.written] == ["labels.csv", "labels.extended.json", "labels.reliability.svg"]
    assert result.annotation.levels == ("type",)


def test_the_label_head_needs_no_reference(model, halves):
    result = annotate(model, halves[1], method="head", levels="type", progress=False)
    assert set(result.annotation.labels("type")) == {model.label_tree.names[1][0]}
    assert "reference" not in result.annotation.settings


def test_unlabelled_reference_cells_do_not_vote(model, halves):
    reference, query = halves
    keep = reference.obs["class"] == reference.obs["class"].iloc[0]
    for level in LEVELS:
        reference.obs[level] = reference.obs[level].astype(object).where(keep, None)
    result = annotate(model, query, reference, LEVELS, method="knn", k=3, progress=False)
    assert set(result.annotation.labels("class")) == {reference.obs["class"].iloc[0]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "svm"}, "method: expected 'probe', 'finetune', 'knn', 'head'"),
        ({"reference": None}, "knn needs a reference"),
        ({"reference": None, "method": "probe"}, "probe needs a reference"),
        ({"k": 0}, "k: expected at least 1"),
        ({"k": 5, "method": "probe"}, "for method knn"),
        ({"max_error": 1.5}, "between 0 and 1"),
        ({"max_error": 0.1, "method": "head", "reference": None}, "not known of a label head"),
        ({"method": "head"}, "reference: method head asks the label head of the model and looks at no reference"),
        ({"method": "head", "reference": None, "taxonomy": "tree.csv", "donor": "d"}, "taxonomy, donor: method head"),
        ({"method": "head", "reference": None, "levels": ["subtype"]}, "label head has no 'subtype'"),
        ({"samples": 0}, "samples: expected at least 1 gene sample a cell, got 0"),
        ({"donor": "mouse"}, "no donor column 'mouse'"),
        ({"levels": ["class", "subtype"]}, "no label column 'subtype'"),
        ({"levels": ["type", "class"]}, "name 'class' before 'type'"),
        ({"out": "annotated.txt"}, "end its name in .h5ad or .csv"),
    ],
)
def test_bad_input_is_refused(model, halves, change, message):
    given = {"reference": halves[0], "levels": LEVELS, "method": "knn", "progress": False} | change
    with pytest.raises(InputError, match=message):
        annotate(model, halves[1], **given)


def test_a_reference_of_two_cells_or_of_silent_genes_is_refused(cell_model, halves):
    reference, query = halves
    with pytest.raises(InputError, match="2 cells have a label on the level 'class'; it takes 3"):
        annotate(cell_model, query, reference[:2].copy(), LEVELS, progress=False)
    silent = reference.copy()
    shared = np.arange(reference.n_vars) < 30
    silent.X = csr_matrix(silent.X.toarray() * ~shared)
    with pytest.raises(InputError, match="no gene varies, of 30, between the reference's"):
        annotate(cell_model, query[:, shared].copy(), silent, LEVELS, progress=False)


def test_a_level_that_other_output_is_named_after_is_refused(cell_model, halves):
    reference, query = halves
    reference.obs["unknown"] = reference.obs["class"]
    with pytest.raises(InputError, match="'unknown' cannot be the name"):
        annotate(cell_model, query, reference, ["unknown"], progress=False)


def test_a_backed_query_is_annotated(cell_model, halves, tmp_path):
    reference, query = halves
    query.write_h5ad(tmp_path / "query.h5ad")
    backed = ad.read_h5ad(tmp_path / "query.h5ad", backed="r")
    found = annotate(cell_model, backed, reference, LEVELS, progress=False)
    plain = annotate(cell_model, query, reference, LEVELS, progress=False)
    pd.testing.assert_series_equal(found.adata.obs["lexicell_type"], plain.adata.obs["lexicell_type"])
    assert "lexicell_type" not in backed.obs


@pytest.fixture(scope="module")
def deep_and_shallow():
    """Cells of one species, and others of which a fortieth of the molecules was found."""
    config = SimulationConfig(n_cells=500, phylogeny="(simulus_albus:0.2,simulus_niger:0.2);", convergent_species=())
    cells = simulate(config).cells["simulus_albus"]
    reference, query = cells[::2].copy(), cells[1::2].copy()
    thinned = csr_matrix(query.X, dtype=np.int64)
    thinned.data = np.random.default_rng(0).binomial(thinned.data, 1 / 40)
    thinned.eliminate_zeros()
    query.X = thinned.astype(np.float32)
    return reference, query


def test_a_reference_is_thinned_to_the_depth_of_a_shallow_query(deep_and_shallow, cell_model, monkeypatch, capsys):
    reference, query = deep_and_shallow
    found = annotate(cell_model, query, reference, LEVELS)
    said, settings = capsys.readouterr().err, found.annotation.settings
    assert "the reference is thinned" in " ".join(said.split())
    assert settings["thinned_to_depth"] < settings["reference_depth"] / 20
    right = found.scores["type"]["accuracy"]
    sure = found.annotation.confidence("type").mean()
    expected = found.labelling.report.levels.set_index("level").loc["type", "accuracy"]
    monkeypatch.setattr("lexicell.annotation.depth._ALIKE", 0.0)
    plain = annotate(cell_model, query, reference, LEVELS, progress=False)
    assert "thinned_to_depth" not in plain.annotation.settings
    promised = plain.labelling.report.levels.set_index("level").loc["type", "accuracy"]
    # What held-out cells foretell, and how sure it is, are of cells as shallow as the query's.
    assert abs(right - expected) < 0.1 < promised - plain.scores["type"]["accuracy"]
    assert abs(right - sure) < 0.1 < plain.annotation.confidence("type").mean() - plain.scores["type"]["accuracy"]
    assert right >= plain.scores["type"]["accuracy"] - 0.02


def test_a_model_without_labels_cannot_answer_by_head_or_guess_the_levels(model, halves):
    plain = FakeModel(model.lexicon)
    with pytest.raises(InputError, match="no label head"):
        annotate(plain, halves[1], method="head", progress=False)
    with pytest.raises(InputError, match="which columns hold its labels"):
        annotate(plain, halves[1], halves[0], progress=False)


def test_a_reference_of_another_species_votes_but_shares_no_genes(cell_model, species_cells, stores):
    query = species_cells["simulus_albus"][:20].copy()
    result = annotate(cell_model, query, stores[1], LEVELS, method="knn", progress=False)
    assert result.overlap is None
    assert result.annotation.labels("class").notna().all()
    with pytest.raises(InputError, match="across species use method knn"):
        annotate(cell_model, query, stores[1], LEVELS, progress=False)


def test_a_store_of_another_species_is_refused(model, cells, stores):
    with pytest.raises(InputError, match="the model knows none of its genes"):
        annotate(model, cells, stores[1], LEVELS, progress=False)


@pytest.mark.parametrize("method", ["probe", "knn"])
def test_probabilities_are_calibrated_and_cells_scored_as_unknown(model, halves, method, capsys):
    reference, query = halves
    result = annotate(model, query, reference, LEVELS, method=method, max_error=0.3, progress=False)
    report = result.labelling.report
    assert report.by_donor
    assert report.n_donors == reference.obs["donor"].nunique()
    figures = json.loads(json.dumps(result.figures()))
    held_out = figures["held_out_reference"]
    assert held_out["is"] == ("a promise" if report.n_donors >= 5 else "an estimate")
    assert [rule["is"] for rule in held_out["rules"]] == ["an estimate"] * len(held_out["rules"])
    assert set(held_out["levels"]) == set(LEVELS)
    assert held_out["rules"][0]["level"] == "class"
    called = result.annotation.calls
    assert (np.diff(called.probs, axis=1) <= 1e-6).all()
    for place, rule in enumerate(report.rules.rules):
        given = called.codes[:, place] >= 0
        assert (called.probs[given, place] >= rule.threshold).all()
    assert result.adata.obs["lexicell_unknown"].between(0, 1).all()
    print_tables(result.tables())
    assert "On held-out cells of the reference" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["probe", "knn"])
def test_nothing_is_known_of_empty_cells_and_nothing_promised_of_shallow_ones(cell_model, halves, method):
    reference, query = halves
    depth = np.asarray(reference.X.sum(axis=1)).ravel()
    dense = query.X.toarray()
    dense[:5] = 0
    dense[5:10] = np.minimum(dense[5:10], 1) * (np.arange(query.n_vars) < 80)
    query.X = csr_matrix(dense)
    shallow = np.asarray(query.X.sum(axis=1)).ravel() < depth.min()
    assert 6 <= shallow.sum() <= 12
    plain = annotate(cell_model, query, reference, LEVELS, method=method, progress=False)
    nothing = plain.annotation.calls
    assert (nothing.codes[:5] == -1).all()
    assert (nothing.probs[:5] == 0).all()
    assert (nothing.codes[5:] >= 0).all()
    assert plain.annotation.unknown[:5].min() > np.median(plain.annotation.unknown[10:])
    bounded = annotate(cell_model, query, reference, LEVELS, method=method, max_error=0.9, progress=False)
    assert bounded.labelling.fewest_counts == depth.min()
    assert (bounded.annotation.calls.codes[shallow] == -1).all()
    assert (bounded.annotation.calls.codes[~shallow, 0] >= 0).mean() > 0.8


def test_the_shares_of_the_probes_opinions_are_kept(model, halves):
    reference, query = halves
    settings = annotate(model, query, reference, LEVELS, progress=False).annotation.settings
    shares = [settings[f"share_of_{expert}"] for expert in ("genes", "likelihood", "profiles", "model")]
    assert sum(shares) == pytest.approx(1)
    assert shares[3] in LAST_SHARES


def test_a_tree_from_a_taxonomy_table(model, halves, tmp_path):
    reference, query = halves
    pairs = reference.obs[list(LEVELS)].drop_duplicates()
    rows = [(name, "", "class") for name in pairs["class"].unique()]
    rows += [(row["type"], row["class"], "type") for _, row in pairs.iterrows()]
    pd.DataFrame(rows, columns=["child", "parent", "level"]).to_csv(tmp_path / "tree.csv", index=False)
    whole = annotate(model, query, reference, LEVELS, method="knn", progress=False)
    del reference.obs["class"]
    filled = annotate(model, query, reference, method="knn", taxonomy=tmp_path / "tree.csv", progress=False)
    assert filled.annotation.levels == LEVELS
    np.testing.assert_array_equal(filled.annotation.calls.codes, whole.annotation.calls.codes)
    reference.obs["type"] = reference.obs["type"].astype(str) + "?"
    with pytest.raises(InputError, match="labels that the taxonomy lacks"):
        annotate(model, query, reference, method="knn", taxonomy=tmp_path / "tree.csv", progress=False)


def test_a_small_panel_is_reported_and_a_useless_one_refused(model, halves, capsys):
    reference, query = halves
    result = annotate(model, query[:, :200].copy(), reference, LEVELS, progress=False)
    assert result.overlap.figures() == {"shared_genes": 200, "reference_genes": 400, "query_genes": 200}
    assert list(result.loss.levels["level"]) == list(LEVELS)
    print_tables(result.tables())
    assert "What the shared genes can tell" in capsys.readouterr().out
    with pytest.raises(InputError, match="With fewer than 20 nothing can be promised"):
        annotate(model, query, reference[:, :10].copy(), LEVELS, reference_species="simulus_albus", progress=False)
    blank = reference.copy()
    rng = np.random.default_rng(0)
    dense = blank.X.toarray()
    dense[:, :60] = rng.poisson(1, size=(blank.n_obs, 60))
    blank.X = dense
    with pytest.raises(InputError, match="no better than by guessing"):
        annotate(model, query[:, :60].copy(), blank, LEVELS, progress=False)


def test_parts_give_what_the_whole_gives(model, halves, tmp_path, monkeypatch):
    reference, query = halves
    whole = annotate(model, query, reference, LEVELS, progress=False)
    monkeypatch.setattr("lexicell.workflows.labelling.CELLS_AT_ONCE", 7)
    query.write_h5ad(tmp_path / "query.h5ad")
    reference.write_h5ad(tmp_path / "reference.h5ad")
    parts = annotate(model, tmp_path / "query.h5ad", tmp_path / "reference.h5ad", LEVELS, progress=False)
    pd.testing.assert_frame_equal(parts.annotation.frame(), whole.annotation.frame(), check_exact=False, atol=1e-4)
    assert parts.genes == whole.genes


@pytest.mark.parametrize(
    ("overrides", "method", "said"),
    [
        ({"finetune.rate": 1}, "finetune", "rate"),
        ({"finetun.lr": 1}, "finetune", "finetun"),
        ({"lr": 1}, "finetune", "lr"),
        ({"finetune.dropout": 2}, "finetune", "dropout must lie between 0 and 1"),
        ({"finetune.lr": 1e-4}, "probe", "finetune.lr: for method finetune alone"),
    ],
)
def test_overrides_that_cannot_be_are_refused(model, halves, overrides, method, said):
    with pytest.raises(InputError, match=said):
        annotate(model, halves[1], halves[0], LEVELS, method=method, overrides=overrides, progress=False)


def test_a_fine_tuned_model_labels_too(cell_model, halves, model):
    reference, query = halves
    result = annotate(cell_model, query, reference, LEVELS, method="finetune", progress=False)
    assert result.annotation.settings["finetune_steps"] >= 0
    assert result.scores["class"]["accuracy"] > 0.8
    assert not result.labelling.report.promise
    brief = annotate(
        cell_model, query, reference, LEVELS, method="finetune", progress=False, overrides={"finetune.max_steps": 3}
    )
    assert brief.annotation.settings["finetune_steps"] <= 3
    assert brief.annotation.settings["finetune.max_steps"] == 3
    with pytest.raises(InputError, match="cannot train a FakeModel"):
        annotate(model, query, reference, LEVELS, method="finetune", progress=False)
