"""A run's config: a recipe, composed of the parts' own dataclasses, read strictly from YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from lexicell.data.gene_sampler import SamplingConfig
from lexicell.errors import InputError
from lexicell.model.network import ModelConfig
from lexicell.training.datamodule import DataConfig
from lexicell.training.gene_rows import GeneRowConfig
from lexicell.training.objectives import ObjectiveConfig
from lexicell.training.optim import OptimConfig

PRETRAINING = "lexicell.recipes"  # package of the shipped recipes
_Config = TypeVar("_Config")

STRATEGIES = ("auto", "ddp", "fsdp")


@dataclass(frozen=True)
class TrainerConfig:
    """How long, and on what."""

    max_steps: int = 10_000
    """Optimiser steps."""
    val_every: int = 500
    """Steps between looks at the held-out cells; a checkpoint follows each."""
    log_every: int = 20
    """Steps between logged training losses."""
    keep_checkpoints: int = 3
    """So many of the last checkpoints are kept."""
    max_loss_rise: float = 10.0
    """Stop when the training loss is more than so many times its running mean; 0 never does."""
    patience: int = 0
    """Stop early after so many looks without a lower held-out loss; 0 never stops early."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu, mps."""
    devices: int | str = "auto"
    """Number of processes on a machine, one a GPU; auto is one on a CPU, and all GPUs."""
    nodes: int = 1
    """Number of machines."""
    strategy: str = "auto"
    """How several processes share the work: ddp (each holds the whole model), fsdp (FSDP2: each holds a share of
    weights, gradients and optimiser states); auto is ddp where there are several."""
    precision: str = "auto"
    """Lightning's precision; auto is bf16-mixed on a GPU that has it, else 32-true."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the transformer blocks with torch.compile, which takes a minute at first; auto does so on a GPU, where
    what it wins has not been measured yet."""
    peak_tflops: float = 0.0
    """What one device can do, in TFLOP/s, for the progress line's MFU; 0 looks it up (bf16) or measures it."""

    def __post_init__(self) -> None:
        positive = ("max_steps", "val_every", "log_every", "keep_checkpoints", "nodes")
        if min(getattr(self, name) for name in positive) < 1 or self.patience < 0 or self.grad_clip <= 0:
            raise InputError(
                f"trainer: {', '.join(positive)} must be at least 1, patience not negative and grad_clip positive; "
                f"got {self}"
            )
        if self.peak_tflops < 0:
            raise InputError(f"trainer: peak_tflops must not be negative; got {self.peak_tflops}")
        if self.max_loss_rise and self.max_loss_rise <= 1:
            raise InputError(f"trainer: max_loss_rise must be above 1, or 0 for none; got {self.max_loss_rise}")
        if self.strategy not in STRATEGIES:
            raise InputError(f"trainer: strategy is one of {', '.join(STRATEGIES)}; got {self.strategy!r}")


@dataclass(frozen=True)
class Recipe:
    """All settings of a pretraining run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Architecture."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """Which genes of a cell are shown and asked for."""
    data: DataConfig = field(default_factory=DataConfig)
    """How cells reach the model."""
    gene_rows: GeneRowConfig = field(default_factory=GeneRowConfig)
    """What gene embeddings begin with."""
    objectives: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What is optimised."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """How long, and on what."""
    seed: int = 0
    """Names every random choice of the run."""

    def __post_init__(self) -> None:
        if self.optim.ema_decay and self.trainer.strategy == "fsdp":
            raise InputError(
                "optim.ema_decay: shared-out weights are not averaged; set it to 0, or trainer.strategy to ddp"
            )


def shipped_recipes(package: str = PRETRAINING) -> tuple[str, ...]:
    """Return the names of the recipes that come with lexicell, of one kind."""
    folder = resources.files(package)
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_recipe(name: str | Path, overrides: Mapping[str, object] | None = None) -> Recipe:
    """Read a recipe, then apply overrides.

    Parameters
    ----------
    name
        A shipped recipe's name (``tiny``) or the path of a YAML file.
    overrides
        Dotted field to value, such as ``{"optim.lr": 3e-4}``.

    Raises
    ------
    InputError
        When there is no such recipe, a key is unknown, or a value is of the wrong kind or out of range.
    """
    return parse_recipe(read_tree(name, overrides or {}), f"recipe {name}")


def override_recipe(recipe: Recipe, overrides: Mapping[str, object]) -> Recipe:
    """Return a recipe with dotted fields changed."""
    tree = asdict(recipe)
    for key, value in overrides.items():
        _put(tree, key, value, "given")
    return parse_recipe(tree, "recipe")


def parse_recipe(tree: Mapping[str, Any], source: str) -> Recipe:
    """Turn nested keys and values into a recipe; every key must be known, and the optimiser is decided here."""
    recipe = parse_config(Recipe, tree, source, "pretrain")
    return replace(recipe, optim=recipe.optim.settled(sharded=recipe.trainer.strategy == "fsdp"))


def parse_config(kind: type[_Config], tree: Mapping[str, Any], source: str, verb: str) -> _Config:
    """Turn nested keys and values into a config of some class; every key must be known, the verb's help lists them."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    try:
        parsed = parser.instantiate(parser.parse_object(dict(tree)))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    except (ArgumentError, TypeError, ValueError) as error:
        raise InputError(f"{source}: {error}\nSee `lexicell {verb} --help` for every field.") from None
    return kind(**parsed)


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML, every field written out."""
    return yaml.safe_dump(asdict(recipe), sort_keys=False)


def read_tree(name: str | Path, overrides: Mapping[str, object], package: str = PRETRAINING) -> dict[str, Any]:
    """Read a recipe's nested keys and values, and put overrides by dotted name over them; not yet checked."""
    tree = _read(name, package)
    for key, value in overrides.items():
        _put(tree, key, value, str(name))
    return tree


def _read(name: str | Path, package: str) -> dict[str, Any]:
    path, shipped = Path(name), shipped_recipes(package)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise InputError(f"{path}: no such recipe file; shipped recipes are {', '.join(shipped)}")
        text = path.read_text(encoding="utf-8")
    elif str(name) in shipped:
        text = (resources.files(package) / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise InputError(f"recipe {str(name)!r} is neither a file nor shipped; shipped are {', '.join(shipped)}")
    try:
        tree = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InputError(f"{name}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{name}: a recipe is a mapping of sections, such as `optim: {{lr: 0.001}}`")
    return tree


def _put(tree: dict[str, Any], key: str, value: object, source: str) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        branch = tree.setdefault(parent, {})
        if not isinstance(branch, dict):
            raise InputError(f"override --{key}: {parent!r} of recipe {source} is a value, not a section")
        tree = branch
    tree[last] = value
