"""Who takes part in the annotation benchmark; apart, so that the command line can explain it without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entrants:
    """Who takes part.

    Attributes
    ----------
    run
        Run folder of a pretrained model; give it once for every model.
    untrained
        A recipe: a model of its make with drawn weights competes too, as the control of pretraining.
    pretrain
        A recipe: for each fold and seed a model is pretrained on all cells of the fold's training side, without labels,
        also where but some count as labelled.
    methods
        lexicell's methods: knn, linear (on the embedding alone), probe, counts (the probe without any model, which
        shows what the models add), finetune.
    competitors
        Other tools: logistic_regression, pca_knn, linear_svm, centroid_mapping (as MapMyCells does), celltypist and
        scanvi. Default: all but the last two, which need pip install 'lexicell[benchmark]'.
    embedding
        An embedding made elsewhere, as FILE.h5ad:KEY, obsm of the store's cells; give it once for every one.
    """

    run: list[Path] = field(default_factory=list)
    untrained: str | None = None
    pretrain: str | None = None
    methods: tuple[str, ...] = ("knn", "probe", "counts")
    competitors: tuple[str, ...] | None = None
    embedding: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """Which part of the tasks is asked for, where methods take long; all by default.

    Attributes
    ----------
    finest
        The last of the levels alone; the others still make the tree that is gone down.
    folds
        So many folds alone, the first ones of the split.
    """

    finest: bool = False
    folds: int | None = None
