"""A trained model in a folder: weights (safetensors), what they mean (JSON), and the lexicon they belong to.

Nothing here unpickles. Loading refuses weights, config and lexicon that do not belong together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lexicell.errors import InputError, listing
from lexicell.files import write_bytes, write_text
from lexicell.genes.lexicon import Lexicon
from lexicell.labels import LabelTree
from lexicell.model.counts import CountConfig
from lexicell.model.embedding import GrowingTable
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig

FORMAT = 3
WEIGHTS, CONFIG, LEXICON = "model.safetensors", "config.json", "lexicon.parquet"


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a network but its weights."""

    config: ModelConfig
    """Architecture."""
    lexicon: Lexicon
    """Genes, by index."""
    label_tree: LabelTree | None = None
    """Tree of the label head."""
    covariates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Levels of each covariate."""
    tokens: int = 512
    """Genes that a view showed in training."""
    silent_share: float = 0.1
    """Share of a view that was dealt from the deck."""

    def build(self) -> CellNetwork:
        """Return a network of this make, its weights not yet set."""
        sizes = [len(levels) for levels in self.covariates.values()]
        return CellNetwork(self.config, len(self.lexicon), sizes, self.label_tree)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec for JSON; the lexicon by its fingerprint."""
        return {
            "format": FORMAT,
            "model": asdict(self.config),
            "label_tree": self.label_tree.to_dict() if self.label_tree else None,
            "covariates": {name: list(levels) for name, levels in self.covariates.items()},
            "tokens": self.tokens,
            "silent_share": self.silent_share,
            "lexicon_fingerprint": self.lexicon.fingerprint,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], lexicon: Lexicon) -> ModelSpec:
        """Read what `to_dict` wrote."""
        model = data["model"]
        config = ModelConfig(
            encoder=EncoderConfig(**model["encoder"]),
            counts=CountConfig(**model["counts"]),
            **{name: value for name, value in model.items() if name not in {"encoder", "counts"}},
        )
        return cls(
            config=config,
            lexicon=lexicon,
            label_tree=LabelTree.from_dict(data["label_tree"]) if data["label_tree"] else None,
            covariates={name: tuple(levels) for name, levels in data["covariates"].items()},
            tokens=data["tokens"],
            silent_share=data["silent_share"],
        )


def save_model(folder: Path, network: CellNetwork, spec: ModelSpec) -> None:
    """Write a model into a folder; each file is whole or not there."""
    save_weights(folder, network.state_dict(), spec)


def save_weights(folder: Path, weights: Mapping[str, torch.Tensor], spec: ModelSpec) -> None:
    """Write a network's weights and what they mean into a folder; each file is whole or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    spec.lexicon.save(folder / LEXICON)
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    write_bytes(folder / WEIGHTS, save(tensors, metadata={"lexicon_fingerprint": spec.lexicon.fingerprint}))
    write_text(folder / CONFIG, json.dumps(spec.to_dict(), indent=1) + "\n")


def load_spec(folder: Path) -> ModelSpec:
    """Read a model's spec.

    Raises
    ------
    InputError
        When the folder holds no model, or its config and lexicon do not belong together.
    """
    missing = [name for name in (WEIGHTS, CONFIG, LEXICON) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder}: this is not a finished run or model: {listing(missing)} not found; "
            "give the folder that `lexicell pretrain --out` wrote"
        )
    lexicon = Lexicon.load(folder / LEXICON)
    try:
        data = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise InputError(
                f"{folder / CONFIG}: model format {data['format']}, but this lexicell reads format {FORMAT}; "
                "pretrain anew with `lexicell pretrain`, or use the lexicell version that wrote it"
            )
        expected = data["lexicon_fingerprint"]
        if expected != lexicon.fingerprint:
            raise InputError(
                f"{folder}: the model was trained with lexicon {expected[:12]}, but {LEXICON} is "
                f"{lexicon.fingerprint[:12]}; restore the lexicon that belongs to the model"
            )
        return ModelSpec.from_dict(data, lexicon)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{folder / CONFIG}: not a config that lexicell wrote ({error!r})") from None


def load_model(folder: Path) -> tuple[CellNetwork, ModelSpec]:
    """Read a model: its network with weights, and its spec.

    Raises
    ------
    InputError
        As `load_spec`; also when the weights are damaged or do not fit the config.
    """
    spec = load_spec(folder)
    network = spec.build()
    try:
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: not readable as safetensors ({error}); copy it anew") from None
    load_weights(network, weights, f"{folder / WEIGHTS}")
    return network, spec


def load_weights(network: CellNetwork, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Put weights into a network of the same make; frozen parts of its tables are restored as such."""
    for name, table in network.named_modules():
        if isinstance(table, GrowingTable):
            frozen = weights.get(f"{name}.frozen")
            if frozen is not None and len(frozen) <= len(table):
                table.freeze(len(frozen))
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        details = listing(f"{name} {found.get(name)} (expected {expected.get(name)})" for name in wrong)
        raise InputError(f"{source}: weights do not fit the model's config: {details}")
    network.load_state_dict(weights)
