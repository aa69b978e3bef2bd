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


@pytest.mark.parametrize("kind", ["llama", "olmo2", "glm4", "exaone4", "granite", "gemma3_text"])
def test_heads_write_together_what_their_layer_adds_to_the_stream(kind):
    model = build(kind)
    capture = Capture(model, WRITES)
    reading = capture.run(lambda: model(input_ids=TOKENS), POSITIONS)
    added = {}
    blocks, _ = places(kind, model)

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


@pytest.mark.parametrize("wanted", [Wanted(logits=True), WRITES])
def test_attention_that_fused_kernels_lack_is_refused(wanted):
    with pytest.raises(InputError, match="its attention has a cap, sinks or biases"):
        Capture(build("gemma2"), wanted)


def test_gates_before_the_output_projection_are_refused():
    model = build("llama")
    projection = model.model.layers[1].self_attn.o_proj
    projection.register_forward_pre_hook(lambda _, args: (args[0].sigmoid() * args[0],))
    with pytest.raises(InputError, match="what heads of layer 1 add to the residual stream"):
        Capture(model, WRITES)
    Capture(model, Wanted(writes=frozenset([(0, 2)])))  # another layer's heads can be read


@pytest.mark.parametrize("kind", ["granite", "cohere"])
def test_contributions_to_logits_that_are_scaled_are_refused(kind):
    with pytest.raises(InputError, match="direct contributions need"):
        Capture(build(kind), Wanted(scale=True))


def test_a_model_in_training_stays_so():
    model = build("llama").train()
    Capture(model, WRITES)
    assert model.training
