import json
import re
import shutil

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from lexicell.annotation.depth import depths_of
from lexicell.cli import main
from lexicell.data.query import Query
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.evaluation.runner import Answer, Competitor, run_benchmark
from lexicell.inference.cell_model import CellModel
from lexicell.workflows.benchmark_annotate import benchmark_annotate
from lexicell.workflows.benchmark_embeddings import (
    as_deep,
    embed_sides,
    embed_store,
    model_identity,
    read_embedding,
)
from lexicell.workflows.benchmark_options import Entrants, Part
from lexicell.workflows.benchmark_tasks import shared_genes, store_tasks
from lexicell.workflows.fold_models import untrained_model
from lexicell.workflows.held_out import split_of
from lexicell.workflows.prepare import prepare
from lexicell.workflows.pretrain import pretrain
from lexicell.workflows.seen_labels import learned_cells


def test_lexicell_stands_beside_other_tools_and_embeddings(stores, label_free, tmp_path):
    store = stores[0]
    adata = store.to_anndata()
    truth = adata.obs["type"].cat.codes.to_numpy()
    adata.obsm["X_oracle"] = np.eye(truth.max() + 1, dtype=np.float32)[truth]
    adata[::-1].copy().write_h5ad(tmp_path / "elsewhere.h5ad")  # in another order: cells are matched by name
    result = benchmark_annotate(
        store,
        tmp_path / "out",
        split="donor:2",
        entrants=Entrants(
            run=[label_free],
            methods=("knn", "linear", "probe"),
            competitors=("logistic_regression", "centroid_mapping"),
            embedding=[f"{tmp_path / 'elsewhere.h5ad'}:X_oracle"],
        ),
        seeds=2,
        progress=False,
    )
    table = result.summary().set_index(["level", "competitor"])
    assert table.loc[("type", "oracle, knn"), "macro_f1"] == 1
    assert table.loc[("type", "logistic_regression"), "accuracy"] > 0.5
    own = {name for _, name in table.index if name.startswith("run, ")}
    assert own == {"run, knn", "run, linear", "run, probe"}
    assert table["calibration_error"].between(0, 1).all()
    assert (table[["fit_seconds", "predict_seconds"]] > 0).all().all()
    np.testing.assert_allclose(table["seconds"], table["fit_seconds"] + table["predict_seconds"])
    assert set(result.scores.loc[result.scores["competitor"] == "centroid_mapping", "seed"]) == {0, 1}
    figures = result.figures()
    assert figures["tasks"][store.name]["type"]["oracle, knn"]["accuracy"] == 1
    assert (tmp_path / "out" / "macro_f1.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "out" / "macro_f1.svg").read_text()


@pytest.fixture
def pretraining(small, tmp_path, monkeypatch):
    """Entrants that are pretrained on each fold, and the names of the stores that were read for it."""
    (tmp_path / "recipe.yaml").write_text(json.dumps(_tree(small)))
    read = []

    def spy(recipe, store, run, **options):
        read.append((store.name, run.name))
        return pretrain(recipe, store, run, **options)

    monkeypatch.setattr("lexicell.workflows.fold_models.pretrain", spy)
    who = Entrants(pretrain=str(tmp_path / "recipe.yaml"), methods=("knn",), competitors=("logistic_regression",))
    return who, read


def test_models_of_folds_never_see_the_test_cells(stores, pretraining, tmp_path):
    who, read = pretraining

    def compare(split):
        return benchmark_annotate(
            stores[0], tmp_path / "out", split=split, levels=["type"], entrants=who, seeds=1, progress=False
        )

    def check(split):
        (task,) = store_tasks(stores[0], split=split, levels=["type"])
        for fold, (cells, _) in zip(task.folds, read, strict=True):
            names = Store.open(tmp_path / "out" / "runs" / cells).obs.index
            assert set(names) == set(stores[0].obs.index[fold.train])

    result = compare("folds:2")
    check("folds:2")
    assert "pretrained on the fold, knn" in set(result.scores["competitor"])
    assert compare("folds:2").scores.equals(result.scores)
    assert len(read) == 2
    read.clear()
    compare("folds:3")  # its folds bear the same names in the same folder, but are of other cells
    check("folds:3")


def test_genes_without_an_id_are_pretrained_on_too(stores, pretraining, tmp_path):
    who, read = pretraining
    adata = stores[0].to_anndata()
    # As `unmatched: keep` leaves them: a tenth are names.
    adata.var_names = [f"ENSMUSG{i:011d}" if i % 10 else f"Fam{i}a" for i in range(adata.n_vars)]
    dataset = {"adata": adata, "species": "mouse", "gene_ids": "index", "labels": ["type"]}
    mixed = prepare({"datasets": [dataset]}, tmp_path / "mixed").store
    benchmark_annotate(mixed, tmp_path / "out", split="folds:2", entrants=who, seeds=1, progress=False)
    assert {Store.open(tmp_path / "out" / "runs" / cells).n_genes for cells, _ in read} == {adata.n_vars}


def test_a_learning_curve_is_pretrained_once_on_all_of_a_folds_cells_without_labels(stores, pretraining, tmp_path):
    who, read = pretraining
    options = {"split": "folds:2", "labelled": [2, 5], "seeds": 1, "progress": False}
    benchmark_annotate(stores[0], tmp_path / "out", entrants=who, **options)  # two levels, two numbers of labels
    assert len(read) == 2
    for cells, _ in read:
        store = Store.open(tmp_path / "out" / "runs" / cells)
        assert store.n_cells == 60
        assert not store.label_levels


def test_another_recipe_makes_other_models(stores, pretraining, small, tmp_path):
    who, read = pretraining
    options = {"split": "folds:2", "levels": ["type"], "entrants": who, "seeds": 1, "progress": False}
    benchmark_annotate(stores[0], tmp_path / "out", **options)
    (tmp_path / "recipe.yaml").write_text(json.dumps(_tree(small | {"trainer.max_steps": 3, "optim.warmup_steps": 1})))
    benchmark_annotate(stores[0], tmp_path / "out", **options)
    assert len(set(read)) == 4
    assert len({cells for cells, _ in read}) == 2


def test_a_run_that_was_trained_anew_is_embedded_and_asked_anew(stores, label_free, tmp_path, capsys):
    folder = tmp_path / "run"
    model = CellModel.load(label_free)
    model.save(folder)
    who = Entrants(run=[folder], methods=("knn",), competitors=("pca_knn",))
    options = {"split": "folds:2", "levels": ["type"], "entrants": who, "seeds": 1}

    def asked():
        benchmark_annotate(stores[0], tmp_path / "out", **options)
        return re.findall(r": (.+), seed", capsys.readouterr().out)

    assert asked() == ["pca_knn", "run, knn"] * 2
    assert asked() == []
    changed = model.network.state_dict()
    name = next(name for name, value in changed.items() if value.is_floating_point())
    changed[name].mul_(1.01)  # in place: the network's own
    model.save(folder)
    assert asked() == ["run, knn"] * 2
    assert len(list((tmp_path / "out" / "embeddings").glob("*.npz"))) == 2


def test_the_finest_level_or_one_fold_alone_is_asked_as_among_others(stores, tmp_path, capsys):
    options = {"split": "folds:2", "entrants": Entrants(methods=("counts",), competitors=("centroid_mapping",))}
    both = benchmark_annotate(stores[0], tmp_path / "out", seeds=1, **options).summary().set_index("level")
    capsys.readouterr()
    fine = (
        benchmark_annotate(stores[0], tmp_path / "out", seeds=1, only=Part(finest=True), **options)
        .summary()
        .set_index("level")
    )
    assert ", seed" not in capsys.readouterr().out  # every answer is the one of both levels
    assert len(both.index.unique()) == 2
    assert fine.equals(both.loc[fine.index.unique()])
    one = benchmark_annotate(stores[0], tmp_path / "out", seeds=1, only=Part(folds=1), **options)
    assert ", seed" not in capsys.readouterr().out
    assert not one.summary().set_index("level").equals(both)


def test_untrained_models_are_told_apart_by_their_recipe(stores, small, tmp_path):
    made = []
    for width in (16, 16, 32):
        (tmp_path / "recipe.yaml").write_text(json.dumps(_tree(small | {"model.encoder.width": width})))
        made.append(model_identity(untrained_model(str(tmp_path / "recipe.yaml"), stores[0])))
    assert made[0] == made[1] != made[2]


def _tree(dotted):
    tree = {}
    for key, value in dotted.items():
        branch = tree
        *parents, last = key.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = value
    return tree


def test_learning_curves_from_the_command_line(stores, tmp_path, capsys):
    code = main(
        [
            *("benchmark", "annotate", str(stores[0].path), "--out", str(tmp_path / "out"), "--split", "folds:2"),
            *("--competitors", "logistic_regression,pca_knn", "--labelled", "3,10", "--seeds", "1"),
            *("--json", str(tmp_path / "figures.json"), "--baseline", "best"),
        ]
    )
    assert code == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["baselines"] == ["logistic_regression", "pca_knn"]
    tasks = figures["tasks"]
    for levels in tasks.values():
        for own in levels.values():
            best = max(figures["baselines"], key=lambda name: own[name]["macro_f1"])
            assert own["no model, probe"]["macro_f1_difference"]["baseline"] == best
    assert set(tasks) == {f"{stores[0].name}, {n} a label" for n in (3, 10)}
    who = {"logistic_regression", "pca_knn", "no model, probe"}
    assert all(set(levels["type"]) == who for levels in tasks.values())
    assert "3 a label" in capsys.readouterr().out


def test_a_run_is_not_asked_for_labels_that_it_learned(stores, run, tmp_path):
    store, split = stores[0], split_of(run)
    who = Entrants(run=[run], methods=("knn",), competitors=("pca_knn",))
    options = {"entrants": who, "levels": ["type"], "seeds": 1, "progress": False}
    with pytest.raises(InputError, match="learned the labels of") as refused:
        benchmark_annotate(store, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    ways = re.search(r"split (donor=\S+)\)", str(refused.value))[1]
    result = benchmark_annotate(store, tmp_path / "out", split=ways, **options)
    assert set(result.scores["competitor"]) == {"run, knn", "pca_knn"}
    tested = set(store.obs.index[store.obs["donor"] == ways.removeprefix("donor=")])
    assert not tested & set(split.collection.stores[0].obs.index[split.training_cells[split.training_cells < 120]])


def test_where_a_store_of_the_run_is_gone_all_its_labels_count_as_learned(stores, run, tmp_path):
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    facts = json.loads((copied / "run.json").read_text())
    facts["stores"][1]["path"] = str(tmp_path / "gone")
    (copied / "run.json").write_text(json.dumps(facts))
    assert len(learned_cells(run, stores[0])) < stores[0].n_cells
    assert len(learned_cells(copied, stores[0])) == stores[0].n_cells


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"entrants": Entrants(methods=("magic",))}, "methods: no 'magic'"),
        ({"entrants": Entrants(competitors=("magic",))}, "competitors: no 'magic'"),
        ({"baseline": "magic"}, "baseline: no 'magic' among the competitors; there are 'logistic_regression'"),
        ({"seeds": 0}, "seeds: expected at least 1"),
        ({"labelled": [0]}, "labelled: expected numbers of cells from 1 on"),
        ({"only": Part(folds=0)}, "folds: expected at least 1"),
        ({"entrants": Entrants(embedding=["nowhere.h5ad:X_a"])}, "expected FILE.h5ad:KEY"),
    ],
)
def test_options_that_cannot_be_are_refused(stores, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        benchmark_annotate(stores[0], tmp_path / "out", split="folds:2", progress=False, **options)


def test_an_embedding_of_exported_cells_is_read_where_files_share_cell_names(cells, tmp_path):
    halves = [cells[:60].copy(), cells[60:].copy()]
    halves[1].obs_names = halves[0].obs_names
    named = zip(halves, ("first", "second"), strict=True)
    datasets = [{"adata": a, "species": "simulus_albus", "labels": ["type"], "name": name} for a, name in named]
    store = prepare({"datasets": datasets}, tmp_path / "store").store
    exported = store.to_anndata()
    exported.obsm["X_place"] = np.arange(120, dtype=np.float32)[:, None]
    exported[::-1].copy().write_h5ad(tmp_path / "elsewhere.h5ad")
    name, values = read_embedding(f"{tmp_path / 'elsewhere.h5ad'}:X_place", store)
    assert name == "place"
    np.testing.assert_array_equal(values[:, 0], np.arange(120))


def test_across_depths_training_cells_are_embedded_as_shallow_as_the_test_cells(cells, tmp_path):
    shallow = cells[60:].copy()
    counts = csr_matrix(shallow.X, dtype=np.int64)
    counts.data = np.random.default_rng(0).binomial(counts.data, 0.05)
    shallow.X = counts.astype(np.float32)
    named = zip((cells[:60].copy(), shallow[:, 50:].copy()), ("deep", "shallow"), strict=True)
    datasets = [{"adata": a, "species": "simulus_albus", "labels": ["type"], "name": name} for a, name in named]
    store = prepare({"datasets": datasets}, tmp_path / "store").store
    (task,) = store_tasks(store, split="source=shallow")
    met = []

    def look(problem):
        shown = as_deep(problem)
        met.append((problem, shown))
        return Answer(np.full(len(problem.test), None, dtype=object))

    run_benchmark([task], {"look": Competitor.without_seed(look)})
    ((problem, shown),) = met
    parts = problem.train_counts, shown.train_counts, problem.test_counts
    depths = [float(np.median(depths_of(part))) for part in parts]
    assert depths[0] > 10 * depths[2]
    assert depths[1] == pytest.approx(depths[2], rel=0.1)
    assert as_deep(shown) is shown
    model = untrained_model("tiny", store)
    sides = embed_sides(model, store, tmp_path / "kept.npz", problem)
    whole = embed_store(model, store, tmp_path / "kept.npz")
    np.testing.assert_array_equal(sides.test, whole[60:])
    assert sides.train.shape == (180, model.cell_width)  # three draws of each
    assert np.abs(sides.train[:60] - whole[:60]).mean() > 0.05
    assert np.abs(sides.train[:60] - sides.train[60:120]).mean() > 0.01
    index = model.lexicon.map_from(store.lexicon)[shared_genes(store)]
    thinned = Query.of_counts(shown.train_counts, index, "simulus_albus")
    np.testing.assert_array_equal(sides.train, model.embed(thinned))


def test_each_seed_of_a_learning_curve_draws_other_cells(stores, tmp_path):
    found = {}
    for seeds in (1, 2):
        result = benchmark_annotate(
            stores[0],
            tmp_path / "out",
            split="folds:2",
            levels=["type"],
            entrants=Entrants(methods=("counts",), competitors=("logistic_regression",)),
            labelled=[3],
            seeds=seeds,
            progress=False,
        )
        found[seeds] = result.scores.set_index(["competitor", "seed"])["macro_f1"]
    assert set(found[2].index) == {(name, n) for name in ("logistic_regression", "no model, probe") for n in (0, 1)}
    np.testing.assert_array_equal(found[1], found[2][found[1].index])
    kept = {path.stem.rpartition("-")[2] for path in (tmp_path / "out" / "answers").glob("*logistic_regression*")}
    assert len(kept) == 4  # two folds, two draws: an answer's name holds the identity of the cells it learned from


def test_an_embedding_of_other_cells_is_refused(stores, tmp_path):
    adata = stores[0].to_anndata()[:50].copy()
    adata.obsm["X_a"] = np.zeros((50, 2), dtype=np.float32)
    adata.write_h5ad(tmp_path / "part.h5ad")

    def given(key):
        return Entrants(embedding=[f"{tmp_path / 'part.h5ad'}:{key}"])

    with pytest.raises(InputError, match="lacks 70 of the 120 cells"):
        benchmark_annotate(stores[0], tmp_path / "out", split="folds:2", entrants=given("X_a"), progress=False)
    with pytest.raises(InputError, match=r"has no obsm\['X_b'\]; there are 'X_a'"):
        benchmark_annotate(stores[0], tmp_path / "out", split="folds:2", entrants=given("X_b"), progress=False)
