import pytest
import torch
from einops import einsum
from models.test_forked import GROUPED, build
from transformers import MambaConfig, MambaForCausalLM, Olmo2Config, Olmo2ForCausalLM

from workbench.errors import InputError
from workbench.models.hooked import HookedModel


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def model(request) -> HookedModel:
    return HookedModel.from_pretrained_model(build(request.param, std=0.2))


@pytest.fixture(scope="module")
def sequences() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = (5, 11, 1, 8, 3)
    return [torch.randint(0, 48, (n,), generator=generator).tolist() for n in lengths]


def test_logits_and_activations_are_the_models_own(sequences):
    plain = build("llama", std=0.2).eval()
    with torch.no_grad():
        output = plain(torch.tensor([sequences[1]]), output_hidden_states=True)
    model = HookedModel.from_pretrained_model(build("llama", std=0.2))
    [run] = model.run([sequences[1]], ["blocks.1.hook_resid_pre", "hook_unembed"])
    torch.testing.assert_close(run.logits, output.logits[0, -1])
    torch.testing.assert_close(run.activations["hook_unembed"], output.logits[0])
    torch.testing.assert_close(
        run.activations["blocks.1.hook_resid_pre"], output.hidden_states[1][0]
    )


def test_output_weights_turn_z_into_what_attention_writes(model, sequences):
    names = ["blocks.1.attn.hook_z", "blocks.1.hook_attn_out"]
    [run] = model.run(sequences[1:2], names)
    z, written = (run.activations[name] for name in names)
    weights = model.output_weights()[1]
    by_head = einsum(z, weights, "position head d_head, head d_head d_model -> position d_model")
    bias = model.bridge.blocks[1].attn.b_O
    torch.testing.assert_close(by_head + (0 if bias is None else bias), written)


def test_check_head(model):
    model.check_head(2, 3)
    for layer, head in ((3, 0), (0, 4), (-1, 0)):
        with pytest.raises(InputError, match=rf"layer {layer}, head {head}.*3 layers of 4 heads"):
            model.check_head(layer, head)


def test_info_of_a_model_in_memory(model):
    info = model.info
    assert (info.n_layers, info.n_heads, info.d_model, info.d_head) == (3, 4, 32, 8)
    assert info.n_kv_heads == (4 if info.architecture.startswith("GPT2") else 2)
    assert (info.d_vocab, info.attention_implementation) == (48, "eager")
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_a_model_without_attention_heads_is_refused():
    config = MambaConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(InputError, match="MambaForCausalLM"):
        HookedModel.from_pretrained_model(MambaForCausalLM(config))


def test_olmo_in_half_precision_is_what_transformers_computes():
    """It rotates by float32 sines; what is rotated is in the model's own dtype again."""
    torch.manual_seed(0)
    config = Olmo2Config(**GROUPED, pad_token_id=0, initializer_range=0.2)
    olmo = Olmo2ForCausalLM(config).to(torch.bfloat16).eval()
    olmo.set_attn_implementation("eager")
    tokens = [3, 14, 15, 9, 26, 5]
    with torch.no_grad():
        plain = olmo(torch.tensor([tokens]), use_cache=False).logits[0, -1]
    [run] = HookedModel.from_pretrained_model(olmo).run([tokens])
    torch.testing.assert_close(run.logits, plain, rtol=0.02, atol=0.02)


@pytest.fixture
def reader(make_model, chat_tokenizer) -> HookedModel:
    made = make_model(vocab_size=len(chat_tokenizer))
    return HookedModel.from_pretrained_model(made, chat_tokenizer)


def test_texts_and_tokens_run_together(reader):
    text = "note: left fx"
    tokens = reader.to_tokens(text)
    assert tokens[0] == reader.tokenizer.bos_token_id and tokens.count(tokens[0]) == 1
    assert reader.to_tokens("<s>" + text) == tokens
    [alone] = reader.run(text)
    first, second = reader.run([text, tokens[:3]])
    torch.testing.assert_close(alone.logits, first.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(second.logits, reader.run([tokens[:3]])[0].logits, rtol=0, atol=1e-5)


def test_string_tokens_go_with_tokens(reader, chat_tokenizer, event):
    text = "note: left fx"
    strings = reader.to_str_tokens(text)
    assert len(strings) == len(reader.to_tokens(text)) and "".join(strings[1:]) == text
    assert reader.to_str_tokens(reader.to_tokens(text)) == strings
    assert reader.to_str_tokens(event) == reader.to_str_tokens(event.clean)
    assert len(reader.to_str_tokens(event)) == len(event.clean)
    for strange in (-1, reader.info.d_vocab):
        with pytest.raises(InputError, match=f"token {strange} is not among 0 to"):
            reader.to_str_tokens([strange])


def test_texts_need_a_tokenizer(model):
    for use in (
        lambda: model.run("note"),
        lambda: model.to_tokens("a"),
        lambda: model.to_str_tokens([1]),
    ):
        with pytest.raises(InputError, match="has no tokenizer; give it token ids"):
            use()


def test_a_model_in_a_line(reader, model):
    assert "with its tokenizer" in repr(reader) and "no tokenizer" in repr(model)
    assert len(repr(model)) < 200 and f"{model.info.n_layers} layers of" in model._repr_html_()
