"""Verbs that put lexicell beside other methods, on a user's own cells."""

from __future__ import annotations

from pathlib import Path

from lexicell.cli.verbs.result import Result


def benchmark_annotate(
    store: Path,
    *,
    out: Path,
    split: str = "donor",
    levels: tuple[str, ...] | None = None,
    run: list[Path] | None = None,
    untrained: str | None = None,
    pretrain: str | None = None,
    methods: tuple[str, ...] = ("knn", "probe"),
    competitors: tuple[str, ...] | None = None,
    embedding: list[str] | None = None,
    labelled: tuple[int, ...] = (),
    min_cells: int = 1,
    seeds: int = 3,
) -> Result:
    """Annotate the same held-out cells with lexicell, other tools and other embeddings; print who does best.

    Every answer is kept in the folder: an interrupted benchmark goes on, and a further competitor joins the others.

    Parameters
    ----------
    store
        Folder of a store with labels.
    out
        Folder for answers, tables (scores.csv, intervals.csv) and pictures.
    split
        donor holds each donor out in turn; donor:K deals donors over K folds; folds:K deals cells, stratified by the
        finest level; donor=NAME and source=NAME test on one donor or input file.
    levels
        Label levels, coarse to fine, with commas between. Default: all of the store's.
    run
        Run folder of a pretrained model; give it once for every model.
    untrained
        A recipe: a model of its make with drawn weights competes too, as the control of pretraining.
    pretrain
        A recipe: for each fold and seed a model is pretrained on the fold's training cells, without their labels.
    methods
        lexicell's methods: knn, linear (on the embedding alone), probe, finetune.
    competitors
        Other tools: logistic_regression, pca_knn, linear_svm, centroid_mapping (as MapMyCells does), celltypist and
        scanvi. Default: all but the last two, which need pip install 'lexicell[benchmark]'.
    embedding
        An embedding made elsewhere, as FILE.h5ad:KEY, obsm of the store's cells; give it once for every one.
    labelled
        Numbers of labelled training cells a label, with commas between: draws learning curves.
    min_cells
        Labels with fewer cells are left out.
    seeds
        Number of seeds, for competitors that draw anything.
    """
    from lexicell.workflows.benchmark_annotate import benchmark_annotate

    return benchmark_annotate(
        store,
        out,
        split=split,
        levels=levels,
        runs=run or [],
        untrained=untrained,
        pretrain=pretrain,
        methods=methods,
        competitors=competitors,
        embeddings=embedding or [],
        labelled=labelled,
        min_cells=min_cells,
        seeds=seeds,
    )
