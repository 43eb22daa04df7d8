"""Gene tables: what a gene is called. Names of any kind -> ids, with a report of what was found.

Design choices
- A name is tried as an id (its version aside), then as a symbol, then as an alias; all in the table's own
  spelling first, and without regard to case only as a last resort.
- A name that stands for several genes at the level where it is found is ambiguous: reported, never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.species import find_species, strip_versions

_COLUMN_NAMES = {
    "gene_id": ("gene_id", "id", "ensembl_id", "ensembl", "ensembl_gene_id", "gene_stable_id", "gene"),
    "symbol": ("symbol", "gene_symbol", "gene_name", "name", "external_gene_name"),
    "aliases": ("aliases", "alias", "synonyms", "synonym", "alias_symbol", "prev_symbol"),
    "chrom": ("chrom", "chromosome", "chr", "seqname", "chromosome_name"),
    "start": ("start", "start_position"),
    "end": ("end", "end_position"),
    "strand": ("strand",),
    "biotype": ("biotype", "gene_biotype", "gene_type"),
}
_EXAMPLES = 10


@dataclass(frozen=True)
class MatchReport:
    """What became of the gene names of one file.

    Attributes
    ----------
    n_genes
        Names in the file.
    n_matched, n_ambiguous, n_unmatched
        Names found once, names that stand for several genes, names not found; they sum to `n_genes`.
    n_duplicates
        Matched names beyond the first for their gene; their counts are summed.
    by
        How many of the matched names were found as what: ``id``, ``symbol``, ``alias``, case aside or not.
    count_share, ambiguous_count_share, unmatched_count_share
        Share of the file's counts that the three kinds hold; None until the counts were read.
    examples_ambiguous, examples_unmatched
        The first few of them.
    """

    n_genes: int
    n_matched: int
    n_ambiguous: int
    n_unmatched: int
    n_duplicates: int = 0
    by: tuple[tuple[str, int], ...] = ()
    count_share: float | None = None
    ambiguous_count_share: float | None = None
    unmatched_count_share: float | None = None
    examples_ambiguous: tuple[str, ...] = ()
    examples_unmatched: tuple[str, ...] = ()

    @property
    def gene_share(self) -> float:
        """Share of the names that were matched; 0 when there are none."""
        return self.n_matched / self.n_genes if self.n_genes else 0.0

    def with_counts(self, matched: float, ambiguous: float, unmatched: float) -> MatchReport:
        """Return the report with the shares that these sums of counts make."""
        total = matched + ambiguous + unmatched
        shares = [value / total if total else 0.0 for value in (matched, ambiguous, unmatched)]
        return replace(self, count_share=shares[0], ambiguous_count_share=shares[1], unmatched_count_share=shares[2])

    def figures(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "n_genes": self.n_genes,
            "n_matched": self.n_matched,
            "n_ambiguous": self.n_ambiguous,
            "n_unmatched": self.n_unmatched,
            "n_duplicates": self.n_duplicates,
            "by": dict(self.by),
            "count_share": self.count_share,
            "ambiguous_count_share": self.ambiguous_count_share,
            "unmatched_count_share": self.unmatched_count_share,
            "examples_ambiguous": list(self.examples_ambiguous),
            "examples_unmatched": list(self.examples_unmatched),
        }

    def rows(self) -> list[tuple[object, ...]]:
        """Return rows of two cells for a table: what, and how much of it."""

        def text(number: int, share: float | None, examples: tuple[str, ...] = ()) -> str:
            counts = "" if share is None else f", {share:.1%} of the counts"
            return f"{number:,}{counts}" + (f" ({listing(examples, 3)})" if examples else "")

        rows: list[tuple[object, ...]] = [
            ("genes", f"{self.n_genes:,}"),
            ("genes matched", text(self.n_matched, self.count_share)),
        ]
        if self.n_ambiguous:
            shown = text(self.n_ambiguous, self.ambiguous_count_share, self.examples_ambiguous)
            rows.append(("genes ambiguous", shown))
        if self.n_unmatched:
            shown = text(self.n_unmatched, self.unmatched_count_share, self.examples_unmatched)
            rows.append(("genes unmatched", shown))
        return rows

    def summary(self) -> str:
        """Say in one line what was found."""
        share = "" if self.count_share is None else f", {self.count_share:.1%} of the counts"
        text = f"{self.n_matched:,} of {self.n_genes:,} genes matched ({self.gene_share:.1%}{share})"
        if self.n_ambiguous:
            text += f"; {self.n_ambiguous:,} ambiguous ({listing(self.examples_ambiguous, 3)})"
        if self.n_unmatched:
            text += f"; {self.n_unmatched:,} unmatched ({listing(self.examples_unmatched, 3)})"
        return text


@dataclass(frozen=True, eq=False)
class Resolution:
    """The outcome of `GeneAnnotations.resolve`.

    Attributes
    ----------
    ids
        (n,) gene id of each name, or None.
    rows
        (n,) int64, row of the gene in the table; -1 where unmatched, -2 where ambiguous.
    report
        The figures.
    """

    ids: list[str | None]
    rows: npt.NDArray[np.int64]
    report: MatchReport


class GeneAnnotations:
    """The genes of one species under all their names.

    Parameters
    ----------
    table
        Column ``gene_id``; optionally ``symbol``, ``aliases`` (separated by ``|``, ``;`` or ``,``),
        ``chrom``, ``start``, ``end``, ``strand``, ``biotype``.
    species
        Name of the species.
    source
        What to call the table in an error.

    Raises
    ------
    InputError
        When there is no ``gene_id`` column, the table is empty, or an id is missing or stands twice.
    """

    def __init__(self, table: pd.DataFrame, species: str, source: str = "gene table") -> None:
        self.species = find_species(species).name
        self.source = source
        self.table = _normalised(table, source)
        ids = self.table["gene_id"].tolist()
        symbols = self.table["symbol"].tolist()
        aliases = [(row, alias) for row, text in enumerate(self.table["aliases"]) for alias in _split(text) if alias]
        spelt = [
            ("id", list(enumerate(ids))),
            ("symbol", [(row, name) for row, name in enumerate(symbols) if name]),
            ("alias", aliases),
        ]
        self._levels = [(kind, _index(pairs)) for kind, pairs in spelt]
        self._levels += [
            (f"{kind}, case aside", _index([(row, name.casefold()) for row, name in pairs])) for kind, pairs in spelt
        ]

    @classmethod
    def load(cls, path: str | Path, species: str) -> Self:
        """Read a tab-separated table with a header line (also ``.gz``); usual column names are understood."""
        path = Path(path)
        try:
            table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such gene table.") from None
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read as a tab-separated gene table ({error}).") from None
        return cls(table, species, source=str(path))

    @classmethod
    def from_lexicon(cls, lexicon: Lexicon, species: str) -> Self:
        """Make a gene table of a lexicon's genes of a species; row i is the i-th of ``lexicon.rows_of``."""
        rows = lexicon.rows_of(species)
        if not len(rows):
            raise InputError(
                f"{find_species(species).name}: this species is not in the lexicon, which holds "
                f"{listing(lexicon.species)}. Name one of these, or extend the model to the new species."
            )
        table = lexicon.table.iloc[rows]
        return cls(table.drop(columns="species").reset_index(drop=True), species, source="lexicon")

    def __len__(self) -> int:
        return len(self.table)

    def resolve(self, names: Sequence[str]) -> Resolution:
        """Find the gene of every name.

        Parameters
        ----------
        names
            (n,) ids with or without version, symbols or aliases, mixed as they may be.
        """
        bare = pd.Series(strip_versions(names), dtype=object)
        folded = bare.map(str.casefold) if len(bare) else bare
        rows = np.full(len(bare), -1, dtype=np.int64)
        by = []
        for kind, level in self._levels:
            open_places = np.flatnonzero(rows == -1)
            wanted = folded if kind.endswith("aside") else bare
            found = wanted.iloc[open_places].map(level).fillna(-1).to_numpy(dtype=np.int64)
            rows[open_places] = found
            if (found >= 0).any():
                by.append((kind, int((found >= 0).sum())))
        ids = [*self.table["gene_id"], None]
        matched = rows >= 0
        ambiguous, unmatched = np.flatnonzero(rows == -2), np.flatnonzero(rows == -1)
        report = MatchReport(
            n_genes=len(rows),
            n_matched=int(matched.sum()),
            n_ambiguous=len(ambiguous),
            n_unmatched=len(unmatched),
            n_duplicates=int(matched.sum()) - len(np.unique(rows[matched])),
            by=tuple(by),
            examples_ambiguous=tuple(names[place] for place in ambiguous[:_EXAMPLES]),
            examples_unmatched=tuple(names[place] for place in unmatched[:_EXAMPLES]),
        )
        return Resolution([ids[row] for row in np.where(matched, rows, -1)], rows, report)


def _index(pairs: list[tuple[int, str]]) -> dict[str, int]:
    """Return name -> row, -2 for a name of several rows."""
    index: dict[str, int] = {}
    for row, name in pairs:
        if index.setdefault(name, row) != row:
            index[name] = -2
    return index


def _split(text: str) -> list[str]:
    for separator in "|;":
        if separator in text:
            return [part.strip() for part in text.split(separator)]
    return [part.strip() for part in text.split(",")]


def _normalised(table: pd.DataFrame, source: str) -> pd.DataFrame:
    lower = {str(column).strip().lower(): column for column in table.columns}
    columns = {
        ours: lower[next(name for name in names if name in lower)]
        for ours, names in _COLUMN_NAMES.items()
        if any(name in lower for name in names)
    }
    if "gene_id" not in columns:
        raise InputError(
            f"{source}: no column of gene ids; expected one of {listing(_COLUMN_NAMES['gene_id'], 9)}, "
            f"found {listing(table.columns, 20)}."
        )
    if table.empty:
        raise InputError(f"{source}: holds no gene.")
    clean = pd.DataFrame({ours: table[theirs].to_numpy() for ours, theirs in columns.items()})
    for text in ("gene_id", "symbol", "aliases"):
        values = clean[text] if text in clean else pd.Series([""] * len(clean), dtype=object)
        clean[text] = values.fillna("").astype(str).str.strip().astype(object)
    clean["gene_id"] = strip_versions(clean["gene_id"].tolist())
    empty = int((clean["gene_id"] == "").sum())
    if empty:
        raise InputError(f"{source}: {empty} rows have no gene id.")
    twice = clean.loc[clean.duplicated("gene_id"), "gene_id"].tolist()
    if twice:
        raise InputError(f"{source}: these gene ids stand more than once: {listing(twice)}.")
    for number in ("start", "end"):
        if number in clean:
            clean[number] = pd.to_numeric(clean[number], errors="coerce").astype("Int64")
    return clean
