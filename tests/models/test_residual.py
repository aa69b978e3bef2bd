"""What lies between heads and the residual stream, against what blocks do when run by hand."""

import pytest
import torch
from fixtures.architectures import build, places

from workbench.errors import InputError
from workbench.models.hooked import HookedModel

KINDS = {
    "llama": "plain",
    "gpt2": "plain",
    "gpt_neox": "plain",
    "cohere": "plain",
    "granite": "factor",
    "gemma2": "norm",
    "gemma3_text": "norm",
    "gemma4_text": "norm",
    "olmo2": "norm",
    "olmo3": "norm",
    "glm4": "norm",
    "exaone4": "norm",
}
TOKENS = torch.tensor([[9, 4, 33, 5, 60, 17, 2, 41]])


def parts_of_blocks(kind, model):
    """What enters each block, its attention's projected output, and what leaves it without MLP."""
    blocks, projections = places(kind, model)
    entered, projected, left = [], [], []
    hooks = []
    for block, projection in zip(blocks, projections, strict=True):
        for name in ("mlp", "per_layer_projection"):
            if hasattr(block, name):
                hook = getattr(block, name).register_forward_hook(lambda *at: 0 * at[-1])
                hooks.append(hook)
        hooks += [
            block.register_forward_pre_hook(lambda _, args: entered.append(args[0])),
            projection.register_forward_hook(lambda *at: projected.append(at[-1])),
            block.register_forward_hook(
                lambda *at: left.append(at[-1][0] if isinstance(at[-1], tuple) else at[-1])
            ),
        ]
    with torch.no_grad():
        model(TOKENS, use_cache=False)
    for hook in hooks:
        hook.remove()
    return zip(entered, projected, left, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_is_what_the_block_does(kind):
    plain = build(kind)
    model = HookedModel.from_pretrained_model(build(kind))
    carry = 0.7 if kind == "gemma4_text" else 1
    for way, (entered, projected, left) in zip(
        model.ways, parts_of_blocks(kind, plain), strict=True
    ):
        assert way.splits and way.carry == pytest.approx(carry)
        assert way.factor == pytest.approx(0.22 if kind == "granite" else 1)
        assert bool(way.between) == (KINDS[kind] == "norm")
        assert way.plain == (KINDS[kind] == "plain")
        added = left / carry - entered
        torch.testing.assert_close(way(projected), added, rtol=1e-3, atol=1e-3)
        scaled = projected * way.scale(projected)
        torch.testing.assert_close(scaled, way(projected))
        # The scale of the run is one for all heads, whatever part of the output is theirs.
        gradient = torch.randn(32, generator=torch.Generator().manual_seed(0))
        at = projected[0, -1].clone().requires_grad_(True)
        [expected] = torch.autograd.grad(way(at), at, gradient)
        torch.testing.assert_close(way.pull(gradient, at), expected)


def test_half_precision_finds_the_same():
    model = HookedModel.from_pretrained_model(build("granite").to(torch.bfloat16))
    assert [way.factor for way in model.ways] == pytest.approx([0.22] * 3, rel=1e-2)
    assert all(way.splits and not way.between and way.carry == 1 for way in model.ways)


def test_mixing_norms_have_no_share_for_each_head():
    """A layer norm takes the mean off, so channels are not scaled one by one."""
    network = build("olmo2")
    for block in network.model.layers:
        block.post_attention_layernorm = torch.nn.LayerNorm(32)
    ways = HookedModel.from_pretrained_model(network).ways
    assert [way.splits for way in ways] == [False] * 3
    assert all(way.between for way in ways)


def _doubled(block, args, output):
    return 2 * output + 0.1 * output.square()


def test_what_is_not_understood_is_not_known(caplog):
    network = build("llama")
    network.model.layers[1].register_forward_hook(_doubled)  # the stream itself is bent
    model = HookedModel.from_pretrained_model(network)
    assert [way is None for way in model.ways] == [False, True, False]
    assert "layers 1; what depends on it is left empty" in caplog.text


def test_logits_of_other_positions_are_refused(monkeypatch):
    model = HookedModel.from_pretrained_model(build("llama"))
    whole = model.bridge.run_with_hooks
    monkeypatch.setattr(
        model.bridge, "run_with_hooks", lambda *args, **kwargs: whole(*args, **kwargs)[:, -1:]
    )
    with pytest.raises(InputError, match=r"logits of shape \(1, 1, 64\) for 1 sequences and 2"):
        model.logits_at(TOKENS, [3, 5])
