"""Tiny random models of every causal language model architecture that transformers has.

Most configurations take the same few sizes under names of their own; what a type needs besides is
in `NEEDS`. `VARIANTS` are further models of a type: rotary embeddings, windows, scales and norms
that its defaults do not have.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 64
CONTEXT = 128
MOST_PARAMETERS = 5_000_000

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads")
_WIDTH = ("hidden_size", "n_embd", "d_model", "attention_hidden_size", "embedding_size", "emb_dim")
_INNER = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    **dict.fromkeys(_LAYERS, 3),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_WIDTH, 32),
    **dict.fromkeys(_INNER, 48),
    **dict.fromkeys(_CONTEXT, CONTEXT),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "top_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "encoder_layers"), 1),
    **{"head_dim": 8, "rotary_dim": 4, "sliding_window": 16, "word_embed_proj_dim": 32},
    **{"encoder_attention_heads": 4, "expansion_ratio": 2},
    # Low-rank attention.
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8},
    **{"v_head_dim": 16},
    # Linear attention and state spaces.
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8, "time_step_rank": 4},
    **{"mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64},
    **{"mamba_n_groups": 1, "mamba_chunk_size": 8, "mamba_num_heads": 4, "mamba_head_dim": 16},
    **{"n_groups": 1, "ssm_state_size": 8, "state_size": 8, "chunk_size": 8},
}

_GEMMA_LAYERS = ["sliding_attention", "sliding_attention", "full_attention"]
_GEMMA4 = {
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    "global_head_dim": 8,
    "layer_types": _GEMMA_LAYERS,
}
_PER_LAYER = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY}

_VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 4,
}

_LOW_RANK = {"num_key_value_heads": 4}
_HYBRID = {"layer_types": ["linear_attention", "full_attention", "full_attention"]}

NEEDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32"), _LOW_RANK),
    **dict.fromkeys(("glm4_moe_lite", "glm_moe_dsa", "minicpm3", "youtu"), _LOW_RANK),
    **dict.fromkeys(("dots3_note", "dots3_note_text"), _LOW_RANK),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _HYBRID),
    **dict.fromkeys(("granitemoehybrid", "olmo_hybrid"), _HYBRID),
    **{name: {**_HYBRID, **_LOW_RANK} for name in ("bailing_hybrid", "kimi_linear")},
    "bamba": {"attn_layer_indices": [1, 2]},
    "dbrx": {
        "attn_config": {"rope_theta": 1e4, "kv_n_heads": 2, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 4},
    },
    "dots1": {"n_shared_experts": 1},
    "gemma3": {"vision_config": {**_VISION, "image_size": 8}, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        **_PER_LAYER,
        "num_kv_shared_layers": 0,
        "altup_num_inputs": 2,
        "laurel_rank": 4,
        "layer_types": _GEMMA_LAYERS,
        "activation_sparsity_pattern": [0.0, 0.0, 0.0],
    },
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": {"global_head_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]], "window_size": 6},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2},
    "qwen4_exp_text": {"layer_types": ["linear_attention"] + ["indexed_attention"] * 2},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 16]},
    "zamba": {"layers_block_type": ["hybrid", "hybrid", "mamba"], "num_hidden_layers": 3},
    "zamba2": {"layer_types": ["mamba", "hybrid", "hybrid"], "num_mem_blocks": 1},
    "zaya": {"num_experts_per_tok": 1},
}


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 1e4, "rope_type": kind, **more}}


_LONG = _rope(
    "longrope",
    short_factor=[1.0, 1.2, 1.5, 2.0],
    long_factor=[1.5, 3.0, 6.0, 12.0],
    original_max_position_embeddings=36,
    factor=3.6,
)

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama+longrope": ("llama", _LONG),
    "llama+dynamic": ("llama", _rope("dynamic", factor=4.0, original_max_position_embeddings=32)),
    "llama+llama3": (
        "llama",
        _rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama+yarn": ("llama", _rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama+linear": ("llama", _rope("linear", factor=4.0)),
    "llama+shared-key": ("llama", {"num_key_value_heads": 1}),
    "llama+wide-heads": ("llama", {"head_dim": 16, "attention_bias": True}),
    "phi3+longrope": ("phi3", {**_LONG, "original_max_position_embeddings": 36}),
    "llama4_text+floor-16": (
        "llama4_text",
        {"floor_scale": 16, "attn_temperature_tuning": True, "no_rope_layers": [1, 0, 1]},
    ),
    "llama4_text+chunks": ("llama4_text", {"attention_chunk_size": 8, "no_rope_layers": [1, 0, 1]}),
    "ministral3+scaled": (
        "ministral3",
        _rope("yarn", factor=4.0, original_max_position_embeddings=16, llama_4_scaling_beta=0.1),
    ),
    "mistral+window-6": ("mistral", {"sliding_window": 6}),
    "qwen2+window-6": (
        "qwen2",
        {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "gemma2+window-6": ("gemma2", {"sliding_window": 6, "attn_logit_softcapping": 2.0}),
    "gemma3_text+window-6": ("gemma3_text", {"sliding_window": 6, "layer_types": _GEMMA_LAYERS}),
    "gemma4_text+inputs-per-layer": ("gemma4_text", {**_GEMMA4, **_PER_LAYER}),
    "gemma4_text+wide-global-heads": ("gemma4_text", {**_GEMMA4, "global_head_dim": 16}),
    "gemma4_text+keys-as-values": (
        "gemma4_text",
        {**_GEMMA4, "attention_k_eq_v": True, "num_global_key_value_heads": 2},
    ),
    "gemma4_text+shared-keys": (
        "gemma4_text",
        {
            **_GEMMA4,
            **_PER_LAYER,
            "num_kv_shared_layers": 2,
            "num_hidden_layers": 5,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["full_attention"],
        },
    ),
    "bert+decoder": ("bert", {"is_decoder": True}),
    "falcon+new-decoder": ("falcon", {"new_decoder_architecture": True}),
    "falcon+alibi": (
        "falcon",
        {"multi_query": False, "parallel_attn": False, "alibi": True, "num_kv_heads": 4},
    ),
    "gpt_bigcode+all-keys": ("gpt_bigcode", {"multi_query": False}),
    "opt+norm-after": ("opt", {"do_layer_norm_before": False}),
    "opt+narrow-embedding": ("opt", {"word_embed_proj_dim": 16}),
    "gpt_neox+serial": ("gpt_neox", {"use_parallel_residual": False}),
    "gpt2+scaled-by-layer": (
        "gpt2",
        {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    ),
    "stablelm+head-norms": ("stablelm", {"qk_layernorm": True, "use_parallel_residual": True}),
    "cohere+head-norms": ("cohere", {"use_qk_norm": True}),
    "phi+head-norms": ("phi", {"qk_layernorm": True}),
    "olmo+clipped": ("olmo", {"clip_qkv": 0.5}),
    "mpt+clipped": ("mpt", {"attn_config": {"clip_qkv": 0.5, "qk_ln": False}}),
    "granite+multipliers": (
        "granite",
        {
            "attention_multiplier": 0.4,
            "residual_multiplier": 0.3,
            "logits_scaling": 2.0,
            "embedding_multiplier": 3.0,
        },
    ),
    "granitemoe+multipliers": (
        "granitemoe",
        {"attention_multiplier": 0.4, "residual_multiplier": 0.3},
    ),
    "deepseek_v2+lite": (
        "deepseek_v2",
        {"q_lora_rank": None, "qk_nope_head_dim": 16, "num_key_value_heads": 4},
    ),
}


def names() -> list[str]:
    """All architectures of the installed transformers, and the variants, in alphabetical order."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS})


def type_of(name: str) -> str:
    """The `model_type` of a name."""
    return VARIANTS[name][0] if name in VARIANTS else name


def tiny_config(name: str) -> PreTrainedConfig:
    """The configuration of one of `names`, all its parts small."""
    kind, more = VARIANTS.get(name, (name, {}))
    return _shrunk(CONFIG_MAPPING[kind], {**NEEDS.get(kind, {}), **more})


def _shrunk(kind: Any, more: Mapping[str, Any]) -> PreTrainedConfig:
    known = {*inspect.signature(kind.__init__).parameters, *getattr(kind, "__annotations__", {})}
    parts = {
        part: _shrunk(sub, NEEDS.get(getattr(sub, "model_type", ""), {}))
        for part, sub in getattr(kind, "sub_configs", {}).items()
        if part == "text_config" and hasattr(sub, "model_type")
    }
    sizes = {size: value for size, value in SIZES.items() if size in known and not parts}
    return kind(**{**sizes, **parts, **more})


def tiny_model(name: str, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    """A model of that configuration whose every weight is random, norms and biases too.

    Raises:
        ValueError: the configuration has more than `MOST_PARAMETERS`; whatever transformers raises
            on one that it does not take.
    """
    config = tiny_config(name)
    with torch.device("meta"):
        planned = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    count = sum(weight.numel() for weight in planned.parameters())
    if count > MOST_PARAMETERS:
        raise ValueError(f"{count / 1e6:.0f} M parameters are not tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim < 2:
                weight.add_(0.1 * noise)
            else:
                weight.copy_(1.5 * noise / weight.shape[-1] ** 0.5)
    return model.to(dtype)
