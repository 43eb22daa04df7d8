"""What an extension did, measured in the same way before training and after each phase.

- the new cells: count skill, annotation by the old reference and the old label head, how well they mix with old cells;
- the genes: retrieval of orthologs from a table that the model never saw;
- the old cells: count skill and annotation of those held out, so that what was forgotten shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from lexicell.annotation.knn import transfer_labels
from lexicell.annotation.scores import accuracy, macro_f1
from lexicell.annotation.tree import Calls, call_labels, consistent
from lexicell.errors import InputError, listing
from lexicell.gene_space.retrieval import ortholog_retrieval
from lexicell.genes.orthologs import read_orthologs
from lexicell.inference.cell_model import CellModel, CellOutput
from lexicell.labels import LabelTree, clean_labels
from lexicell.model.network import CellNetwork
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator
from lexicell.training.extension import Growth, LineCells
from lexicell.training.extension_recipe import MeasureConfig
from lexicell.training.extension_skill import SkillTask
from lexicell.workflows.held_out import read_cells

HEAD, KNN = "label_head", "knn"
NEAREST = 30  # neighbours that say how well species mix
_FALSE_ALARMS = 0.05

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OrthologPairs:
    """One-to-one orthologs between an old and a new species, as lexicon indices."""

    old_species: str
    new_species: str
    indices: Int64  # (n_pairs, 2)


def find_pairs(table: Path, growth: Growth, new_species: Sequence[str]) -> list[OrthologPairs]:
    """Return the orthologs between each new species and each old one; refuse a table that has none."""
    lexicon, found = growth.lexicon, []
    old_table = lexicon.table.iloc[: growth.n_genes]
    for new in new_species:
        for old in pd.unique(old_table["species"]):
            if old == new:
                continue
            try:
                orthologs = read_orthologs(table, old, new)
            except InputError as error:
                if "no genes of" in str(error):
                    continue
                raise
            rows = [lexicon.rows_of(species) for species in (old, new)]
            places = orthologs.match(*(lexicon.table.iloc[r].reset_index(drop=True) for r in rows))
            if len(places) > 1:
                pairs = np.stack([rows[0][places[:, 0]], rows[1][places[:, 1]]], axis=1)
                found.append(OrthologPairs(old, new, pairs))
    if not found:
        raise InputError(
            f"{table}: no orthologs between {listing(pd.unique(old_table['species']))} and {listing(new_species)} "
            "whose names are those of the model's genes; check the species' names and the kind of ids"
        )
    return found


@dataclass(frozen=True, eq=False)
class Yardstick:
    """Cells, labels and orthologs that a model is measured by; the same for each phase.

    Attributes
    ----------
    data
        All cells that are there, under the grown lexicon; its label tree is that of the old labels, if there is one.
    growth
        Sizes of the old model.
    config
        How much is looked at.
    edges
        (n_classes,) smallest count of each class of the model.
    truth_levels
        Label levels whose truth the new cells carry; empty when it is not known.
    orthologs
        Pairs to look for.
    """

    data: LineCells
    growth: Growth
    config: MeasureConfig
    edges: Int64
    truth_levels: tuple[str, ...] = ()
    orthologs: Sequence[OrthologPairs] = ()
    _embedded: dict[str, tuple[CellOutput, CellOutput]] = field(default_factory=dict)

    @property
    def tree(self) -> LabelTree | None:
        """The old labels."""
        return self.data.label_tree

    def _draw(self, cells: Int64, most: int, what: str) -> Int64:
        drawn = generator(self.data.seed, what).permutation(len(cells))[:most]
        return np.sort(cells[drawn])

    @cached_property
    def new(self) -> Int64:
        """New cells to embed and annotate: their labels are never trained on unless asked, so any will do."""
        learned = () if (self.data.collection.labels[self.data.new_training] >= 0).any() else self.data.new_training
        return self._draw(
            np.concatenate([learned, self.data.new_validation]).astype(np.int64), self.config.cells, "new"
        )

    @cached_property
    def reference(self) -> Int64:
        """Old training cells, labelled ones where there are labels."""
        return self._draw(self._labelled(self.data.old_training), self.config.reference, "reference")

    @cached_property
    def old(self) -> Int64:
        """Old cells that were held out in all phases."""
        return self._draw(self._labelled(self.data.old_validation), self.config.cells, "old")

    def _labelled(self, cells: Int64) -> Int64:
        if self.tree is None:
            return cells
        known: Int64 = cells[self.data.collection.labels[cells, 0] >= 0]
        return known if len(known) else cells

    @cached_property
    def truth(self) -> pd.DataFrame:
        """What the new cells are, one column a level of `truth_levels`; NaN where unknown."""
        columns = {}
        for level in self.truth_levels:
            column = self.data.collection.coded(level)
            columns[level] = clean_labels(pd.Series(column.texts()[self.new], dtype=object))
        return pd.DataFrame(columns, index=pd.RangeIndex(len(self.new)))

    @cached_property
    def new_skill(self) -> SkillTask:
        """Counts of the new stores' held-out cells."""
        return self._task(self.data.new_training, self.data.new_validation, "new skill")

    @cached_property
    def old_skill(self) -> SkillTask:
        """Counts of the old stores' held-out cells."""
        return self._task(self.data.old_training, self.data.old_validation, "old skill")

    def _task(self, learned: Int64, asked: Int64, what: str) -> SkillTask:
        return SkillTask.of(self.data, learned, self._draw(asked, self.config.cells, what), self.edges)

    def measure(self, model: CellModel, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return a model's figures.

        Parameters
        ----------
        model
            The grown model, at some step.
        before
            Figures of the step before: where every weight that old cells use is the same, so are their figures.
        """
        marks = fingerprints(model.network, self.growth)
        figures: dict[str, Any] = {"marks": marks, "new_species": {"skill": self.new_skill.measure(model.network)}}
        new = self._run(model, self.new)
        if len(self.data.old_training):
            reference, old = self._old_outputs(model, marks["old"])
            figures["alignment"] = {"mixing": mixing(reference.embedding, new.embedding)}
            figures["new_species"] |= {"methods": self._annotate_new(model, reference, new)}
            if before is not None and before["marks"]["old"] == marks["old"]:
                figures["old_species"] = before["old_species"]
            else:
                skill = self.old_skill.measure(model.network)
                figures["old_species"] = {"skill": skill, "methods": self._annotate_old(model, reference, old)}
        elif model.label_tree is not None and self.truth_levels:
            figures["new_species"] |= {"methods": self._annotate_new(model, None, new)}
        if self.orthologs:
            figures["orthologs"] = self._retrieve(model.network)
        return figures

    def _run(self, model: CellModel, cells: Int64) -> CellOutput:
        parts = [model.run(part) for part in read_cells(self.data.collection, cells, None).parts]
        levels = range(len(parts[0].probabilities))
        return CellOutput(
            np.concatenate([part.embedding for part in parts]),
            [np.concatenate([part.probabilities[level] for part in parts]) for level in levels],
        )

    def _old_outputs(self, model: CellModel, mark: str) -> tuple[CellOutput, CellOutput]:
        if mark not in self._embedded:
            self._embedded.clear()
            self._embedded[mark] = self._run(model, self.reference), self._run(model, self.old)
        return self._embedded[mark]

    def _calls(self, model: CellModel, reference: CellOutput | None, asked: CellOutput) -> dict[str, Calls]:
        """Call labels by the head, where there is one, and by the reference's votes, where it is labelled."""
        tree, calls = self.tree, {}
        if model.label_tree is not None:
            calls[HEAD] = call_labels(model.label_tree, consistent(model.label_tree, asked.probabilities))
        if tree is not None and reference is not None:
            codes = self.data.collection.labels[self.reference].astype(np.int64)
            if (codes[:, 0] >= 0).any():
                calls[KNN] = transfer_labels(reference.embedding, codes, asked.embedding, tree)
        return calls

    def _annotate_old(self, model: CellModel, reference: CellOutput, old: CellOutput) -> dict[str, Any]:
        if self.tree is None:
            return {}
        truth = self.tree.decode(self.data.collection.labels[self.old].astype(np.int64))
        return {
            method: {
                level: {
                    "accuracy": accuracy(truth[level], called[level]),
                    "macro_f1": macro_f1(truth[level], called[level]),
                }
                for level in self.tree.levels
                if truth[level].notna().any()
            }
            for method, calls in self._calls(model, reference, old).items()
            for called in (self.tree.decode(calls.codes),)
        }

    def _annotate_new(self, model: CellModel, reference: CellOutput | None, new: CellOutput) -> dict[str, Any]:
        if self.tree is None or not self.truth_levels:
            return {}
        far = None if reference is None else _distance(reference.embedding, new.embedding)
        found = {}
        for method, calls in self._calls(model, reference, new).items():
            called = self.tree.decode(calls.codes)
            found[method] = {
                level: score_shared(
                    self.truth[level],
                    called[level],
                    self.tree.names[self.tree.levels.index(level)],
                    {"unsure": 1 - calls.probs[:, self.tree.levels.index(level)]}
                    | ({} if far is None else {"far": far}),
                )
                for level in self.truth_levels
            }
        return found

    def _retrieve(self, network: CellNetwork) -> dict[str, Any]:
        weight = network.genes.weight.detach().float().cpu().numpy()
        scores = [(p, ortholog_retrieval(weight[p.indices[:, 0]], weight[p.indices[:, 1]])) for p in self.orthologs]
        n_pairs = [score.pairs for _, score in scores]
        return {
            "auc": float(np.average([score.auc for _, score in scores], weights=n_pairs)),
            "top10": float(np.average([score.top10 for _, score in scores], weights=n_pairs)),
            "pairs": sum(n_pairs),
            "of": {f"{p.old_species} - {p.new_species}": {"auc": s.auc, "top10": s.top10} for p, s in scores},
        }

    def embedding(self, model: CellModel) -> pd.DataFrame:
        """Return where reference and new cells lie: species, label, what (reference or new), columns e0, e1, ..."""
        collection = self.data.collection
        frames = []
        for what, cells in (("reference", self.reference), ("new", self.new)):
            if not len(cells):
                continue
            rows = self._run(model, cells).embedding
            frame = pd.DataFrame(rows, columns=[f"e{place}" for place in range(rows.shape[1])])
            labels: pd.Series | None = None
            if what == "new" and self.truth_levels:
                labels = self.truth[self.truth_levels[-1]].astype(object)
            elif what == "reference" and self.tree is not None:
                level = self.truth_levels[-1] if self.truth_levels else self.tree.levels[-1]
                labels = self.tree.decode(collection.labels[cells].astype(np.int64))[level]
            frame.insert(0, "what", what)
            frame.insert(0, "label", None if labels is None else labels.to_numpy(dtype=object))
            frame.insert(0, "species", collection.column("species")[cells])
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)


def score_shared(
    truth: pd.Series, called: pd.Series, known: Sequence[str], doubts: Mapping[str, npt.NDArray[np.floating]]
) -> dict[str, Any]:
    """Score calls on the types that both species have; and how well doubts single out the types that only one has.

    Parameters
    ----------
    truth, called
        (n_cells,) labels; NaN where unknown.
    known
        Labels of the old species.
    doubts
        Scores (n_cells,) that should be higher for cells of types that the old species lacks.

    Returns
    -------
    ``accuracy``, ``macro_f1``, ``cells`` over cells of shared types. ``new_types`` and ``new_type_cells``; and where
    there are such cells, ``unknown``: for each doubt ``auroc`` and ``found``, the share of them that is found with
    5% false alarms among the shared types' cells.
    """
    values = truth.astype(object)
    shared = values.isin(list(known)).to_numpy()
    new = values.notna().to_numpy() & ~shared
    scores: dict[str, Any] = {
        "accuracy": accuracy(values[shared], called[shared]),
        "macro_f1": macro_f1(values[shared], called[shared]),
        "cells": int(shared.sum()),
        "new_types": sorted(set(values[new])),
        "new_type_cells": int(new.sum()),
    }
    if new.any() and shared.any():
        scores["unknown"] = {
            name: {
                "auroc": float(roc_auc_score(new[new | shared], doubt[new | shared])),
                "found": float(np.mean(doubt[new] > np.quantile(doubt[shared], 1 - _FALSE_ALARMS))),
            }
            for name, doubt in doubts.items()
        }
    return scores


def mixing(old: Float32, new: Float32) -> float:
    """Return how many old cells are among new cells' nearest, against what it would be if species did not matter.

    1: as many old cells as their share of all; 0: none, the species lie apart.
    """
    both = np.concatenate([old, new])
    found = find_neighbors(both, new, k=min(NEAREST + 1, len(both)))
    place = np.arange(len(old), len(both))[:, None]
    others = found.indices != place  # a cell is its own nearest
    share = ((found.indices < len(old)) & others).sum() / others.sum()
    return float(share / (len(old) / (len(both) - 1)))


def _distance(reference: Float32, asked: Float32) -> npt.NDArray[np.float32]:
    """Return each cell's mean cosine distance to its 10 nearest reference cells."""
    mean: npt.NDArray[np.float32] = find_neighbors(reference, asked, k=min(10, len(reference))).distances.mean(axis=1)
    return mean


def fingerprints(network: CellNetwork, growth: Growth) -> dict[str, str]:
    """Return SHA-256 marks of the old gene rows (``rows``), and of every weight that old cells use (``old``)."""
    state = {
        name: value for name, value in network.state_dict().items() if not name.startswith(("genes.", "covariates."))
    }
    for of_genes in ("bag.usual", "marginal"):
        state[of_genes] = state[of_genes][: growth.n_genes]
    rows = network.genes.weight[: growth.n_genes]
    for column, table in enumerate(network.covariates.tables):
        state[f"covariate {column}"] = table.weight[: growth.n_levels[column] + 1]  # type: ignore[index]
    marks = hashlib.sha256()
    for name in sorted(state):
        marks.update(name.encode() + state[name].detach().float().cpu().contiguous().numpy().tobytes())
    own = hashlib.sha256(rows.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
    marks.update(own.encode())
    return {"rows": own, "old": marks.hexdigest()}


def forgetting(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the old cells' skill and annotation before and after, and what was lost (positive: worse now)."""
    was, now = before.get("old_species"), after.get("old_species")
    if was is None or now is None:
        return {}
    lost = {
        method: {
            level: {name: was["methods"][method][level][name] - now["methods"][method][level][name] for name in scores}
            for level, scores in levels.items()
        }
        for method, levels in now["methods"].items()
    }
    return {"skill": was["skill"] - now["skill"], "methods": lost}
