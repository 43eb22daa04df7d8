"""Genomes for the simulator: means and program loadings that drift down a phylogeny, with planted genes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.genes.phylogeny import Phylogeny
from lexicell.randomness import generator, permutation

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Genome:
    """Expression parameters of genes, one row a gene.

    Parameters
    ----------
    means
        Log mean (genes,).
    loadings
        Response to the programs (genes, programs).
    """

    means: Floats
    loadings: Floats

    def drifted(self, spread: float, rng: np.random.Generator) -> Genome:
        """Return the genome after a branch: `spread` is the drift of a mean and of a loading vector."""
        n_genes, n_programs = self.loadings.shape
        return Genome(
            self.means + spread * rng.standard_normal(n_genes),
            self.loadings + spread / np.sqrt(n_programs) * rng.standard_normal((n_genes, n_programs)),
        )

    def take(self, rows: Integers) -> Genome:
        """Return the genome of the given rows."""
        return Genome(self.means[rows], self.loadings[rows])


@dataclass(frozen=True)
class Plan:
    """What each orthogroup is, before any drift: one row an orthogroup.

    Parameters
    ----------
    programs
        Main program; -1 for a housekeeping gene.
    markers
        Type whose marker it is, or -1.
    convergent, rewired
        Whether it was planted as such.
    detour
        Change of loadings (orthogroups, programs) that turns the main program into another; zero elsewhere.
    new_programs
        That other program; -1 elsewhere.
    """

    programs: Integers
    markers: Integers
    convergent: Flags
    rewired: Flags
    detour: Floats
    new_programs: Integers

    @property
    def planted(self) -> Flags:
        """Orthogroups that every species must have."""
        return (self.markers >= 0) | self.convergent | self.rewired

    def take(self, rows: Integers) -> Plan:
        """Return the plan of the given rows."""
        return Plan(
            self.programs[rows],
            self.markers[rows],
            self.convergent[rows],
            self.rewired[rows],
            self.detour[rows],
            self.new_programs[rows],
        )

    def without(self, rows: Flags, programs: Integers) -> Plan:
        """Return the plan with nothing planted in `rows`, whose main programs become `programs`."""
        return Plan(
            np.where(rows, programs, self.programs),
            np.where(rows, -1, self.markers),
            self.convergent & ~rows,
            self.rewired & ~rows,
            np.where(rows[:, None], 0.0, self.detour),
            np.where(rows, -1, self.new_programs),
        )


def draw_genes(
    n_genes: int, n_programs: int, housekeeping: int, mean_spread: float, rng: np.random.Generator
) -> tuple[Genome, Integers]:
    """Draw unrelated genes and their main programs; `housekeeping` of them belong to none (-1)."""
    programs = rng.integers(n_programs, size=n_genes)
    programs[rng.permutation(n_genes)[:housekeeping]] = -1
    strengths = 0.6 + rng.gamma(2.0, 0.25, size=n_genes)
    loadings = np.zeros((n_genes, n_programs))
    members = np.flatnonzero(programs >= 0)
    loadings[members, programs[members]] = strengths[members]
    return Genome(mean_spread * rng.standard_normal(n_genes), loadings), programs


def make_plan(
    ancestor: Genome,
    programs: Integers,
    *,
    n_markers: int,
    n_types: int,
    n_convergent: int,
    n_rewired: int,
    seed: int,
) -> Plan:
    """Choose the planted orthogroups: moved ones among the programs' members, markers among the rest."""
    n_genes, n_programs = ancestor.loadings.shape
    members = np.flatnonzero(programs >= 0)
    members = members[permutation(seed, "moved genes", n=len(members))]
    convergent, rewired = np.zeros(n_genes, dtype=bool), np.zeros(n_genes, dtype=bool)
    convergent[members[:n_convergent]] = True
    rewired[members[n_convergent : n_convergent + n_rewired]] = True
    moved: Integers = np.flatnonzero(convergent | rewired)

    markers = np.full(n_genes, -1, dtype=np.int64)
    free: Integers = np.setdiff1d(np.arange(n_genes), moved)
    chosen = free[permutation(seed, "markers", n=len(free))][: n_types * n_markers]
    markers[chosen] = np.repeat(np.arange(n_types), n_markers)

    steps = generator(seed, "new programs").integers(1, n_programs, size=(n_genes,))
    new_programs = np.full(n_genes, -1, dtype=np.int64)
    new_programs[moved] = (programs[moved] + steps[moved]) % n_programs
    old = programs[moved]
    strengths = ancestor.loadings[moved, old]
    detour = np.zeros((n_genes, n_programs))
    detour[moved, old] = -strengths
    detour[moved, new_programs[moved]] = strengths
    return Plan(programs, markers, convergent, rewired, detour, new_programs)


def evolve(ancestor: Genome, phylogeny: Phylogeny, divergence: float, seed: int) -> dict[str, Genome]:
    """Let a genome drift by Brownian motion down the tree; return the genome of every leaf."""
    genomes = [ancestor]
    for node in range(1, len(phylogeny.names)):
        spread = divergence * np.sqrt(phylogeny.lengths[node])
        genomes.append(genomes[phylogeny.parents[node]].drifted(spread, generator(seed, "branch", node)))
    return {phylogeny.names[node]: genomes[node] for node in phylogeny.leaf_nodes}


@dataclass(frozen=True)
class SpeciesGenes:
    """The genes of one species, in the order of its AnnData.

    Parameters
    ----------
    genome
        Their parameters, in the first tissue.
    plan
        What was planted in them.
    orthogroups
        Index of each gene's orthogroup; -1 for a private gene.
    """

    genome: Genome
    plan: Plan
    orthogroups: Integers

    @classmethod
    def draw(
        cls, genome: Genome, plan: Plan, *, private_share: float, mean_spread: float, seed: int, species: str
    ) -> SpeciesGenes:
        """Replace some orthogroups by private genes and shuffle, so that a gene's place says nothing."""
        n_genes, n_programs = genome.loadings.shape
        rng = generator(seed, "private genes", species)
        losable = np.flatnonzero(~plan.planted)
        lost = np.zeros(n_genes, dtype=bool)
        lost[rng.permutation(losable)[: min(len(losable), round(private_share * n_genes))]] = True
        housekeeping = round(n_genes * float(np.mean(plan.programs < 0)))
        private, programs = draw_genes(n_genes, n_programs, housekeeping, mean_spread, rng)
        mixed = Genome(
            np.where(lost, private.means, genome.means),
            np.where(lost[:, None], private.loadings, genome.loadings),
        )
        order = permutation(seed, "gene order", species, n=n_genes)
        groups = np.where(lost, -1, np.arange(n_genes))
        return cls(mixed.take(order), plan.without(lost, programs).take(order), groups[order])

    def moved(self, which: Flags, share: float = 1.0) -> SpeciesGenes:
        """Return the genes with those in `which` moved by `share` of the way to their new program."""
        loadings = self.genome.loadings + share * np.where(which[:, None], self.plan.detour, 0.0)
        programs = np.where(which & (share > 0.5), self.plan.new_programs, self.plan.programs)
        return replace(self, genome=Genome(self.genome.means, loadings), plan=replace(self.plan, programs=programs))

    def table(self, species: str, number: int, types: list[str]) -> pd.DataFrame:
        """Return the truth about each gene; `number` makes the species' gene ids its own."""
        n_genes = len(self.orthogroups)
        places = np.arange(1, n_genes + 1)
        named = np.array([*types, ""], dtype=object)  # so that index -1 is ""
        return pd.DataFrame(
            {
                "species": species,
                "gene_id": [f"SIM{number:02d}G{place:06d}" for place in places],
                "symbol": [f"{species.rpartition('_')[2][:4].capitalize()}{place}" for place in places],
                "orthogroup": ["" if group < 0 else f"OG{group + 1:06d}" for group in self.orthogroups],
                "program": ["" if p < 0 else f"program_{p + 1}" for p in self.plan.programs],
                "marker_of": named[self.plan.markers],
                "convergent": self.plan.convergent,
                "rewired": self.plan.rewired,
            }
        )
