"""A model grows by new genes: the line of runs it comes from, its cells old and new, and what each phase begins with.

Design choices
- A line of runs is kept: which stores joined at which time, and how their cells were held out. So cells that were held
  out once stay held out in every later run, and forgetting is measured on cells that no phase was trained on.
- Old indices, rows and covariate levels stay in place; new ones are appended.
- In phase 1 whatever is old is without gradient. What must not move in a table is a parameter of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import yaml
from torch import Tensor

from lexicell.data.cells import COVARIATES
from lexicell.data.gene_sampler import SamplingConfig
from lexicell.data.store import Store
from lexicell.data.weights import GroupShares
from lexicell.genes.lexicon import Lexicon
from lexicell.model.checkpoint import ModelSpec, load_model
from lexicell.model.network import CellNetwork
from lexicell.training.datamodule import CellDataModule, ValidationConfig, hold_out_cells
from lexicell.training.recipe import Recipe, parse_recipe
from lexicell.training.run_folder import RECIPE, RUN, read_json, write_json
from lexicell.training.skill import CountBaseline

EXTENSION = "extension.json"

Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Generation:
    """Stores that joined a line of runs together."""

    n_stores: int
    """How many, in the order of run.json."""
    validation: ValidationConfig
    """How their cells were held out."""
    seed: int
    """Names the draw."""


@dataclass(frozen=True)
class Lineage:
    """The line of runs that a model comes from."""

    base: Recipe
    """Recipe of the first run."""
    generations: tuple[Generation, ...]
    """The stores of the first run, then those of each extension."""
    stores: tuple[Mapping[str, Any], ...]
    """What run.json tells of each store: name, path, species, fingerprint."""

    @classmethod
    def of(cls, run: Path, spec: ModelSpec) -> Self:
        """Read a run's line.

        A model without recipe.yaml and run.json (a published one, say) has no stores and counts as trained with
        the defaults of all settings but its own.
        """
        if not (run / RUN).is_file() or not (run / RECIPE).is_file():
            sampling = SamplingConfig(tokens=spec.tokens, deck_share=spec.silent_share)
            return cls(Recipe(model=spec.config, sampling=sampling), (), ())
        stores = tuple(read_json(run / RUN)["stores"])
        if (run / EXTENSION).is_file():
            data = read_json(run / EXTENSION)
            generations = tuple(
                Generation(g["n_stores"], ValidationConfig(**g["validation"]), g["seed"]) for g in data["generations"]
            )
            return cls(parse_recipe(data["base"], str(run / EXTENSION)), generations, stores)
        recipe = parse_recipe(yaml.safe_load((run / RECIPE).read_text(encoding="utf-8")), str(run / RECIPE))
        return cls(recipe, (Generation(len(stores), recipe.data.validation, recipe.seed),), stores)

    def joined_by(self, stores: Sequence[Mapping[str, Any]], validation: ValidationConfig, seed: int) -> Lineage:
        """Return the line with one generation more."""
        generation = Generation(len(stores), validation, seed)
        return replace(self, generations=(*self.generations, generation), stores=(*self.stores, *stores))

    def save(self, path: Path, more: Mapping[str, object]) -> None:
        """Write the line and further facts; its stores are in run.json."""
        lines = {"base": asdict(self.base), "generations": [asdict(g) for g in self.generations]}
        write_json(path, json.loads(json.dumps({**lines, **more})))


@dataclass(frozen=True)
class Growth:
    """What grows: sizes of the old model, and the new model's genes and covariate levels."""

    n_genes: int
    """Genes of the old model."""
    lexicon: Lexicon
    """Old genes, then new ones."""
    covariates: Mapping[str, tuple[str, ...]]
    """Levels of each covariate: old covariates and levels first."""
    n_levels: tuple[int, ...]
    """Old levels of each covariate."""

    @classmethod
    def of(cls, spec: ModelSpec, old: Sequence[Store], new: Sequence[Store]) -> Self:
        """Return how a model grows by stores; levels that were never a covariate's are looked up in the old stores."""
        lexicon = spec.lexicon
        for store in new:
            lexicon = lexicon.extend(store.lexicon.table)
        covariates: dict[str, tuple[str, ...]] = {}
        n_levels = []
        for name in (*spec.covariates, *(name for name in COVARIATES if name not in spec.covariates)):
            known = spec.covariates.get(name)
            if known is None:
                known = spec.lexicon.species if name == "species" else _levels(name, old)
            added = tuple(level for level in _levels(name, new) if level not in known)
            if name in spec.covariates or len(known) + len(added) > 1:
                covariates[name] = (*known, *added)
                n_levels.append(len(known))
        return cls(len(spec.lexicon), lexicon, covariates, tuple(n_levels))

    def apply(
        self, network: CellNetwork, spec: ModelSpec, rows: Float32, usual: Float32, marginal: Tensor
    ) -> ModelSpec:
        """Grow a network by the new genes, and return its new spec.

        Parameters
        ----------
        network, spec
            The old model.
        rows, usual
            (n_new, width) embeddings, (n_new,) usual counts of the new genes.
        marginal
            (n_genes, n_classes) log-probability of the count classes of all genes; of the old ones it is not taken. A
            model that learned without such a start goes on without.
        """
        network.unfreeze()
        weight = network.genes.weight
        began = network.marginal.any().item()
        network.extend(
            weight.new_tensor(rows),
            weight.new_tensor(usual),
            marginal[self.n_genes :] * began,
            [len(levels) for levels in self.covariates.values()],
        )
        return replace(spec, lexicon=self.lexicon, covariates=dict(self.covariates))


def _levels(name: str, stores: Sequence[Store]) -> tuple[str, ...]:
    seen: set[str] = set()
    for store in stores:
        if name in store.columns:
            seen.update(map(str, store.obs_columns([name])[name].dropna().unique()))
    return tuple(sorted(seen))


class LineCells(CellDataModule):
    """Cells of a line of runs, each generation's held out as it was when it joined.

    Parameters
    ----------
    generations, stores
        The generations whose stores are there, and these stores, in order.
    recipe
        Settings of the phase.
    spec
        The model's genes, labels and covariates.
    n_old
        How many of the generations are old.
    replay
        Share of the training cells that is of old generations; 0 leaves them out, of the held-out cells too. None
        reads every cell alike, as in a plain run.
    labels
        Whether labels of the new generations are used.
    """

    def __init__(
        self,
        generations: Sequence[Generation],
        stores: Sequence[Store],
        recipe: Recipe,
        spec: ModelSpec,
        *,
        n_old: int,
        replay: float | None,
        labels: bool,
    ) -> None:
        super().__init__(stores, recipe.data, recipe.sampling, recipe.seed, spec)
        donor, species = self.collection.column("donor"), self.collection.column("species")
        edges = np.cumsum([0, *(store.n_cells for store in stores)])
        last = np.cumsum([0, *(generation.n_stores for generation in generations)])
        learned, asked, words = [], [], []
        for place, generation in enumerate(generations):
            begin, end = edges[last[place]], edges[last[place + 1]]
            training, held_out, said = hold_out_cells(
                donor[begin:end], species[begin:end], generation.validation, generation.seed
            )
            learned.append(training + begin)
            asked.append(held_out + begin)
            words.append(said)
        self.n_old_cells = int(edges[last[n_old]])
        if not labels:
            self.collection.labels[self.n_old_cells :] = -1
        self.old_training, self.old_validation = _joined(learned[:n_old]), _joined(asked[:n_old])
        self.new_training, self.new_validation = _joined(learned[n_old:]), _joined(asked[n_old:])
        first = n_old if replay == 0 else 0
        self.training_cells, self.validation_cells = _joined(learned[first:]), _joined(asked[first:])
        self.held_out = "; ".join(words[first:])
        if replay:
            is_old = (self.training_cells < self.n_old_cells).astype(np.int64)
            shares = np.array([1 - replay, replay])
            self.shares = GroupShares(("new", "replayed"), is_old, np.bincount(is_old, minlength=2), shares)

    @property
    def labelled(self) -> bool:
        """Whether any training cell has a label that the head knows."""
        return bool((self.collection.labels[self.training_cells] >= 0).any())


def _joined(parts: Sequence[Int64]) -> Int64:
    return np.concatenate([np.empty(0, np.int64), *parts])


def run_cells(run: Path, recipe: Recipe, stores: Sequence[Store]) -> CellDataModule:
    """Return a finished run's cells, split as in training, for a plain run and for an extended one alike."""
    if not (run / EXTENSION).is_file():
        return CellDataModule(stores, recipe.data, recipe.sampling, recipe.seed)
    from_run = load_model(run)[1]
    line = Lineage.of(run, from_run)
    labels = bool(read_json(run / EXTENSION)["recipe"]["labels"])
    n_old = len(line.generations) - 1
    return LineCells(line.generations, stores, recipe, from_run, n_old=n_old, replay=None, labels=labels)


@dataclass(frozen=True)
class PhaseStart:
    """What a phase begins with: a model of an earlier step, with or without its old part frozen.

    It is a `lexicell.training.start.Start`.
    """

    model: Path
    """Folder of the model to begin with."""
    name: str
    """Name of the phase."""
    generations: tuple[Generation, ...]
    """The generations whose stores are there."""
    n_old: int
    """How many of them are old."""
    growth: Growth
    """Sizes of the old model."""
    frozen: bool
    """Whether only what is new is trained."""
    replay: float
    """Share of old cells."""
    labels: bool
    """Whether labels of the new stores are used."""

    def facts(self) -> Mapping[str, object]:
        """Return what run.json tells of the start."""
        return {
            "phase": self.name,
            "from_genes": self.growth.n_genes,
            "to_lexicon": self.growth.lexicon.fingerprint,
            "replay": self.replay,
            "labels": self.labels,
        }

    def open(self, recipe: Recipe, stores: Sequence[Store]) -> LineCells:
        """Return the phase's cells."""
        spec = load_model(self.model)[1]
        n_old, replay, labels = self.n_old, self.replay, self.labels
        return LineCells(self.generations, stores, recipe, spec, n_old=n_old, replay=replay, labels=labels)

    def build(
        self, recipe: Recipe, data: CellDataModule, baseline: CountBaseline, *, fresh: bool
    ) -> tuple[CellNetwork, ModelSpec]:
        """Return the model of the step before, and let move what the phase trains."""
        network, spec = load_model(self.model)
        if self.frozen:
            network.freeze_old(self.growth.n_genes, self.growth.n_levels)
        else:
            network.unfreeze()
        return network, replace(spec, tokens=data.shape.tokens)
