"""One-to-one orthologs, for scoring a model that never saw them; genes of one symbol, where a user asks for them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.genes.species import find_species
from lexicell.genes.text_files import read_table

_WHAT = "an ortholog table"
_EXPECTED = (
    "expected the columns species_a, gene_a, species_b, gene_b; or one or two columns a species, such as "
    "mouse_symbol, mouse_ensembl, human_symbol; or species, symbol, ensembl beside one species' own columns, "
    "such as human_symbol"
)
_PAIR_COLUMNS = ["id_a", "symbol_a", "id_b", "symbol_b"]
_SUFFIX = re.compile(r"(?P<species>.+)_(?P<kind>symbol|ensembl|gene_id|id)$")


@dataclass(frozen=True)
class Orthologs:
    """One-to-one orthologs of two species.

    Parameters
    ----------
    species_a, species_b
        Species names, as `find_species` gives them.
    pairs
        One row a pair: ``id_a``, ``symbol_a``, ``id_b``, ``symbol_b``; "" where the table has no such name.
    """

    species_a: str
    species_b: str
    pairs: pd.DataFrame

    def __len__(self) -> int:
        return len(self.pairs)

    def match(self, genes_a: pd.DataFrame, genes_b: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Find the pairs among two lists of genes.

        Parameters
        ----------
        genes_a, genes_b
            Columns ``gene_id`` and ``symbol``; for example the rows of a lexicon's table.

        Returns
        -------
        ndarray of int64, (pairs, 2)
            Row numbers (positions, not labels) in `genes_a` and `genes_b`; each row at most once. Ids go
            before symbols; a name that stands for several genes of a list is left out.
        """
        a = _rows_of(genes_a, self.pairs["id_a"], self.pairs["symbol_a"])
        b = _rows_of(genes_b, self.pairs["id_b"], self.pairs["symbol_b"])
        found = pd.DataFrame({"a": a, "b": b})[(a >= 0) & (b >= 0)].drop_duplicates()
        alone = ~found["a"].duplicated(keep=False) & ~found["b"].duplicated(keep=False)
        return found[alone].to_numpy(dtype=np.int64)


def shared_symbols(first: Iterable[str], second: Iterable[str]) -> npt.NDArray[np.int64]:
    """Pair genes of two species that bear the same symbol, whatever its case: orthology by nomenclature.

    Parameters
    ----------
    first, second
        Symbols of each species' genes.

    Returns
    -------
    ndarray of int64, (pairs, 2)
        Places in `first` and `second`; a symbol that stands twice in a species is left out.
    """
    sides = [pd.Series(list(names), dtype=object).str.upper() for names in (first, second)]
    alone = [side[~side.duplicated(keep=False) & (side != "")] for side in sides]
    found = pd.DataFrame({"name": alone[0], "a": alone[0].index}).merge(
        pd.DataFrame({"name": alone[1], "b": alone[1].index}), on="name"
    )
    return found[["a", "b"]].to_numpy(dtype=np.int64)


def read_orthologs(path: str | Path, species_a: str, species_b: str) -> Orthologs:
    """Read the one-to-one orthologs of two species from a TSV or CSV file, plain or gzip.

    Parameters
    ----------
    path
        A table in one of three shapes. *Long*: ``species_a, gene_a, species_b, gene_b``. *Wide*: one or two
        columns a species, ``mouse_symbol``, ``mouse_ensembl``, ``human_symbol`` ... *Hub*: ``species, symbol,
        ensembl`` for the species of a row and ``human_symbol, human_ensembl`` for the one that all rows
        share; two species that are both not the hub are joined through it. Where a column ``type`` is given,
        only its ``ortholog_one2one`` rows count.
    species_a, species_b
        Which species, by any name that `find_species` knows.

    Returns
    -------
    Orthologs
        Pairs in which each gene occurs once; genes that the table pairs with several others are left out.

    Raises
    ------
    InputError
        When the file cannot be read, has none of these shapes, or lacks a species.
    """
    a, b = find_species(species_a).name, find_species(species_b).name
    if a == b:
        raise InputError(f"orthologs are of two species: both are {a}")
    table = read_table(path, _WHAT)
    if "type" in table.columns:
        table = table[table["type"].isin(["", "ortholog_one2one"])]
    columns = set(table.columns)
    if {"species_a", "gene_a", "species_b", "gene_b"} <= columns:
        pairs, known = _from_long(table, a, b)
    elif "species" in columns and columns & {"symbol", "ensembl", "gene_id", "id"}:
        pairs, known = _from_hub(table, a, b)
    else:
        pairs, known = _from_wide(table, a, b)
    if not known:
        raise InputError(f"{path}: columns {listing(table.columns, 8)}: not {_WHAT}: {_EXPECTED}")
    missing = [name for name in (a, b) if name not in known]
    if missing:
        raise InputError(f"{path}: no genes of {listing(missing)}; the table has {listing(sorted(known), 8)}")
    return Orthologs(a, b, _one_to_one(pairs))


def _from_long(table: pd.DataFrame, a: str, b: str) -> tuple[pd.DataFrame, set[str]]:
    names = {text: find_species(text).name for text in {*table["species_a"], *table["species_b"]} if text}
    left, right = table["species_a"].map(names), table["species_b"].map(names)
    straight, turned = table[(left == a) & (right == b)], table[(left == b) & (right == a)]
    genes_a = pd.concat([straight["gene_a"], turned["gene_b"]])
    genes_b = pd.concat([straight["gene_b"], turned["gene_a"]])
    pairs = pd.DataFrame({"id_a": genes_a, "symbol_a": "", "id_b": genes_b, "symbol_b": ""})
    return pairs, set(names.values())


def _named_columns(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Species -> {"id" or "symbol": column}, from column names such as mouse_symbol."""
    found: dict[str, dict[str, str]] = {}
    for column in table.columns:
        match = _SUFFIX.fullmatch(str(column))
        if match:
            kind = "symbol" if match["kind"] == "symbol" else "id"
            found.setdefault(find_species(match["species"]).name, {}).setdefault(kind, column)
    return found


def _names(table: pd.DataFrame, columns: dict[str, str], side: str) -> dict[str, pd.Series]:
    empty = pd.Series("", index=table.index)
    found = {kind: table[columns[kind]] if kind in columns else empty for kind in ("id", "symbol")}
    return {f"{kind}_{side}": names for kind, names in found.items()}


def _from_wide(table: pd.DataFrame, a: str, b: str) -> tuple[pd.DataFrame, set[str]]:
    columns = _named_columns(table)
    if a not in columns or b not in columns:
        return pd.DataFrame(columns=_PAIR_COLUMNS), set(columns)
    return pd.DataFrame({**_names(table, columns[a], "a"), **_names(table, columns[b], "b")}), set(columns)


def _from_hub(table: pd.DataFrame, a: str, b: str) -> tuple[pd.DataFrame, set[str]]:
    hubs = _named_columns(table.drop(columns=["taxon_id", "gene_id"], errors="ignore"))
    if len(hubs) != 1:
        return pd.DataFrame(columns=_PAIR_COLUMNS), set()
    ((hub, hub_columns),) = hubs.items()
    ids = [name for name in ("ensembl", "gene_id", "id") if name in table.columns]
    own_columns = {
        **({"symbol": "symbol"} if "symbol" in table.columns else {}),
        **({"id": ids[0]} if ids else {}),
    }
    names = {text: find_species(text).name for text in table["species"].unique() if text}
    key = next(iter(hub_columns.values()))

    def side(species: str, letter: str) -> pd.DataFrame:
        rows = table if species == hub else table[table["species"].map(names) == species]
        columns = hub_columns if species == hub else own_columns
        frame = pd.DataFrame({"hub": rows[key], **_names(rows, columns, letter)}).drop_duplicates()
        return frame[frame["hub"] != ""]

    pairs = side(a, "a").merge(side(b, "b"), on="hub")[_PAIR_COLUMNS]
    return pairs, {hub, *names.values()}


def _one_to_one(pairs: pd.DataFrame) -> pd.DataFrame:
    pairs = pairs.drop_duplicates()
    keep = np.ones(len(pairs), dtype=bool)
    for side in "ab":
        name = pairs[f"id_{side}"].where(pairs[f"id_{side}"] != "", pairs[f"symbol_{side}"])
        keep &= ((name != "") & ~name.duplicated(keep=False)).to_numpy()
    return pairs[keep].reset_index(drop=True)


def _rows_of(genes: pd.DataFrame, ids: pd.Series, symbols: pd.Series) -> npt.NDArray[np.int64]:
    """Row number of each gene by id, else by symbol; -1 where neither names exactly one gene."""
    rows = np.full(len(ids), -1, dtype=np.int64)
    for column in ("gene_id", "symbol"):
        listed = genes[column].to_numpy(dtype=object)
        index = pd.Index(listed)
        places = pd.Series(np.arange(len(listed)), index=index)[~index.duplicated(keep=False)]
        for names in (ids, symbols):
            hits = names.map(places).fillna(-1).to_numpy(dtype=np.int64)
            rows = np.where((rows < 0) & (names != "").to_numpy(), hits, rows)
    return rows
