"""Does it align? Two species coupled without orthologs and without labels of the second: task x method x seed.

Usage:
  python benchmarks/species.py study --data FOLDER [--seeds N] [--tasks A;B] [--methods A;B] [--out TABLE.tsv]
  python benchmarks/species.py curves [--seeds N] [--out docs/images/species_alignment]

`study` runs real tasks: Baron mouse and human, both ways, and pseudo-species (donors of one species whose genes count
as unknown to each other: there the truth is known), as they are and made to diverge. `curves` simulates species that
diverge, shift in composition, or have few cells. Types of the first species are carried to the second and scored over
the types that both have; orthologs are only scored by. Methods:

- coupling: what `extend` sets rows by; its labels are those of the matched groups.
- coupling, shuffled counts: each gene's values shuffled among the second species' cells. Must fail.
- coupling, shared symbols: genes of one symbol, whatever its case, are given as pairs. Orthology by nomenclature.
- coupling, N labelled cells a type: so many cells of the second species are given their label; scored on the others.
- N labelled cells alone: logistic regression on the second species' own principal components, from those cells.
- profile rows: genes matched by rank features alone; cells by correlation to type centroids in the matched genes.
- random rows: the same with genes matched at random.
- orthologs given: logistic regression on one-to-one orthologs, an upper reference.

Other ideas to couple them are tried in `species_ideas.py`, on these tasks; genes that joined in `species_genes.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.sparse import csc_matrix, csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from lexicell.datasets.simulate import SimulationConfig, simulate
from lexicell.evaluation.baselines import log_cpm
from lexicell.gene_space.cell_groups import GroupedCells, principal_components
from lexicell.gene_space.coupled_genes import gene_cost
from lexicell.gene_space.coupling import Coupling, CouplingConfig, couple_species, transfer
from lexicell.gene_space.profiles import expression_profile
from lexicell.genes.orthologs import read_orthologs, shared_symbols
from lexicell.neighbors import find_neighbors
from lexicell.randomness import generator
from lexicell.reporting.figures import PALETTE, STYLE
from lexicell.reporting.text import Table, print_tables

ORTHOLOGS = "orthologs/ensembl_mouse_human_one2one.tsv.gz"
LABEL = "cell_ontology_id"
NEIGHBORS = 15
LEAST_CELLS = 5  # in which a gene is expressed, to be matched
LABELLED = (1, 3, 5)
GENE_SPREAD, TYPE_SPREAD, LOST = 0.8, 0.6, 0.25  # of pseudo-species that diverge
SCORED = 6000  # ortholog pairs at most, drawn


@dataclass(frozen=True, eq=False)
class Side:
    """One species."""

    counts: csr_matrix
    genes: pd.DataFrame  # gene_id, symbol
    types: npt.NDArray[np.object_]

    @classmethod
    def of(cls, counts: csr_matrix, names: pd.Index, types: pd.Series) -> Side:
        """Keep the genes that a few cells express."""
        counts = csr_matrix(counts)
        kept = np.asarray((counts > 0).sum(axis=0)).ravel() >= LEAST_CELLS
        table = pd.DataFrame({"gene_id": names[kept], "symbol": names[kept]})
        return cls(counts[:, kept], table, types.to_numpy(dtype=object))

    @property
    def logs(self) -> csc_matrix:
        """log(1 + counts per 10,000)."""
        return log_cpm(self.counts).tocsc()


@dataclass(frozen=True, eq=False)
class Task:
    """Two species, and which genes are orthologs: (pairs, 2)."""

    first: Side
    second: Side
    pairs: npt.NDArray[np.int64]


def diverged(task: Task, seed: int) -> Task:
    """Make renamed donors diverge about as far as mouse and human.

    The second's counts are thinned by a factor a gene, and one a gene and type; a quarter of the genes lose their
    counterpart.
    """
    rng = np.random.default_rng(seed)
    counts, genes = csr_matrix(task.second.counts, copy=True), task.second.genes["symbol"]
    types, code = np.unique(task.second.types.astype(str), return_inverse=True)
    factor = np.exp(GENE_SPREAD * rng.standard_normal(len(genes)))[None]
    factor = factor * np.exp(TYPE_SPREAD * rng.standard_normal((len(types), len(genes))))
    factor = np.minimum(factor / np.quantile(factor, 0.9), 1.0)
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    counts.data = rng.binomial(counts.data.astype(int), factor[code[rows], counts.indices]).astype(float)
    counts.eliminate_zeros()
    kept = [rng.random(len(genes)) >= LOST / 2, rng.random(len(task.first.genes)) >= LOST / 2]
    second = Side.of(counts[:, kept[0]], pd.Index(genes[kept[0]]), pd.Series(task.second.types))
    names = pd.Index(task.first.genes["symbol"][kept[1]])
    first = Side.of(task.first.counts[:, kept[1]], names, pd.Series(task.first.types))
    return renamed(first, second)


def renamed(first: Side, second: Side) -> Task:
    """Take two sides of one species for two species; equal names are orthologs."""
    both = pd.Index(first.genes["symbol"]).intersection(second.genes["symbol"])
    rows = [pd.Index(side.genes["symbol"]).get_indexer(both) for side in (first, second)]
    return Task(first, second, np.stack(rows, axis=1).astype(np.int64))


def real_tasks(data: Path) -> dict[str, Callable[[], Task]]:
    """Name -> how to read it."""

    def cells(name: str, donors: tuple[str, ...] = ()) -> Side:
        found = anndata.read_h5ad(data / f"pancreas/baron_{name}_raw.h5ad")
        found = found[found.obs["donor"].isin(donors)] if donors else found
        return Side.of(found.X, found.var_names, found.obs[LABEL].astype(str))

    def between(first: str, second: str) -> Task:
        a, b = cells(first), cells(second)
        return Task(a, b, read_orthologs(data / ORTHOLOGS, first, second).match(a.genes, b.genes))

    def within(name: str, first: tuple[str, ...], second: tuple[str, ...]) -> Task:
        return renamed(cells(name, first), cells(name, second))

    others = ("human1", "human2", "human4")
    donors: dict[str, Callable[[], Task]] = {
        "mouse1 -> mouse2": lambda: within("mouse", ("mouse1",), ("mouse2",)),
        "mouse2 -> mouse1": lambda: within("mouse", ("mouse2",), ("mouse1",)),
        "human3 -> others": lambda: within("human", ("human3",), others),
        "others -> human3": lambda: within("human", others, ("human3",)),
    }
    return {
        "mouse -> human": lambda: between("mouse", "human"),
        "human -> mouse": lambda: between("human", "mouse"),
        **{f"{name}, renamed": read for name, read in donors.items()},
        **{
            f"{name}, diverged {draw}": partial(lambda read, draw: diverged(read(), draw), read, draw)
            for name, read in donors.items()
            for draw in (0, 1)
        },
    }


def simulated_task(config: SimulationConfig) -> Task:
    """Two simulated species, the first of which lacks a type."""
    found = simulate(config)
    names = config.species
    sides = [Side.of(found.cells[n].X, found.cells[n].var_names, found.cells[n].obs["type"]) for n in names]
    rows = [
        pd.Index(side.genes["gene_id"]).get_indexer(found.orthologs[f"gene_{letter}"])
        for side, letter in zip(sides, "ab", strict=True)
    ]
    pairs = np.stack(rows, axis=1).astype(np.int64)
    return Task(sides[0], sides[1], pairs[(pairs >= 0).all(axis=1)])


def drawn_pairs(pairs: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Draw the pairs that are scored."""
    return pairs[generator(seed, "pairs").permutation(len(pairs))[:SCORED]]


def retrieval(cost: npt.NDArray[np.float32]) -> dict[str, float]:
    """AUC and recall at 10 among pairs' genes, both directions; row and column i of the costs are a pair."""
    own = np.diag(cost)
    aucs, found = [], []
    for table, mine in ((cost, own[:, None]), (cost.T, own[:, None])):
        nearer, same = (table < mine).sum(axis=1), (table == mine).sum(axis=1) - 1
        aucs.append(1 - (nearer + same / 2) / (len(own) - 1))
        found.append(nearer < 10)
    return {"ortholog_auc": float(np.mean(aucs)), "ortholog_top10": float(np.mean(found))}


def label_scores(
    task: Task,
    said: npt.NDArray[np.object_],
    unknown: npt.NDArray[np.float32],
    given: npt.NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """Accuracy and macro-F1 over shared types; AUROC of the unknown score for cells of types the first lacks.

    Cells whose label was given do not count.
    """
    shared = sorted(set(task.first.types) & set(task.second.types))
    truth = task.second.types
    if given is not None:
        truth, said, unknown = truth[~given], said[~given], unknown[~given]
    kept, new = np.isin(truth, shared), ~np.isin(truth, np.unique(task.first.types))
    return {
        "accuracy": float((said[kept] == truth[kept]).mean()),
        "macro_f1": float(f1_score(truth[kept], said[kept], labels=shared, average="macro", zero_division=0)),
        "unknown_auroc": float(roc_auc_score(new, unknown)) if new.sum() >= LEAST_CELLS else np.nan,
    }


def labelled_cells(task: Task, per_type: int, seed: int) -> npt.NDArray[np.bool_]:
    """Draw so many cells of each shared type of the second species; the last one of a type is left to be scored."""
    drawn = np.zeros(len(task.second.types), bool)
    rng = generator(seed, "labelled", per_type)
    for name in sorted(set(task.first.types) & set(task.second.types)):
        cells = rng.permutation(np.flatnonzero(task.second.types == name))
        drawn[cells[: min(per_type, len(cells) - 1)]] = True
    return drawn


def of_genes(side: GroupedCells, genes: npt.NDArray[np.int64]) -> GroupedCells:
    """Keep some genes."""
    return replace(side, logs=side.logs[:, genes], ranks=side.ranks[genes])


def by_coupling(
    task: Task, config: CouplingConfig, seed: int, *, shuffled: bool = False, symbols: bool = False, per_type: int = 0
) -> dict[str, float]:
    """Labels of matched groups, and genes as the coupling finds them alike."""
    first, second = task.first.logs, task.second.logs
    if shuffled:
        second = csc_matrix(generator(seed, "shuffled").permuted(second.toarray(), axis=0))
    names, labels = np.unique(task.first.types.astype(str), return_inverse=True)
    drawn = labelled_cells(task, per_type, seed)
    places = pd.Index(names).get_indexer(task.second.types.astype(str))
    known = (labels.astype(np.int64), np.where(drawn, places, -1)) if per_type else None
    pairs = shared_symbols(*(side.genes["symbol"].tolist() for side in (task.first, task.second))) if symbols else None
    found: list[Coupling] = couple_species(first, second, config, pairs=pairs, labels=known, seed=seed)
    probabilities, unmatched = transfer(found, labels, len(names))
    said = names[probabilities.argmax(axis=1)].astype(object)
    scores = label_scores(task, said, unmatched, drawn)
    if not symbols:
        scored = drawn_pairs(task.pairs, seed)
        parts = [
            replace(c, first=of_genes(c.first, scored[:, 0]), second=of_genes(c.second, scored[:, 1])) for c in found
        ]
        blocks = range(0, len(scored), 1000)
        cost = np.concatenate([gene_cost(parts, config, slice(start, start + 1000)) for start in blocks], axis=1)
        scores |= retrieval(cost)
    return scores | {"agreement": float(np.mean([coupling.score for coupling in found]))}


def by_matched_genes(task: Task, seed: int, *, random: bool) -> dict[str, float]:
    """Cells by correlation to type centroids, the genes of the second species read as means of the first's."""
    first, second = task.first.logs, task.second.logs
    ranks = [expression_profile(first), expression_profile(second)]
    if random:
        ranks = [generator(seed, "random", n).random(part.shape) for n, part in enumerate(ranks)]
    found = find_neighbors(ranks[0], ranks[1], k=NEIGHBORS, metric="euclidean").indices
    rows = np.repeat(np.arange(len(found)), found.shape[1])
    weights = csr_matrix((np.ones(found.size), (rows, found.ravel())), shape=(second.shape[1], first.shape[1]))
    reached = np.flatnonzero(np.asarray(weights.sum(axis=0)).ravel())
    weights = weights[:, reached]
    cells = np.asarray((second @ weights).todense()) / np.asarray(weights.sum(axis=0))
    names = np.unique(task.first.types.astype(str))
    logs = first[:, reached].tocsr()
    centroids = np.stack([np.asarray(logs[task.first.types == name].mean(axis=0)).ravel() for name in names])
    centred = [part - part.mean(axis=0) for part in (centroids, cells)]
    unit = [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-9) for part in centred]
    likeness = unit[1] @ unit[0].T
    a, b = (part[scored] for part, scored in zip(ranks, drawn_pairs(task.pairs, seed).T, strict=True))
    cost = ((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T).astype(np.float32)
    said = names[likeness.argmax(axis=1)].astype(object)
    unknown = (1 - likeness.max(axis=1)).astype(np.float32)
    return label_scores(task, said, unknown) | retrieval(cost)


def by_labelled_cells(task: Task, per_type: int, seed: int) -> dict[str, float]:
    """Logistic regression from a few labelled cells of the second species; the first takes no part."""
    drawn = labelled_cells(task, per_type, seed)
    components = principal_components(task.second.logs, seed)
    components /= components.std(axis=0).max()
    fitted = LogisticRegression(max_iter=1000).fit(components[drawn], task.second.types[drawn].astype(str))
    probabilities = fitted.predict_proba(components)
    said = fitted.classes_[probabilities.argmax(axis=1)].astype(object)
    return label_scores(task, said, 1 - probabilities.max(axis=1), drawn)


def by_orthologs(task: Task, seed: int) -> dict[str, float]:
    """Logistic regression on log-CPM of one-to-one orthologs; centring by one species would misplace the other."""
    first, second = task.first.logs[:, task.pairs[:, 0]], task.second.logs[:, task.pairs[:, 1]]
    fitted = LogisticRegression(max_iter=300, random_state=seed).fit(first.tocsr(), task.first.types.astype(str))
    probabilities = fitted.predict_proba(second.tocsr())
    said = fitted.classes_[probabilities.argmax(axis=1)].astype(object)
    return label_scores(task, said, 1 - probabilities.max(axis=1))


def compare(tasks: dict[str, Callable[[], Task]], seeds: int, wanted: list[str]) -> pd.DataFrame:
    """Return the tidy table: one row a task, method and seed."""
    config, rows = CouplingConfig(), []
    for name, read in tasks.items():
        task = read()
        methods: dict[str, Callable[..., dict[str, float]]] = {
            "coupling": partial(by_coupling, task, config),
            "coupling, shuffled counts": partial(by_coupling, task, config, shuffled=True),
            "coupling, shared symbols": partial(by_coupling, task, config, symbols=True),
            **{
                f"coupling, {n} labelled cells a type": partial(by_coupling, task, config, per_type=n) for n in LABELLED
            },
            **{f"{n} labelled cells alone": partial(by_labelled_cells, task, n) for n in LABELLED},
            "profile rows": partial(by_matched_genes, task, random=False),
            "random rows": partial(by_matched_genes, task, random=True),
            "orthologs given": partial(by_orthologs, task),
        }
        for method, run in ((name, run) for name, run in methods.items() if not wanted or name in wanted):
            for seed in range(1 if method in {"profile rows", "orthologs given"} else seeds):
                begun = time.perf_counter()
                scores = run(seed=seed)
                seconds = time.perf_counter() - begun
                rows.append({"task": name, "method": method, "seed": seed, **scores, "seconds": seconds})
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def curves(seeds: int) -> pd.DataFrame:
    """Return accuracy and ortholog AUC of the coupling over what makes it hard."""
    base = SimulationConfig(
        phylogeny="(albus:0.5,niger:0.5);",
        n_cells=1000,
        n_genes=1500,
        convergent_species=(),
        n_convergent=0,
        missing_types=(("albus", "T1.2"),),
    )
    axes: dict[str, tuple[float, ...]] = {
        "divergence": (0.25, 0.5, 1.0, 1.5, 2.0),
        "composition_shift": (0.0, 0.5, 1.0, 1.5),
        "n_cells": (150, 300, 600, 1200),
    }
    config, rows = CouplingConfig(groupings=4), []
    for axis, values in axes.items():
        for value in values:
            for seed in range(seeds):
                changed: dict[str, Any] = {axis: int(value) if axis == "n_cells" else value}
                task = simulated_task(replace(base, seed=seed, **changed))
                rows.append({"axis": axis, "value": value, "seed": seed, **by_coupling(task, config, seed)})
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the curves: every seed a point, their mean a line."""
    measures = {"accuracy": "accuracy", "ortholog_auc": "ortholog AUC", "unknown_auroc": "unknown type, AUROC"}
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        axes = figure.subplots(1, table["axis"].nunique(), sharey=True)
        for axis, (name, part) in zip(axes, table.groupby("axis", sort=False), strict=True):
            for colour, (measure, words) in zip(PALETTE, measures.items(), strict=False):
                mean = part.groupby("value")[measure].mean()
                axis.plot(mean.index, mean, color=colour, label=words)
                axis.plot(part["value"], part[measure], ".", color=colour, alpha=0.5)
            axis.set(xlabel=str(name).removeprefix("n_").replace("_", " "), ylim=(0, 1.03))
        axes[0].legend(loc="lower left", fontsize="small")
        figure.savefig(path.with_suffix(".png"), dpi=150)


def summary(table: pd.DataFrame) -> Table:
    """Return mean and range over seeds of each task and method."""
    measures = ["accuracy", "macro_f1", "unknown_auroc", "ortholog_auc", "ortholog_top10", "seconds"]
    rows = []
    for (task, method), part in table.groupby(["task", "method"], sort=False):
        cells = []
        for measure in measures:
            values = part[measure].dropna() if measure in part else pd.Series(dtype=float)
            spread = f" ({values.min():.3f}-{values.max():.3f})" if len(values) > 1 else ""
            cells.append(f"{values.mean():.3f}{spread}" if len(values) else "-")
        rows.append((task, method, *cells))
    return Table("Does it align?", ("task", "method", *measures), tuple(rows))


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("study", "curves"))
    parser.add_argument("--data", type=Path, help="folder with pancreas/ and orthologs/")
    parser.add_argument("--tasks", help="names of tasks, with semicolons between; default: all")
    parser.add_argument("--methods", help="names of methods, with semicolons between; default: all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="table of a study, or picture of the curves")
    options = parser.parse_args()
    if options.what == "curves":
        table = curves(options.seeds)
        if options.out:
            draw(table, options.out)
            table.to_csv(options.out.with_suffix(".tsv"), sep="\t", index=False)
        return
    if options.data is None:
        parser.error("study needs --data FOLDER")
    tasks = real_tasks(options.data)
    wanted = options.tasks.split(";") if options.tasks else list(tasks)
    methods = options.methods.split(";") if options.methods else []
    table = compare({name: tasks[name] for name in wanted}, options.seeds, methods)
    print_tables([summary(table)])
    if options.out:
        table.to_csv(options.out, sep="\t", index=False)


if __name__ == "__main__":
    main()
