"""How labels are attributed and genes knocked out; apart, so that the command line can explain it without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lexicell.errors import InputError, listing

Method = Literal["integrated", "gradient"]
Begin = Literal["average", "silent"]
Through = Literal["auto", "head", "probe"]
Mode = Literal["zero", "remove"]

FIRST = 20  # genes of a list that are looked at for known markers
LEAST_CELLS = 5  # of a group that express a gene, to knock it out or take it as a control


@dataclass(frozen=True)
class AttributionOptions:
    """How labels are attributed to genes.

    Attributes
    ----------
    method
        integrated: gradients along the way from the baseline to the cell, which add up to the score; gradient: gradient
        times input at the cell, faster.
    steps
        Points on the way.
    baseline
        average: each gene's count as in the average of the cells looked at; silent: no counts.
    through
        head: the label head that was trained along; probe: a logistic regression on the embeddings of the cells looked
        at; auto: the head where it knows the column's labels, else a probe.
    kept
        Genes of each label that are written, those that contribute most in either direction.
    """

    method: Method = "integrated"
    steps: int = 8
    baseline: Begin = "average"
    through: Through = "auto"
    kept: int = 500

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("baseline", Begin), ("through", Through)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"--{name} {getattr(self, name)}: expected {listing(get_args(kind))}")
        if self.steps < 1 or self.kept < FIRST:
            raise InputError(f"--steps: 1 or more; --kept: {FIRST} or more")


@dataclass(frozen=True)
class KnockoutOptions:
    """How genes are knocked out.

    Attributes
    ----------
    mode
        zero: the gene is shown as silent; remove: it is not shown.
    cells
        Cells in which each gene is knocked out, at most, drawn among those that express it.
    pool
        Cells of each group that are held in memory, at most, drawn at random.
    controls
        Genes of alike expression that each gene is compared with.
    responding
        Genes whose expected counts are followed: those that vary most over the cells.
    scan
        Besides the genes named, so many that most of a group's cells express are knocked out.
    """

    mode: Mode = "zero"
    cells: int = 30
    pool: int = 200
    controls: int = 30
    responding: int = 200
    scan: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"--mode {self.mode}: expected {listing(get_args(Mode))}")
        if min(self.cells, self.controls, self.pool) < LEAST_CELLS or self.responding < 1:
            raise InputError(f"--cells, --pool and --controls: {LEAST_CELLS} or more; --responding: 1 or more")
        if self.scan < 0:
            raise InputError("--scan: 0 or more")
