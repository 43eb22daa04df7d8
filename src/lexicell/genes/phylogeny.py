"""Rooted species trees with branch lengths, read from Newick."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lexicell.errors import InputError, listing

_TOKEN = re.compile(r"'(?:[^']|'')*'|[(),:;]|[^\s(),:;'\[\]]+|\[[^\]]*\]")


@dataclass(frozen=True)
class Phylogeny:
    """A rooted tree; nodes are numbered so that a parent comes before its children.

    Parameters
    ----------
    names
        Name of every node; inner nodes may be nameless (``""``).
    parents
        Index of every node's parent; -1 for the root, which is node 0.
    lengths
        Length of the branch above every node, in the tree's own unit; 0 for the root.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    lengths: tuple[float, ...]

    @classmethod
    def from_newick(cls, text: str) -> Phylogeny:
        """Read one Newick tree, for example ``((mouse:1,rat:1):2,human:3);``.

        A missing branch length counts as 1. Comments in square brackets are dropped; quoted names may hold
        spaces.

        Raises
        ------
        InputError
            When the text is no Newick tree, a branch length is no number or is negative, or leaf names are
            missing or repeated.
        """
        names: list[str] = [""]
        parents: list[int] = [-1]
        lengths: list[float] = [0.0]
        tokens = [t for t in _TOKEN.findall(text) if not t.startswith("[")]
        node, previous = 0, ""
        for place, token in enumerate(tokens):
            if token in "(,":
                if token == "(" and previous not in {"", "(", ","}:
                    raise _newick_error(text, f"'(' after {previous!r}")
                parent = node if token == "(" else parents[node]
                if parent < 0:
                    raise _newick_error(text, "a comma outside brackets")
                names.append("")
                parents.append(parent)
                lengths.append(1.0)
                node = len(names) - 1
            elif token == ")":
                node = parents[node]
                if node < 0:
                    raise _newick_error(text, "a closing bracket too many")
            elif token == ";":
                if place != len(tokens) - 1:
                    raise _newick_error(text, f"text after the semicolon: {listing(tokens[place + 1 :], 3)}")
            elif previous == ":":
                lengths[node] = _branch_length(token, text)
            elif token != ":":
                if names[node]:
                    raise _newick_error(text, f"two names in a row: {names[node]!r}, {token!r}")
                names[node] = token[1:-1].replace("''", "'") if token.startswith("'") else token
            previous = token
        if node != 0:
            raise _newick_error(text, "a closing bracket is missing")
        lengths[0] = 0.0
        tree = cls(tuple(names), tuple(parents), tuple(lengths))
        tree._check_leaves(text)
        return tree

    def _check_leaves(self, text: str) -> None:
        leaves = self.leaves
        if not all(leaves):
            raise _newick_error(text, "a leaf without a name")
        repeated = sorted({leaf for leaf in leaves if leaves.count(leaf) > 1})
        if repeated:
            raise _newick_error(text, f"leaf names that appear twice: {listing(repeated)}")

    @property
    def leaf_nodes(self) -> tuple[int, ...]:
        """Indices of the leaves, in the order of the text."""
        inner = set(self.parents)
        return tuple(node for node in range(len(self.names)) if node not in inner)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the leaves, in the order of the text."""
        return tuple(self.names[node] for node in self.leaf_nodes)

    def distances(self) -> npt.NDArray[np.float64]:
        """Return the path length between every two leaves (leaves, leaves), in the order of `leaves`."""
        n = len(self.names)
        root_to = np.zeros((n, n))  # branch lengths on the way from the root to each node
        for node in range(1, n):
            root_to[node] = root_to[self.parents[node]]
            root_to[node, node] = self.lengths[node]
        paths = root_to[list(self.leaf_nodes)]
        shared = np.minimum(paths[:, None, :], paths[None, :, :]).sum(axis=2)
        depth = paths.sum(axis=1)
        return np.asarray(depth[:, None] + depth[None, :] - 2.0 * shared)


def _newick_error(text: str, found: str) -> InputError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InputError(f"not a Newick tree: {shown!r}: found {found}; expected the form ((a:1,b:1):2,c:3);")


def _branch_length(token: str, text: str) -> float:
    try:
        length = float(token)
    except ValueError:
        length = float("nan")
    if not 0.0 <= length < float("inf"):
        raise _newick_error(text, f"the branch length {token!r}, which is not a number of 0 or more")
    return length
