from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from workbench.errors import InputError
from workbench.models import parity
from workbench.models.hooked import HookedModel

MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "first_k_dense_replace": 2,
    "pad_token_id": None,
}
PER_LAYER = {
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
}


def build(model_type: str, auto: Any = AutoModelForCausalLM, **sizes: Any) -> PreTrainedModel:
    """A random model of two layers, of weights large enough for attention to matter."""
    sizes = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
    } | sizes
    torch.manual_seed(0)
    model = auto.from_config(AutoConfig.for_model(model_type, **sizes), trust_remote_code=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


@pytest.mark.parametrize(
    ("model_type", "sizes", "message"),
    [
        # Heads: cut at half of each, and of another width in every sixth layer.
        (
            "deepseek_v2",
            MLA,
            r"4 heads .* shape \(8, 8\) and output weights of shape \(4, 16, 64\)",
        ),
        (
            "gemma4_text",
            PER_LAYER | {"num_hidden_layers": 6, "global_head_dim": 32},
            "Gemma4ForCausalLM does not run in TransformerLens's bridge: Cannot split",
        ),
        # Logits: the mask changes ALiBi here.
        (
            "falcon",
            {"multi_query": False, "alibi": True, "new_decoder_architecture": False},
            "FalconForCausalLM has other logits in TransformerLens's bridge",
        ),
        # Whatever the bridge raises: split sizes, a hook that never fires, an undeclared norm.
        (
            "falcon",
            {"new_decoder_architecture": True, "num_kv_heads": 2},
            "FalconForCausalLM is not taken by TransformerLens's bridge: split_with_sizes",
        ),
        ("openai-gpt", {}, "OpenAIGPTLMHeadModel does not run in TransformerLens's bridge: hook"),
        ("phi", {"qk_layernorm": True}, "PhiForCausalLM is not taken by TransformerLens's bridge"),
        # Encoders, which transformers loads as causal language models.
        ("bert", {"is_decoder": False}, "BertLMHeadModel is no causal language model"),
        ("electra", {}, "ElectraForCausalLM is no causal language model"),
    ],
)
def test_a_model_that_the_bridge_gets_wrong_is_refused_in_one_line(model_type, sizes, message):
    with pytest.raises(InputError, match=rf"model 'in-memory' is not supported: .*{message}") as e:
        HookedModel.from_pretrained_model(build(model_type, **sizes))
    assert "\n" not in str(e.value)


def test_a_model_that_does_not_run_on_tokens_alone_is_refused():
    model = build("t5", AutoModelForSeq2SeqLM, d_model=64, d_kv=16, d_ff=48, num_heads=4)
    message = "T5ForConditionalGeneration does not run on token ids alone: You must specify"
    with pytest.raises(InputError, match=message):
        HookedModel.from_pretrained_model(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("model_type", "sizes"),
    [
        ("gemma4_text", PER_LAYER | {"global_head_dim": 16}),
        # Rounds otherwise than transformers in half precision.
        ("falcon", {"multi_query": True, "parallel_attn": False}),
        ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
        ("llama", {"max_position_embeddings": 3, "bos_token_id": 0, "eos_token_id": 1}),
    ],
)
def test_right_models_are_taken(model_type, sizes, dtype):
    model = HookedModel.from_pretrained_model(build(model_type, **sizes).to(dtype))
    assert model.info.n_heads == 4


def test_a_plain_run_leaves_the_model_as_it_was():
    model = build("llama", num_key_value_heads=2)
    with torch.no_grad():
        before = model(torch.tensor([[5, 6, 7]])).logits
        plain = parity.run_plain(model, "tiny")
        assert torch.equal(model(torch.tensor([[5, 6, 7]])).logits, before)
        expected = model(torch.tensor([plain.tokens])).logits[0]
    assert plain.beginning == plain.tokens[:7]
    torch.testing.assert_close(plain.logits, expected[[-1, 6]])
    assert 0 <= plain.noise < 1e-5


def test_heads_that_are_dealt_out_wrongly_are_found():
    """Two heads' slices of the output weights change places; logits stay as they are."""
    model = HookedModel.from_pretrained_model(build("llama", num_key_value_heads=2))
    plain = parity.run_plain(build("llama", num_key_value_heads=2), "tiny")
    parity.check_bridge(model, plain)
    attention = type(model.bridge.blocks[1].attn)
    right = attention.W_O
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "W_O", property(lambda self: right.fget(self)[[1, 0, 2, 3]]))
        with pytest.raises(InputError, match=r"do not add up to what attention writes in layer 0"):
            parity.check_bridge(model, plain)


def test_memory_that_runs_out_is_not_taken_for_the_architecture():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nlong advice")
    message = str(parity.refusal("big", build("llama"), "does not run", error))
    assert (
        message
        == "model 'big' does not fit into memory: CUDA out of memory. Tried to allocate 2 GiB"
    )
