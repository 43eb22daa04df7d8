"""Embeddings of other foundation models, through the `helical` package, for the annotation benchmark.

`helical` (https://github.com/helicalAI/helical, AGPL-3.0) wraps many models behind `process_data` and
`get_embeddings` and downloads their weights when one is built. It pins its own PyTorch, so that it may need an
environment of its own: what is written here is an h5ad, and `lexicell benchmark annotate --embedding FILE:KEY` reads
it anywhere. Written for helical 2.2; the weights bear licences of their own (`HELICAL_MODELS`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from anndata import AnnData, read_h5ad
from scipy import sparse

from lexicell.errors import InputError, listing

Float32 = npt.NDArray[np.float32]
_ANY = ""


@dataclass(frozen=True)
class HelicalModel:
    """How a model is called, and what it reads.

    Attributes
    ----------
    module, model, config
        Where its classes are in `helical`.
    genes
        ``ensembl`` or ``symbol``: what it knows genes by.
    species
        Our names of the species that it can read, and its own options for them; ``""`` stands for any other one.
    licence
        Of code and weights, as helical's model cards say it.
    """

    module: str
    model: str
    config: str
    genes: str
    species: Mapping[str, Mapping[str, Any]]
    licence: str


_UCE = {"homo_sapiens": "human", "mus_musculus": "mouse", "danio_rerio": "zebrafish", "sus_scrofa": "pig"}
HELICAL_MODELS: Mapping[str, HelicalModel] = {
    "geneformer": HelicalModel(
        "helical.models.geneformer",
        "Geneformer",
        "GeneformerConfig",
        "ensembl",
        {"homo_sapiens": {}},
        "Apache-2.0",
    ),
    "scgpt": HelicalModel("helical.models.scgpt", "scGPT", "scGPTConfig", "symbol", {"homo_sapiens": {}}, "MIT"),
    "uce": HelicalModel(
        "helical.models.uce",
        "UCE",
        "UCEConfig",
        "symbol",
        {ours: {"species": own} for ours, own in _UCE.items()},
        "MIT",
    ),
    "transcriptformer": HelicalModel(
        "helical.models.transcriptformer",
        "TranscriptFormer",
        "TranscriptFormerConfig",
        "ensembl",
        {"homo_sapiens": {"model_name": "tf_sapiens"}, _ANY: {"model_name": "tf_metazoa"}},
        "MIT",
    ),
}


def helical_embedding(cells: AnnData, name: str, *, species: str | None = None, **options: Any) -> Float32:
    """Return a foundation model's embedding of cells, zero-shot.

    Parameters
    ----------
    cells
        Raw counts in `X`; `var` with the columns ``gene_id`` and ``symbol``, as `lexicell store export` writes them.
        It is not changed.
    name
        One of `HELICAL_MODELS`.
    species
        Latin name of the cells' species, such as ``mus_musculus``. Default: ``cells.uns["species"]``.
    options
        For the model's own config class, such as ``batch_size=32`` or ``device="cuda"``.

    Returns
    -------
    array
        (n_cells, width), float32.

    Raises
    ------
    InputError
        When `helical` is not installed, there is no such model, it cannot read the species, genes are not named as it
        needs them, or it gives back other cells than it got.
    """
    if name not in HELICAL_MODELS:
        raise InputError(f"model: no {name!r}; there are {listing(HELICAL_MODELS, 20)}.")
    wrapped = HELICAL_MODELS[name]
    whose = str(species or cells.uns.get("species") or "")
    own = wrapped.species.get(whose, wrapped.species.get(_ANY) if whose else None)
    if own is None:
        known = listing(sorted(one for one in wrapped.species if one))
        raise InputError(f"{name} reads cells of {known}, not of {whose or 'a species that nothing names'}.")
    shown = _named_genes(cells, wrapped.genes, name)
    module = _helical(wrapped.module)
    config = getattr(module, wrapped.config)(**{**own, **_settings(name, options)})
    if name == "transcriptformer":  # its config takes no device, and asks for CUDA
        config.config.model.inference_config.device = options.get("device", "cuda")
    with _elsewhere():
        model = getattr(module, wrapped.model)(configurer=config)
        if name == "transcriptformer":
            data = model.process_data([shown])
        else:
            data = model.process_data(shown, gene_names="ensembl_id" if wrapped.genes == "ensembl" else "index")
        found = model.get_embeddings(data)
    values = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=np.float32)
    if values.ndim != 2 or len(values) != cells.n_obs:
        raise InputError(
            f"{name}: gave an array of shape {values.shape} for {cells.n_obs:,} cells; expected one row a cell, so its "
            "options must not filter cells, and ask for cell embeddings."
        )
    return values


def write_helical_embedding(path: str | Path, name: str, out: str | Path, **options: Any) -> Path:
    """Write an h5ad with ``obsm["X_NAME"]`` for `lexicell benchmark annotate --embedding OUT:X_NAME`.

    Parameters
    ----------
    path
        h5ad of the store's cells (`lexicell store export STORE --out FILE`).
    name, options
        As of `helical_embedding`.
    out
        File to write; it holds the embedding and the cells' names alone.
    """
    cells = read_h5ad(path)
    made = AnnData(
        obs=pd.DataFrame(index=cells.obs_names), obsm={f"X_{name}": helical_embedding(cells, name, **options)}
    )
    part = Path(out).with_name(f".{Path(out).name}.part")
    made.write_h5ad(part)
    return part.replace(out)


def _settings(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if name != "transcriptformer" or key != "device"}


def _helical(module: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise InputError(
            f"helical is not installed ({error}): pip install helical, in an environment of its own where its PyTorch "
            "is not yours; the h5ad that is written there can be read here."
        ) from None


def _named_genes(cells: AnnData, kind: str, name: str) -> AnnData:
    """Return a copy with genes named as the model needs them; counts of genes of the same name are summed."""
    column = "gene_id" if kind == "ensembl" else "symbol"
    if column not in cells.var:
        raise InputError(
            f"{name} knows genes by {kind}: var needs a column {column!r}; it has {listing(cells.var, 20)}."
        )
    names = cells.var[column].astype(object)
    known = np.flatnonzero(names.notna() & (names != "") & (names.str.startswith("ENS") | (kind != "ensembl")))
    if not len(known):
        raise InputError(f"{name} knows genes by {kind}, and var[{column!r}] holds none.")
    unique, place = np.unique(names.to_numpy()[known].astype(str), return_inverse=True)
    member = sparse.csr_matrix((np.ones(len(known)), (np.arange(len(known)), place.reshape(-1))))
    counts = sparse.csr_matrix(sparse.csr_matrix(cells.X)[:, known] @ member, dtype=np.float32)
    var = pd.DataFrame({"ensembl_id": unique} if kind == "ensembl" else {}, index=pd.Index(unique))
    return AnnData(counts, obs=pd.DataFrame(index=cells.obs_names), var=var)


@contextlib.contextmanager
def _elsewhere() -> Any:
    """Work in a temporary folder: UCE writes its input to where it is called from."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        yield
