"""From the gene annotation of a file to (species, id): which column, which genes, and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.genes.annotations import GeneAnnotations, MatchReport
from lexicell.genes.species import Species, follows_pattern, species_of_ids, strip_versions

ID_COLUMNS = (
    "gene_ids",
    "gene_id",
    "ensembl_id",
    "ensembl",
    "ensembl_gene_id",
    "gene_identifier",
    "feature_id",
)
SYMBOL_COLUMNS = ("gene_symbol", "gene_symbols", "symbol", "gene_name", "gene_names", "feature_name",
                  "gene_short_name")  # fmt: skip
_TYPE_COLUMNS = ("feature_types", "feature_type")
_EXPRESSION = "Gene Expression"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MATCHED, AMBIGUOUS, UNMATCHED, NO_GENE = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class GeneMatch:
    """The genes of a file.

    Attributes
    ----------
    ids
        (n_file_genes,) gene ids; None for those to leave out.
    symbols
        (n_file_genes,) symbols, or the ids where there are none.
    status
        (n_file_genes,) int8: MATCHED, AMBIGUOUS, UNMATCHED, or NO_GENE for other features.
    report
        The figures, over the genes.
    notes
        What was chosen and what is odd, in words.
    """

    ids: list[str | None]
    symbols: list[str]
    status: npt.NDArray[np.int8]
    report: MatchReport
    notes: tuple[str, ...]


def match_genes(
    where: str,
    var: pd.DataFrame,
    species: Species,
    *,
    gene_ids: str = "auto",
    symbols: str | None = None,
    annotations: GeneAnnotations | None = None,
    keep_unmatched: bool = False,
    min_matched: float = 0.5,
) -> GeneMatch:
    """Find the ids of the genes of a file.

    Parameters
    ----------
    where
        The file, for messages.
    var
        Gene annotation, indexed by gene name.
    species
        Species of the cells.
    gene_ids
        ``auto``, ``index``, or a column of `var`.
    symbols
        Column of `var` with symbols; None looks for one.
    annotations
        Gene table through which names become ids; None takes the names as they are.
    keep_unmatched
        Keep genes that `annotations` does not know, under their own names.
    min_matched
        Refuse the file when `annotations` knows a smaller share of its genes.

    Raises
    ------
    InputError
        When there are no genes, a column is missing, names are no text, the ids are another species', ids and
        symbols are mixed, or too few genes are matched.
    """
    names = _texts(where, var.index.to_series(), "gene names")
    genes = _are_genes(var)
    if not genes.any():
        raise InputError(f"{where}: holds no genes.")
    place, values = _id_column(where, var, names, species, gene_ids, annotations)
    ids = strip_versions(values)
    _check_species(where, [ids[i] for i in np.flatnonzero(genes)], species, place)
    if gene_ids == "auto" and annotations is None:
        _check_mixed(where, [ids[i] for i in np.flatnonzero(genes)], species, place)
    shown = _symbol_column(where, var, names, symbols, place, ids)
    notes = [f"gene ids from {place}"]
    status = np.where(genes, MATCHED, NO_GENE).astype(np.int8)
    if not genes.all():
        notes.append(f"{int((~genes).sum()):,} features that are not genes left out")
    status[genes & np.array([not name for name in ids])] = UNMATCHED
    if annotations is None:
        chosen: list[str | None] = [name if s == MATCHED else None for name, s in zip(ids, status, strict=True)]
        return GeneMatch(chosen, shown, status, _report(ids, status), tuple(notes))
    resolution = annotations.resolve(values)
    status[genes & (resolution.rows == -1)] = UNMATCHED
    status[genes & (resolution.rows == -2)] = AMBIGUOUS
    report = replace(_report(values, status, resolution.ids), by=resolution.report.by)
    if report.gene_share < min_matched:
        raise InputError(_too_few(where, report, species, place, annotations, var))
    aside = sum(n for kind, n in report.by if kind.endswith("aside"))
    if aside > report.n_matched / 2:
        notes.append(f"{aside:,} genes matched only without regard to case: is {species.name} the right species?")
    known = [gene if s == MATCHED else None for gene, s in zip(resolution.ids, status, strict=True)]
    if keep_unmatched:
        known = [own if s == UNMATCHED and own else gene for own, gene, s in zip(ids, known, status, strict=True)]
    table = annotations.table.set_index("gene_id")["symbol"].to_dict()
    shown = [table.get(gene) or own if gene else own for gene, own in zip(known, shown, strict=True)]
    return GeneMatch(known, shown, status, report, tuple(notes))


def name_columns(var: pd.DataFrame) -> list[str]:
    """Return the columns of a gene annotation that may hold names or ids of genes, likely ones first."""
    likely = [column for column in (*ID_COLUMNS, *SYMBOL_COLUMNS) if column in var.columns]
    text = [
        str(column)
        for column in var.columns
        if column not in likely and var[column].dtype == object and var[column].nunique() > len(var) / 2
    ]
    return likely + text


def texts_of(values: pd.Series) -> list[str]:
    """Return a column as texts, "" for what is missing."""
    return ["" if value is None or value is pd.NA or value != value else str(value).strip() for value in values]


def _texts(where: str, values: pd.Series, what: str) -> list[str]:
    numbers = [value for value in values if not isinstance(value, str)]
    if numbers:
        kind = "are numbers" if len(numbers) == len(values) else "mix text with other things"
        raise InputError(
            f"{where}: the {what} {kind} ({listing(map(repr, numbers), 3)}); expected text. "
            "Name the column that holds them with 'gene_ids:'."
        )
    names = [value.strip() for value in values]
    if names and all(name.isdigit() for name in names):
        raise InputError(
            f"{where}: the {what} are row numbers ({listing(names, 3)}); "
            "name the column that holds the genes with 'gene_ids:'."
        )
    broken = [name for name in names if _CONTROL.search(name)]
    if broken:
        raise InputError(
            f"{where}: the {what} hold tabs, line breaks or control characters ({listing(map(repr, broken), 3)})."
        )
    return names


def _are_genes(var: pd.DataFrame) -> npt.NDArray[np.bool_]:
    for column in _TYPE_COLUMNS:
        if column in var.columns and (var[column] == _EXPRESSION).any():
            return np.asarray(var[column] == _EXPRESSION, dtype=bool)
    return np.ones(len(var), dtype=bool)


def _id_column(
    where: str,
    var: pd.DataFrame,
    names: list[str],
    species: Species,
    wanted: str,
    annotations: GeneAnnotations | None,
) -> tuple[str, list[str]]:
    """Return where the ids stand, in words, and the ids."""
    if wanted == "index":
        return "the index", names
    if wanted != "auto":
        if wanted not in var.columns:
            raise InputError(
                f"{where}: gene_ids: no column '{wanted}' in the gene annotation; it has "
                f"{listing(map(repr, var.columns), 20) or 'none, only the index'}."
            )
        return f"column '{wanted}'", _texts(where, pd.Series(texts_of(var[wanted]), dtype=object), "gene ids")
    columns = {column: texts_of(var[column]) for column in name_columns(var)}
    candidates = {"the index": names} | {f"column '{name}'": values for name, values in columns.items()}
    if annotations is not None:
        scores = {place: annotations.resolve(v).report.n_matched for place, v in candidates.items()}
    else:
        scores = {place: sum(follows_pattern(v, species)) for place, v in candidates.items()}
        if max(scores.values()) <= len(names) / 2:
            sound = [c for c in ID_COLUMNS if c in columns and all(columns[c])]
            own = next((c for c in sound if len(set(columns[c])) == len(names)), None)
            return (f"column '{own}'", columns[own]) if own else ("the index", names)
    best = max(scores, key=lambda place: scores[place])
    return best, candidates[best]


def _symbol_column(
    where: str, var: pd.DataFrame, names: list[str], wanted: str | None, id_place: str, ids: list[str]
) -> list[str]:
    if wanted is not None and wanted not in var.columns:
        raise InputError(
            f"{where}: symbols: no column '{wanted}' in the gene annotation; it has "
            f"{listing(map(repr, var.columns), 20) or 'none, only the index'}."
        )
    column = wanted or next((c for c in SYMBOL_COLUMNS if c in var.columns and f"'{c}'" not in id_place), None)
    own = ids if id_place == "the index" else names
    found = own if column is None else texts_of(var[column])
    return [symbol or gene for symbol, gene in zip(found, ids, strict=True)]


def _check_species(where: str, ids: Sequence[str], species: Species, place: str) -> None:
    other = species_of_ids(ids)
    if other is not None and other.name != species.name:
        raise InputError(
            f"{where}: the gene ids ({place}) are those of {other.name} ({listing(ids, 2)}), but the species "
            f"is {species.name}. Correct 'species:', or name the right column with 'gene_ids:'."
        )


def _check_mixed(where: str, ids: Sequence[str], species: Species, place: str) -> None:
    like = follows_pattern(ids, species)
    share = sum(like) / len(like)
    if 0.05 < share < 0.95:
        one = next(name for name, yes in zip(ids, like, strict=True) if yes)
        other = next(name for name, yes in zip(ids, like, strict=True) if not yes)
        raise InputError(
            f"{where}: {share:.0%} of the gene names ({place}) are gene ids such as {one}, the others are names "
            f"such as {other}. Give a gene table ('genes: TABLE.tsv') that makes ids of all, name the column "
            "with ids ('gene_ids: COLUMN'), or take them as they are ('gene_ids: index')."
        )


def _report(
    names: Sequence[str], status: npt.NDArray[np.int8], found: Sequence[str | None] | None = None
) -> MatchReport:
    ids = names if found is None else found
    kinds = status.tolist()
    matched = [name for name, kind in zip(ids, kinds, strict=True) if kind == MATCHED]
    ambiguous = [name for name, kind in zip(names, kinds, strict=True) if kind == AMBIGUOUS]
    unmatched = [name for name, kind in zip(names, kinds, strict=True) if kind == UNMATCHED]
    return MatchReport(
        n_genes=int((status != NO_GENE).sum()),
        n_matched=len(matched),
        n_ambiguous=len(ambiguous),
        n_unmatched=len(unmatched),
        n_duplicates=len(matched) - len(set(matched)),
        examples_ambiguous=tuple(ambiguous[:10]),
        examples_unmatched=tuple(unmatched[:10]),
    )


def _too_few(
    where: str, report: MatchReport, species: Species, place: str, table: GeneAnnotations, var: pd.DataFrame
) -> str:
    columns = listing(map(repr, var.columns), 10) or "none"
    return (
        f"{where}: the gene table {table.source} knows only {report.gene_share:.1%} of the genes "
        f"({report.n_matched:,} of {report.n_genes:,}; {place}; not {listing(report.examples_unmatched, 3)}). "
        "Likely: "
        f"(1) the species is not {species.name}: correct 'species:'; "
        f"(2) the ids stand in another column: name it with 'gene_ids:' (columns: {columns}); "
        "(3) the table is of another species or kind of id: give another with 'genes:'. "
        "If it is all right so, lower 'min_matched:'."
    )
