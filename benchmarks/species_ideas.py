"""Ideas to align two species, each measured in the same way: task x idea x seed.

Usage:
  python benchmarks/species_ideas.py --data FOLDER --out FOLDER [--seeds 5] [--tasks A;B] [--ideas A;B] [--minutes N]

Tasks are those of `species.py`: by default Baron mouse and human, both ways; ideas are chosen on its pseudo-species
(`--tasks "mouse1 -> mouse2, diverged 0;..."`). What is finished in --out is not run again; after --minutes no further
one is begun. Labels of the first species are carried to the second and scored over the types that both have; orthologs
are only scored by. Ideas:

- coupling: what `extend` sets rows by, with its defaults.
- one grouping; balanced; entropy .05; shared symbols; shuffled counts: the coupling with one thing changed.
- profile rows: genes matched by rank features alone.
- vote of seeds: labels by the couplings of all seeds together; unknown where they disagree or leave cells unmatched.
- best of seeds: of all seeds' couplings the one whose groups agree best.
- mutual groups: coupled in both directions; groups that are not each other's best in both are unknown.
- matched genes, N rounds: types' profiles match genes, mutual best ones alone, weighted by how sure; a logistic
  regression on these genes, from the first species' cells, labels the second's; these labels make the next profiles.
- exchanged labels: types exchanged, and groups moved to another type, while types' likeness grows.
- turned co-expression: genes' co-expression in one species is turned onto the other's (orthogonal Procrustes) by
  mutual best pairs, which are then found anew, ten times; cells are labelled by logistic regression in that space.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csc_matrix
from sklearn.linear_model import LogisticRegression
from species import Task, by_matched_genes, drawn_pairs, label_scores, of_genes, real_tasks, retrieval

from lexicell.gene_space.cell_groups import GroupedCells, principal_components
from lexicell.gene_space.coupled_genes import gene_cost
from lexicell.gene_space.coupling import (
    ComparedGenes,
    Coupling,
    CouplingConfig,
    couple_species,
    ranks_cost,
    softmin,
    transfer,
)
from lexicell.gene_space.matching import match_genes
from lexicell.genes.orthologs import shared_symbols
from lexicell.randomness import generator
from lexicell.reporting.text import Table, print_tables

MEASURES = ("accuracy", "macro_f1", "unknown_auroc", "ortholog_auc", "ortholog_top10")
CONFIGS = {
    "coupling": CouplingConfig(),
    "one grouping": CouplingConfig(groupings=1),
    "balanced": CouplingConfig(unbalance=100, first_unbalance=100, judged_unbalance=100),
    "entropy .05": CouplingConfig(entropy=0.05),
}
OF_ALL_SEEDS = ("vote of seeds", "best of seeds")
VARIABLE = 2000  # genes of a species among which matches are sought
CELLS_A_TYPE = 200  # of the first species, that a regression learns from
FLOOR = 0.05  # added to a mean before its logarithm, as in cell groups
HALVES = slice(0, 400), slice(400, 600)  # of the variable genes: fitted, and left out, as in the coupling
TURNS, COMPONENTS = 10, 30
DRAWS = 500  # of the bootstrap over cells

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Said:
    """What an idea says of the second species."""

    probabilities: Float32  # (n_cells, n_types)
    unknown: Float32  # (n_cells,)
    couplings: list[Coupling] = field(default_factory=list)  # that tell which genes are alike; none to score no genes


@dataclass(eq=False)
class Bench:
    """A task, read and coupled once for all ideas."""

    task: Task
    seeds: int
    made: dict[tuple[str, int, bool], list[Coupling]] = field(default_factory=dict)

    @cached_property
    def logs(self) -> tuple[csc_matrix, csc_matrix]:
        """log(1 + counts per 10,000) of both."""
        return self.task.first.logs, self.task.second.logs

    @cached_property
    def names(self) -> npt.NDArray[np.object_]:
        """The first species' types."""
        return np.unique(self.task.first.types.astype(str)).astype(object)

    @cached_property
    def labels(self) -> Int64:
        """The first species' cells' types."""
        return np.searchsorted(self.names.astype(str), self.task.first.types.astype(str)).astype(np.int64)

    def coupled(self, name: str, seed: int, *, back: bool = False) -> list[Coupling]:
        """Couple, or remember; `back`: begun from the second species, and turned round."""
        key = (name, seed, back)
        if key not in self.made:
            first, second = self.logs[::-1] if back else self.logs
            pairs = None
            if name == "shared symbols":
                pairs = shared_symbols(*(s.genes["symbol"].tolist() for s in (self.task.first, self.task.second)))
            if name == "shuffled counts":
                second = csc_matrix(generator(seed, "shuffled").permuted(second.toarray(), axis=0))
            found = couple_species(first, second, CONFIGS.get(name), pairs=pairs, seed=seed)
            if back:
                found = [Coupling(c.second, c.first, c.plan.T, c.score) for c in found]
            if name != "coupling" or back:
                return found  # used once
            self.made[key] = found
        return self.made[key]

    def scores(self, said: Said, seed: int, *, interval: bool) -> dict[str, Any]:
        """Score labels and genes; with the bootstrap over cells where one result is all there is."""
        called = self.names[said.probabilities.argmax(axis=1)]
        scores: dict[str, Any] = label_scores(self.task, called, said.unknown)
        if interval:
            scores["interval"] = self.interval(called, said.unknown, seed)
        if said.couplings:
            scored = drawn_pairs(self.task.pairs, seed)
            parts = [
                replace(c, first=of_genes(c.first, scored[:, 0]), second=of_genes(c.second, scored[:, 1]))
                for c in said.couplings
            ]
            blocks = range(0, len(scored), 1000)
            config = CouplingConfig()
            cost = np.concatenate([gene_cost(parts, config, slice(b, b + 1000)) for b in blocks], axis=1)
            scores |= retrieval(cost)
        return scores

    def interval(self, called: npt.NDArray[np.object_], unknown: Float32, seed: int) -> dict[str, tuple[float, float]]:
        """Return 95% intervals over cells drawn again."""
        rng, drawn = generator(seed, "bootstrap"), []
        for _ in range(DRAWS):
            cells = rng.integers(len(called), size=len(called))
            second = replace(self.task.second, types=self.task.second.types[cells])
            drawn.append(label_scores(replace(self.task, second=second), called[cells], unknown[cells]))
        bounds = pd.DataFrame(drawn).quantile([0.025, 0.975])
        return {name: (float(bounds[name].iloc[0]), float(bounds[name].iloc[1])) for name in bounds}


def by_coupling(bench: Bench, seed: int, name: str) -> Said:
    """Labels of matched groups."""
    found = bench.coupled(name, seed)
    genes = [] if name == "shared symbols" else found
    return Said(*transfer(found, bench.labels, len(bench.names)), genes)


def by_vote(bench: Bench, _: int) -> Said:
    """Mean over seeds; agreement is the share of seeds that say what the mean says."""
    found = [by_coupling(bench, s, "coupling") for s in range(bench.seeds)]
    mean = np.mean([said.probabilities for said in found], axis=0)
    called = mean.argmax(axis=1)
    agreement = np.mean([said.probabilities.argmax(axis=1) == called for said in found], axis=0)
    unmatched = np.mean([said.unknown for said in found], axis=0)
    return Said(mean, 1 - agreement * (1 - unmatched), [c for said in found for c in said.couplings])


def by_best(bench: Bench, _: int) -> Said:
    """The seed whose groupings agree best: a longer search of the default."""
    found = [bench.coupled("coupling", s) for s in range(bench.seeds)]
    best = max(found, key=lambda couplings: sum(c.score for c in couplings))
    return Said(*transfer(best, bench.labels, len(bench.names)), best)


def by_mutual_groups(bench: Bench, seed: int) -> Said:
    """Both directions share their groups, drawn by one seed: their plans can be laid over each other."""
    kept = []
    for one, other in zip(bench.coupled("coupling", seed), bench.coupled("coupling", seed, back=True), strict=True):
        if not (np.array_equal(one.first.group, other.first.group) and one.plan.shape == other.plan.shape):
            raise RuntimeError("the two directions were grouped differently")
        best = np.ones(one.plan.shape, bool)
        for plan in (one.plan, other.plan):
            best &= (plan == plan.max(axis=0)) & (plan == plan.max(axis=1, keepdims=True))
        # A trace of the plan is left, so that all other groups have a label too, however unknown.
        kept.append(replace(one, plan=np.where(best, one.plan, 1e-3 * one.plan).astype(np.float32)))
    return Said(*transfer(kept, bench.labels, len(bench.names)), kept)


def types_as_groups(logs: csc_matrix, part: Float32, ranks: Float32) -> GroupedCells:
    """Return types as groups, each cell in part: (n_cells, n_types)."""
    size = np.maximum(part.sum(axis=0), 1e-6)
    means = np.asarray((logs.T @ part).T) / size[:, None]
    share = np.sqrt(size / size.sum())
    share = (share / share.sum()).astype(np.float32)
    return GroupedCells(part.argmax(axis=1), share, np.log(means + FLOOR).astype(np.float32), ranks)


def coupled_types(bench: Bench, seed: int, said: Said) -> Coupling:
    """Couple types by the labels said: each with itself, as far as cells are not unknown."""
    begun = bench.coupled("coupling", seed)[0]
    first = types_as_groups(bench.logs[0], np.eye(len(bench.names), dtype=np.float32)[bench.labels], begun.first.ranks)
    sure = (said.probabilities * (1 - said.unknown)[:, None]).astype(np.float32)
    second = types_as_groups(bench.logs[1], sure, begun.second.ranks)
    mass = np.sqrt(first.share * second.share) * (sure.sum(axis=0) >= 2)
    return Coupling(first, second, np.diag(mass / mass.sum()).astype(np.float32), 0.0)


def variable(side: GroupedCells) -> Int64:
    """Return the genes that differ most among groups."""
    order: Int64 = np.argsort(-(side.share @ (side.logs - side.share @ side.logs) ** 2), kind="stable")[:VARIABLE]
    return order


def mutual_genes(coupling: Coupling) -> tuple[Int64, Float32]:
    """Return variable genes that are each other's best, (n, 2), and how sure each pair is, 0 to 1."""
    chosen = variable(coupling.first), variable(coupling.second)
    part = replace(coupling, first=of_genes(coupling.first, chosen[0]), second=of_genes(coupling.second, chosen[1]))
    cost = gene_cost([part], CouplingConfig(), slice(None))
    best = cost.argmin(axis=0)
    mutual = np.flatnonzero(cost.argmin(axis=1)[best] == np.arange(len(best)))
    sure = np.sqrt(softmin(cost, 0)[best[mutual], mutual] * softmin(cost, 1)[best[mutual], mutual])
    return np.stack([chosen[0][best[mutual]], chosen[1][mutual]], axis=1), sure.astype(np.float32)


def some_of_each(labels: Int64, seed: int) -> Int64:
    """Draw cells, at most so many of a type."""
    drawn = generator(seed, "some of each type").permutation(len(labels))
    rank = pd.Series(labels[drawn]).groupby(labels[drawn]).cumcount().to_numpy()
    return np.sort(drawn[rank < CELLS_A_TYPE])


def regression(first: Float32, labels: Int64, second: Float32, n_types: int) -> Float32:
    """Return probabilities of the second's cells, (n_cells, n_types)."""
    fitted = LogisticRegression(max_iter=200, tol=1e-3).fit(first, labels)
    found = np.zeros((len(second), n_types), np.float32)
    found[:, fitted.classes_] = fitted.predict_proba(second)
    return found


def over_groups(couplings: list[Coupling], found: Float32) -> Float32:
    """Return the mean over each cell's groups."""
    total = np.zeros_like(found)
    for coupling in couplings:
        group = coupling.second.group
        sums = np.zeros((len(coupling.second.share), found.shape[1]), np.float32)
        np.add.at(sums, group, found)
        total += (sums / np.bincount(group)[:, None])[group] / len(couplings)
    return total


def by_regression(bench: Bench, seed: int, rounds: int, *, grouped: bool) -> Said:
    """Labels, types' profiles, genes, labels: so many times."""
    begun = by_coupling(bench, seed, "coupling")
    learned, said = some_of_each(bench.labels, seed), begun
    for _ in range(rounds):
        pairs, sure = mutual_genes(coupled_types(bench, seed, said))
        weights = np.sqrt(sure)
        parts = [bench.logs[0][learned][:, pairs[:, 0]].toarray(), bench.logs[1][:, pairs[:, 1]].toarray()]
        found = regression(parts[0] * weights, bench.labels[learned], parts[1] * weights, len(bench.names))
        unsure = 1 - found.max(axis=1)
        if grouped:
            found = over_groups(begun.couplings, found)
        said = Said(found, ((begun.unknown + unsure) / 2).astype(np.float32))
    return replace(said, couplings=[coupled_types(bench, seed, said)])


def by_exchange(bench: Bench, seed: int, groupings: int = 4) -> Said:
    """Climb by exchanging two types' groups, or moving one group, as long as types become more alike."""
    begun = by_coupling(bench, seed, "coupling")
    types = coupled_types(bench, seed, begun)
    probabilities = np.zeros_like(begun.probabilities)
    n = len(bench.names)
    for coupling in begun.couplings[:groupings]:
        side = coupling.second
        size = np.bincount(side.group)
        matched = coupling.matched() > 0.5
        means = np.exp(side.logs) - FLOOR
        counts = np.zeros((len(coupling.first.share), n))
        np.add.at(counts, (coupling.first.group, bench.labels), 1.0)
        said = (coupling.plan.T @ (counts / counts.sum(axis=1, keepdims=True))).argmax(axis=1)
        genes = variable(types.first)[:600], variable(side)[:600]
        costs = [
            ranks_cost(types.first.ranks[genes[0][half]], side.ranks[genes[1][half]], CouplingConfig().profile_scale)
            for half in HALVES
        ]
        score = partial(likeness, types.first, means, costs, size * matched, genes)
        said = climb(said, n, np.flatnonzero(matched), score)
        probabilities += np.eye(n, dtype=np.float32)[said][side.group] / groupings
    said_by = Said(probabilities, begun.unknown)
    return replace(said_by, couplings=[coupled_types(bench, seed, said_by)])


def likeness(
    first: GroupedCells,
    means: Float32,
    costs: list[Float32],
    size: Int64,
    genes: tuple[Int64, Int64],
    said: Int64,
) -> float:
    """Return how alike types are, given which type each group of the second species is said to be."""
    part = np.eye(len(first.share), dtype=np.float32)[said] * size[:, None]
    kept = part.sum(axis=0) > 0
    merged = np.log((part[:, kept] / part[:, kept].sum(axis=0)).T @ means[:, genes[1]] + FLOOR).astype(np.float32)
    share = np.sqrt(part.sum(axis=0))
    # Not normalised: types that no group is said to be cost their part of the overlap.
    plan = np.diag(np.sqrt(first.share * share / share.sum())[kept]).astype(np.float32)
    total = 1.0
    for half, cost in zip(HALVES, costs, strict=True):
        compared = ComparedGenes(first.logs[kept][:, genes[0][half]], merged[:, half], cost)
        total *= max(0.0, float((plan * compared.correlation(plan, CouplingConfig().expression_scale)).sum()))
    return total


def climb(said: Int64, n_types: int, groups: Int64, score: Callable[[Int64], float]) -> Int64:
    """Take each change that betters the score, until none does; three sweeps at most."""
    best = score(said)
    for _ in range(3):
        begun = best
        changes = [(a, b) for a in range(n_types) for b in range(a + 1, n_types)]
        for a, b in changes:
            changed = np.where(said == a, b, np.where(said == b, a, said))
            if (value := score(changed)) > best:
                said, best = changed, value
        for group in groups:
            for name in range(n_types):
                changed = said.copy()
                changed[group] = name
                if (value := score(changed)) > best:
                    said, best = changed, value
        if best == begun:
            break
    return said


def coexpression(logs: csc_matrix, seed: int) -> tuple[Float32, Float32]:
    """Return cells' components, whitened, and genes' correlation with them: (n_cells, n) and (n_genes, n)."""
    components = principal_components(logs, seed)[:, :COMPONENTS]
    components = (components - components.mean(axis=0)) / components.std(axis=0)
    mean = np.asarray(logs.mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(np.asarray(logs.multiply(logs).mean(axis=0)).ravel() - mean**2, 1e-6))
    genes = np.asarray(logs.T @ components) / len(components) / spread[:, None]
    return components.astype(np.float32), genes.astype(np.float32)


def by_turning(bench: Bench, seed: int) -> Said:
    """Refine mutual pairs as bilingual word lists are refined (Conneau et al. 2018, arXiv:1710.04087)."""
    begun = by_coupling(bench, seed, "coupling")
    coupling = coupled_types(bench, seed, begun)
    (_, a), (_, b) = (coexpression(logs, seed) for logs in bench.logs)
    chosen = variable(coupling.first), variable(coupling.second)
    pairs, sure = mutual_genes(coupling)
    for _ in range(TURNS):
        left, _, right = np.linalg.svd((a[pairs[:, 0]] * sure[:, None]).T @ b[pairs[:, 1]])
        turn = left @ right  # of the first's components onto the second's
        found = match_genes(a[chosen[0]] @ turn, b[chosen[1]], k=1)
        mutual = np.flatnonzero(found.mutual[:, 0])
        pairs = np.stack([chosen[0][mutual], chosen[1][found.indices[mutual, 0]]], axis=1)
        sure = np.maximum(found.cosine[mutual, 0], 0).astype(np.float32)
    spaces = []
    for logs, genes in zip(bench.logs, (a @ turn, b), strict=True):
        both = genes[pairs[:, len(spaces)]]
        part = logs[:, pairs[:, len(spaces)]].toarray()
        cells = (part - part.mean(axis=0)) / np.maximum(part.std(axis=0), 0.2) @ both
        spaces.append(cells / cells.std())
    learned = some_of_each(bench.labels, seed)
    found = regression(spaces[0][learned], bench.labels[learned], spaces[1], len(bench.names))
    said = Said(found, ((begun.unknown + 1 - found.max(axis=1)) / 2).astype(np.float32))
    return replace(said, couplings=[coupled_types(bench, seed, said)])


IDEAS: dict[str, Callable[[Bench, int], Said]] = {
    "coupling": partial(by_coupling, name="coupling"),
    "matched genes, 1 round": partial(by_regression, rounds=1, grouped=False),
    "matched genes, 4 rounds": partial(by_regression, rounds=4, grouped=False),
    "matched genes, 4 rounds, grouped": partial(by_regression, rounds=4, grouped=True),
    "exchanged labels": by_exchange,
    "turned co-expression": by_turning,
    **{name: partial(by_coupling, name=name) for name in ("one grouping", "shared symbols")},
    "vote of seeds": by_vote,
    "best of seeds": by_best,
    **{name: partial(by_coupling, name=name) for name in ("balanced", "entropy .05", "shuffled counts")},
    "mutual groups": by_mutual_groups,
}


def measured(bench: Bench, idea: str, seed: int, *, alone: bool) -> dict[str, Any]:
    """Run an idea once."""
    begun = time.perf_counter()
    if idea == "profile rows":
        scores: dict[str, Any] = by_matched_genes(bench.task, seed, random=False)
    else:
        scores = bench.scores(IDEAS[idea](bench, seed), seed, interval=alone or seed == 0)
    return scores | {"seconds": time.perf_counter() - begun}


def summary(table: pd.DataFrame) -> Table:
    """Return mean and range over seeds; of one seed alone, [...] is the bootstrap over cells."""
    rows = []
    for (task, idea), part in table.groupby(["task", "idea"], sort=False):
        cells = []
        for measure in MEASURES:
            values = part[measure].dropna() if measure in part else pd.Series(dtype=float)
            text = f"{values.mean():.3f}" if len(values) else "-"
            interval = part["interval"].iloc[0] if "interval" in part else None
            if len(values) > 1:
                text += f" ({values.min():.3f}-{values.max():.3f})"
            elif isinstance(interval, dict) and measure in interval:
                text += " [{:.3f}-{:.3f}]".format(*interval[measure])
            cells.append(text)
        rows.append((task, idea, len(part), *cells))
    return Table("Ideas to align species", ("task", "idea", "seeds", *MEASURES), tuple(rows))


def main() -> None:
    """Run, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with pancreas/ and orthologs/")
    parser.add_argument("--out", type=Path, required=True, help="folder for results, one file each")
    parser.add_argument("--tasks", default="mouse -> human;human -> mouse", help="names, with semicolons between")
    parser.add_argument("--ideas", help="names, with semicolons between; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=np.inf, help="after which no further run is begun")
    options = parser.parse_args()
    ideas = options.ideas.split(";") if options.ideas else [*IDEAS, "profile rows"]
    options.out.mkdir(parents=True, exist_ok=True)
    reads, begun, rows = real_tasks(options.data), time.monotonic(), []
    benches = {task: Bench(reads[task](), options.seeds) for task in options.tasks.split(";")}
    for seed in range(options.seeds):
        for idea in ideas:
            alone = idea in OF_ALL_SEEDS or idea == "profile rows" or options.seeds == 1
            if seed and alone:
                continue
            for task, bench in benches.items():
                name = f"{task}--{idea}--{options.seeds if idea in OF_ALL_SEEDS else seed}".replace(" ", "_")
                path = options.out / f"{name.replace('>', '')}.json"
                if not path.is_file() and time.monotonic() - begun < 60 * options.minutes:
                    scores = {"task": task, "idea": idea, "seed": seed} | measured(bench, idea, seed, alone=alone)
                    path.write_text(json.dumps(scores), encoding="utf-8")
                    print(scores, flush=True)
                if path.is_file():
                    rows.append(json.loads(path.read_text(encoding="utf-8")))
    if rows:
        print_tables([summary(pd.DataFrame(rows))])


if __name__ == "__main__":
    main()
