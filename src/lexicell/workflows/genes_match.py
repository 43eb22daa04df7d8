"""Match the genes of one species to those of another by their embeddings, without orthologs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.gene_space.matching import ConfidenceCheck, MatchConfidence, Matches, match_genes
from lexicell.gene_space.retrieval import Retrieval, ortholog_retrieval
from lexicell.genes.lexicon import Lexicon
from lexicell.genes.orthologs import read_orthologs
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.reporting.text import Table
from lexicell.training.run_folder import EXPOSURE
from lexicell.workflows.embed import load
from lexicell.workflows.genes import check_ending, write_table

Int64 = npt.NDArray[np.int64]

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class GenesMatchResult:
    """Genes of two species, matched."""

    table: pd.DataFrame
    """One row a gene and match: gene_id, symbol, rank, match_id, match_symbol, cosine, csls, mutual, confidence (with
    an ortholog table, else missing), ortholog (whether the match is the table's; missing where it has none), and how
    often both were shown while expressed (where that is known)."""
    source: str
    """Species of the genes."""
    target: str
    """Species of the matches."""
    retrieval: Retrieval | None
    """How well orthologs find each other; None without a table."""
    check: ConfidenceCheck | None
    """How the confidence did on orthologs that it was not fitted on; None where none could be fitted."""
    out: Path | None
    """File written, if any."""

    @property
    def best(self) -> pd.DataFrame:
        """The best match of every gene."""
        return self.table[self.table["rank"] == 1]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        figures: dict[str, Any] = {
            "from": self.source,
            "to": self.target,
            "genes": len(self.best),
            "mutual": int(self.best["mutual"].sum()),
            "out": None if self.out is None else str(self.out),
        }
        if self.retrieval is not None:
            known = self.best["ortholog"].dropna().astype(bool)
            figures |= {"ortholog_auc": self.retrieval.auc, "ortholog_top10": self.retrieval.top10}
            figures |= {"ortholog_pairs": self.retrieval.pairs, "best_is_ortholog": float(known.mean())}
        if self.check is not None:
            figures["confidence"] = asdict(self.check)
        return figures

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        figures = self.figures()
        names = {
            "genes": f"genes of {self.source}",
            "mutual": f"whose best match in {self.target} is mutual",
            "ortholog_pairs": "one-to-one orthologs in the table that the model knows",
            "ortholog_auc": "orthologs: AUC among them (chance: 0.5)",
            "ortholog_top10": "orthologs: among the 10 nearest of them",
            "best_is_ortholog": "orthologs: best match of all genes",
            "out": "written to",
        }
        rows = [(words, figures[key]) for key, words in names.items() if figures.get(key) is not None]
        tables = [Table("Matched genes", ("", ""), tuple(rows))]
        if self.check is not None:
            words = ("checked genes", "share right", "share right as foretold", "calibration error", "AUROC")
            lines = tuple(zip(words, asdict(self.check).values(), strict=True))
            tables.append(Table("Confidence, on orthologs that it was not fitted on", ("", ""), lines))
        elif self.retrieval is not None:
            tables.append(Table("Confidence", ("",), (("too few orthologs, or none found: no confidence given",),)))
        shown = self.best[self.best["mutual"]].sort_values("csls", ascending=False).head(_SHOWN)
        lines = tuple(tuple(row) for row in shown[["symbol", "match_symbol", "csls"]].itertuples(index=False))
        tables.append(Table("Surest mutual matches", (self.source, self.target, "CSLS"), lines))
        return tables


def genes_match(
    model: CellModel | str | Path,
    source: str,
    target: str,
    *,
    orthologs: str | Path | None = None,
    top: int = 5,
    out: str | Path | None = None,
    seed: int = 0,
) -> GenesMatchResult:
    """Match the genes of one species to those of another by their embeddings.

    Parameters
    ----------
    model
        A run folder; or a model, whose exposure is then not known.
    source, target
        Species of the genes, and of the matches.
    orthologs
        Table of one-to-one orthologs. A confidence is fitted on half of them and checked on the other half: the
        chance that a match is the ortholog, for a gene that has one.
    top
        Matches a gene.
    out
        File to write: ``.parquet``, ``.csv`` or ``.tsv``.
    seed
        Draws the halves.

    Raises
    ------
    InputError
        When the model does not know a species, the table does not fit, or the file's ending is none of these.
    """
    path = None if out is None else Path(out)
    if path is not None:
        check_ending(path)
    if top < 1:
        raise InputError(f"top is {top}: expected 1 match a gene or more")
    loaded = load(model)
    names = _species(loaded.lexicon, source, target)
    rows = [loaded.lexicon.rows_of(name) for name in names]
    genes = [loaded.lexicon.table.iloc[own].reset_index(drop=True) for own in rows]
    pairs = None if orthologs is None else _pairs(Path(orthologs), names, genes)
    weight = loaded.network.genes.weight.detach().float().cpu().numpy()
    matches = match_genes(weight[rows[0]], weight[rows[1]], k=top)
    retrieval = (
        None if pairs is None else ortholog_retrieval(weight[rows[0][pairs[:, 0]]], weight[rows[1][pairs[:, 1]]])
    )
    known = np.full(len(rows[0]), -1, np.int64)
    if pairs is not None:
        known[pairs[:, 0]] = pairs[:, 1]
    fitted = MatchConfidence.fit(matches, known, seed) if pairs is not None else None
    table = _table(matches, genes, known, None if fitted is None else fitted[0])
    exposure = None if isinstance(model, CellModel) else Path(model) / EXPOSURE
    if exposure is not None and exposure.is_file():
        shown = np.load(exposure, allow_pickle=False)[:, 0]
        table["shown_expressed"] = np.repeat(shown[rows[0]], matches.indices.shape[1])
        table["match_shown_expressed"] = shown[rows[1]][matches.indices.ravel()]
    if path is not None:
        write_table(table, path)
    return GenesMatchResult(table, names[0], names[1], retrieval, None if fitted is None else fitted[1], path)


def _species(lexicon: Lexicon, source: str, target: str) -> tuple[str, str]:
    found = tuple(find_species(text).name for text in (source, target))
    missing = [name for name in found if name not in lexicon.species]
    if missing:
        raise InputError(
            f"the model does not know {listing(missing)}; it knows {listing(lexicon.species, 20)}. A further species "
            "joins with `lexicell extend`"
        )
    if found[0] == found[1]:
        raise InputError(f"genes are matched between two species: both are {found[0]}")
    return found[0], found[1]


def _pairs(path: Path, names: tuple[str, str], genes: list[pd.DataFrame]) -> Int64:
    pairs = read_orthologs(path, *names).match(*genes)
    if len(pairs) < 2:
        raise InputError(
            f"{path}: of its orthologs of {names[0]} and {names[1]} the model knows {len(pairs)}; are its gene names "
            f"of the model's kind ({genes[0]['gene_id'].iloc[0]}, {genes[1]['gene_id'].iloc[0]})?"
        )
    return pairs


def _table(
    matches: Matches, genes: list[pd.DataFrame], known: Int64, confidence: MatchConfidence | None
) -> pd.DataFrame:
    n_genes, k = matches.indices.shape
    own, other = genes[0].loc[np.repeat(np.arange(n_genes), k)], genes[1].loc[matches.indices.ravel()]
    truth = np.repeat(known, k)
    ortholog = pd.array(matches.indices.ravel() == truth, dtype="boolean")
    ortholog[truth < 0] = pd.NA
    return pd.DataFrame(
        {
            "gene_id": own["gene_id"].to_numpy(),
            "symbol": own["symbol"].to_numpy(),
            "rank": np.tile(np.arange(1, k + 1), n_genes),
            "match_id": other["gene_id"].to_numpy(),
            "match_symbol": other["symbol"].to_numpy(),
            "cosine": matches.cosine.ravel(),
            "csls": matches.csls.ravel(),
            "mutual": matches.mutual.ravel(),
            "confidence": np.full(n_genes * k, np.nan) if confidence is None else confidence.of(matches).ravel(),
            "ortholog": ortholog,
        }
    )
