"""Cross-entropies made piece by piece, with their gradients, against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fwpkm.models.loss import IGNORED, next_token_loss, next_token_targets, token_losses

SIZES = [(1, 3, 2), (17, 11, 5), (40, 7, 3), (64, 33, 8)]


def draw(N: int, V: int, D: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    hidden, head = torch.randn(N, D, dtype=dtype), torch.randn(V, D, dtype=dtype)
    targets = torch.randint(0, V, (N,)).masked_fill(torch.rand(N) < 0.2, IGNORED)
    return hidden.requires_grad_(), head.requires_grad_(), targets, torch.rand(N, dtype=dtype) * 4


def by_torch(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    entropy = F.cross_entropy(hidden @ head.T, targets, reduction="none", ignore_index=IGNORED)
    return (entropy * weights).sum(), entropy


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("max_logits", [1, 100, 2**24])
def test_losses_and_gradients_are_torchs(
    sizes: tuple[int, int, int], max_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fwpkm.models.loss.MAX_LOGITS", max_logits)
    x = draw(*sizes)
    losses, (wanted, entropy) = token_losses(*x), by_torch(*x)
    torch.testing.assert_close(losses.weighted, wanted)
    torch.testing.assert_close(losses.entropy, entropy)
    assert torch.equal(losses.right, (x[0] @ x[1].T).argmax(-1) == x[2])
    scale = float(torch.rand(())) + 0.5
    own = torch.autograd.grad(scale * losses.weighted, x[:2])
    torch.testing.assert_close(own, torch.autograd.grad(scale * wanted, x[:2]))


@pytest.mark.parametrize("learns", [0, 1])
def test_what_does_not_learn_gets_no_gradient(learns: int) -> None:
    x = draw(12, 9, 4)
    x[1 - learns].requires_grad_(False)
    own = torch.autograd.grad(token_losses(*x).weighted, x[learns])
    torch.testing.assert_close(own, torch.autograd.grad(by_torch(*x)[0], x[learns]))


def test_without_gradients_there_is_no_graph() -> None:
    x = draw(12, 9, 4)
    with torch.no_grad():
        losses = token_losses(*x)
    assert losses.weighted.grad_fn is None
    torch.testing.assert_close(losses.weighted, by_torch(*x)[0].detach())


def test_what_is_ignored_weighs_nothing_and_nothing_is_zero() -> None:
    hidden, head, targets, weights = draw(6, 5, 3)
    ignored = torch.full_like(targets, IGNORED)
    assert float(token_losses(hidden, head, ignored, weights).weighted.detach()) == 0
    empty = token_losses(hidden[:0], head, targets[:0], weights[:0])
    assert float(empty.weighted.detach()) == 0
    assert empty.entropy.shape == (0,)
    assert float(next_token_loss(hidden[None], head, ignored[None]).detach()) == 0


def test_under_autocast_products_are_rounded_and_losses_are_not() -> None:
    x = draw(50, 20, 16, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = token_losses(*x)
    wanted = by_torch(*x)[0]
    assert losses.weighted.dtype == torch.float32
    torch.testing.assert_close(losses.weighted, wanted, rtol=2e-2, atol=0)
    own = torch.autograd.grad(losses.weighted, x[:2])
    for a, b in zip(own, torch.autograd.grad(wanted, x[:2]), strict=True):
        assert (a - b).norm() < 0.03 * b.norm()


def test_the_mean_loss_counts_only_real_pairs() -> None:
    hidden, head, _, _ = draw(14, 9, 4)
    mask = torch.tensor([[True] * 7, [False] * 2 + [True] * 5])
    targets = next_token_targets(torch.randint(0, 9, (2, 7)), mask)
    logits = (hidden @ head.T).view(2, 7, 9)
    torch.testing.assert_close(
        next_token_loss(hidden.view(2, 7, 4), head, targets),
        F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED),
    )
    assert int((targets != IGNORED).sum()) == 6 + 4
