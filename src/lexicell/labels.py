"""The label tree: cell labels on levels from coarse to fine, each label under one parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from lexicell.errors import InputError, listing, raise_all


def clean_labels(column: pd.Series) -> pd.Categorical:
    """Return a label column as text categories, sorted; NaN, empty and blank values are missing (code -1).

    Whole numbers read as floats (a column of cluster numbers with gaps) lose their ``.0``.
    """
    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    codes, uniques = pd.factorize(np.asarray(values, dtype=object))
    names = np.array([_text(value) for value in uniques] or [""], dtype=object)
    texts = pd.Series(np.where(codes >= 0, names[codes], ""), dtype=object)
    if isinstance(column.dtype, pd.CategoricalDtype):
        texts = pd.Series(np.append(texts.to_numpy(dtype=object), "")[column.cat.codes], dtype=object)
    return pd.Categorical(texts.where(texts != ""))


def _text(value: object) -> str:
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


@dataclass(frozen=True, eq=False)
class LabelTree:
    """Labels on levels from coarse to fine.

    Attributes
    ----------
    levels
        Level names (obs columns), coarse to fine.
    names
        For each level, its labels in sorted order: a label's code is its place here.
    parents
        ``parents[i][j]`` is the code on level ``i - 1`` of the parent of label ``j`` of level ``i``;
        ``parents[0]`` is empty.
    """

    levels: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]
    parents: tuple[npt.NDArray[np.int64], ...]

    @classmethod
    def from_frame(cls, obs: pd.DataFrame, levels: Sequence[str], source: str = "obs") -> Self:
        """Read the tree off labelled cells.

        Parameters
        ----------
        obs
            One row a cell. NaN, empty and blank labels are missing and need no parent.
        levels
            Columns of `obs`, coarse to fine.
        source
            What to call `obs` in an error.

        Raises
        ------
        InputError
            When a column is missing or holds no label, a label has two parents, or a label never occurs
            together with one of the level above. All faults are reported together.
        """
        levels = tuple(levels)
        _check_levels(obs, levels, source)
        columns = [clean_labels(obs[level]) for level in levels]
        names = tuple(tuple(str(name) for name in column.categories) for column in columns)
        faults = [
            f"{source}: the label column '{level}' holds no label (all values are missing)."
            for level, labels in zip(levels, names, strict=True)
            if not labels
        ]
        raise_all(faults, "The labels cannot be used:")
        parents = [np.empty(0, dtype=np.int64)]
        for depth in range(1, len(levels)):
            upper, lower = columns[depth - 1], columns[depth]
            found, wrong = _parents(upper, lower)
            parents.append(found)
            if wrong:
                pair = (levels[depth - 1], levels[depth])
                faults.append(f"{source}: {_tree_fault(pair, wrong, upper, lower)}")
        raise_all(faults, "The labels do not form a tree (levels run from coarse to fine):")
        return cls(levels, names, tuple(parents))

    @classmethod
    def from_taxonomy(cls, table: pd.DataFrame | str | Path, levels: Sequence[str] | None = None) -> Self:
        """Read the tree from a taxonomy table: one row a label, with the columns ``child`` and ``parent``.

        Parameters
        ----------
        table
            The table, or a CSV or TSV file with it. A row without a parent is a label of the coarsest level. A third
            column ``level`` says on which level the child lies; it is needed where two levels share a label.
        levels
            Level names from coarse to fine. Default: those of the ``level`` column, in the order of the tree.

        Raises
        ------
        InputError
            When a label has two parents or no name, its parent is not in the table, labels lie in a circle, or a label
            does not lie one level below its parent. All faults are reported together, with the offending pairs.
        """
        source = str(table) if isinstance(table, str | Path) else "the taxonomy table"
        frame = table if isinstance(table, pd.DataFrame) else _read_taxonomy(Path(table))
        places, parents, names = _taxonomy_places(frame, levels, source)
        labels = [sorted(label for place, label in places if place == depth) for depth in range(len(names))]
        index = [{label: code for code, label in enumerate(level)} for level in labels]
        codes = [np.empty(0, dtype=np.int64)] + [
            np.array([index[depth - 1][parents[depth, label]] for label in labels[depth]], dtype=np.int64)
            for depth in range(1, len(names))
        ]
        return cls(names, tuple(map(tuple, labels)), tuple(codes))

    def complete(self, codes: npt.NDArray[np.int64], source: str = "obs") -> npt.NDArray[np.int64]:
        """Return codes (n_cells, n_levels) with every label's ancestors filled in.

        Raises
        ------
        InputError
            When a cell's coarser label is not the one above its finer label; the pairs are named.
        """
        filled = np.array(codes)
        faults = []
        for place in range(len(self.levels) - 1, 0, -1):
            known = filled[:, place] >= 0
            above = self.parents[place][filled[known, place]]
            there = filled[known, place - 1]
            wrong = (there >= 0) & (there != above)
            pairs = np.unique(np.stack([filled[known, place][wrong], there[wrong]], axis=1), axis=0)
            said = [
                f"'{self.names[place][fine]}' under '{self.names[place - 1][coarse]}' instead of "
                f"'{self.names[place - 1][self.parents[place][fine]]}'"
                for fine, coarse in pairs
            ]
            if said:
                faults.append(
                    f"{source}: cells bear a '{self.levels[place]}' that the tree puts elsewhere: {listing(said)}."
                )
            filled[known, place - 1] = above
        raise_all(faults, "The cells' labels contradict the label tree:")
        return filled

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of labels on each level."""
        return tuple(len(labels) for labels in self.names)

    def keep(self, levels: Sequence[str]) -> LabelTree:
        """Return the tree of some of its levels, in its own order: a label's parent is the one above that is left."""
        kept = [place for place, level in enumerate(self.levels) if level in levels]
        parents = [np.empty(0, dtype=np.int64)]
        for above, place in pairwise(kept):
            codes = np.arange(self.sizes[place])
            for between in range(place, above, -1):
                codes = self.parents[between][codes]
            parents.append(codes)
        return LabelTree(
            tuple(self.levels[place] for place in kept), tuple(self.names[place] for place in kept), tuple(parents)
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LabelTree):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.levels, self.names))

    def encode(self, obs: pd.DataFrame) -> npt.NDArray[np.int64]:
        """Return codes (n_cells, n_levels); -1 where a label is missing or unknown, or has no column."""
        codes = np.full((len(obs), len(self.levels)), -1, dtype=np.int64)
        for place, (level, labels) in enumerate(zip(self.levels, self.names, strict=True)):
            if level in obs.columns:
                column = clean_labels(obs[level])
                here = pd.Index(labels, dtype=object).get_indexer(pd.Index(column.categories, dtype=object))
                codes[:, place] = np.append(here, -1)[column.codes]
        return codes

    def decode(self, codes: npt.NDArray[np.int64], index: pd.Index | None = None) -> pd.DataFrame:
        """Return the labels of codes (n_cells, n_levels) as one column a level; -1 becomes NaN."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != len(self.levels):
            raise ValueError(f"codes: expected the shape (n_cells, {len(self.levels)}), got {codes.shape}.")
        columns = {
            level: np.append(np.array(labels, dtype=object), np.nan)[codes[:, place]]
            for place, (level, labels) in enumerate(zip(self.levels, self.names, strict=True))
        }
        return pd.DataFrame(columns, index=index)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree as lists and strings, for JSON."""
        return {
            "levels": list(self.levels),
            "names": [list(labels) for labels in self.names],
            "parents": [codes.tolist() for codes in self.parents],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the tree that `to_dict` wrote; raise InputError where it is not one."""
        try:
            levels = tuple(str(level) for level in data["levels"])
            names = tuple(tuple(str(name) for name in labels) for labels in data["names"])
            parents = tuple(np.array(codes, dtype=np.int64) for codes in data["parents"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"This is not a label tree: {error!r}.") from None
        above = (0, *(len(labels) for labels in names[:-1]))
        fits = len(levels) == len(names) == len(parents) and all(
            codes.shape == ((len(labels),) if place else (0,)) and bool(((codes >= 0) & (codes < above[place])).all())
            for place, (labels, codes) in enumerate(zip(names, parents, strict=False))
        )
        if not fits:
            raise InputError("This label tree contradicts itself: its levels, names and parents do not fit together.")
        return cls(levels, names, parents)


def _check_levels(obs: pd.DataFrame, levels: tuple[str, ...], source: str) -> None:
    if not levels:
        raise InputError(f"{source}: no label level was named.")
    faults = [
        f"{source}: the label level '{level}' is named twice." for level in set(levels) if levels.count(level) > 1
    ]
    missing = [level for level in levels if level not in obs.columns]
    if missing:
        faults.append(
            f"{source}: no label column {listing(map(repr, missing))}; the columns are "
            f"{listing(map(repr, obs.columns), 20)}."
        )
    raise_all(faults, "The labels cannot be used:")


def _parents(upper: pd.Categorical, lower: pd.Categorical) -> tuple[npt.NDArray[np.int64], dict[int, list[int]]]:
    """Return each lower label's parent code, and the labels that have not exactly one (code -> parents)."""
    pairs = pd.DataFrame({"upper": upper.codes, "lower": lower.codes}).drop_duplicates()
    pairs = pairs[(pairs["upper"] >= 0) & (pairs["lower"] >= 0)].sort_values(["lower", "upper"])
    parents = np.full(len(lower.categories), -1, dtype=np.int64)
    parents[pairs["lower"]] = pairs["upper"]
    counts = np.bincount(pairs["lower"], minlength=len(parents))
    wrong = {int(code): pairs.loc[pairs["lower"] == code, "upper"].tolist() for code in np.flatnonzero(counts != 1)}
    return parents, wrong


def _tree_fault(
    pair: tuple[str, str], wrong: dict[int, list[int]], upper: pd.Categorical, lower: pd.Categorical
) -> str:
    coarse, fine = pair
    split = [
        f"'{lower.categories[code]}' under {listing((repr(upper.categories[p]) for p in parents), 3)}"
        for code, parents in wrong.items()
        if parents
    ]
    orphans = [f"'{lower.categories[code]}'" for code, parents in wrong.items() if not parents]
    said = []
    if split:
        said.append(f"a label of '{fine}' may lie under one label of '{coarse}' only, but {listing(split)}")
    if orphans:
        said.append(f"no cell says under which '{coarse}' these labels of '{fine}' lie: {listing(orphans)}")
    fault = "; ".join(said) + "."
    reverse = _parents(lower, upper)[1]
    if split and not any(reverse.values()):
        fault += f" The other way round they do form a tree: name '{fine}' before '{coarse}'."
    return fault


def _read_taxonomy(path: Path) -> pd.DataFrame:
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    try:
        return pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, comment="#")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such taxonomy table.") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"{path}: cannot be read as a taxonomy table ({error}); expected a CSV or TSV file.") from None


_Node = tuple[int, str]  # place of the level, label


def _taxonomy_places(
    frame: pd.DataFrame, levels: Sequence[str] | None, source: str
) -> tuple[list[_Node], dict[_Node, str], tuple[str, ...]]:
    """Return all labels with their levels, each one's parent, and the level names; raise all faults together."""
    missing = [name for name in ("child", "parent") if name not in frame.columns]
    if missing:
        raise InputError(
            f"{source}: a taxonomy table has the columns child and parent (and may have level); there is no "
            f"{listing(map(repr, missing))} among {listing(map(repr, frame.columns), 10)}."
        )
    rows = frame.fillna("").map(_text).drop_duplicates(subset=[c for c in ("child", "parent", "level") if c in frame])
    own = list(rows["level"]) if "level" in rows else [""] * len(rows)
    above: dict[tuple[str, str], list[str]] = {}
    for level, child, parent in zip(own, rows["child"], rows["parent"], strict=True):
        above.setdefault((level, child), []).append(parent)
    faults = [f"{source}: {n} rows have no name in the column child." for n in [sum(rows["child"] == "")] if n]
    split = [f"'{child}' under {listing(map(repr, found), 3)}" for (_, child), found in above.items() if len(found) > 1]
    if split:
        faults.append(f"{source}: a label may have one parent only, but {listing(split)}.")
    known = set(rows["child"])
    lost = [f"'{child}' under '{found[0]}'" for (_, child), found in above.items() if found[0] not in known | {""}]
    if lost:
        faults.append(f"{source}: these parents are no child themselves, so their level is not known: {listing(lost)}.")
    raise_all(faults, "The taxonomy table is not a tree:")
    if "level" in rows:
        names = _level_order(above, levels, source)
        depths = {node: names.index(node[0]) for node in above}
    else:
        depths = _depths(above, source)
        n_levels = max(depths.values()) + 1
        names = tuple(levels or ())
        if len(names) != n_levels:
            raise InputError(
                f"{source}: the tree has {n_levels} levels, but {len(names)} level names are given; name them coarse "
                "to fine (--levels, levels=...), or add a column level."
            )
    parents = {(depths[node], node[1]): found[0] for node, found in above.items()}
    wrong = [
        f"'{label}' ({names[place]}) under '{parent or 'nothing'}'"
        for (place, label), parent in parents.items()
        if (place == 0) != (parent == "") or (place and (place - 1, parent) not in parents)
    ]
    if wrong:
        raise InputError(
            f"{source}: a label lies one level below its parent, and the coarsest labels have none (levels from coarse "
            f"to fine: {listing(names, 10)}), but {listing(wrong)}."
        )
    return list(parents), parents, names


def _level_order(above: dict[tuple[str, str], list[str]], levels: Sequence[str] | None, source: str) -> tuple[str, ...]:
    """Return the level names from coarse to fine, as asked or as parents lie above children."""
    found = list(dict.fromkeys(level for level, _ in above))
    if levels is not None:
        unknown = [level for level in found if level not in levels] + [level for level in levels if level not in found]
        if unknown:
            raise InputError(
                f"{source}: its levels are {listing(map(repr, found), 10)}, but asked for were "
                f"{listing(map(repr, levels), 10)}; name all of them, coarse to fine."
            )
        return tuple(levels)
    order = [level for level in found if any(lvl == level and not p[0] for (lvl, _), p in above.items())]
    while order and len(order) < len(found):
        labels = {child for level, child in above if level == order[-1]}
        below = {level for (level, _), p in above.items() if level not in order and p[0] in labels}
        if len(below) != 1:
            break
        order.append(below.pop())
    if len(order) != len(found) or len([level for level in found if level in order[:1]]) != 1:
        raise InputError(
            f"{source}: the order of the levels {listing(map(repr, found), 10)} cannot be told from the table; "
            "name them coarse to fine (--levels, levels=...)."
        )
    return tuple(order)


def _depths(above: dict[tuple[str, str], list[str]], source: str) -> dict[tuple[str, str], int]:
    """Return each label's distance from the top; a circle is refused."""
    depths: dict[tuple[str, str], int] = {}
    for start in above:
        path, node = [], start
        while node not in depths and node not in path and above[node][0] != "":
            path.append(node)
            node = ("", above[node][0])
        if node in path:
            circle = [label for _, label in path[path.index(node) :]]
            raise InputError(
                f"{source}: the taxonomy table is not a tree: these labels lie under each other in a circle: "
                f"{listing(map(repr, circle))}."
            )
        top = depths.setdefault(node, 0)
        for step, inner in enumerate(reversed(path), start=1):
            depths[inner] = top + step
    return depths
