"""What is read of heads is what the model does, or the model is refused."""

import pytest
import torch
from fixtures.architectures import build, places

from workbench.distill.reading.capture import Capture, take
from workbench.distill.reading.wanted import Wanted, all_heads
from workbench.errors import InputError

WRITES = Wanted(writes=all_heads(range(3), 4))
TOKENS = torch.tensor([[9, 4, 33, 5, 60, 17, 2, 41], [3, 3, 8, 61, 12, 7, 30, 22]])
POSITIONS = torch.tensor([[0, 7], [3, 5]])


@pytest.mark.parametrize(
    "kind",
    ["llama", "olmo2", "glm4", "exaone4", "granite", "gemma2", "gemma3_text", "gpt2", "gpt_neox"],
)
def test_heads_write_together_what_their_layer_adds_to_the_stream(kind):
    model = build(kind)
    blocks, projections = places(kind, model)
    for projection in projections:
        if projection.bias is not None:
            projection.bias.data.zero_()  # it belongs to no head
    capture = Capture(model, WRITES)
    reading = capture.run(lambda: model(input_ids=TOKENS), POSITIONS)
    added = {}

    def keep(layer, entered, left):
        added[layer] = take(left - entered, POSITIONS)

    hooks = []
    for layer, block in enumerate(blocks):  # with the MLP silent, the rest of a block
        hooks.append(block.mlp.register_forward_hook(lambda *at: 0 * at[-1]))
        hooks.append(
            block.register_forward_hook(lambda _, a, out, layer=layer: keep(layer, a[0], out))
        )
    again = capture.run(lambda: model(input_ids=TOKENS), POSITIONS)
    for hook in hooks:
        hook.remove()
    for layer in range(3):
        together = again.summed([(layer, head) for head in range(4)])
        torch.testing.assert_close(together, added[layer], rtol=1e-3, atol=1e-3)
    assert reading.written[0, 0].requires_grad  # and it can be trained


LOOKS = Wanted(patterns=frozenset([(1, 2)]))


def test_attention_that_is_not_of_queries_and_keys_alone_is_refused(monkeypatch):
    model = build("llama")
    sdpa = torch.nn.functional.scaled_dot_product_attention

    def with_sink(*args, **kwargs):
        return 0.7 * sdpa(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", with_sink)
    with pytest.raises(InputError, match="attention 'sdpa' has a mask, cap, sinks or biases"):
        Capture(model, LOOKS)
    Capture(model, Wanted(logits=True))


def test_what_is_no_sum_over_heads_is_refused():
    with pytest.raises(InputError, match="what heads of layer 0 add to the residual stream"):
        Capture(build("bitnet"), WRITES)  # a norm over all heads before the output module
    model = build("llama")
    model.model.layers[1].self_attn.o_proj.register_forward_pre_hook(
        lambda _, args: (args[0] / args[0].norm(dim=-1, keepdim=True),)
    )
    with pytest.raises(InputError, match="what heads of layer 1 add to the residual stream"):
        Capture(model, WRITES)
    Capture(model, Wanted(writes=frozenset([(0, 2)])))  # another layer's heads can be read


@pytest.mark.parametrize("kind", ["granite", "gemma2"])
def test_contributions_to_logits_that_are_scaled_are_refused(kind):
    with pytest.raises(InputError, match=r"its logits are more than .* direct contributions need"):
        Capture(build(kind), Wanted(scale=True))


@pytest.mark.parametrize("kind", ["cohere", "gpt2"])
def test_contributions_through_another_final_norm_are_refused(kind):
    with pytest.raises(InputError, match="no final root-mean-square norm"):
        Capture(build(kind), Wanted(scale=True))


def test_a_channel_that_is_exactly_zero_does_not_hide_the_final_norm():
    model = build("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 5] = 0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[5] = 0
            layer.mlp.down_proj.weight[5] = 0
    Capture(model, Wanted(scale=True))


def test_a_model_in_training_stays_so():
    model = build("llama").train()
    Capture(model, WRITES)
    assert model.training
