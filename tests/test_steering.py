"""Directions and subspaces taken out of a stream or added to it: at their place, exactly, and nowhere else."""

import pytest
import torch

from utils import probes, steering
from utils.checks.core import small_model

ROWS, POSITIONS = torch.arange(6), [0, 1, 2, 3, 1, 2]


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(4, 12, (6, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def direction(model) -> torch.Tensor:
    return torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(1))


def _resid(model, tokens, hooks) -> dict[str, torch.Tensor]:
    """The residual stream before each block, as its MLP reads it, and after it, while the hooks are at work."""
    seen = {}

    def keep(name):
        def hook(value, hook):
            seen[name] = value.clone()

        return hook

    places = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
    names = [f"blocks.{layer}.{place}" for layer in range(model.cfg.n_layers) for place in places]
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[*hooks, *((name, keep(name)) for name in names)])
    return seen


def test_a_vector_loses_its_component_and_nothing_else(direction):
    unit, vectors = direction / direction.norm(), torch.randn(5, 3, len(direction))
    left = steering.without(vectors, direction)
    assert (left @ unit).abs().max() < 1e-5
    assert torch.allclose(left + (vectors @ unit)[..., None] * unit, vectors, atol=1e-5)
    assert torch.allclose(steering.without(left, direction), left, atol=1e-5)


def test_ablated_everywhere_the_stream_never_has_the_direction(model, tokens, direction):
    unit = direction / direction.norm()
    untouched = _resid(model, tokens, [])
    assert all((resid @ unit).abs().max() > 0.1 for resid in untouched.values())
    ablated = _resid(model, tokens, steering.ablate_everywhere(model, direction))
    assert all((resid @ unit).abs().max() < 1e-4 for resid in ablated.values())


def test_ablation_and_addition_change_one_block_and_position(model, tokens, direction):
    own = torch.randn(6, len(direction))
    after = "blocks.1.hook_resid_pre"
    clean = _resid(model, tokens, [])[after]
    without = steering.without(clean[ROWS, POSITIONS], direction)
    for hooks, expected in (
        (steering.ablate_after(0, direction, POSITIONS), without),
        (steering.ablate_after(0, direction, POSITIONS, 3.0), without + 3 * direction / direction.norm()),
        (steering.add_after(0, 2 * direction, POSITIONS), clean[ROWS, POSITIONS] + 2 * direction),
        (steering.add_after(0, own, POSITIONS), clean[ROWS, POSITIONS] + own),
    ):
        changed = _resid(model, tokens, hooks)[after]
        assert torch.allclose(changed[ROWS, POSITIONS], expected, atol=1e-5)
        changed[ROWS, POSITIONS] = clean[ROWS, POSITIONS]
        assert torch.equal(changed, clean)


def test_a_subspace_is_replaced_by_its_mean_at_its_place_only(model, tokens):
    space, mean = probes.random_subspace(model.cfg.d_model, 3), torch.randn(model.cfg.d_model)
    after = "blocks.0.hook_resid_post"
    clean = _resid(model, tokens, [])[after]
    changed = _resid(model, tokens, steering.remove_after(0, space, mean, POSITIONS))[after]
    inside = space.project(changed[ROWS, POSITIONS])
    assert torch.allclose(inside, space.project(mean).expand_as(inside), atol=1e-5)
    outside = [stream - space.project(stream) for stream in (changed[ROWS, POSITIONS], clean[ROWS, POSITIONS])]
    assert torch.allclose(*outside, atol=1e-5) and not torch.allclose(changed, clean)
    changed[ROWS, POSITIONS] = clean[ROWS, POSITIONS]
    assert torch.equal(changed, clean)


def test_adding_nothing_changes_nothing(model, tokens, direction):
    with torch.no_grad():
        clean = model(tokens)
        added = model.run_with_hooks(tokens, fwd_hooks=steering.add_after(0, 0 * direction, POSITIONS))
    assert torch.equal(added, clean)


def test_random_directions_have_the_norm_and_nothing_else_in_common(direction):
    first, again, other = (steering.random_like(direction, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.norm() == pytest.approx(direction.norm().item(), rel=1e-5)
    several = steering.random_like(torch.stack([direction, 3 * direction]), 0)
    assert torch.allclose(several.norm(dim=-1), direction.norm() * torch.tensor([1.0, 3.0]), rtol=1e-5)
    assert abs(torch.cosine_similarity(*several, dim=0)) < 0.99
