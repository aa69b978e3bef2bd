import pytest
import torch
from fixtures.architectures import build
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

from workbench.distill.reading import capture, patterns
from workbench.distill.reading.capture import Capture, take
from workbench.distill.reading.wanted import Wanted, all_heads
from workbench.errors import InputError

EVERY = Wanted(
    patterns=all_heads([0, 1], 4),
    writes=all_heads([0, 1], 4),
    hidden=frozenset([0, 1]),
    scale=True,
    logits=True,
)


def read(model, wanted, ids, positions=None, **options):
    positions = torch.tensor([[0, 3]] * len(ids)) if positions is None else positions
    return Capture(model, wanted).run(lambda: model(input_ids=ids, **options), positions)


@pytest.fixture
def ids():
    return torch.randint(1, 800, (2, 9), generator=torch.Generator().manual_seed(0))


def biased() -> Qwen2ForCausalLM:
    """A model of grouped queries whose projections have biases."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=800,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
    )
    return Qwen2ForCausalLM(config)


@pytest.mark.parametrize("case", ["whole", "padded", "biased"])
def test_maps_and_logits_equal_eager_attention(make_model, ids, case):
    mask = torch.ones_like(ids)
    mask[1, 6:] = 1 - int(case == "padded")
    model = (biased() if case == "biased" else make_model()).eval()
    reading = read(model, EVERY, ids, attention_mask=mask)
    model.set_attn_implementation("eager")
    plain = model(
        input_ids=ids, attention_mask=mask, output_attentions=True, output_hidden_states=True
    )
    real = mask.bool()
    for layer in range(2):
        for head in range(4):
            ours, theirs = reading.patterns[layer, head], plain.attentions[layer][:, head]
            torch.testing.assert_close(ours[real], theirs[real])
    torch.testing.assert_close(reading.hidden[0][real], plain.hidden_states[1][real])
    torch.testing.assert_close(reading.logits[real], plain.logits[real])


def test_what_heads_write_adds_up_to_the_attention_output(make_model, ids):
    model = make_model().eval()
    outputs = []
    handle = model.model.layers[1].self_attn.register_forward_hook(
        lambda module, args, output: outputs.append(output[0])
    )
    reading = read(model, EVERY, ids)
    handle.remove()
    total = sum(reading.written[1, head] for head in range(4))
    torch.testing.assert_close(total, take(outputs[-1], torch.tensor([[0, 3]] * 2)))


def test_scale_is_that_of_the_final_norm(make_model, ids):
    model = make_model().eval()
    reading = read(model, EVERY, ids)
    last = take(reading.hidden[1], torch.tensor([[0, 3]] * 2)) * reading.scale
    logits = last @ model.lm_head.weight.mT
    torch.testing.assert_close(logits, reading.logits[:, [0, 3]])


def test_a_reading_of_several_devices_comes_to_one(make_model, ids):
    reading = read(make_model().eval(), EVERY, ids).to(torch.device("meta"))
    values = [*reading.patterns.values(), *reading.written.values(), *reading.hidden.values()]
    assert len(values) > 3
    assert all(value.is_meta for value in [*values, reading.scale, reading.logits])


def test_only_supervised_layers_compute_maps(make_model, ids, monkeypatch):
    fused, mapped = [], []
    sdpa, computed = functional.scaled_dot_product_attention, patterns.head_patterns

    def count_fused(*args, **kwargs):
        fused.append(1)
        return sdpa(*args, **kwargs)

    def count_mapped(query, key, heads, *more):
        mapped.append(heads.tolist())
        return computed(query, key, heads, *more)

    model = make_model(n_layers=3).eval()
    wanted = Wanted(patterns=frozenset([(1, 3), (1, 0)]), logits=True)
    with_logits, without = (
        Capture(model, one) for one in (wanted, Wanted(patterns=frozenset([(1, 3)])))
    )
    monkeypatch.setattr(functional, "scaled_dot_product_attention", count_fused)
    monkeypatch.setattr(patterns, "head_patterns", count_mapped)
    positions = torch.tensor([[0, 3]] * len(ids))
    with_logits.run(lambda: model(input_ids=ids), positions)
    assert len(fused) == 3
    assert mapped == [[0, 3]]
    # Without logits nothing after the last wanted layer runs.
    reading = without.run(lambda: model(input_ids=ids), positions)
    assert len(fused) == 5
    assert reading.logits is None and set(reading.patterns) == {(1, 3)}


def test_nothing_stays_in_the_model(make_model, ids):
    model = make_model().eval()
    before = {name for name, _ in model.named_modules()}
    read(model, EVERY, ids)
    assert not any(hasattr(module, capture.KEPT) for module in model.modules())
    assert {name for name, _ in model.named_modules()} == before
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_models_and_heads_that_cannot_be_read_are_refused(make_model):
    with pytest.raises(InputError, match="head 2-0 is not in the model of 2 layers × 4 heads"):
        Capture(make_model(), Wanted(patterns=frozenset([(2, 0)])))
    with pytest.raises(InputError, match="layer 5"):
        Capture(make_model(), Wanted(hidden=frozenset([5])))
    opt = make_model()
    for block in opt.model.layers:
        block.self_attn.named_otherwise = block.self_attn.__dict__["_modules"].pop("o_proj")
    with pytest.raises(InputError, match=r"with one of o_proj, .* in each of its 2 layers, 0 have"):
        Capture(opt, Wanted())


@pytest.mark.parametrize("own", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "gemma2", "gemma3_text"])
def test_the_models_own_attention_stays_and_is_what_is_read(kind, own, ids):
    model = build(kind)
    if kind == "gemma2" and own == "sdpa":
        return  # transformers has none
    model.set_attn_implementation(own)
    ids = ids % 64
    expected = model(input_ids=ids).logits
    everything = Wanted(patterns=all_heads(range(3), 4), logits=True)
    used, queries = [], torch.tensor([[5, 8, -1], [0, 1, 7]])
    capture = Capture(model, everything)

    def forward():
        used.append(model.config._attn_implementation)
        return model(input_ids=ids)

    reading = capture.run(forward, queries[:, :0], queries)
    assert used[0].startswith("workbench") and model.config._attn_implementation == own
    assert torch.equal(reading.logits, expected)
    model.set_attn_implementation("eager")
    plain = model(input_ids=ids, output_attentions=True).attentions
    for layer in range(3):
        for example, row in ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2)):
            theirs = plain[layer][example, :, queries[example, row]]
            torch.testing.assert_close(
                reading.layer(layer)[example, :, row], theirs, rtol=1e-4, atol=1e-5
            )
