import json

import numpy as np
import pytest

from lexicell.cli import main
from lexicell.errors import InputError
from lexicell.workflows.benchmark_annotate import benchmark_annotate
from lexicell.workflows.benchmark_options import Entrants
from lexicell.workflows.fold_models import FoldModels


def test_lexicell_stands_beside_other_tools_and_embeddings(stores, run, tmp_path):
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
            run=[run],
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
    assert set(result.scores.loc[result.scores["competitor"] == "centroid_mapping", "seed"]) == {0, 1}
    figures = result.figures()
    assert figures["tasks"][store.name]["type"]["oracle, knn"]["accuracy"] == 1
    assert (tmp_path / "out" / "macro_f1.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "out" / "macro_f1.svg").read_text()


def test_models_of_folds_never_see_the_test_cells(stores, small, tmp_path, monkeypatch):
    (tmp_path / "recipe.yaml").write_text(json.dumps(_tree(small)))
    seen = []
    whole = FoldModels.model

    def spy(self, fold, train, seed):
        seen.append((fold, len(train), seed))
        return whole(self, fold, train, seed)

    monkeypatch.setattr(FoldModels, "model", spy)
    result = benchmark_annotate(
        stores[0],
        tmp_path / "out",
        split="folds:2",
        levels=["type"],
        entrants=Entrants(
            pretrain=str(tmp_path / "recipe.yaml"), methods=("knn",), competitors=("logistic_regression",)
        ),
        seeds=1,
        progress=False,
    )
    assert set(seen) == {("fold 1", 60, 0), ("fold 2", 60, 0)}
    assert "pretrained on the fold, knn" in set(result.scores["competitor"])
    again = benchmark_annotate(
        stores[0],
        tmp_path / "out",
        split="folds:2",
        levels=["type"],
        entrants=Entrants(
            pretrain=str(tmp_path / "recipe.yaml"), methods=("knn",), competitors=("logistic_regression",)
        ),
        seeds=1,
        progress=False,
    )
    assert again.scores.equals(result.scores)


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
            *("--json", str(tmp_path / "figures.json")),
        ]
    )
    assert code == 0
    tasks = json.loads((tmp_path / "figures.json").read_text())["tasks"]
    assert set(tasks) == {f"{stores[0].name}, {n} a label" for n in (3, 10)}
    who = {"logistic_regression", "pca_knn", "no model, probe"}
    assert all(set(levels["type"]) == who for levels in tasks.values())
    assert "3 a label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"entrants": Entrants(methods=("magic",))}, "methods: no 'magic'"),
        ({"entrants": Entrants(competitors=("magic",))}, "competitors: no 'magic'"),
        ({"seeds": 0}, "seeds: expected at least 1"),
        ({"labelled": [0]}, "labelled: expected numbers of cells from 1 on"),
        ({"entrants": Entrants(embedding=["nowhere.h5ad:X_a"])}, "expected FILE.h5ad:KEY"),
    ],
)
def test_options_that_cannot_be_are_refused(stores, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        benchmark_annotate(stores[0], tmp_path / "out", split="folds:2", progress=False, **options)


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
