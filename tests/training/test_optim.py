from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lexicell.batch import CellBatch
from lexicell.errors import InputError
from lexicell.labels import LabelTree
from lexicell.model.encoder import EncoderConfig
from lexicell.model.network import CellNetwork, ModelConfig
from lexicell.training.module import Pretraining
from lexicell.training.objectives import Forward, ObjectiveConfig, build_objectives, total_loss
from lexicell.training.optim import OptimConfig, build_optimizer, lr_scale
from lexicell.training.recipe import Recipe, load_recipe, override_recipe
from lexicell.training.skill import CountBaseline

N_GENES = 60
has_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")


def network_of(width: int = 16, label_tree: LabelTree | None = None) -> CellNetwork:
    config = ModelConfig(encoder=EncoderConfig(width=width, layers=1, heads=width // 8))
    network = CellNetwork(config, N_GENES, [2], label_tree)
    network.initialise(torch.Generator().manual_seed(0))
    return network


def batch() -> CellBatch:
    generator = torch.Generator().manual_seed(3)
    genes = torch.stack([torch.randperm(N_GENES, generator=generator)[:48] for _ in range(8)])
    counts = torch.poisson(torch.rand(8, 48, generator=generator) * 4, generator=generator).long()
    shown = [values[:, :40].reshape(8, 2, 20).transpose(0, 1) for values in (genes, counts)]
    none = torch.zeros(8, 1, dtype=torch.long)
    depth = counts.sum(1).float()
    return CellBatch(*shown, genes[:, 40:], counts[:, 40:], depth, none, none - 1, torch.arange(8))


def logits_of(network: CellNetwork) -> Tensor:
    with torch.no_grad():
        forward = Forward(network, batch())
        return forward.query_logits


def train(network: CellNetwork, optimizer: torch.optim.Optimizer, steps: int) -> None:
    objectives = build_objectives(ObjectiveConfig(), network, 2)
    for _ in range(steps):
        forward = Forward(network, batch())
        optimizer.zero_grad()
        total_loss({o.name: o.loss(forward) for _, o in objectives}, objectives).backward()
        optimizer.step()


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimConfig(warmup_steps=10, final_lr_scale=0.1)
    scales = [lr_scale(step, config, 110) for step in range(111)]
    assert scales[0] == pytest.approx(1 / 11)
    assert max(scales) == scales[10] == 1
    assert scales[60] == pytest.approx(0.55)
    assert scales[-1] == pytest.approx(0.1)
    assert all(b <= a for a, b in pairwise(scales[10:]))


def test_warm_up_stable_decay_stays_up_and_falls_in_a_line() -> None:
    config = OptimConfig(schedule="wsd", warmup_steps=10, final_lr_scale=0.0, decay_share=0.25)
    scales = [lr_scale(step, config, 100) for step in range(101)]
    assert scales[10:76] == [1.0] * 66
    assert scales[88] == pytest.approx(12 / 25)
    assert scales[100] == 0
    # Going on with a longer run changes nothing that was done before the decay.
    assert [lr_scale(step, config, 1000) for step in range(76)] == scales[:76]


def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay() -> None:
    network = network_of()
    network.genes.freeze(5)
    optimizer = build_optimizer(network, OptimConfig(lr=0.1, embedding_lr_scale=3, weight_decay=0.2))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == sum(p.requires_grad for p in network.parameters())
    matrices, embeddings, rest = optimizer.param_groups
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0, 0]
    assert embeddings["lr"] == pytest.approx(0.3)
    assert all(p.ndim >= 2 for p in matrices["params"])
    assert any(p is network.genes.rows for p in embeddings["params"])
    assert all(p.ndim == 1 for p in rest["params"])
    assert not any(p is network.genes.frozen for p in held)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_rates_follow_the_width() -> None:
    network = network_of(64)
    groups = build_optimizer(network, OptimConfig(lr=0.1, embedding_lr_scale=3, base_width=16)).param_groups
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rate[id(network.encoder.blocks[0].mlp.down.weight)] == pytest.approx(0.1 / 4)
    assert rate[id(network.genes.rows)] == pytest.approx(0.3 / 2)
    assert rate[id(network.decoder.depth.hidden.weight)] == pytest.approx(0.1)  # two inputs at any width
    assert rate[id(network.encoder.norm.weight)] == pytest.approx(0.1)
    same = build_optimizer(network_of(16), OptimConfig(lr=0.1, base_width=16)).param_groups
    assert {group["lr"] for group in same} == {0.1}


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=has_muon)])
def test_coordinates_move_as_far_at_any_width_when_rates_follow_it(optimizer: str) -> None:
    """The coordinate check of Yang et al. (2022): sizes of changes after a few steps, against width."""

    def moved(width: int, base_width: int) -> float:
        network = network_of(width)
        before = logits_of(network)
        config = OptimConfig(optimizer=optimizer, lr=4e-3, base_width=base_width, weight_decay=0.0)  # type: ignore[arg-type]
        train(network, build_optimizer(network, config), 4)
        return float((logits_of(network) - before).square().mean().sqrt())

    aware, unaware = ([moved(width, base) for width in (32, 256)] for base in (32, 0))
    assert aware[0] == unaware[0]
    assert 0.75 < aware[1] / aware[0] < 1.33
    assert unaware[1] / unaware[0] > 2.5


@has_muon
def test_muon_takes_the_matrices_of_the_blocks_and_learns() -> None:
    network = network_of()
    optimizer = build_optimizer(network, OptimConfig(optimizer="muon", lr=0.01))
    by_muon = {id(p) for group in optimizer.param_groups if group["muon"] for p in group["params"]}
    assert by_muon == {id(p) for name, p in network.named_parameters() if ".blocks." in name and p.ndim == 2}
    before = network.encoder.blocks[0].mlp.up.weight.detach().clone()
    train(network, optimizer, 3)  # in the first, gradients end at matrices that begin as zeros
    assert not torch.equal(before, network.encoder.blocks[0].mlp.up.weight)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(network.parameters())) - 2  # empty frozen tables


@has_muon
def test_muon_goes_on_from_its_state_as_if_never_stopped() -> None:
    config = OptimConfig(optimizer="muon", lr=0.01)
    whole = network_of()
    train(whole, build_optimizer(whole, config), 4)

    first = network_of()
    optimizer = build_optimizer(first, config)
    train(first, optimizer, 2)
    second = network_of()
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, config)
    resumed.load_state_dict(optimizer.state_dict())
    for group in resumed.param_groups:  # as a schedule does: what is set must reach both parts
        group["lr"] = group["lr"] * 1.0
    train(second, resumed, 2)
    for mine, other in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0)


@has_muon
def test_a_schedule_reaches_muon_and_adamw() -> None:
    network = network_of()
    optimizer = build_optimizer(network, OptimConfig(optimizer="muon", lr=0.01))
    before = [p.detach().clone() for p in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(network, optimizer, 2)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_without_muon_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(InputError, match=r"torch>=2\.9"):
        build_optimizer(network_of(), OptimConfig(optimizer="muon"))


def test_auto_is_decided_when_a_recipe_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(**changes: str) -> str:
        return load_recipe("small", {"optim.optimizer": "auto"} | changes).optim.optimizer

    monkeypatch.setattr(torch.optim, "Muon", object, raising=False)
    assert chosen() == "muon"
    assert chosen(**{"trainer.strategy": "ddp"}) == "muon"
    assert chosen(**{"trainer.strategy": "fsdp"}) == "adamw"
    assert chosen(**{"trainer.strategy": "fsdp", "optim.optimizer": "muon"}) == "muon"
    monkeypatch.delattr(torch.optim, "Muon")
    assert chosen() == "adamw"
    assert override_recipe(Recipe(optim=OptimConfig(optimizer="auto")), {}).optim.optimizer == "adamw"


@pytest.mark.parametrize(
    "wrong", [{"muon_lr_scale": 0.0}, {"decay_share": 0.0}, {"final_lr_scale": 2.0}, {"base_width": -1}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        OptimConfig(**wrong)  # type: ignore[arg-type]


class Waits(TorchDispatchMode):
    """Counts how often a number is fetched from a tensor, for which a GPU must first finish all its work."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.n += func.overloadpacket.__name__ in {"_local_scalar_dense", "nonzero", "is_nonzero"}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("muon", marks=has_muon)])
def test_a_step_fetches_no_number_from_the_device(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = LabelTree.from_frame(pd.DataFrame({"type": ["a", "b"]}), ["type"])
    network = network_of(label_tree=tree)
    classes = network.count_classes.n_classes
    baseline = CountBaseline(torch.zeros(2, N_GENES, classes), torch.tensor([50.0]), torch.ones(N_GENES))
    objectives = build_objectives(ObjectiveConfig(), network, 2)
    assert {objective.name for _, objective in objectives} == {"counts", "cls_counts", "contrastive", "labels"}
    module = Pretraining(network, objectives, baseline, OptimConfig(optimizer=optimizer), 10)  # type: ignore[arg-type]
    logged: dict[str, object] = {}
    monkeypatch.setattr(module, "_log_at", lambda step, values: logged.update(values))  # there is no trainer to log to
    configured = module.configure_optimizers()
    stepped, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    shown = batch()
    with Waits() as waits:
        for number in range(2):
            module.training_step(shown, number).backward()
            module.configure_gradient_clipping(stepped, 1.0)
            stepped.step()
            stepped.zero_grad()
            schedule.step()
            module.on_train_batch_end(None, shown, number)
        assert waits.n == 0
        assert float(module.last_loss) > 0
    assert waits.n == 1
    assert logged.keys() >= {"train/loss", "train/skill", "train/labels", "train/grad_norm"}
