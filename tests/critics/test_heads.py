from __future__ import annotations

import pytest
import torch

from serfn.critics.heads import HLGaussHead, ScalarHead


def test_the_projection_is_a_distribution_that_keeps_the_mean_up_to_the_bounds() -> None:
    head = HLGaussHead(-1.0, 1.0, bins=51)
    targets = torch.linspace(-1.0, 1.0, 201)
    histogram = head.project(targets)
    torch.testing.assert_close(histogram.sum(-1), torch.ones(201))
    assert (histogram >= 0).all()
    torch.testing.assert_close(histogram @ head.centers, targets, atol=2e-5, rtol=0)


def test_targets_beyond_the_bounds_count_as_the_bounds() -> None:
    head = HLGaussHead(0.0, 2.0, bins=21)
    torch.testing.assert_close(
        head.project(torch.tensor([-5.0, 7.0])), head.project(torch.tensor([0.0, 2.0]))
    )


def test_the_bins_agree_with_their_edges() -> None:
    head = HLGaussHead(0.0, 2.0, bins=21)
    assert head.edges.shape == (22,) and head.centers.shape == (21,)
    width = head.edges.diff()
    torch.testing.assert_close(width, width[:1].expand(21))
    assert head.sigma == pytest.approx(0.75 * width[0].item())


def test_cross_entropy_is_least_at_the_projection_and_its_mean_is_the_target() -> None:
    head = HLGaussHead(-1.0, 1.0, bins=41)
    target = torch.tensor([-0.4, 0.93])
    best = head.project(target).clamp_min(1e-30).log().expand(3, 2, 41)
    torch.testing.assert_close(head.mean(best), target.expand(3, 2), atol=2e-5, rtol=0)
    least = head.loss(best, target)
    assert least.shape == (3, 2)
    noise = torch.randn(3, 2, 41, generator=torch.Generator().manual_seed(0))
    assert (head.loss(best + 0.3 * noise, target) > least).all()


def test_gradient_descent_on_logits_finds_the_target() -> None:
    head = HLGaussHead(-1.0, 1.0, bins=41)
    logits = torch.zeros(1, 1, 41, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        head.loss(logits, torch.tensor([0.37])).sum().backward()
        optimizer.step()
    assert head.mean(logits).item() == pytest.approx(0.37, abs=1e-3)


def test_gradients_stay_finite_for_extreme_logits() -> None:
    head = HLGaussHead(-1.0, 1.0, bins=41)
    logits = (1e4 * torch.randn(2, 5, 41, generator=torch.Generator().manual_seed(0))).requires_grad_()
    head.loss(logits, torch.linspace(-1, 1, 5)).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


def test_scalar_loss_is_the_squared_error_of_each_member() -> None:
    outputs = torch.tensor([[[1.0], [2.0]], [[0.0], [5.0]]])
    assert ScalarHead().mean(outputs).tolist() == [[1.0, 2.0], [0.0, 5.0]]
    assert ScalarHead().loss(outputs, torch.tensor([1.0, 4.0])).tolist() == [[0.0, 4.0], [1.0, 1.0]]


@pytest.mark.parametrize("head", [ScalarHead(), HLGaussHead(0.0, 1.0, 11)])
def test_targets_that_would_broadcast_are_refused(head: ScalarHead | HLGaussHead) -> None:
    with pytest.raises(ValueError, match=r"\(4, 1\)"):
        head.loss(torch.zeros(2, 4, head.size), torch.zeros(4, 1))


def test_targets_receive_no_gradient() -> None:
    target = torch.zeros(4, requires_grad=True)
    outputs = torch.zeros(2, 4, 11, requires_grad=True)
    HLGaussHead(0.0, 1.0, 11).loss(outputs, target).sum().backward()
    assert target.grad is None


def test_impossible_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1\.0, 0\.0\]"):
        HLGaussHead(1.0, 0.0, 21)
    with pytest.raises(ValueError, match="at least 11"):
        HLGaussHead(0.0, 1.0, 5)
