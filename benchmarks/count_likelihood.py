"""Log-likelihood of held-out raw counts: lexicell beside scVI and the gene's marginal, on the same cells and entries.

Usage: python benchmarks/count_likelihood.py --store STORE --run RUN [--run RUN ...] [--cells 200] [--json FILE]

The cells are those that RUN held out (name a donor with --data.validation.donors when it is trained). In each of them
some entries are hidden: a random share of the genes of the panel, silent ones as they come.

- scVI (negative binomial, trained on the other cells) encodes the cell without them (set to zero, the library scaled up
  from the rest) and gives its predictive, averaged over draws of the latent;
- lexicell reads the other genes, in views drawn as in training, and is asked for the hidden ones. (The samples of
  inference show a cell's genes once each, and fill up with silent ones: read through them, it takes a cell for a
  sparser one, and expects a sixth too few expressed genes.) Training asks for expressed genes more often than for
  silent ones, by a ratio that is known for each cell; it is divided out again;
- the marginal is the gene's smoothed histogram in the training cells, by depth bin.

All three are judged by the log-probability of lexicell's count classes (each integer up to 15, then bins), in nats an
entry.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from anndata import AnnData
from scipy import sparse
from scipy.stats import nbinom

from lexicell.data.gene_sampler import GeneSampler, SampleShape, SparseRows, fit_shape, query_probabilities
from lexicell.data.store import Store
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.randomness import generator
from lexicell.reporting.text import Table, print_tables
from lexicell.training.datamodule import CellDataModule
from lexicell.training.recipe import load_recipe
from lexicell.training.run_folder import RECIPE
from lexicell.training.skill import COUNT_STRATA, MEAN_STRATA, CountBaseline, fit_baseline

Float = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
HIDDEN = 0.2  # share of the panel's genes hidden in each cell
DRAWS = 20  # of scVI's latent
VIEWS = 6  # of a cell that lexicell reads, at least


def hide(counts: sparse.csr_matrix, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which entries of each cell are hidden, (n_cells, n_genes)."""
    return rng.random(counts.shape) < HIDDEN


def marginal(baseline: CountBaseline, genes: Int64, depth: npt.NDArray[np.float32], classes: Int64) -> Float:
    """Return log-probabilities under the gene's marginal given depth, (n_cells, n_genes)."""
    index = torch.from_numpy(np.broadcast_to(genes, classes.shape).copy())
    return -baseline(index, torch.from_numpy(classes), torch.from_numpy(depth)).numpy().astype(np.float64)


@torch.inference_mode()
def lexicell(
    model: CellModel,
    shape: SampleShape,
    genes: Int64,
    counts: Int64,
    hidden: npt.NDArray[np.bool_],
    classes: Int64,
) -> Float:
    """Return log-probabilities of all entries, (n_cells, n_genes); those not hidden are of no use.

    A cell's views vote: probabilities are averaged over them.
    """
    out = np.zeros(counts.shape)
    draws = np.arange(-(-VIEWS // shape.views))
    for cell in range(len(counts)):
        seen = ~hidden[cell]
        expressed = seen & (counts[cell] > 0)
        rows = SparseRows(0 * draws, 0 * draws + expressed.sum(), genes[expressed], counts[cell][expressed])
        sampler = GeneSampler(shape, [genes[seen]], len(model.lexicon), seed=cell)
        drawn = sampler.sample(rows, panel=0 * draws, hand=draws, position=draws)
        shown = [values.reshape(-1, shape.tokens) for values in (drawn.genes, drawn.counts)]
        # The depth of what is seen, scaled up to the whole panel, as the model learned it of whole cells.
        depth = np.full(len(shown[0]), counts[cell][seen].sum() / (1 - HIDDEN), np.float32)
        encoded = model.network.encode(*model.tensors(*shown, depth))
        asked = torch.from_numpy(genes[~seen]).expand(len(depth), -1)
        logits = model.network.count_logits(asked, encoded.context, torch.from_numpy(depth))
        chances = logits.softmax(-1).mean(dim=0).numpy()
        n_expressed = np.array([round(expressed.sum() / (1 - HIDDEN))])
        if_expressed, if_silent = query_probabilities(shape, n_expressed, len(genes))
        chances[:, 1:] *= if_silent / if_expressed
        chances /= chances.sum(axis=1, keepdims=True)
        out[cell, ~seen] = np.log(np.maximum(chances[np.arange(len(chances)), classes[cell, ~seen]], 1e-12))
    return out


def scvi_likelihood(
    train: sparse.csr_matrix,
    test: npt.NDArray[np.int64],
    hidden: npt.NDArray[np.bool_],
    edges: Int64,
    classes: Int64,
    seed: int,
    epochs: int,
) -> Float:
    """Return log-probabilities of all entries under scVI trained on `train`, (n_cells, n_genes)."""
    import scvi

    scvi.settings.seed = seed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        adata = AnnData(train.astype(np.float32))
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(adata, gene_likelihood="nb", n_layers=1, n_latent=10)
        model.train(max_epochs=epochs, early_stopping=True, enable_progress_bar=False, accelerator="cpu")
    module = model.module.eval().cpu()
    seen = torch.from_numpy(np.where(hidden, 0, test).astype(np.float32))
    # Library: of what is seen, scaled up to the whole panel.
    library = torch.log(seen.sum(1, keepdim=True) / (1 - HIDDEN))
    batch = torch.zeros(len(test), 1, dtype=torch.long)
    upper = np.append(edges[1:] - 1, np.inf)
    chances = np.zeros(test.shape)
    with torch.inference_mode():
        torch.manual_seed(seed)
        posterior = module.inference(seen, batch)["qz"]
        for _ in range(DRAWS):
            given = module.generative(posterior.sample(), library, batch)["px"]
            mean, size = given.mu.double().numpy(), given.theta.double().numpy()
            p = size / (size + mean)
            low = edges[classes] - 1
            chances += (nbinom.cdf(upper[classes], size, p) - np.where(low < 0, 0, nbinom.cdf(low, size, p))) / DRAWS
    return np.log(np.maximum(chances, 1e-12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the store that the run was trained on")
    parser.add_argument("--run", type=Path, action="append", required=True, help="trained run; once for every seed")
    parser.add_argument("--cells", type=int, default=200, help="held-out cells that are asked, drawn at random")
    parser.add_argument("--epochs", type=int, default=200, help="most epochs of scVI")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    store, found = Store.open(options.store), []
    for seed, run in enumerate(options.run):
        found.append(compare(store, run, options.cells, options.epochs, seed))
        print(json.dumps(found[-1]), flush=True)
    strata = list(found[0])
    rows = []
    for stratum in strata:
        ours, theirs, base = (
            np.array([one[stratum][name] for one in found]) for name in ("lexicell", "scvi", "marginal")
        )
        gain = ours - theirs
        shown = f"{gain.mean():+.4f} ({gain.min():+.4f} to {gain.max():+.4f})"
        rows.append((stratum, found[0][stratum]["entries"], ours.mean(), theirs.mean(), base.mean(), shown))
    columns = ("entries", "number", "lexicell", "scVI", "marginal", "lexicell - scVI")
    title = f"Log-likelihood in nats an entry, {len(found)} seeds, {store.name}"
    print_tables([Table(title, columns, tuple(tuple(row) for row in rows))])
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compare(store: Store, run: Path, n_cells: int, epochs: int, seed: int) -> dict[str, dict[str, float]]:
    """Return the mean log-likelihood of each method by stratum, for one run."""
    model, recipe = CellModel.load(run), load_recipe(run / RECIPE)
    data = CellDataModule([store], recipe.data, recipe.sampling, recipe.seed)
    if data.lexicon.fingerprint != model.lexicon.fingerprint:
        raise InputError(f"{run}: was trained on another store than {store.path}.")
    edges = model.network.count_classes.edges.numpy()
    shape = fit_shape(recipe.sampling, store.n_genes)
    alike = replace(shape, dealt_queries=shape.queries)  # entries are hidden at random over the panel
    baseline = fit_baseline(data.collection, data.training_cells, alike, edges, generator(seed, "baseline"))
    rng = generator(seed, "hidden entries")
    test = np.sort(rng.permutation(data.validation_cells)[:n_cells])
    counts = store.to_anndata().X.tocsr()
    shown = counts[test].toarray().astype(np.int64)
    hidden = hide(counts[test], rng)
    classes = np.searchsorted(edges, shown, side="right") - 1
    genes = np.arange(store.n_genes)
    depth = (np.where(hidden, 0, shown).sum(axis=1) / (1 - HIDDEN)).astype(np.float32)
    logs = {
        "marginal": marginal(baseline, genes, depth, classes),
        "lexicell": lexicell(model, shape, genes, shown, hidden, classes),
        "scvi": scvi_likelihood(counts[data.training_cells], shown, hidden, edges, classes, seed, epochs),
    }
    mean = np.asarray(counts[data.training_cells].mean(axis=0)).ravel()
    kinds = {"all": np.ones(shown.shape, bool)}
    for strata, value in ((MEAN_STRATA, np.broadcast_to(mean, shown.shape)), (COUNT_STRATA, shown)):
        bounds = [*strata.values(), np.inf]
        for place, name in enumerate(strata):
            label = name if strata is MEAN_STRATA else f"true count {name}"
            kinds[label] = (value >= bounds[place]) & (value < bounds[place + 1])
    out: dict[str, dict[str, float]] = {}
    for label, kind in kinds.items():
        asked = hidden & kind
        if asked.any():
            out[label] = {"entries": int(asked.sum())} | {name: float(log[asked].mean()) for name, log in logs.items()}
    return out


if __name__ == "__main__":
    main()
