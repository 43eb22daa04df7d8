"""The card of a shared model: what it was trained on and under which licences, how, how well, and how to cite it.

Nothing in it is made up: what a run folder does not tell, the card says that it does not know.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from huggingface_hub import ModelCard

from lexicell.datasets.entries import Dataset
from lexicell.datasets.registry import available
from lexicell.errors import InputError, listing
from lexicell.files import write_text
from lexicell.model.checkpoint import ModelSpec
from lexicell.reporting.run_tables import RunTables, read_run

_SHARED = ("recipe.yaml", "metrics.csv", "exposure.npy")  # of a run folder; run.json goes along without paths
_NON_COMMERCIAL = ("-nc", "non-commercial", "noncommercial")
UNKNOWN = "not stated"


@dataclass(frozen=True)
class TrainedOn:
    """One source of training cells."""

    name: str
    store: str
    species: str
    cells: int
    licence: str
    citation: str

    @property
    def non_commercial(self) -> bool:
        """Whether its licence forbids commercial use."""
        return any(word in self.licence.lower() for word in _NON_COMMERCIAL)


def share_run(run: Path | None, folder: Path) -> None:
    """Copy what a run folder tells of a model, without this machine's paths."""
    if run is None or run.resolve() == folder.resolve():
        return
    for name in _SHARED:
        if (run / name).is_file():
            shutil.copyfile(run / name, folder / name)
    if (run / "run.json").is_file():
        facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
        facts["stores"] = [{k: v for k, v in store.items() if k != "path"} for store in facts.get("stores", [])]
        facts.pop("start", None)  # may name a folder of this machine
        write_text(folder / "run.json", json.dumps(facts, indent=1) + "\n")


def sources_of(facts: Mapping[str, Any], licences: Mapping[str, str] | None = None) -> list[TrainedOn]:
    """Return what a run was trained on.

    A source's licence is the one given for its name, else that of the public data set whose file bears the name.

    Parameters
    ----------
    facts
        What run.json holds.
    licences
        Name of a source or store -> licence.

    Raises
    ------
    InputError
        When a licence is given for a source that the run does not have.
    """
    given = dict(licences or {})
    public = {Path(file.name).stem: entry for entry in available() for file in entry.files}
    found, known = [], set()
    for store in facts.get("stores", []):
        parts = store.get("sources") or [
            {"name": store["name"], "species": ", ".join(store["species"]), "cells": store["cells"]}
        ]
        for part in parts:
            entry: Dataset | None = public.get(part["name"])
            licence = given.get(part["name"], given.get(store["name"], entry.licence if entry else UNKNOWN))
            known |= {part["name"], store["name"]}
            citation = entry.citation if entry else UNKNOWN
            found.append(TrainedOn(part["name"], store["name"], part["species"], int(part["cells"]), licence, citation))
    if unknown := sorted(given.keys() - known):
        raise InputError(f"licences: no source is called {listing(unknown)}; there are {listing(sorted(known), 40)}")
    return found


def model_card(
    spec: ModelSpec,
    run: Path | None,
    *,
    name: str = "A lexicell model",
    repo_id: str | None = None,
    licence: str | None = None,
    licences: Mapping[str, str] | None = None,
    authors: str | None = None,
) -> ModelCard:
    """Write a model's card.

    Parameters
    ----------
    spec
        What the model is.
    run
        Folder of its run, or of a shared model; None if there is none.
    name
        Title.
    repo_id
        Where it will be found, for the example.
    licence
        Licence of the weights, as the Hub abbreviates it (``cc-by-4.0``). Without one, a non-commercial one where a
        source is for non-commercial use only, else none is claimed.
    licences
        Name of a source or store -> licence of its cells, for those that lexicell does not know.
    authors
        Who made the model, for citing it.
    """
    tables = read_run(run) if run is not None else RunTables(name)
    sources = sources_of(tables.facts, licences)
    restricted = [source for source in sources if source.non_commercial]
    data: dict[str, Any] = {
        "library_name": "lexicell",
        "tags": ["single-cell", "rna-seq", "transcriptomics", "biology", "cell-annotation"],
    }
    if licence:
        data["license"] = licence
    elif restricted and all("cc by-nc 4.0" in source.licence.lower() for source in restricted):
        data["license"] = "cc-by-nc-4.0"
    elif restricted:
        data |= {"license": "other", "license_name": "non-commercial"}
    parts = [
        f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n",
        f"# {name}\n",
        _what(spec, tables.facts),
        _use(repo_id),
        _data(sources, restricted),
        _skill(tables),
        _recipe(tables),
        _cite(sources, name, authors),
    ]
    return ModelCard("\n".join(parts), ignore_metadata_errors=False)


def _what(spec: ModelSpec, facts: Mapping[str, Any]) -> str:
    lexicon, encoder = spec.lexicon, spec.config.encoder
    genes = ", ".join(f"{len(lexicon.rows_of(species)):,} of {species}" for species in lexicon.species)
    lines = [
        "A transformer pretrained on raw single-cell RNA counts with lexicell: it embeds cells and genes, "
        "predicts counts of genes that were not shown, and annotates cells.\n",
        "| | |",
        "|---|---|",
        f"| genes | {genes} |",
        f"| lexicon (SHA-256) | `{lexicon.fingerprint}` |",
        f"| trunk | {encoder.layers} layers, {encoder.width} wide, {encoder.heads} heads |",
        f"| genes in a view | {spec.tokens:,} |",
    ]
    if "parameters" in facts:
        lines.append(f"| parameters | {facts['parameters']['total']:,} |")
    if spec.label_tree is not None:
        tree = spec.label_tree
        sizes = ", ".join(f"{len(names):,} {level}" for level, names in zip(tree.levels, tree.names, strict=True))
        lines.append(f"| label head | {sizes} |")
    for what in ("steps", "lexicell", "torch"):
        if what in facts:
            lines.append(f"| {'training steps' if what == 'steps' else f'{what} version'} | {facts[what]} |")
    return "\n".join(lines) + "\n"


def _use(repo_id: str | None) -> str:
    return (
        "## How to use it\n\n```python\nimport lexicell as lx\n\n"
        f'model = lx.CellModel.from_pretrained("{repo_id or "FOLDER_OR_REPOSITORY"}")\n'
        'adata = lx.embed(model, "cells.h5ad").adata  # raw counts in; obsm["X_lexicell"] out\n```\n\n'
        "Input is raw counts of genes named as in the lexicon; cells of other species than those above cannot be "
        "embedded. Labels and embeddings are as good as the training cells are like the query's.\n"
    )


def _data(sources: list[TrainedOn], restricted: list[TrainedOn]) -> str:
    if not sources:
        return "## Training data\n\nNot known: no run folder came with this model. Ask its authors before using it.\n"
    lines = ["## Training data\n"]
    if restricted:
        names = listing((source.name for source in restricted), 20)
        lines.append(
            f"**For non-commercial use only**: the licence of {names} forbids commercial use, which extends to what "
            "is made of the data.\n"
        )
    if any(source.licence == UNKNOWN for source in sources):
        names = listing((source.name for source in sources if source.licence == UNKNOWN), 20)
        lines.append(
            f"The licence of {names} is not stated: ask the authors of this model before sharing it further.\n"
        )
    lines += ["| source | species | cells | licence |", "|---|---|---|---|"]
    lines += [f"| {s.name} | {s.species} | {s.cells:,} | {s.licence} |" for s in sources]
    return "\n".join(lines) + "\n"


def _skill(tables: RunTables) -> str:
    head = "## How well it predicts counts\n\n"
    metrics = tables.metrics
    if metrics is None or "val/skill" not in metrics or metrics["val/loss"].dropna().empty:
        return head + "Not known: no metrics came with this model.\n"
    best = metrics.iloc[int(np.nanargmin(metrics["val/loss"]))]  # the look at which the shared weights were kept
    columns = ["val/skill", *(name for name in metrics.columns if name.startswith("val/skill/"))]
    rows = [f"| {name.removeprefix('val/skill').lstrip('/') or 'all'} | {best[name]:+.3f} |" for name in columns]
    held_out = tables.facts.get("held_out", "cells that were not trained on")
    return (
        head + f"Count skill on held-out cells ({held_out}) at step {int(best['step']):,}: 1 - cross-entropy / that of "
        "the gene's own distribution given depth. 0 is no better than that, 1 is perfect. Strata by true count are "
        "diagnostics only.\n\n| queries | skill |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def _recipe(tables: RunTables) -> str:
    recipe = tables.recipe.strip() if tables.recipe else "not known"
    return f"## Recipe\n\n```yaml\n{recipe}\n```\n"


def _cite(sources: list[TrainedOn], name: str, authors: str | None) -> str:
    lines = [
        "## How to cite it\n",
        f"- The model: {authors or 'its authors'}, {name}; trained with lexicell.",
    ]
    for citation in dict.fromkeys(
        source.citation for source in sources if source.citation not in (UNKNOWN, "lexicell")
    ):
        lines.append(f"- Data: {citation}")
    if missing := [source.name for source in sources if source.citation == UNKNOWN]:
        lines.append(f"- Data: the publications of {listing(missing, 20)}.")
    return "\n".join(lines) + "\n"
