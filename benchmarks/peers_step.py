"""A training step beside those of two peers' architectures: same tokens, cells, width and depth, alike many parameters.

Usage: python benchmarks/peers_step.py [--width 256] [--layers 6] [--tokens 512] [--cells 2] [--rounds 5] [--device cpu]
       [--dtype float32] [--json FILE]

- lexicell: one view of `tokens` genes; held-out genes are decoded from all tokens and from CLS alone.
- BERT of Hugging Face transformers, set up as Geneformer is: a token is a gene by rank, 15 % are masked, and each is
  classified over the whole vocabulary. Skipped where transformers is not installed.
- PyTorch's nn.TransformerEncoder as scGPT uses it: gene and value embeddings, key padding mask (here without padding),
  a small decoder of the values of the tokens.

Steps are taken in turn, so that ratios hold on a busy machine; each peer's memory is measured in a process of its own.
These are the peers' architectures in the versions installed here, not their trained models nor their own code; their
feed-forwards are widened until their blocks have as many parameters as lexicell's, which also has its decoder on top.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from process_clock import clock, peak_bytes
from torch import Tensor, nn

from lexicell.allocator import keep_freed_memory
from lexicell.batch import CellBatch
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.reporting.text import Table, print_tables
from lexicell.training.objectives import Forward, ObjectiveConfig, build_objectives, freeze_unused, total_loss
from lexicell.training.optim import OptimConfig, build_optimizer

VOCABULARY = 25_426  # tokens of Geneformer's first release; lexicell and the scGPT-like peer get as many genes
LEXICELL, BERT, PLAIN = "lexicell", "BERT as Geneformer", "nn.TransformerEncoder as scGPT"
Loss = Callable[[], Tensor]


def lexicell(options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return our network and the loss of a batch."""
    heads = options.width // 64
    network = CellNetwork(ModelConfig(EncoderConfig(options.width, options.layers, heads)), VOCABULARY)
    network.initialise(torch.Generator().manual_seed(0))
    network.to(options.device)
    config = ObjectiveConfig(contrastive=0.0)
    freeze_unused(network, config, 1)
    objectives = build_objectives(config, network, 1)
    tokens, queries = options.tokens - 1, options.tokens // 4  # CLS is a token too
    genes = drawn_genes(options.cells, tokens + queries)
    counts = torch.poisson(torch.ones(genes.shape)).long()
    none = torch.zeros(options.cells, 0, dtype=torch.long)
    shown, asked = slice(0, tokens), slice(tokens, None)
    batch = CellBatch(
        genes[None, :, shown],
        counts[None, :, shown],
        genes[:, asked],
        counts[:, asked],
        counts.sum(1).float(),
        none,
        none,
        torch.arange(options.cells),
    ).to(options.device)

    def loss() -> Tensor:
        forward = Forward(network, batch)
        return total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives)

    return network, loss


def bert(options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return a masked language model as Geneformer's, and the loss of a batch."""
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.width // 64,
        intermediate_size=feed_forward(options.width),
        hidden_act="relu",
        hidden_dropout_prob=0.02,
        attention_probs_dropout_prob=0.02,
        max_position_embeddings=options.tokens,
        type_vocab_size=1,
    )
    network = BertForMaskedLM(config).to(options.device).train()
    genes = drawn_genes(options.cells, options.tokens)
    masked = torch.rand(genes.shape) < 0.15
    labels = torch.where(masked, genes, -100).to(options.device)
    inputs = torch.where(masked, 0, genes).to(options.device)
    attended = torch.ones_like(inputs)

    def loss() -> Tensor:
        out: Tensor = network(input_ids=inputs, attention_mask=attended, labels=labels).loss
        return out

    return network, loss


class PlainTransformer(nn.Module):
    """Gene and value embeddings, PyTorch's encoder with a padding mask, a decoder of values."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.genes = nn.Embedding(VOCABULARY, width, padding_idx=0)
        self.gene_norm, self.value_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.values = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(width, width // 64, feed_forward(width), dropout=0.02, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1))

    def forward(self, genes: Tensor, values: Tensor, padding: Tensor) -> Tensor:
        """Predict the value of each token: (b, l) three times -> (b, l)."""
        x = self.gene_norm(self.genes(genes)) + self.value_norm(self.values(values[..., None]))
        return self.out(self.encoder(x, src_key_padding_mask=padding)).squeeze(-1)  # type: ignore[no-any-return]


def plain(options: argparse.Namespace) -> tuple[nn.Module, Loss]:
    """Return an encoder as scGPT's, and the loss of a batch: masked values are predicted."""
    network = PlainTransformer(options.width, options.layers).to(options.device).train()
    genes = drawn_genes(options.cells, options.tokens).to(options.device)
    values = torch.randint(0, 51, genes.shape, device=options.device).float()
    masked = torch.rand(genes.shape, device=options.device) < 0.4
    padding = torch.zeros_like(masked)

    def loss() -> Tensor:
        predicted = network(genes, values.masked_fill(masked, -1), padding)
        return F.mse_loss(predicted[masked], values[masked])

    return network, loss


MAKERS = {LEXICELL: lexicell, BERT: bert, PLAIN: plain}


def feed_forward(width: int) -> int:
    """Return the hidden width at which a feed-forward of two matrices has the parameters of lexicell's three."""
    return 3 * int(2.5 * width) // 2


def drawn_genes(cells: int, n: int) -> Tensor:
    """Return distinct genes, none of them 0, for each cell."""
    generator = torch.Generator().manual_seed(0)
    return torch.stack([1 + torch.randperm(VOCABULARY - 1, generator=generator)[:n] for _ in range(cells)])


def stepper(name: str, options: argparse.Namespace) -> tuple[nn.Module, Callable[[], float]]:
    """Return a network, and what takes a step with it and tells the seconds."""
    network, loss_of = MAKERS[name](options)
    parameters = [p for p in network.parameters() if p.requires_grad]
    ours = isinstance(network, CellNetwork)
    optimizer = build_optimizer(network, OptimConfig()) if ours else torch.optim.AdamW(parameters, fused=True)
    mixed = options.dtype != "float32"

    def step() -> float:
        started = clock(options.device)
        with torch.autocast(options.device, getattr(torch, options.dtype)) if mixed else nullcontext():
            loss = loss_of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return clock(options.device) - started

    return network, step


def peak_memory(name: str, options: argparse.Namespace) -> float:
    """Return the most memory that two steps took beyond the process before, in MB; run in a process of its own."""

    if name == BERT:
        import transformers  # noqa: F401  (its own size is not the step's)
    before = peak_bytes(options.device)
    _, step = stepper(name, options)
    step()
    step()
    return (peak_bytes(options.device) - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256, help="numbers in a token's state; a multiple of 64")
    parser.add_argument("--layers", type=int, default=6, help="transformer blocks")
    parser.add_argument("--tokens", type=int, default=512, help="tokens a cell")
    parser.add_argument("--cells", type=int, default=2, help="cells in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each; medians are shown")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="bfloat16 is mixed precision"
    )
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's choice")
    parser.add_argument("--memory-of", choices=tuple(MAKERS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cpu":
        keep_freed_memory()
    if options.memory_of:
        print(json.dumps(peak_memory(options.memory_of, options)))
        return

    names = [name for name in MAKERS if name != BERT or find_spec("transformers")]
    if BERT not in names:
        print(f"{BERT}: skipped, as transformers is not installed; pip install transformers")
    made = {name: stepper(name, options) for name in names}
    for _, step in made.values():
        step()
    rounds = [{name: step() for name, (_, step) in made.items()} for _ in range(options.rounds)]
    figures: dict[str, Any] = {}
    for name in names:
        command = [sys.executable, __file__, "--memory-of", name]
        for option in ("width", "layers", "tokens", "cells", "device", "dtype", "threads"):
            command += [f"--{option}", str(getattr(options, option))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds = statistics.median(one[name] for one in rounds)
        figures[name] = {
            "parameters": sum(p.numel() for p in made[name][0].parameters()),
            "cells_per_second": options.cells / seconds,
            "times_as_fast_as_it": statistics.median(one[name] / one[LEXICELL] for one in rounds),
            "memory_mb": json.loads(done.stdout.splitlines()[-1]),
        }
    rows = [
        (
            name,
            f"{one['parameters'] / 1e6:.1f} M",
            f"{one['cells_per_second']:.2f}",
            f"{one['times_as_fast_as_it']:.2f}",
            f"{one['memory_mb']:,.0f}",
        )
        for name, one in figures.items()
    ]
    title = f"{options.cells} cells x {options.tokens} tokens, {options.width} wide, {options.layers} layers"
    columns = ("", "parameters", "cells/s", "lexicell is so many times as fast", "MB of a step")
    print_tables([Table(f"{title}, {options.dtype}, {options.device}", columns, tuple(rows))])
    if options.json:
        options.json.write_text(json.dumps(vars(options) | {"json": None, "peers": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
