import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.tiny_runs import save_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from workbench.errors import InputError
from workbench.models import folders, loading, plain_weights
from workbench.models.hooked import HookedModel
from workbench.models.llama import LlamaShape


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model("llama", tmp_path / "tiny")


def read(folder: Path) -> Any:
    return loading.read_model(folder, dtype=torch.float32)


def refused(folder: Path) -> str:
    """The message, which must be one line."""
    with pytest.raises(InputError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def store(folder: Path, **tensors: torch.Tensor) -> None:
    """Put tensors beside the model's own, or in their place."""
    path = folder / folders.SINGLE_FILE
    save_file(load_file(path) | tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "'fp8'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "'gptq'"),
        ({"quantization_config": {"quant_method": "of-next-year"}}, "'of-next-year'"),
        ({"quantization_config": {"load_in_8bit": True}}, "'quantization_config'"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "'awq'"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "'compressed-tensors'"),
    ],
)
def test_a_quantised_model_is_refused_by_its_configuration(folder, settings, method):
    change(folder, **settings)
    assert f"is of a quantised model ({method})" in (message := refused(folder))
    assert "a dequantised copy" in message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_a_quantised_model_is_refused_by_its_weights(folder, dtype):
    key = "model.layers.0.self_attn.q_proj.weight"
    store(folder, **{key: torch.ones(32, 32, dtype=dtype)})
    assert "are quantised" in refused(folder)


@pytest.mark.parametrize(
    ("key", "size"),
    [
        ("model.layers.2.self_attn.q_proj.weight", (32, 32)),
        ("model.layers.0.self_attn.q_proj.bias", (32,)),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", (4, 32)),
        ("model.layers.1.post_feedforward_layernorm.weight", (32,)),
        ("lm_head.bias", (64,)),
    ],
)
def test_weights_that_the_configuration_has_no_place_for_are_refused(folder, key, size):
    store(folder, **{key: torch.ones(size)})
    assert f"hold {key}, for which its config.json has no place" in refused(folder)


def test_parts_of_a_larger_model_and_old_buffers_are_left_out(folder):
    others = {
        "model.vision_tower.layers.0.q_proj.weight": (4, 4),
        "model.layers.0.self_attn.rotary_emb.inv_freq": (4,),
        "model.layers.0.self_attn.bias": (1, 1, 8, 8),
        "model.layers.0.self_attn.masked_bias": (),
        "mtp.layers.0.q_proj.weight": (4, 4),
        "v_head.summary.weight": (1, 32),
        "model.layers.2.eh_proj.weight": (32, 64),
    }
    change(folder, num_nextn_predict_layers=1)  # which lie behind the layers
    store(folder, **{key: torch.ones(size) for key, size in others.items()})
    assert read(folder).config.num_hidden_layers == 2


def test_weights_of_other_sizes_are_refused(folder):
    change(folder, vocab_size=80)
    assert "embed_tokens.weight has shape [64, 32], by config.json [80, 32]" in refused(folder)
    change(folder, vocab_size=10**12)  # more than any memory holds
    assert "has shape [64, 32]" in refused(folder)
    change(folder, num_hidden_layers=10**6)
    assert "num_hidden_layers is 1000000, there are 21 weights" in refused(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(folder, value):
    embedding = load_file(folder / folders.SINGLE_FILE)["model.embed_tokens.weight"]
    embedding[63, 5] = value  # of a token that the check at load does not use
    store(folder, **{"model.embed_tokens.weight": embedding})
    assert "parameter model.embed_tokens.weight has values that are not finite" in refused(folder)


@pytest.mark.parametrize(
    "key", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"]
)
@pytest.mark.parametrize("count", [0, -1])
def test_no_layers_or_heads(folder, key, count):
    change(folder, **{key: count})
    assert key in refused(folder) or "config.json cannot be read" in refused(folder)


def test_counts_are_found_under_their_names_of_old():
    config = GPT2Config(vocab_size=16, n_embd=8, n_layer=0, n_head=2)
    with pytest.raises(InputError, match="num_hidden_layers is 0, must be at least 1"):
        HookedModel.from_pretrained_model(GPT2LMHeadModel(config))


def tiny() -> Any:
    return LlamaShape(2, 4, 2, 32, 48).build(64, 64)


class Elsewhere(nn.Linear):
    """A module that some library puts in place of a linear one."""


@pytest.mark.parametrize(
    ("library", "message"),
    [("peft.tuners.lora", "has an adapter"), ("bitsandbytes.nn.modules", "is quantised")],
)
def test_other_modules_in_place_of_the_models_own(monkeypatch, library, message):
    monkeypatch.setattr(Elsewhere, "__module__", library)
    model = tiny()
    model.model.layers[0].self_attn.q_proj = Elsewhere(32, 32, bias=False)
    with pytest.raises(InputError, match=message):
        HookedModel.from_pretrained_model(model)


def test_models_in_memory_that_are_not_plain():
    model = tiny()
    model.add_module("extra", nn.Module())
    model.extra.weight = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="is quantised"):
        HookedModel.from_pretrained_model(model)
    with pytest.raises(InputError, match="weight has no values in memory"):
        HookedModel.from_pretrained_model(tiny().to("meta"))
    with pytest.raises(InputError, match="'in-memory' is a Linear, no transformers model"):
        plain_weights.check_in_memory(nn.Linear(2, 2), "in-memory")
    model = tiny()
    model.config.num_hidden_layers = 1
    with pytest.raises(InputError, match="has 2 layers, its configuration 1"):
        HookedModel.from_pretrained_model(model)


@pytest.mark.parametrize("key", ["layers.2.mlp.up_proj.weight", "layers.0.self_attn.q_proj.bias"])
def test_left_over_weights_are_seen_in_files_that_leave_the_base_models_name_out(folder, key):
    path = folder / folders.SINGLE_FILE
    tensors = {name.removeprefix("model."): value for name, value in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    read(folder)
    save_file(tensors | {key: torch.ones(32)}, path, metadata={"format": "pt"})
    assert f"hold {key}, for which its config.json has no place" in refused(folder)


def test_a_scale_that_is_one_number_is_left_over_and_a_masks_value_is_not(folder):
    store(folder, **{"model.layers.0.self_attn.masked_bias": torch.tensor(-1e4)})
    read(folder)
    store(folder, **{"model.layers.0.self_attn.q_proj.weight_scale": torch.tensor(2.0)})
    assert "q_proj.weight_scale, for which its config.json has no place" in refused(folder)


def test_experts_of_other_number_are_refused_with_both_sizes(tmp_path):
    sizes: Any = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "vocab_size": 32,
    }
    config = MixtralConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    change(tmp_path, num_local_experts=4)
    assert "experts.down_proj has shape [8, 16, 16], by config.json [4, 16, 16]" in (
        refused(tmp_path)
    )
