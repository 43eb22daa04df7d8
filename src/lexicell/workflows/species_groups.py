"""groups.yaml: which species to contrast with which, their tree, and which genes stand for one another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.data.strict_yaml import read_yaml, shown
from lexicell.errors import InputError, listing, raise_all
from lexicell.genes.phylogeny import Phylogeny
from lexicell.genes.species import find_species
from lexicell.genes.text_files import read_table

_KEYS = {"group", "others", "tree", "matches"}
_MATCH_KEYS = {"from", "to", "path"}


@dataclass(frozen=True)
class MatchTable:
    """A table that `lexicell genes match` wrote."""

    source: str
    target: str
    path: Path

    def read(self) -> pd.DataFrame:
        """Return the mutual best matches: columns gene_id and match_id.

        Raises
        ------
        InputError
            When the file cannot be read, or is no such table.
        """
        if self.path.suffix == ".parquet":
            if not self.path.is_file():
                raise InputError(f"{self.path}: there is no such file")
            table = pd.read_parquet(self.path)
        else:
            table = read_table(self.path, "a table of lexicell genes match")
        missing = [name for name in ("gene_id", "match_id", "rank", "mutual") if name not in table.columns]
        if missing:
            raise InputError(f"{self.path}: not a table of `lexicell genes match`: there is no {listing(missing)}")
        mutual = table["mutual"].astype(str).str.lower().isin(["true", "1"])
        return table.loc[mutual & (table["rank"].astype(int) == 1), ["gene_id", "match_id"]].astype(str)


@dataclass(frozen=True)
class SpeciesGroups:
    """What to contrast.

    Parameters
    ----------
    group, others
        Species keys: the group of interest (two or more), and the rest.
    tree
        Phylogeny whose leaves hold all of them; None where none is known.
    orthologs
        Ortholog table that pairs genes of every two species.
    matches
        Tables of `lexicell genes match`.
    source
        Where it was read, for messages.
    """

    group: tuple[str, ...]
    others: tuple[str, ...]
    tree: Phylogeny | None
    orthologs: Path | None
    matches: tuple[MatchTable, ...]
    source: str = "groups"

    @property
    def species(self) -> tuple[str, ...]:
        """All species, the group first."""
        return (*self.group, *self.others)

    def distances(self) -> npt.NDArray[np.float64] | None:
        """Return path lengths in the tree (n_species, n_species), in the order of `species`."""
        if self.tree is None:
            return None
        names = [_species_key(leaf) for leaf in self.tree.leaves]
        place = [names.index(species) for species in self.species]
        return self.tree.distances()[np.ix_(place, place)]


def read_groups(path: str | Path) -> SpeciesGroups:
    """Read a groups file::

        group: [simulus_albus, simulus_echo]      # two species or more
        others: [simulus_niger, simulus_mutus]    # one or more
        tree: phylogeny.nwk                       # a file, or Newick text; may be left out
        matches: orthologs.tsv                    # one-to-one orthologs of every two species; or tables of genes match:
        # matches:
        #   - {from: simulus_albus, to: simulus_niger, path: albus_niger.parquet}

    Raises
    ------
    InputError
        With every fault of the file.
    """
    path = Path(path)
    data = read_yaml(path)
    faults = [f"unknown key {key!r}; expected {listing(sorted(_KEYS))}" for key in data if key not in _KEYS]
    sides: dict[str, tuple[str, ...]] = {}
    for key, least in (("group", 2), ("others", 1)):
        value = data.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or len(value) < least:
            faults.append(f"{key}: expected a list of {least} species or more, got {shown(value)}")
            sides[key] = ()
        else:
            sides[key] = tuple(_species_key(item) for item in value)
    named = [*sides["group"], *sides["others"]]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        faults.append(f"named twice: {listing(twice)}")
    tree = _tree(data.get("tree"), path, named, faults)
    orthologs, matches = _matches(data.get("matches"), path, named, faults)
    raise_all(faults, f"{path}: not a file of species groups:")
    return SpeciesGroups(sides["group"], sides["others"], tree, orthologs, matches, str(path))


def _species_key(text: str) -> str:
    return find_species(text).name


def _tree(value: Any, path: Path, named: list[str], faults: list[str]) -> Phylogeny | None:
    if value is None:
        return None
    if not isinstance(value, str):
        faults.append(f"tree: expected a file or Newick text, got {shown(value)}")
        return None
    text = value
    if not value.strip().startswith("("):
        file = path.parent / value
        if not file.is_file():
            faults.append(f"tree: there is no file {file}")
            return None
        text = file.read_text(encoding="utf-8").strip()
    try:
        tree = Phylogeny.from_newick(text)
        leaves = {_species_key(leaf) for leaf in tree.leaves}
    except InputError as error:
        faults.append(f"tree: {error}")
        return None
    missing = [name for name in named if name not in leaves]
    if missing:
        faults.append(f"tree: has no leaf {listing(missing)}; its leaves are {listing(tree.leaves, 12)}")
    return tree


def _matches(value: Any, path: Path, named: list[str], faults: list[str]) -> tuple[Path | None, tuple[MatchTable, ...]]:
    if isinstance(value, str):
        file = path.parent / value
        if not file.is_file():
            faults.append(f"matches: there is no file {file}")
        return file, ()
    if not isinstance(value, list) or not value:
        faults.append(f"matches: expected an ortholog table, or a list of from, to and path; got {shown(value)}")
        return None, ()
    tables = []
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, Mapping) or set(entry) != _MATCH_KEYS:
            faults.append(f"matches, entry {number}: expected from, to and path; got {shown(entry)}")
            continue
        ends = [_species_key(str(entry[end])) for end in ("from", "to")]
        strangers = [name for name in ends if name not in named]
        if strangers:
            faults.append(f"matches, entry {number}: {listing(strangers)} is in neither group")
        tables.append(MatchTable(ends[0], ends[1], path.parent / str(entry["path"])))
    return None, tuple(tables)
