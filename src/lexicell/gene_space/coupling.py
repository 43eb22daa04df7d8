"""Couple two species by expression alone: groups of cells with groups of cells, genes with genes, each from the other.

No homology and no labels of the second species enter. Design choices
- Co-optimal transport (Redko, Vayer, Flamary & Courty 2020), alternating: given which groups of cells belong
  together, two genes are alike when they are high in matched groups; given which genes are alike, two groups are alike
  when like genes are high in them. Genes are compared by rank features (`expression_profile`) as well, which breaks
  the symmetry at the start.
- Groups are coupled by unbalanced entropic transport (Chizat et al. 2018): types differ in share between species,
  and a type that one species lacks may stay unmatched. Leaving groups unmatched is dear at first: starts that may
  leave them at once seldom find the truth.
- The alternation ends in whatever optimum is near, often a wrong one. So it starts many times, from the ranks alone
  with more and less noise, half of the times led by the distances among groups at first (Gromov-Wasserstein; Peyré,
  Cuturi & Solomon 2016); the start is kept in which matched groups agree best, over the genes that were fitted and,
  times that, over genes that were left out. For that nearly all groups are matched: judged by the few that found a
  partner, optima that match little but that well win over the truth.
- Both species are grouped in the same way, without labels: groups cut along the first species' labels did worse.
- What is known beforehand may enter, where the user asks for it: pairs of genes (which then alone say what is
  alike), and labels of a few cells of the second species (which make groups of other labels dear to match).
- Cells are grouped anew several times. Each grouping tries what every other found; the optimum in which all groupings
  together agree best is kept, what they say is averaged, and their discord tells what is unsure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csc_matrix

from lexicell.errors import InputError
from lexicell.gene_space.cell_groups import GroupedCells, group_cells, principal_components
from lexicell.gene_space.profiles import expression_profile

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

FEWEST = 20  # cells, and genes, of a species that can be coupled
FEW_CELLS = 600  # below so many, simulated species were often coupled wholly wrongly
_SINKHORN_STEPS = 60
_PLACED_BY = 1000  # genes by which cells are placed in groups
_SAME = 1e-3  # scores nearer than this are taken for one optimum


@dataclass(frozen=True)
class CouplingConfig:
    """How two species are coupled."""

    groups: int = 30
    """Groups of cells in each species; fewer where there are fewer than 10 cells for each."""
    genes: int = 400
    """Genes of each species, those that differ most among groups, on which groups are matched."""
    held_out_genes: int = 200
    """The next most different genes, on which starts are compared."""
    starts: int = 24
    """Starts for each grouping."""
    groupings: int = 8
    """Times that cells are grouped anew."""
    steps: int = 15
    """Alternations of a start."""
    profile_scale: float = 0.15
    """Distance of rank features at which genes count as different; ranks go from 0 to 1."""
    expression_scale: float = 0.35
    """Distance of log expression over matched groups at which genes count as different."""
    entropy: float = 0.01
    """Entropy of the groups' coupling, in units of one minus their correlation."""
    unbalance: float = 0.1
    """Cost of leaving a group unmatched; high forces every group to find a partner."""
    first_unbalance: float = 1.0
    """What that cost begins with: at first all groups look for a partner, later only some keep one."""
    judged_unbalance: float = 0.3
    """That cost when optima are compared: each is judged by nearly all groups, not by the few that it matches."""
    anchor: float = 0.5
    """Cost of matching a group that holds labelled cells with one of other labels, where labels are given."""

    def __post_init__(self) -> None:
        positive = {name: getattr(self, name) for name in self.__dataclass_fields__}
        wrong = {name: value for name, value in positive.items() if not value > 0}
        if wrong or self.groups < 2:
            raise InputError(f"coupling: expected numbers above 0 and 2 or more groups; got {wrong or self.groups}")


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which groups of the first species belong with which of the second."""

    first: GroupedCells
    second: GroupedCells
    plan: Float32  # (n_groups of first, n_groups of second) mass
    score: float  # agreement of matched groups; the higher of two starts is the better

    def matched(self) -> Float32:
        """Return the part of each second group's mass that found a partner, 0 to 1, (n_groups of second,)."""
        part: Float32 = np.minimum(self.plan.sum(axis=0) / self.second.share, 1.0)
        return part


@dataclass(frozen=True, eq=False)
class ComparedGenes:
    """Some genes of both species, ready to be compared."""

    first: Float32  # (n_groups of first, n) logs
    second: Float32  # (n_groups of second, m) logs
    ranks_cost: Float32  # (n, m)
    paired: bool = False  # gene i of the first is known to be gene i of the second

    def centred(self, plan: Float32) -> tuple[Float32, Float32]:
        """Return logs less their mean over what is matched: what one species has alone does not move the mean."""
        return self.first - plan.sum(axis=1) @ self.first, self.second - plan.sum(axis=0) @ self.second

    def correlation(self, plan: Float32, scale: float) -> Float32:
        """Return the correlation of all pairs of groups over genes that are alike given the groups' plan."""
        plan = plan / plan.sum()
        a, b = self.centred(plan)
        if self.paired:
            alike = np.eye(a.shape[1], dtype=np.float32)
        else:
            cost = profile_cost(a, b, plan, scale)
            cost += self.ranks_cost
            alike = np.exp(cost.min() - cost)
            # The geometric mean of both softmins. A gene unlike all others underflows to no weight, as it should have.
            sums = [np.maximum(alike.sum(axis=axis, keepdims=True), 1e-30) for axis in (0, 1)]
            alike *= 1 / np.sqrt(sums[0])
            alike *= 1 / np.sqrt(sums[1])
        alike /= alike.sum()
        norm_a = np.sqrt((a**2) @ alike.sum(axis=1))
        norm_b = np.sqrt((b**2) @ alike.sum(axis=0))
        found: Float32 = (a @ alike @ b.T) / np.maximum(norm_a[:, None] * norm_b, 1e-9)
        return found


def softmin(cost: Float32, axis: int) -> Float32:
    """Return exp(-cost), normalised along an axis."""
    weights = np.exp(cost.min(axis=axis, keepdims=True) - cost)
    normalised: Float32 = weights / weights.sum(axis=axis, keepdims=True)
    return normalised


def profile_cost(a: Float32, b: Float32, plan: Float32, scale: float) -> Float32:
    """Return squared distances of genes over matched groups, (n, m), in units of twice the squared scale."""
    unit = np.float32(1 / (2 * scale**2))
    cost: Float32 = a.T @ (plan @ (b * (-2 * unit)))
    cost += (plan.sum(axis=1) @ a**2 * unit)[:, None]
    cost += plan.sum(axis=0) @ b**2 * unit
    return cost


def ranks_cost(a: Float32, b: Float32, scale: float) -> Float32:
    """Return mean squared distances of rank features, (n, m), in units of twice the squared scale."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)
    cost: Float32 = (squares - 2 * a @ b.T) / np.float32(a.shape[1] * 2 * scale**2)
    return cost


def transport(cost: Float32, first: Float32, second: Float32, entropy: float, unbalance: float) -> Float32:
    """Return the unbalanced entropic transport plan, (n, m) (Chizat et al. 2018).

    Parameters
    ----------
    cost
        (n, m) cost of moving a unit of mass.
    first, second
        (n,) and (m,) masses.
    entropy
        Strength of the entropy term; the smaller, the sharper the plan.
    unbalance
        Strength of the Kullback-Leibler terms that hold the plan to the masses; infinite for balanced transport.
    """
    kernel = np.exp(-(cost.astype(np.float64) - cost.min()) / entropy)
    power = 1.0 if np.isinf(unbalance) else unbalance / (unbalance + entropy)
    u, v = np.ones(len(first)), np.ones(len(second))
    for _ in range(_SINKHORN_STEPS):
        u = (first / np.maximum(kernel @ v, 1e-300)) ** power
        v = (second / np.maximum(kernel.T @ u, 1e-300)) ** power
    plan: Float32 = (u[:, None] * kernel * v).astype(np.float32)
    return plan


@dataclass(frozen=True, eq=False)
class _Grouping:
    """Both species in groups, with the genes on which the groups are matched and compared."""

    first: GroupedCells
    second: GroupedCells
    fitted: ComparedGenes
    left_out: ComparedGenes
    dear: Float32  # (n_groups of first, n_groups of second) what labels add to the cost

    def improve(self, plan: Float32, config: CouplingConfig, *, led: bool = False) -> Coupling:
        """Go to the optimum near a plan; or, led by the distances among groups, to one less near."""
        distances = [_distances(side) for side in (self.fitted.first, self.fitted.second)] if led else None
        shares = self.first.share, self.second.share
        plan = _alternate(self.fitted, plan, shares, config, distances, self.dear)
        fitted, left_out = (genes.correlation(plan, config.expression_scale) for genes in (self.fitted, self.left_out))
        judged = transport(1 + self.dear - fitted, *shares, config.entropy, config.judged_unbalance)
        judged /= judged.sum()
        agreement = [max(0.0, float((judged * (part - self.dear)).sum())) for part in (fitted, left_out)]
        return Coupling(self.first, self.second, plan, agreement[0] * agreement[1])

    def search(self, config: CouplingConfig, rng: np.random.Generator) -> list[Coupling]:
        """Return the best two different optima that many starts lead to."""
        plans = _starts(self.fitted, self.first.share, self.second.share, config, rng, self.dear)
        found = [self.improve(plan, config, led=number % 2 == 1) for number, plan in enumerate(plans)]
        found.sort(key=lambda coupling: -coupling.score)
        others = [coupling for coupling in found if found[0].score - coupling.score > _SAME]
        return [found[0], *others[:1]]

    def adopt(self, coupling: Coupling, config: CouplingConfig) -> Coupling:
        """Carry over, cell by cell, what another grouping found, and improve it here."""
        sides = ((self.first, coupling.first), (self.second, coupling.second))
        a, b = (_overlap(own, other) for own, other in sides)
        plan: Float32 = (a @ coupling.plan @ b.T).astype(np.float32)
        return self.improve(plan, config)


def _overlap(own: GroupedCells, other: GroupedCells) -> Float32:
    """Return which part of each other group's cells is in each own group, (own groups, other groups)."""
    counts = np.zeros((len(own.share), len(other.share)), np.float32)
    np.add.at(counts, (own.group, other.group), 1)
    part: Float32 = counts / counts.sum(axis=0)
    return part


def _choose_genes(
    first: GroupedCells, second: GroupedCells, config: CouplingConfig, pairs: Int64 | None
) -> tuple[ComparedGenes, ComparedGenes]:
    """Return the genes that are fitted and those left out: of pairs, where they are given, else of each side alone."""
    variances = [side.share @ (side.logs - side.share @ side.logs) ** 2 for side in (first, second)]
    if pairs is None:
        orders = [np.argsort(-variance, kind="stable") for variance in variances]
    else:
        both = variances[0][pairs[:, 0]] * variances[1][pairs[:, 1]]
        orders = list(pairs[np.argsort(-both, kind="stable")].T)
    made = []
    n_fitted = [min(config.genes, len(order) * 2 // 3) for order in orders]
    for parts in (
        [slice(0, n) for n in n_fitted],
        [slice(n, n + config.held_out_genes) for n in n_fitted],
    ):
        a, b = (order[part] for order, part in zip(orders, parts, strict=True))
        cost = ranks_cost(first.ranks[a], second.ranks[b], config.profile_scale)
        made.append(ComparedGenes(first.logs[:, a], second.logs[:, b], cost, pairs is not None))
    return made[0], made[1]


def _starts(
    genes: ComparedGenes,
    first: Float32,
    second: Float32,
    config: CouplingConfig,
    rng: np.random.Generator,
    dear: Float32,
) -> list[Float32]:
    """Return plans to begin with: what the ranks and labels say, and the same with noise."""
    said = genes.correlation(np.outer(first, second), np.inf)
    said = said / max(float(said.std()), 1e-9) - 2 * dear / config.anchor
    plans = []
    for number in range(config.starts):
        noise = (0.0, 0.5, 1.0, 2.0)[number // 2 % 4]
        drawn = said + noise * rng.standard_normal(said.shape)
        plans.append(transport(np.asarray(-0.15 * drawn, np.float32), first, second, 0.05, 0.3))
    return plans


def _alternate(
    genes: ComparedGenes,
    plan: Float32,
    shares: tuple[Float32, Float32],
    config: CouplingConfig,
    distances: list[Float32] | None,
    dear: Float32,
) -> Float32:
    """Go from one plan to the optimum near it; with distances, led by them and softly at first."""
    for step in range(config.steps):
        done = min(1.0, step / (0.6 * config.steps))
        unbalance = config.first_unbalance ** (1 - done) * config.unbalance**done
        scale, entropy = config.expression_scale, config.entropy
        cost = np.zeros_like(plan)
        if distances is not None:
            scale, entropy = scale * 2 ** (1 - done), entropy * 2.5 ** (1 - done)
            a, b, mass = *distances, plan / plan.sum()
            spread = (a**2 @ mass.sum(axis=1))[:, None] + b**2 @ mass.sum(axis=0)
            cost = 2 * (1 - done) * (spread - 2 * a @ mass @ b)
        cost = cost + 1 + dear - genes.correlation(plan, scale)
        plan = transport(cost, *shares, entropy, unbalance)
    return plan


def _dear(first: GroupedCells, second: GroupedCells, labels: tuple[Int64, Int64], cost: float) -> Float32:
    """Return what labels add to the cost of matching two groups, (n, m); nothing for groups without labelled cells."""
    n_labels = 1 + max(int(part.max(initial=0)) for part in labels)
    parts: list[Float32] = []
    labelled: list[npt.NDArray[np.bool_]] = []
    for side, known in zip((first, second), labels, strict=True):
        counts = np.zeros((len(side.share), n_labels), np.float32)
        np.add.at(counts, (side.group[known >= 0], known[known >= 0]), 1)
        parts.append(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        labelled.append(counts.sum(axis=1) > 0)
    both = labelled[0][:, None] & labelled[1]
    dear: Float32 = np.float32(cost) * both * (1 - parts[0] @ parts[1].T)
    return dear


def _distances(logs: Float32) -> Float32:
    """Return one minus the correlation of groups, (n_groups, n_groups)."""
    centred = logs - logs.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    distance: Float32 = 1 - centred @ centred.T
    return distance


def couple_species(
    first: csc_matrix,
    second: csc_matrix,
    config: CouplingConfig | None = None,
    *,
    pairs: Int64 | None = None,
    labels: tuple[Int64, Int64] | None = None,
    seed: int = 0,
) -> list[Coupling]:
    """Couple two species' cells over several groupings.

    Parameters
    ----------
    first, second
        log(1 + counts per 10,000) of each species, (n_cells, n_genes), over the genes that it measured.
    config
        How they are coupled.
    pairs
        (n_pairs, 2) genes of the first and of the second species that are known to correspond. Given, they alone
        say which genes are alike. Default: none are known, and all are matched by expression.
    labels
        (n_cells,) labels of the first species' cells and of the second's, -1 for unknown: a few of the second's
        will do. Default: no label of the second species is known.
    seed
        Names groups and starts.

    Returns
    -------
    list of Coupling
        One for each grouping, all from the one optimum on which the groupings together agree best.

    Raises
    ------
    InputError
        When a species has fewer than 20 cells or 20 genes, or there are fewer than 20 pairs.
    """
    config = config or CouplingConfig()
    for side, name in ((first, "first"), (second, "second")):
        if min(side.shape) < FEWEST:
            raise InputError(
                f"{name} species: {side.shape[0]} cells, {side.shape[1]} genes: {FEWEST} of each are needed to couple "
                "species"
            )
    if pairs is not None and len(pairs) < FEWEST:
        raise InputError(f"{len(pairs)} pairs of genes: {FEWEST} are needed to couple species by them")
    rng = np.random.default_rng(seed)
    sides = [(m, principal_components(m, seed), expression_profile(m)) for m in (csc_matrix(first), csc_matrix(second))]
    groupings, candidates = [], []
    for integer in rng.integers(2**31, size=config.groupings).tolist():
        a, b = (group_cells(*side, config.groups, integer) for side in sides)
        dear = np.zeros((len(a.share), len(b.share)), np.float32)
        if labels is not None:
            dear = _dear(a, b, labels, config.anchor)
        groupings.append(_Grouping(a, b, *_choose_genes(a, b, config, pairs), dear))
        candidates += groupings[-1].search(config, np.random.default_rng(integer))
    adopted = [[grouping.adopt(candidate, config) for grouping in groupings] for candidate in candidates]
    return max(adopted, key=lambda couplings: sum(coupling.score for coupling in couplings))


def transfer(
    couplings: list[Coupling], labels: Int64, n_labels: int, groups: list[Int64] | None = None
) -> tuple[Float32, Float32]:
    """Carry labels of the first species' cells over to the second's.

    Parameters
    ----------
    couplings
        What `couple_species` found.
    labels
        (n_cells of first,) labels, -1 for unknown.
    n_labels
        Number of labels.
    groups
        Each coupling's groups of the second species to which the cells asked for belong (`place_cells`), (n_asked,)
        each. Default: the cells that were coupled.

    Returns
    -------
    probabilities
        (n_asked, n_labels), the mean over groupings; they sum to 1 where any label is known.
    unmatched
        (n_asked,) the part of their groups' mass that found no partner: high for types that the first species
        lacks.
    """
    known = labels >= 0
    groups = [coupling.second.group for coupling in couplings] if groups is None else groups
    n_asked = len(groups[0])
    total, unmatched = np.zeros((n_asked, n_labels), np.float32), np.zeros(n_asked, np.float32)
    for coupling, group in zip(couplings, groups, strict=True):
        counts = np.zeros((len(coupling.first.share), n_labels))
        np.add.at(counts, (coupling.first.group[known], labels[known]), 1.0)
        votes: Float64 = coupling.plan.T @ (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
        votes /= np.maximum(votes.sum(axis=1, keepdims=True), 1e-12)
        total += votes[group].astype(np.float32) / len(couplings)
        unmatched += ((1 - coupling.matched()) / len(couplings)).astype(np.float32)[group]
    return total, unmatched


def place_cells(expression: csc_matrix, side: GroupedCells) -> Int64:
    """Return the group that each cell is most like, for cells that were not grouped themselves.

    Parameters
    ----------
    expression
        log(1 + counts per 10,000), (n_cells, n_genes), over the genes that the species was grouped with.
    side
        The groups.

    Returns
    -------
    ndarray, (n_cells,)
        By correlation with groups' mean log-CPM over the genes that differ most among groups, each gene less its mean
        over groups.
    """
    means = np.exp(side.logs)
    usual = side.share @ means
    chosen = np.argsort(-(side.share @ (side.logs - side.share @ side.logs) ** 2), kind="stable")[:_PLACED_BY]
    groups = (means - usual)[:, chosen]
    groups /= np.maximum(np.linalg.norm(groups, axis=1, keepdims=True), 1e-9)
    # A cell's own length does not change which group is nearest.
    likeness = expression[:, chosen] @ groups.T - usual[chosen] @ groups.T
    place: Int64 = np.asarray(likeness).argmax(axis=1).astype(np.int64)
    return place
