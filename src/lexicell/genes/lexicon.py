"""The lexicon: (species, gene id) <-> index. It grows when a species joins; an index never moves.

Design choices
- A gene is always (species, gene id): equal ids of two species are two words.
- A lexicon never changes. `Lexicon.extend` gives a longer one whose first rows are the old ones.
- The fingerprint is the SHA-256 of the (species, gene id) rows in order, so two lexicons with one fingerprint
  give every gene the same index. Symbols are names for people and do not enter it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lexicell.errors import InputError, listing
from lexicell.genes.species import find_species

COLUMNS = ("species", "gene_id", "symbol")
_FORMAT = 1
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # tabs, line breaks, and NUL, which pandas takes for the end of a text
_METADATA_KEY = b"lexicell.lexicon"


class Lexicon:
    """An immutable table of genes; a gene's row number is its index.

    Parameters
    ----------
    table
        Columns ``species``, ``gene_id`` and ``symbol``, in any order, others are dropped. Species are brought
        to their key (``"mouse"`` becomes ``"mus_musculus"``); a missing symbol becomes the gene id.

    Raises
    ------
    InputError
        When a column is missing, an id is empty or holds a control character (tab, line break, ...), or a gene
        stands twice.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = _normalised(table)
        self._indices: dict[str, tuple[pd.Index, npt.NDArray[np.int64]]] = {}

    @classmethod
    def from_genes(cls, species: str, gene_ids: Iterable[str], symbols: Iterable[str] | None = None) -> Self:
        """Make the lexicon of one species from its gene ids in order, with their symbols where known."""
        ids = list(gene_ids)
        names = ids if symbols is None else list(symbols)
        if len(names) != len(ids):
            raise InputError(f"lexicon: {len(ids)} gene ids but {len(names)} symbols.")
        return cls(pd.DataFrame({"species": find_species(species).name, "gene_id": ids, "symbol": names}))

    @classmethod
    def merge(cls, lexicons: Sequence[Lexicon]) -> Lexicon:
        """Join lexicons: the first keeps its indices, each later one appends the genes that are new."""
        if not lexicons:
            raise InputError("lexicon: nothing to merge.")
        merged = lexicons[0]
        for lexicon in lexicons[1:]:
            merged = merged.extend(lexicon.table)
        return merged

    def extend(self, table: pd.DataFrame) -> Lexicon:
        """Return a lexicon with the genes of `table` that are new appended, in the order of `table`.

        Genes that are here already keep their index and their symbol.
        """
        added = _normalised(table)
        known = pd.MultiIndex.from_frame(self._table[["species", "gene_id"]])
        fresh = ~pd.MultiIndex.from_frame(added[["species", "gene_id"]]).isin(known)
        return Lexicon(pd.concat([self._table, added[fresh]], ignore_index=True))

    def __len__(self) -> int:
        return len(self._table)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lexicon):
            return NotImplemented
        return self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        counts = ", ".join(f"{name} {len(self.rows_of(name)):,}" for name in self.species)
        return f"Lexicon({len(self):,} genes: {counts})"

    @property
    def table(self) -> pd.DataFrame:
        """A copy of the table: columns species, gene_id, symbol; the row number is the gene's index."""
        return self._table.copy()

    @cached_property
    def species(self) -> tuple[str, ...]:
        """The species, in the order in which they joined."""
        return tuple(pd.unique(self._table["species"]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal digits, of the (species, gene id) rows in order."""
        rows = (self._table["species"] + "\t" + self._table["gene_id"] + "\n").tolist()
        return hashlib.sha256("".join(rows).encode()).hexdigest()

    def rows_of(self, species: str) -> npt.NDArray[np.int64]:
        """Return the indices of the genes of a species, ascending; none when it is not in the lexicon."""
        return self._lookup(species)[1]

    def index_of(self, species: str, gene_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the index of each gene id of `species`, -1 where the lexicon does not hold it."""
        names, rows = self._lookup(species)
        found = names.get_indexer(pd.Index(list(gene_ids), dtype=object))
        return np.where(found >= 0, np.append(rows, -1)[found], -1)

    def map_from(self, other: Lexicon) -> npt.NDArray[np.int64]:
        """Return, for each row of `other`, its index here, -1 where this lexicon does not hold the gene."""
        mapped = np.full(len(other), -1, dtype=np.int64)
        ids = other._table["gene_id"].to_numpy()
        for species in other.species:
            rows = other.rows_of(species)
            mapped[rows] = self.index_of(species, ids[rows])
        return mapped

    def save(self, path: str | Path) -> None:
        """Write the lexicon as parquet, with its fingerprint in the file's metadata."""
        path = Path(path)
        table = pa.Table.from_pandas(self._table, preserve_index=False)
        stamp = json.dumps({"format": _FORMAT, "fingerprint": self.fingerprint})
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), _METADATA_KEY: stamp})
        part = path.with_name(f".{path.name}.part")
        pq.write_table(table, part)
        part.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a lexicon that `save` wrote.

        Raises
        ------
        InputError
            When the file is missing, is not a lexicon, or does not bear out its own fingerprint.
        """
        path = Path(path)
        try:
            table = pq.read_table(path)
            stamp = json.loads((table.schema.metadata or {})[_METADATA_KEY])
            expected = str(stamp["fingerprint"])
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file; expected a lexicon (parquet).") from None
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: this is not a lexicon that lexicell wrote ({error}).") from None
        if stamp.get("format") != _FORMAT:
            raise InputError(f"{path}: this is lexicon format {stamp.get('format')!r}; this lexicell reads {_FORMAT}.")
        lexicon = cls(table.to_pandas())
        if lexicon.fingerprint != expected:
            raise InputError(
                f"{path}: the lexicon is damaged: its genes give the fingerprint {lexicon.fingerprint[:12]}, "
                f"but it was written with {expected[:12]}. Take an intact copy."
            )
        return lexicon

    def _lookup(self, species: str) -> tuple[pd.Index, npt.NDArray[np.int64]]:
        name = find_species(species).name
        if name not in self._indices:
            rows = np.flatnonzero(self._table["species"].to_numpy() == name).astype(np.int64)
            rows.flags.writeable = False
            self._indices[name] = (pd.Index(self._table["gene_id"].to_numpy()[rows], dtype=object), rows)
        return self._indices[name]


def _normalised(table: pd.DataFrame) -> pd.DataFrame:
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"lexicon: the table lacks {listing(missing)}; expected the columns {listing(COLUMNS)}.")
    kinds = {text: find_species(str(text)).name for text in pd.unique(table["species"])}
    ids = table["gene_id"]
    sound = all(isinstance(value, str) and value for value in ids) and not _CONTROL.search("".join(ids))
    if not sound:
        wrong = [value for value in ids if not isinstance(value, str) or not value or _CONTROL.search(value)]
        raise InputError(
            "lexicon: a gene id must be text that is not empty and holds no tab, line break or control character; "
            f"got {listing(map(repr, wrong))}."
        )
    symbols = table["symbol"].where(table["symbol"].notna() & (table["symbol"] != ""), ids).astype(str)
    clean = pd.DataFrame(
        {
            "species": table["species"].map(kinds).to_numpy(dtype=object),
            "gene_id": ids.to_numpy(dtype=object),
            "symbol": symbols.to_numpy(dtype=object),
        }
    )
    twice = clean[clean.duplicated(["species", "gene_id"])]
    if len(twice):
        shown = listing(f"{row.species}:{row.gene_id}" for row in twice.itertuples())
        raise InputError(f"lexicon: a gene may stand once only, but these stand again: {shown}.")
    return clean
