import pytest
import torch
from transformers import PreTrainedModel

from workbench.bench.shapes import (
    SHAPES,
    balanced_map,
    build,
    device_of,
    materialise,
    random_model,
    spread,
)
from workbench.errors import InputError
from workbench.models.hooked import HookedModel

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
BLOCKS = [f"model.layers.{layer}" for layer in range(SHAPES["tiny"][0].n_layers)]
PARTS = ["model.embed_tokens", *BLOCKS, "model.norm", "model.rotary_emb", "lm_head"]


def on_meta(shape: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    with torch.device("meta"):
        return build(shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_model_has_its_shape_and_dtype(dtype):
    model = random_model("tiny", dtype, "cpu")
    info = HookedModel.from_pretrained_model(model, name="tiny", weights_sha256="random").info
    sizes = (info.n_layers, info.d_model, info.n_heads, info.n_kv_heads, info.d_vocab)
    assert sizes == (4, 64, 4, 2, 512)
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training


def test_weights_are_normal_norms_one_and_embeddings_untied():
    model = random_model("tiny", "float32", "cpu")
    weights = dict(model.named_parameters())
    assert weights["lm_head.weight"].data_ptr() != weights["model.embed_tokens.weight"].data_ptr()
    for name, weight in weights.items():
        if weight.ndim == 1:
            assert torch.equal(weight, torch.ones_like(weight)), name
        else:
            module = name.split(".")[-2]
            std = {"embed_tokens": 1, "o_proj": 0.02 / 8, "down_proj": 0.02 / 8}.get(module, 0.02)
            assert abs(float(weight.detach().std()) / std - 1) < 0.1, name
            assert abs(float(weight.detach().mean())) < 0.1 * std, name


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (random_model("tiny", "float32", "cpu", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    for one, two, three in zip(
        first.parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one, two)
        assert one.ndim == 1 or not torch.equal(one, three)


def test_same_logits_as_a_model_built_the_plain_way():
    """Buffers outside the state dict (rotary frequencies) are right."""
    model = random_model("tiny", "float32", "cpu")
    plain = build("tiny", torch.float32).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, plain(TOKENS).logits)
    assert dict(model.named_buffers())["model.rotary_emb.inv_freq"].dtype == torch.float32


@pytest.mark.parametrize(("shape", "billions"), [("llama3-8b", 8.03), ("llama3-70b", 70.55)])
def test_large_shapes_have_the_published_number_of_parameters(shape, billions):
    count = sum(parameter.numel() for parameter in on_meta(shape).parameters())
    assert round(count / 1e9, 2) == billions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "huge"}, "'huge' is not one of llama3-8b, llama3-70b, llama3-1b, tiny"),
        ({"shape": "tiny", "dtype": "int8"}, "dtype 'int8'"),
        ({"shape": "tiny", "device": "nowhere"}, "device nowhere"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        random_model(**arguments)


def test_two_accelerators_share_whole_blocks():
    device_map = balanced_map(on_meta("tiny"), {0: 10**9, 1: 10**9})
    assert set(device_map) == set(PARTS)
    assert device_map["model.embed_tokens"] == 0
    assert set(device_map.values()) == {0, 1}
    layers = [device_map[block] for block in BLOCKS]
    assert layers == sorted(layers)


def test_too_small_accelerators_are_refused():
    with pytest.raises(InputError, match="do not fit on the accelerators"):
        balanced_map(on_meta("tiny"), {0: 300_000, 1: 100_000, "cpu": 10**9})


def test_device_of_takes_the_longest_path_above():
    device_map = {"model.embed_tokens": "cpu", "model.layers.1": "meta", "model.layers.10": "cpu"}
    places = {
        "model.layers.1.mlp.up_proj": "meta",
        "model.layers.10.mlp": "cpu",
        "model.layers": "cpu",
        "": "cpu",
    }
    for path, device in places.items():
        assert device_of(path, device_map).type == device


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spread_model_computes_the_same(dtype):
    device_map = dict.fromkeys(PARTS, "cpu")
    model = on_meta("tiny", dtype)
    materialise(model, device_map, 0)
    spread(model, device_map)
    whole = random_model("tiny", dtype, "cpu")
    assert hasattr(model.model.layers[0], "_hf_hook")
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS).logits, whole(TOKENS).logits)


def test_auto_spreads_over_several_accelerators(monkeypatch):
    """With the two accelerators of the map both played by the CPU."""
    maps = []

    def map_to_cpu(model):
        maps.append(balanced_map(model, {0: 10**9, 1: 10**9}))
        return dict.fromkeys(maps[0], "cpu")

    monkeypatch.setattr("workbench.bench.shapes.torch.accelerator.device_count", lambda: 2)
    monkeypatch.setattr("workbench.bench.shapes.balanced_map", map_to_cpu)
    model = random_model("tiny", "float32", "auto")
    assert set(maps[0].values()) == {0, 1}
    assert hasattr(model.lm_head, "_hf_hook")
