"""Fine-tuning: a trained model goes on learning, from the labels of a reference alone, trunk and all.

- A cell is shown in two views, and its label is read from their mean, as at inference from the mean of its samples.
- Labels are learned as if all were equally frequent (logit adjustment, Menon et al. 2021), with dropout of the cell.
- The head learns fastest; each block below learns slower by a constant factor, embeddings slowest (layer-wise learning
  rates, Howard & Ruder 2018): what lies deepest is what pretraining knew best.
- Held-out cells, whole donors where there are enough, say when to stop; the best weights are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from lexicell.allocator import keep_freed_memory
from lexicell.annotation.probe import balanced_subset
from lexicell.annotation.scores import macro_f1
from lexicell.data.gene_sampler import GeneSampler, SamplingConfig, SparseRows, fit_shape
from lexicell.errors import InputError
from lexicell.inference.cell_model import CellModel
from lexicell.labels import LabelTree
from lexicell.model.heads import LabelHead
from lexicell.model.losses import label_cross_entropy
from lexicell.model.network import CellNetwork
from lexicell.randomness import generator, integer_seed

Int64 = npt.NDArray[np.int64]

CHECKS = 8  # at least, in a run that is not stopped
_STEPS = 2000
_STOP_BY = 2000  # held-out cells that a check looks at, common labels cut first


@dataclass(frozen=True)
class FinetuneConfig:
    """How a model is fine-tuned."""

    lr: float = 1e-3
    """Learning rate of the label head."""
    trunk_lr_scale: float = 0.3
    """Learning rate of the uppermost block, as a multiple of lr."""
    layer_decay: float = 0.7
    """Learning rate of a block, as a multiple of that of the block above; embeddings lie below the first block."""
    weight_decay: float = 0.05
    """Weight decay of matrices."""
    batch_size: int = 16
    """Cells a step."""
    max_epochs: int = 8
    """Passes over the reference at most."""
    max_steps: int = 0
    """Steps at most; 0 for 2,000, or as many as show every cell once where that is more."""
    patience: int = 2
    """Checks without a better macro-F1 on held-out cells after which it stops; there are `CHECKS` in a full run."""
    dropout: float = 0.1
    """Share of the cell's numbers that is dropped before the head."""
    label_balance: float = 1.0
    """Logit adjustment: 0 learns labels as frequent as they are, 1 as if all were equally frequent."""

    def __post_init__(self) -> None:
        if min(self.lr, self.trunk_lr_scale, self.layer_decay, self.batch_size, self.max_epochs) <= 0:
            raise InputError(f"finetune: rates, batch_size and max_epochs must be positive; got {self}")
        if min(self.max_steps, self.patience) < 0:
            raise InputError(f"finetune: max_steps and patience must not be negative; got {self}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"finetune: dropout must lie between 0 and 1; got {self.dropout}")


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A fine-tuned model.

    Attributes
    ----------
    model
        It, with a label head for the reference's tree.
    steps
        Steps after which its weights were taken.
    history
        (step, macro-F1 of the finest level on held-out cells) at each check.
    """

    model: CellModel
    steps: int
    history: tuple[tuple[int, float], ...]


def finetune(
    model: CellModel,
    counts: sparse.csr_matrix,
    genes: Int64,
    codes: Int64,
    tree: LabelTree,
    held_out: npt.NDArray[np.bool_],
    config: FinetuneConfig | None = None,
    *,
    seed: int = 0,
    said: Callable[[str], None] | None = None,
) -> Finetuned:
    """Train a copy of a model on labelled cells.

    Parameters
    ----------
    model
        The model to begin with; it is not changed.
    counts
        Raw counts (n_cells, n_genes), CSR.
    genes
        Lexicon index of each of these genes.
    codes
        Labels (n_cells, n_levels), -1 is missing.
    tree
        The label tree. A head that the model has for this very tree is trained on; else a new one begins at zero.
    held_out
        (n_cells,) cells that are not learned from, but say when to stop.
    config
        How.
    seed
        Draws the order of cells, which genes are shown, and what is dropped.
    said
        Called with a line at each check.

    Raises
    ------
    InputError
        When no labelled cell is left to learn from, or none to stop by.
    """
    config = config or FinetuneConfig()
    labelled = codes[:, 0] >= 0
    learned, judged = np.flatnonzero(labelled & ~held_out), np.flatnonzero(labelled & held_out)
    if not len(learned) or not len(judged):
        raise InputError(
            "finetune: labelled cells are needed both to learn from and to hold out; the reference is small"
        )
    if model.device.type == "cpu":
        keep_freed_memory()
    network = _start(model, tree, codes[learned])
    optimizer = build_groups(network, config)
    judged = judged[balanced_subset(codes[judged], _STOP_BY, generator(seed, "finetune checks"))]
    epoch = -(-len(learned) // config.batch_size)
    steps = min(config.max_steps or max(_STEPS, epoch), config.max_epochs * epoch)
    views = _Views(counts, genes, model, seed)
    drops = torch.Generator().manual_seed(integer_seed(seed, "finetune dropout"))
    every = min(epoch, -(-steps // CHECKS))
    best, history, since = (-1.0, 0, copy.deepcopy(network.state_dict())), [], 0
    for step, rows in enumerate(_batches(learned, config.batch_size, steps, seed), start=1):
        _set_rates(optimizer, step, steps)
        cells = _cells(network, views.draw(rows, step))
        scores = network_head(network)(_drop(cells, config.dropout, drops), config.label_balance)
        total, n_labels = label_cross_entropy(scores, torch.from_numpy(codes[rows]).to(model.device))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(total / n_labels.clamp(min=1))
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        if step % every and step != steps:
            continue
        score = _judge(network, views, judged, codes)
        history.append((step, score))
        if said is not None:
            said(f"fine-tuning: step {step} of at most {steps}, macro-F1 on held-out cells {score:.3f}")
        if score > best[0]:
            best, since = (score, step, copy.deepcopy(network.state_dict())), 0
        else:
            since += 1
            if since >= config.patience:
                break
    network.load_state_dict(best[2])
    return Finetuned(model.trained_on(network, tree), best[1], tuple(history))


def build_groups(network: CellNetwork, config: FinetuneConfig) -> torch.optim.AdamW:
    """Return AdamW with a learning rate a layer; freezes what labels do not train."""
    blocks = list(network.encoder.blocks)
    trunk = config.lr * config.trunk_lr_scale
    layers: list[tuple[list[torch.nn.Parameter], float]] = [(list(network_head(network).parameters()), config.lr)]
    for depth, block in enumerate(reversed(blocks)):
        layers.append((list(block.parameters()), trunk * config.layer_decay**depth))
    layers.append((list(network.encoder.norm.parameters()), trunk))
    below = (network.genes, network.counts, network.bag, network.covariates)
    rest = [network.cls, *(parameter for part in below for parameter in part.parameters())]
    frozen = {id(parameter) for name, parameter in network.named_parameters() if name.endswith("frozen")}
    layers.append((rest, trunk * config.layer_decay ** len(blocks)))
    groups = []
    for parameters, lr in layers:
        for decayed in (True, False):
            chosen = [p for p in parameters if id(p) not in frozen and (p.ndim >= 2) == decayed]
            for parameter in chosen:
                parameter.requires_grad_(True)
            decay = config.weight_decay if decayed and parameters is not rest else 0.0
            if chosen:
                groups.append({"params": chosen, "lr": lr, "highest": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def network_head(network: CellNetwork) -> LabelHead:
    """Return the label head, which a network being fine-tuned has."""
    assert network.label_head is not None
    return network.label_head


def _drop(cells: Tensor, share: float, drops: torch.Generator) -> Tensor:
    """Drop a share of the numbers, as `torch.nn.functional.dropout` does, by draws of one's own."""
    kept = torch.rand(cells.shape, generator=drops) >= share
    return cells * kept.to(cells) / (1 - share)


def _start(model: CellModel, tree: LabelTree, codes: Int64) -> CellNetwork:
    network = copy.deepcopy(model.network)
    if network.label_head is None or model.label_tree != tree:
        network.label_head = LabelHead(model.cell_width, tree).to(model.device)
        torch.nn.init.zeros_(network.label_head.out.weight)
        torch.nn.init.zeros_(network.label_head.out.bias)
    counts = [np.bincount(codes[codes[:, place] >= 0, place], minlength=size) for place, size in enumerate(tree.sizes)]
    network.label_head.set_frequencies([torch.from_numpy(n).to(model.device) for n in counts])
    return network.requires_grad_(False).train()


def _batches(rows: Int64, size: int, steps: int, seed: int) -> Iterator[Int64]:
    """Yield batches: every cell once an epoch, in random order."""
    epoch, left = 0, rows[:0]
    for _ in range(steps):
        if len(left) == 0:
            left = generator(seed, "finetune", epoch).permutation(rows)
            epoch += 1
        yield left[:size]
        left = left[size:]


def _set_rates(optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
    """Warm up over the first tenth, then fall linearly to a tenth."""
    done = step / steps
    scale = min(done / 0.1, 1 - 0.9 * max(0.0, done - 0.1) / 0.9)
    for group in optimizer.param_groups:
        group["lr"] = group["highest"] * scale


class _Views:
    """Draws two views of cells, as training does."""

    def __init__(self, counts: sparse.csr_matrix, genes: Int64, model: CellModel, seed: int) -> None:
        self._counts, self._genes, self._model = sparse.csr_matrix(counts), genes, model
        config = SamplingConfig(
            tokens=model.spec.tokens, views=2, queries=2, deck_share=model.spec.silent_share, query_deck_share=0.5
        )
        shape = fit_shape(config, len(genes))
        self._sampler = GeneSampler(shape, [np.sort(genes)], len(model.lexicon), integer_seed(seed, "finetune views"))

    def draw(self, rows: Int64, step: int) -> tuple[Tensor, ...]:
        """Return genes, counts (2, b, l), depth and covariates of cells; the draw is keyed by cell and step."""
        part = self._counts[rows]
        indptr = part.indptr.astype(np.int64)
        cells = SparseRows(indptr[:-1], indptr[1:], self._genes[part.indices], part.data.astype(np.int64))
        position = rows + step * self._counts.shape[0]
        nothing = np.zeros(len(rows), np.int64)
        drawn = self._sampler.sample(cells, panel=nothing, hand=position, position=position)
        depth = np.asarray(part.sum(axis=1), dtype=np.float32).ravel()
        return self._model.tensors(drawn.genes, drawn.counts, depth)


def _cells(network: CellNetwork, drawn: tuple[Tensor, ...]) -> Tensor:
    """Return the cells, the mean of their views, (b, cell width)."""
    genes, counts, depth, covariates = drawn
    n_views = len(genes)
    encoded = network.encode(
        genes.flatten(0, 1), counts.flatten(0, 1), depth.repeat(n_views), covariates.repeat(n_views, 1)
    )
    return encoded.cell.view(n_views, len(depth), -1).mean(dim=0)


@torch.no_grad()
def _judge(network: CellNetwork, views: _Views, rows: Int64, codes: Int64) -> float:
    """Return the macro-F1 of the finest level that held-out cells have labels on."""
    network.eval()
    paths = []
    for start in range(0, len(rows), 64):
        cells = _cells(network, views.draw(rows[start : start + 64], 0))
        paths.append([path.cpu().numpy() for path in network_head(network).path_log_probabilities(cells)])
    network.train()
    place = int(np.flatnonzero((codes[rows] >= 0).any(axis=0))[-1])
    called = np.concatenate([path[place].argmax(axis=1) for path in paths])
    truth = codes[rows, place]
    return macro_f1(truth[truth >= 0], called[truth >= 0])
