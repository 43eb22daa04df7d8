"""The nearest genes of one gene, in its own species and around its matches in others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lexicell.errors import InputError, listing
from lexicell.gene_space.neighbour_graph import neighbour_graph, spring_layout
from lexicell.genes.species import find_species
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.gene_figures import save_figure
from lexicell.reporting.gene_maps import gene_graph
from lexicell.reporting.text import Table
from lexicell.workflows.embed import load
from lexicell.workflows.interpret_cells import gene_names, genes_named, report_folder


@dataclass(frozen=True)
class GenesNeighboursResult:
    """The graph around a gene."""

    nodes: pd.DataFrame
    """One row a gene: species, gene_id, symbol, kind (``gene``, ``neighbour``, ``match``, ``match's neighbour``),
    similarity (to the gene, or to the best match there), x, y."""
    edges: pd.DataFrame
    """One row a line: source and target (rows of nodes), similarity, kind (``within`` a species or ``between``)."""
    written: tuple[Path, ...]

    def figures(self) -> dict[str, Any]:
        """Return the figures for programs."""
        shown = self.nodes.drop(columns=["x", "y"])
        return {
            "gene": shown.iloc[0].to_dict(),
            "nodes": shown.iloc[1:].to_dict("records"),
            "written": [str(path) for path in self.written],
        }

    def tables(self) -> list[Table]:
        """Return the figures for people."""
        rest = self.nodes.iloc[1:][["species", "symbol", "gene_id", "kind", "similarity"]]
        rows = tuple(tuple(row) for row in rest.itertuples(index=False))
        title = f"Around {self.nodes['symbol'].iloc[0]} of {self.nodes['species'].iloc[0]}"
        return [Table(title, ("species", "gene", "id", "is", "cosine"), rows)]


def genes_neighbours(
    model: CellModel | str | Path,
    gene: str,
    *,
    species: str | None = None,
    others: Sequence[str] = (),
    top: int = 8,
    matches: int = 3,
    seed: int = 0,
    out: str | Path | None = None,
) -> GenesNeighboursResult:
    """Return and draw the genes that are nearest to a gene, and to its best matches in other species.

    Parameters
    ----------
    model
        A run folder, or a model.
    gene
        Symbol or id.
    species
        Whose gene it is; not needed where one species alone has it.
    others
        Species to look for matches in; all others of the model when empty.
    top
        Nearest genes in each species.
    matches
        Best matches in each other species.
    seed
        Draws where the nodes of the picture begin.
    out
        Folder for tables and picture; ``report`` in the run's folder when None. A model alone writes nothing
        without it.

    Raises
    ------
    InputError
        When the gene or a species is not known.
    """
    if min(top, matches) < 1:
        raise InputError("--top and --matches: 1 or more")
    loaded = load(model)
    held = loaded.lexicon.species
    home = find_species(species).name if species is not None else _home(loaded, gene)
    names = [home, *([find_species(text).name for text in others] or [name for name in held if name != home])]
    strangers = [name for name in names if name not in held]
    if strangers or len(set(names)) < len(names):
        raise InputError(
            f"the model knows {listing(held, 20)}; got {listing(names, 20)}, each of which must be there once"
        )
    index = int(genes_named(loaded.lexicon, home, [gene])[0])
    weight = loaded.network.genes.weight.detach().float().cpu().numpy()
    rows = [loaded.lexicon.rows_of(name) for name in names]
    place = int(np.flatnonzero(rows[0] == index)[0])
    nodes, edges = neighbour_graph([weight[own] for own in rows], place, top, matches)
    found = np.array([rows[s][g] for s, g in zip(nodes["species"], nodes["gene"], strict=True)], dtype=np.int64)
    about = loaded.lexicon.table.iloc[found].reset_index(drop=True)
    about["symbol"] = gene_names(loaded.lexicon, found)
    spots = spring_layout(len(nodes), edges[["source", "target"]].to_numpy(), generator(seed, "layout"))
    table = about[["species", "gene_id", "symbol"]].assign(
        kind=nodes["kind"], similarity=nodes["similarity"], x=spots[:, 0], y=spots[:, 1]
    )
    result = GenesNeighboursResult(table, edges, ())
    folder = report_folder(model, out)
    return result if folder is None else _write(result, folder)


def _home(model: CellModel, gene: str) -> str:
    """Return the one species that has a gene of this name."""
    held = []
    for name in model.lexicon.species:
        try:
            genes_named(model.lexicon, name, [gene])
        except InputError:
            continue
        held.append(name)
    if len(held) != 1:
        known = listing(model.lexicon.species, 20)
        which = f"is a gene of {listing(held)}: say which with --species" if held else f"is no gene of {known}"
        raise InputError(f"{gene} {which}")
    return held[0]


def _write(result: GenesNeighboursResult, folder: Path) -> GenesNeighboursResult:
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "genes_neighbours.csv", folder / "genes_neighbours_edges.csv"]
    result.nodes.to_csv(written[0], index=False)
    result.edges.to_csv(written[1], index=False)
    written += save_figure(gene_graph(result.nodes, result.edges), folder / "genes_neighbours")
    return replace(result, written=tuple(written))
