"""The chunk flow as a whole: inverse, Jacobian, causality, prefix densities, normalisation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from serfn.flows import ConditionalChunkFlow, FlowConfig
from serfn.flows.mixing import CausalMixing
from serfn.flows.transforms import AffineTransform, SplineTransform
from serfn.flows.whitening import ChunkWhitening

pytestmark = pytest.mark.slow

ACTION_DIMS = pytest.mark.parametrize("action_dim", [1, 2, 3])


def make_flow(
    action_dim: int, chunk_size: int = 4, couplings: int = 4, scale: float = 0.15
) -> ConditionalChunkFlow:
    """A small float64 flow with random parameters everywhere, the zero-initialised heads included.

    Of splines with one action dimension, else of affine maps.
    """
    config = FlowConfig(couplings=couplings, width=16)
    flow = ConditionalChunkFlow(config, context_dim=3, action_dim=action_dim, chunk_size=chunk_size).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_((0.1 if "mixings" in name else scale) * noise)
    flow.whitening.mean.copy_(torch.randn(chunk_size, action_dim, generator=generator))
    flow.whitening.std.copy_(0.3 + torch.rand(chunk_size, action_dim, generator=generator))
    return flow


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@ACTION_DIMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_inverse_undoes_forward(action_dim: int, dtype: torch.dtype, tolerance: float) -> None:
    flow = make_flow(action_dim).to(dtype)
    z = draw(32, 4, action_dim).to(dtype)
    conditions = flow.condition(draw(32, 3, seed=1).to(dtype))
    u, log_det = flow(z, conditions)
    back, inverse_log_det = flow.inverse(u, conditions)
    assert not torch.allclose(u, flow.whitening(z)[0])
    torch.testing.assert_close(back, z, atol=tolerance, rtol=0)
    torch.testing.assert_close(inverse_log_det, -log_det, atol=10 * tolerance, rtol=0)


@ACTION_DIMS
def test_log_det_per_step_is_that_of_the_jacobian_blocks(action_dim: int) -> None:
    flow = make_flow(action_dim)
    context = draw(1, 3, seed=1)

    def squashed(flat: Tensor) -> Tensor:
        return flow(flat.view(1, 4, action_dim), flow.condition(context))[0].flatten()

    z = draw(4 * action_dim, seed=2)
    jacobian = torch.autograd.functional.jacobian(squashed, z).view(4, action_dim, 4, action_dim)
    _, log_det = flow(z.view(1, 4, action_dim), flow.condition(context))
    blocks = torch.stack([torch.linalg.slogdet(jacobian[t, :, t]).logabsdet for t in range(4)])
    torch.testing.assert_close(log_det[0], blocks)
    full = torch.linalg.slogdet(jacobian.reshape(4 * action_dim, 4 * action_dim)).logabsdet
    torch.testing.assert_close(log_det.sum(), full)
    for t, later in itertools.combinations(range(4), 2):
        assert (jacobian[t, :, later] == 0).all()


@ACTION_DIMS
def test_later_steps_do_not_reach_earlier_ones(action_dim: int) -> None:
    flow = make_flow(action_dim)
    conditions = flow.condition(draw(5, 3, seed=1))
    chunk = draw(5, 4, action_dim)
    changed = chunk.clone()
    changed[:, 2:] = 100 * draw(5, 2, action_dim, seed=9)
    for direction in (flow, flow.inverse):
        value, log_det = direction(chunk, conditions)
        other, other_log_det = direction(changed, conditions)
        torch.testing.assert_close(value[:, :2], other[:, :2])
        torch.testing.assert_close(log_det[:, :2], other_log_det[:, :2])
        assert not torch.allclose(value[:, 2:], other[:, 2:])


@pytest.mark.parametrize("action_dim", [1, 4])
def test_every_step_depends_on_the_context_and_on_all_earlier_steps(action_dim: int) -> None:
    flow = make_flow(action_dim)
    with torch.no_grad():
        for mixing in flow.mixings:
            mixing.get_parameter("weight").zero_()
    context = draw(1, 3, seed=1).requires_grad_()
    z = draw(1, 4, action_dim).requires_grad_()
    u, _ = flow(z, flow.condition(context))
    for t in range(4):
        z_gradient, context_gradient = torch.autograd.grad(u[0, t].sum(), (z, context), retain_graph=True)
        assert (context_gradient != 0).any()
        assert (z_gradient[0, : t + 1] != 0).all()


@pytest.mark.parametrize("action_dim", [1, 2, 5])
def test_half_of_the_couplings_transform_each_dimension(action_dim: int) -> None:
    flow = make_flow(action_dim, couplings=4)
    chunk = draw(1, 4, action_dim)
    conditions = flow.condition(draw(1, 3))
    times = torch.zeros(4, action_dim)
    for index, condition in enumerate(conditions):
        times += (flow.couplings[index](chunk, condition)[0] != chunk)[0]
    assert (times == 2).all()


def test_a_fresh_flow_is_the_whitening_alone() -> None:
    for action_dim in (1, 2):
        flow = ConditionalChunkFlow(FlowConfig(width=16), 3, action_dim, 4)
        flow.whitening.mean.fill_(0.5)
        flow.whitening.std.fill_(2.0)
        z = torch.randn(6, 4, action_dim, generator=torch.Generator().manual_seed(0))
        u, log_det = flow(z, flow.condition(torch.ones(6, 3)))
        torch.testing.assert_close(u, 0.5 + 2 * z, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            log_det, torch.full((6, 4), action_dim * math.log(2.0)), atol=1e-5, rtol=1e-5
        )


def test_contexts_broadcast_over_candidates() -> None:
    flow = make_flow(2)
    context, z = draw(3, 3, seed=1), draw(3, 7, 4, 2)
    shared, shared_log_det = flow(z, flow.condition(context.unsqueeze(1)))
    repeated, log_det = flow(z.flatten(0, 1), flow.condition(context.repeat_interleave(7, 0)))
    torch.testing.assert_close(shared.flatten(0, 1), repeated)
    torch.testing.assert_close(shared_log_det.flatten(0, 1), log_det)


def test_density_integrates_to_one_in_one_dimension() -> None:
    flow = make_flow(action_dim=1, chunk_size=1, scale=0.3)
    grid = torch.linspace(-40, 40, 40001, dtype=torch.float64).view(-1, 1, 1)
    density = _density(flow, grid).sum(-1).exp()
    assert torch.trapezoid(density, grid.flatten()).item() == pytest.approx(1.0, abs=2e-4)


def test_density_integrates_to_one_over_two_action_dimensions() -> None:
    flow = make_flow(action_dim=2, chunk_size=1)
    axis = torch.linspace(-14, 14, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis).view(-1, 1, 2)
    density = _density(flow, grid).sum(-1).exp().view(401, 401)
    total = torch.trapezoid(torch.trapezoid(density, axis), axis)
    assert total.item() == pytest.approx(1.0, abs=2e-4)


def test_prefix_density_is_the_marginal() -> None:
    """Integrate a two-step chunk over its second step and compare with the first step's share."""
    flow = make_flow(action_dim=1, chunk_size=2)
    axis = torch.linspace(-30, 30, 12001, dtype=torch.float64)
    for first in (-1.5, 0.1, 2.0):
        chunks = torch.stack([torch.full_like(axis, first), axis], dim=-1).unsqueeze(-1)
        steps = _density(flow, chunks)
        marginal = torch.trapezoid(steps.sum(-1).exp(), axis)
        assert marginal.item() == pytest.approx(steps[0, 0].exp().item(), rel=1e-4)


def test_mixing_is_volume_preserving_and_causal() -> None:
    mixing = CausalMixing(3, 2).double()
    with torch.no_grad():
        mixing.weight.copy_(0.5 * draw(6, 6))
    jacobian = torch.autograd.functional.jacobian(
        lambda v: mixing(v.view(1, 3, 2)).flatten(), draw(6, seed=1)
    )
    assert torch.linalg.det(jacobian).item() == pytest.approx(1.0)
    torch.testing.assert_close(jacobian.triu(1), torch.zeros(6, 6, dtype=torch.float64))
    values = draw(5, 3, 2, seed=2)
    torch.testing.assert_close(mixing.inverse(mixing(values)), values)


def test_whitening_counts_valid_steps_only() -> None:
    whitening = ChunkWhitening(3, 1, minimum_std=0.1)
    values = torch.tensor([[1.0, 5.0, 9.0], [3.0, 99.0, math.nan]]).unsqueeze(-1)
    whitening.fit(values, torch.tensor([[True, True, False], [True, False, False]]))
    torch.testing.assert_close(whitening.mean.flatten(), torch.tensor([2.0, 5.0, 0.0]))
    torch.testing.assert_close(whitening.std.flatten(), torch.tensor([1.0, 0.1, 1.0]))


def test_whitening_refuses_a_mask_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"valid has shape \(2,\)"):
        ChunkWhitening(3, 1).fit(torch.zeros(2, 3, 1), torch.ones(2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"couplings": 3}, "couplings is 3"),
        ({"width": 0}, "width is 0"),
        ({"minimum_std": float("nan")}, "minimum_std is nan"),
    ],
)
def test_config_names_the_value_and_the_remedy(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowConfig(**options)


def test_one_action_dimension_takes_splines_and_several_take_affine_maps() -> None:
    for action_dim, kind in ((1, SplineTransform), (2, AffineTransform)):
        flow = ConditionalChunkFlow(FlowConfig(width=16), 3, action_dim, 4)
        assert all(isinstance(coupling.transform, kind) for coupling in flow.couplings)


def test_mlp_needs_a_hidden_unit_per_step() -> None:
    with pytest.raises(ValueError, match="width is 3"):
        ConditionalChunkFlow(FlowConfig(width=3), 2, 2, 4)


def _density(flow: ConditionalChunkFlow, u: Tensor) -> Tensor:
    """Log-density of each step, [batch, chunk], under one fixed context."""
    with torch.no_grad():
        z, log_det = flow.inverse(u, flow.condition(draw(1, 3, seed=5)))
    return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)
