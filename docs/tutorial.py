"""From counts in AnnData to annotated cells and a gene table, in a minute on one core.

Run it as a script (`python docs/tutorial.py`), or cell by cell in an editor that knows percent cells, such as VS Code,
Spyder or Jupyter with jupytext. scanpy is used for the picture where it is installed.
"""

# %% [markdown]
# # lexicell between two steps of scanpy
#
# lexicell takes over where raw counts are read and filtered, and gives back an AnnData with an embedding in
# `obsm["X_lexicell"]` and labels in `obs`, with which scanpy goes on.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lexicell as lx

work = Path(tempfile.mkdtemp(prefix="lexicell-tutorial-"))
print("everything is written to", work)

# %% [markdown]
# ## 1. Cells
#
# Simulated ones here, so that the truth is known: 9 types in 3 classes, 4 donors. Your own come from
# `sc.read_h5ad("my_cells.h5ad")`; raw counts must still be there, in `X`, in a layer or in `raw`.

# %%
species = "simulus_albus"
simulation = lx.simulate(
    lx.SimulationConfig(
        phylogeny=f"({species}:0.1,simulus_niger:0.1);",
        n_cells=900,
        n_genes=600,
        type_spread=0.5,
        marker_effect=1.5,
        convergent_species=(),
    )
)
adata = simulation.cells[species]
print(adata)

# %% [markdown]
# Quality control as ever; this is `sc.pp.filter_cells(adata, min_genes=100)`. Do not normalise, and do not choose
# variable genes: lexicell reads every gene's raw count.

# %%
genes_per_cell = np.asarray((adata.X > 0).sum(axis=1)).ravel()
adata = adata[genes_per_cell >= 100].copy()

# %% [markdown]
# One donor plays the new, unannotated sample; the others are the reference.

# %%
new_donor = adata.obs["donor"].cat.categories[-1]
is_new = (adata.obs["donor"] == new_donor).to_numpy()
reference, query = adata[~is_new].copy(), adata[is_new].copy()
print(f"reference: {reference.n_obs} cells; query: {query.n_obs} cells of {new_donor}")

# %% [markdown]
# ## 2. Prepare
#
# The reference becomes a store: checked, and read fast in training. Labels go from coarse to fine. A mapping with
# `adata` is what a `corpus.yaml` with `path` is on the command line.

# %%
prepared = lx.prepare(
    {"datasets": [{"adata": reference, "species": species, "donor": "donor", "labels": ["class", "type"]}]},
    work / "store",
)
print(prepared.n_cells, "cells,", prepared.n_genes, "genes, labels:", prepared.labels)

# %% [markdown]
# ## 3. Pretrain
#
# The recipe `tiny`, made smaller and cut to a few steps. A donor is held out by itself to measure *skill*: how much
# better than each gene's own marginal distribution (given the cell's depth) held-out raw counts are predicted. 0 is
# the baseline, 1 is perfect.

# %%
pretrained = lx.pretrain(
    "tiny",
    work / "store",
    work / "run",
    overrides={
        "trainer.max_steps": 120,
        "trainer.val_every": 60,
        "optim.warmup_steps": 20,
        "model.encoder.width": 64,
        "sampling.tokens": 64,
        "sampling.queries": 32,
    },
    progress=False,
)
figures = pretrained.figures()
print(f"{figures['parameters']:,} parameters; held-out count skill {figures['skill']['overall']:.3f}")

# %% [markdown]
# ## 4. Embed
#
# The query is not changed; what comes back is a copy with `obsm["X_lexicell"]`.

# %%
model = lx.CellModel.load(work / "run")
embedded = lx.embed(model, query, species=species, progress=False).adata
print("X_lexicell:", embedded.obsm["X_lexicell"].shape)

# %% [markdown]
# From here on it is scanpy: neighbours, UMAP, clusters. Without scanpy, principal components will do for a look.

# %%
try:
    import scanpy as sc
except ImportError:
    centred = embedded.obsm["X_lexicell"] - embedded.obsm["X_lexicell"].mean(axis=0)
    left, size, _ = np.linalg.svd(centred, full_matrices=False)
    points, axes = left[:, :2] * size[:2], "PC"
else:
    sc.pp.neighbors(embedded, use_rep="X_lexicell", metric="cosine")
    sc.tl.umap(embedded)
    points, axes = embedded.obsm["X_umap"], "UMAP"

figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
for kind in embedded.obs["type"].cat.categories:
    chosen = (embedded.obs["type"] == kind).to_numpy()
    ax.scatter(*points[chosen, :2].T, s=6, label=kind)
ax.set(xlabel=f"{axes} 1", ylabel=f"{axes} 2", title="Cells of the new donor, by true type")
ax.legend(markerscale=2, fontsize="small")
figure.savefig(work / "cells.png", dpi=120)

# %% [markdown]
# ## 5. Annotate
#
# Labels of the reference, carried over by the nearest reference cells. As this query holds the truth under the same
# column names, the scores come along; with real new cells `scores` is empty.

# %%
unlabelled = query.copy()
annotated = lx.annotate(model, unlabelled, work / "store", ["class", "type"], species=species, progress=False)
for level, scores in annotated.scores.items():
    print(f"{level}: accuracy {scores['accuracy']:.3f}, macro-F1 {scores['macro_f1']:.3f}")
assert annotated.adata is not None
print(annotated.adata.obs[["lexicell_type", "lexicell_type_prob", "lexicell_type_runner_up"]].head())

# %% [markdown]
# The label head was trained with the model and needs no reference any more.

# %%
by_head = lx.annotate(model, unlabelled, method="head", species=species, progress=False)
print(f"label head, type: macro-F1 {by_head.scores['type']['macro_f1']:.3f}")

# %% [markdown]
# ## 6. Genes
#
# One row a gene: species, id, symbol, how often training showed and asked for it, and its embedding. Here the nearest
# genes of one marker; the simulation knows which program each gene belongs to.

# %%
genes = lx.genes_table(work / "run", work / "genes.parquet").table
vectors = genes.filter(regex=r"^e\d+$").to_numpy()
vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
truth = genes[["species", "gene_id"]].merge(simulation.genes, on=["species", "gene_id"], how="left")
marker = int(np.flatnonzero(truth["marker_of"] != "")[0])
nearest = np.argsort(-(vectors @ vectors[marker]))[:6]
print(
    genes.iloc[nearest][["gene_id", "symbol", "shown_expressed", "asked"]].assign(
        program=truth["program"].iloc[nearest], marker_of=truth["marker_of"].iloc[nearest]
    )
)

# %% [markdown]
# `lx.report(work / "run")` puts the run on one HTML page, with the annotation of the donor that training held out
# beside logistic regression and PCA-kNN.
