from __future__ import annotations

import math

import torch

from lexicell.model.losses import count_cross_entropy, info_nce, label_cross_entropy, ordinal_cross_entropy


def test_cross_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]))
    losses = count_cross_entropy(logits, torch.tensor([[0, 2]]))
    torch.testing.assert_close(losses, torch.tensor([[math.log(2), -math.log(0.8)]]))


def test_info_nce_by_hand() -> None:
    # Two cells, orthogonal views: the right pair has similarity 1, the wrong one 0.
    eye = torch.eye(2)
    expected = -math.log(math.e / (math.e + 1))
    torch.testing.assert_close(info_nce(eye, eye, 1.0), torch.tensor(expected))
    assert info_nce(eye, eye.flip(0), 1.0) > info_nce(eye, eye, 1.0)


def test_label_cross_entropy_skips_missing_labels() -> None:
    log_probabilities = [torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1]])), torch.log(torch.tensor([[0.2, 0.8]] * 2))]
    total, n = label_cross_entropy(log_probabilities, torch.tensor([[0, 1], [1, -1]]))
    assert n == 3
    torch.testing.assert_close(total, torch.tensor(-math.log(0.5) - math.log(0.8) - math.log(0.1)))
    total, n = label_cross_entropy(log_probabilities, torch.full((2, 2), -1))
    assert (total, n) == (0, 0)


def test_ordinal_targets_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 4))
    losses = ordinal_cross_entropy(logits, torch.tensor([0, 1, 2, 3]), 0.2)
    a, b, c, d = (-math.log(p) for p in (0.1, 0.2, 0.3, 0.4))
    # 0 and 1 stay sharp; 2 gives to both sides; the last class has one neighbour only.
    torch.testing.assert_close(losses, torch.tensor([a, b, 0.8 * c + 0.1 * b + 0.1 * d, 0.9 * d + 0.1 * c]))
    torch.testing.assert_close(
        ordinal_cross_entropy(logits, torch.tensor([0, 1, 2, 3]), 0.0), torch.tensor([a, b, c, d])
    )
