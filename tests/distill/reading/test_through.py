"""What heads write is what the output module makes of them, whatever kind of module it is."""

import copy
import warnings

import peft
import pytest
import torch
from fixtures.quantised import Int4, Int8, quantise, unpack
from torch import nn

from workbench.distill.reading.capture import Capture
from workbench.distill.reading.through import heads_write, is_plain, norm_scale, token_logits
from workbench.distill.reading.wanted import Wanted, all_heads

WRITES = Wanted(writes=all_heads([0, 1], 4))
IDS = torch.tensor([[9, 4, 33, 5, 60, 17, 2, 41], [3, 3, 8, 61, 12, 7, 30, 22]])
POSITIONS = torch.tensor([[0, 7], [3, 5]])


class Called(nn.Linear):
    """A linear module that is not known to be one."""


def called(plain: nn.Linear) -> Called:
    other = Called(plain.in_features, plain.out_features, bias=plain.bias is not None)
    other.load_state_dict(plain.state_dict())
    return other


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def written(model) -> torch.Tensor:
    reading = Capture(model, WRITES).run(lambda: model(input_ids=IDS), POSITIONS)
    return torch.stack([reading.written[head] for head in sorted(reading.written)])


def test_a_called_module_gives_what_its_weight_gives_and_the_same_gradients():
    plain = nn.Linear(20, 6)
    other = called(plain)
    assert is_plain(plain) and not is_plain(other)
    heads, found = torch.tensor([2, 0]), []
    for module in (plain, other):
        z = random(2, 3, 4, 5).requires_grad_()
        wrote = heads_write(module, z, heads)
        (wrote * random(2, 3, 2, 6, seed=1)).sum().backward()
        found.append((wrote, z.grad, module.weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)
    everything = heads_write(other, z, torch.arange(4)).sum(dim=2) + plain.bias
    torch.testing.assert_close(everything, plain(z.flatten(-2)))


def test_logits_of_tokens_are_the_same_through_a_called_unembedding():
    plain = nn.Linear(8, 30)
    tokens, found = torch.tensor([[3, 29], [7, 0]]), []
    for module in (plain, called(plain)):
        update = random(2, 3, 8).requires_grad_()
        logits = token_logits(module, update, tokens)
        logits.square().sum().backward()
        found.append((logits, update.grad, module.weight.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-5)


def test_a_hooked_module_is_called():
    plain = nn.Linear(8, 3)
    handle = plain.register_forward_hook(lambda module, args, output: 2 * output)
    z = random(1, 2, 2, 4)
    twice = heads_write(plain, z, torch.tensor([1]))
    handle.remove()
    torch.testing.assert_close(twice, 2 * heads_write(plain, z, torch.tensor([1])))


def test_a_norms_scale_is_all_that_it_does_and_its_weight_learns(make_model):
    norm = make_model().model.norm
    stream = random(3, 32).requires_grad_()
    scale = norm_scale(norm, stream)
    torch.testing.assert_close(scale * stream, norm(stream))
    scale.sum().backward()
    assert stream.grad is None and norm.weight.grad is not None
    norm.zero_grad()
    norm_scale(norm, stream.detach().masked_fill(stream < 0, 0.0)).sum().backward()
    assert norm.weight.grad.isfinite().all(), "also where the stream is exactly 0"


@pytest.mark.parametrize(("kind", "off"), [(Int4, 1e-6), (Int8, 0.03)])
def test_heads_of_a_quantised_model_write_what_its_weights_say(kind, off, make_model):
    model = quantise(make_model().eval(), kind)
    found = written(model)
    expected = written(unpack(copy.deepcopy(model)))
    assert (found - expected).norm() <= off * expected.norm()
    assert found.requires_grad  # through the embeddings, which are trained


def test_heads_of_torchs_own_quantised_model_are_read(make_model):
    model = make_model().eval()
    expected = written(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "o_proj"))]
        engine = torch.ao.quantization.default_dynamic_qconfig
        packed = torch.ao.quantization.quantize_dynamic(model, dict.fromkeys(names, engine))
    assert not isinstance(packed.model.layers[0].self_attn.o_proj.weight, torch.Tensor)
    found = written(packed)
    assert (found - expected).norm() <= 0.05 * expected.norm()


def test_adapters_belong_to_what_heads_write(make_model):
    config = peft.LoraConfig(r=2, target_modules=["o_proj", "v_proj"], lora_dropout=0.5)
    model = peft.get_peft_model(make_model(), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data = random(*weight.shape)
    expected = written(copy.deepcopy(model).merge_and_unload().eval())
    torch.testing.assert_close(written(model.eval()), expected, rtol=1e-5, atol=1e-5)
    own = model.get_base_model().model.layers[1].self_attn.o_proj
    model.train()
    z = random(1, 2, 4, 8)  # without dropout, also in training
    torch.testing.assert_close(*(heads_write(own, z, torch.arange(4)) for _ in range(2)))
    assert own.lora_dropout["default"].training
    heads_write(own, z, torch.tensor([1])).sum().backward()
    assert own.lora_A["default"].weight.grad.abs().max() > 0
    assert own.base_layer.weight.grad is None
