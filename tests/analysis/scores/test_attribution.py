import pytest
import torch
from fixtures.slow_patching import patched_slope

from workbench.analysis.patching.patching import EventCache
from workbench.analysis.readout import Roles, near_miss_margin, select_options
from workbench.analysis.scores.attribution import (
    frozen_parameters,
    gradient_run,
    head_effects,
    margin_effects,
    z_names,
)


def effects_at_near(model, event, clean_z):
    with frozen_parameters(model.bridge):
        run = gradient_run(model, event.near)
        margin = near_miss_margin(select_options(run.logits, event), Roles.of(event))
        return head_effects(run, [margin], clean_z, model.output_weights())


@pytest.fixture
def cache(model, event) -> EventCache:
    return EventCache.of(model, event)


@pytest.mark.parametrize("positions", ["span", "decision"])
def test_first_order_effect_is_the_slope_of_exact_patching(model, event, cache, positions):
    near, clean = cache.source("near", positions), cache.source("clean", positions)
    estimate = effects_at_near(model, event, clean).total[0].flatten()
    slope = patched_slope(model, event, event.near, near, clean - near, near_miss_margin)
    largest = slope.abs().max().item()
    torch.testing.assert_close(estimate, slope, rtol=0.01, atol=0.002 * largest)


def test_effect_vanishes_where_the_runs_agree(model, event, cache):
    effects = effects_at_near(model, event, cache.z["near"])
    assert effects.total.abs().max() < 1e-5
    assert effects.direct.abs().max() < 1e-5


def test_direct_part_is_all_there_is_in_a_last_layer_without_mlp(model, event):
    """Then the head's output reaches the logits through the final norm alone."""
    mlp = model.bridge.original_model.model.layers[-1].mlp.down_proj.weight
    kept = mlp.detach().clone()
    mlp.data.zero_()
    try:
        clean = EventCache.of(model, event).source("clean", "decision")
        effects = effects_at_near(model, event, clean)
    finally:
        mlp.data.copy_(kept)
    torch.testing.assert_close(effects.direct[0, -1], effects.total[0, -1])
    assert (effects.direct[0, 0] - effects.total[0, 0]).abs().max() > 1e-3


def test_direct_part_equals_the_readout_of_the_write_with_a_moving_norm(model, event, cache):
    """Reference by finite differences: add the head's write to the final residual stream."""
    effects = effects_at_near(model, event, cache.z["clean"])
    run = model.run([event.near], ["blocks.2.hook_resid_post"])[0]
    stream = run.activations["blocks.2.hook_resid_post"][-1]
    difference = (cache.z["clean"] - cache.z["near"])[1, -1, 2]
    write = difference @ model.output_weights()[1, 2]

    def margin(scale: float) -> float:
        normed = model.bridge.ln_final((stream + scale * write)[None, None])
        logits = normed[0, 0] @ model.bridge.unembed.W_U
        return near_miss_margin(select_options(logits, event), Roles.of(event)).item()

    slope = (margin(0.05) - margin(-0.05)) / 0.1
    assert effects.direct[0, 1, 2].item() == pytest.approx(slope, rel=0.01, abs=1e-3)


def test_margin_effects_are_gradients_of_every_margin():
    logits = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    logit_effects = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    got = margin_effects(logit_effects, logits)
    for gold in range(4):
        rest = [index for index in range(4) if index != gold]
        margin = logits[gold] - logits[rest].logsumexp(0)
        (gradient,) = torch.autograd.grad(margin, logits)
        torch.testing.assert_close(got[gold], torch.tensordot(gradient, logit_effects, dims=1))


def test_weight_flags_are_restored_and_no_weight_gradient_is_left(model, event, cache):
    parameters = list(model.bridge.parameters())
    before = [parameter.requires_grad for parameter in parameters]
    effects_at_near(model, event, cache.z["clean"])
    assert [parameter.requires_grad for parameter in parameters] == before
    assert all(parameter.grad is None for parameter in parameters)
    with pytest.raises(RuntimeError), frozen_parameters(model.bridge):
        raise RuntimeError
    assert [parameter.requires_grad for parameter in parameters] == before


def test_gradient_run_is_the_plain_run(model, event):
    with frozen_parameters(model.bridge):
        run = gradient_run(model, event.near)
    plain = model.run([event.near], z_names(3))[0]
    torch.testing.assert_close(run.logits, plain.logits)
    for z, name in zip(run.z, z_names(3), strict=True):
        torch.testing.assert_close(z[0], plain.activations[name])
