import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from workbench.errors import InputError
from workbench.models import adapters, loading, plain_weights
from workbench.models.hooked import HookedModel
from workbench.models.llama import LlamaShape
from workbench.progress import Reporter

peft = pytest.importorskip("peft")
TOKENS = [3, 1, 4, 1, 5]
LINEAR = ["q_proj", "v_proj", "o_proj", "up_proj"]
SQUARE = ["q_proj", "o_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, and `tied` whose embeddings are used twice."""
    folder = tmp_path_factory.mktemp("bases")
    for name, tied in (("base", False), ("tied", True)):
        torch.manual_seed(0)
        shape = LlamaShape(2, 4, 2, 32, 48)
        model = shape.build(64, 64, initializer_range=0.3, tie_word_embeddings=tied)
        model.save_pretrained(folder / name)
    return folder


def save_adapter(config: Any, base: Path, folder: Path) -> torch.Tensor:
    """An adapter with random weights, and the logits of base and adapter side by side."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, attn_implementation="eager")
    adapted = peft.get_peft_model(model, config)
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)
    adapted.eval().save_pretrained(folder)
    with torch.no_grad():
        return adapted(torch.tensor([TOKENS])).logits[0, -1]


@pytest.fixture
def adapter(bases: Path, tmp_path: Path) -> Path:
    """LoRA of rank 4 on `base`."""
    save_adapter(lora(), bases / "base", tmp_path / "adapter")
    return tmp_path / "adapter"


def lora(**changes: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": LINEAR} | changes)


def change(folder: Path, **values: Any) -> None:
    path = folder / adapters.CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def store(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / adapters.WEIGHTS_FILE)


def refused(folder: Path) -> str:
    """The message, which must be one line."""
    with pytest.raises(InputError) as caught:
        HookedModel.load(folder, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


ON_TIED = [
    lora(modules_to_save=["lm_head"]),
    lora(modules_to_save=["embed_tokens"]),
    lora(target_modules=[*LINEAR, "embed_tokens"]),
    lora(target_modules=[*LINEAR, "lm_head"]),
    lora(modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    lora(trainable_token_indices=[3, 4]),
    peft.TrainableTokensConfig(token_indices=[3, 4], target_modules=["embed_tokens"]),
]
ON_PLAIN = [
    lora(rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 3}, use_rslora=True),
    lora(use_dora=True),
    lora(modules_to_save=["lm_head"]),
    lora(target_modules="all-linear"),
    lora(layers_to_transform=[1]),
    peft.AdaLoraConfig(
        target_r=4, init_r=6, total_step=100, tinit=10, tfinal=10, target_modules=LINEAR
    ),
    peft.LoHaConfig(r=4, target_modules=LINEAR),
    peft.LoKrConfig(r=4, target_modules=LINEAR),
    peft.VeraConfig(r=4, target_modules=SQUARE, save_projection=False),
    peft.RandLoraConfig(r=4, target_modules=SQUARE),
    peft.MissConfig(r=4, target_modules=LINEAR),
    peft.HRAConfig(r=4, target_modules=LINEAR),
    peft.OFTConfig(oft_block_size=8, r=0, target_modules=LINEAR),
    peft.RoadConfig(group_size=8, target_modules=LINEAR),
    peft.FourierFTConfig(n_frequency=20, target_modules=LINEAR),
    peft.ShiraConfig(r=4, target_modules=SQUARE),
    peft.IA3Config(target_modules=LINEAR, feedforward_modules=["up_proj"]),
    peft.LNTuningConfig(target_modules=["input_layernorm"]),
]


def test_every_kind_is_tried():
    assert {one.peft_type.value for one in (*ON_PLAIN, *ON_TIED)} == set(adapters.KINDS)


@pytest.mark.parametrize(
    ("base", "config"),
    [*(("base", one) for one in ON_PLAIN), *(("tied", one) for one in ON_TIED)],
    ids=lambda value: getattr(value, "peft_type", value),
)
def test_a_merged_model_computes_what_base_and_adapter_do(bases, tmp_path, base, config):
    expected = save_adapter(config, bases / base, tmp_path / "adapter")
    model = HookedModel.load(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(model.run([TOKENS])[0].logits, expected, atol=1e-4, rtol=0)
    plain = HookedModel.load(bases / base, device="cpu").run([TOKENS])[0].logits
    assert float((plain - expected).abs().max()) > 1e-2
    merged: Any = model.bridge.original_model
    assert all(weight.requires_grad for weight in merged.parameters())  # as of any other model


@pytest.mark.parametrize("config", [lora(), lora(modules_to_save=["embed_tokens"])])
@pytest.mark.parametrize("base", ["base", "tied"])
def test_half_precision_is_the_float32_merge_rounded(bases, tmp_path, base, config):
    save_adapter(config, bases / base, tmp_path / "adapter")
    wide, half = (
        loading.read_model(tmp_path / "adapter", dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    plain_weights.check_in_memory(half, "merged")  # nothing of peft is left in it
    ours, theirs = half.state_dict(), wide.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(ours[name], value.bfloat16()), name
    buffers = dict(half.named_buffers())
    assert buffers and all(value.dtype == torch.float32 for value in buffers.values())
    assert half.generation_config.to_dict() == wide.generation_config.to_dict()
    spread = loading.read_model(tmp_path / "adapter", dtype=torch.float32, device_map={"": "cpu"})
    assert all(torch.equal(value, theirs[name]) for name, value in spread.state_dict().items())


@pytest.mark.parametrize("left_out", ["nothing", "lm_head", "embed_tokens"])
def test_new_embeddings_that_are_used_twice_may_be_stored_once(bases, tmp_path, left_out):
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(bases / "tied", attn_implementation="eager"),
        lora(init_lora_weights=False),
    ).eval()
    adapted.get_input_embeddings().weight.data += 0.1
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    weights = load_file(tmp_path / "adapter" / adapters.WEIGHTS_FILE)
    store(tmp_path / "adapter", {k: v for k, v in weights.items() if left_out not in k})
    model = loading.read_model(tmp_path / "adapter", dtype=torch.float32)
    with torch.no_grad():
        ours, theirs = (one(torch.tensor([TOKENS])).logits for one in (model, adapted))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.tie_word_embeddings


def test_what_was_merged_is_recorded(bases, adapter):
    info = HookedModel.load(adapter, device="cpu").info
    base = loading.weights_sha256(bases / "base")
    assert info.base == loading.BaseInfo("base", None, base)
    assert info.adapter is not None
    assert (info.name, info.adapter.name, info.adapter.kind, info.adapter.rank) == (
        *("adapter", "adapter"),
        *("LORA", 4),
    )
    assert info.origin == "LORA adapter of rank 4 merged into base"
    assert info.adapter.sha256 == loading.files_sha256([adapter / adapters.WEIGHTS_FILE])
    assert info.weights_sha256 not in (base, info.adapter.sha256)


def test_a_base_that_the_adapter_was_not_trained_on_is_said_at_load(bases, adapter):
    base, other = (loading.weights_sha256(bases / name) for name in ("base", "tied"))

    def said(trained_on: str) -> str:
        (adapter / adapters.TRAINING_RECORD).write_text(json.dumps({"base_sha256": trained_on}))
        told = io.StringIO()
        info = HookedModel.load(adapter, device="cpu", reporter=Reporter(Console(file=told))).info
        assert info.adapter is not None and info.adapter.trained_on == trained_on
        return told.getvalue()

    same = "model: LlamaForCausalLM, LORA adapter of rank 4 merged into base"
    assert said(base) == f"{same}\n"
    assert said(other) == (
        f"{same}, whose files are not those of the base that it was trained on\n"
    )


def test_the_hash_follows_what_decides_the_weights_and_not_where_they_lie(bases, adapter, tmp_path):
    before = loading.weights_sha256(adapter)
    shutil.copytree(bases / "base", adapter / "inside")
    change(adapter, base_model_name_or_path="inside", lora_dropout=0.5)
    assert loading.weights_sha256(adapter) == before
    change(adapter, base_model_name_or_path=str(bases / "tied"))
    assert loading.weights_sha256(adapter) != before
    change(adapter, base_model_name_or_path=str(bases / "base"), lora_alpha=9)
    assert loading.weights_sha256(adapter) != before


def test_the_adapters_own_tokenizer_is_used_and_else_its_bases(bases, adapter, tmp_path):
    def save(words: dict[str, int], folder: Path) -> None:
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)

    base = tmp_path / "base"
    shutil.copytree(bases / "base", base)
    change(adapter, base_model_name_or_path="../base")
    assert loading.read_tokenizer(loading.model_folder(adapter)) is None
    save({"[UNK]": 0, "fever": 1}, base)
    assert HookedModel.load(adapter, device="cpu").tokenizer.encode("fever") == [1]
    save({"[UNK]": 0, "fever": 2}, adapter)
    assert HookedModel.load(adapter, device="cpu").tokenizer.encode("fever") == [2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "PROMPT_TUNING"}, "peft_type 'PROMPT_TUNING' cannot be merged into a base"),
        ({"peft_type": "XLORA"}, "peft_type 'XLORA' cannot be merged"),
        ({"peft_type": None}, "peft_type None cannot be merged"),
        ({"task_type": "SEQ_CLS"}, "task_type 'SEQ_CLS' is not that of a causal"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path names no base model"),
        ({"base_model_name_or_path": "./gone"}, "adapter_config.json: model folder ./gone does"),
        ({"base_model_name_or_path": "."}, "is an adapter itself; merge that one first"),
        ({"of_next_year": 2}, "setting 'of_next_year' is none of the installed peft"),
        ({"megatron_config": {"a": 1}}, "megatron_config is not supported"),
        ({"init_lora_weights": "pissa"}, "begins by changing its base (init_lora_weights"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"r": 2}, "does not fit its base model: Error(s) in loading state_dict"),
        ({"rank_pattern": {"v_proj": 2}}, "does not fit its base model"),
        ({"target_modules": ["q_proj"]}, "for which its base model has no place (12 such weights)"),
        ({"target_modules": [*LINEAR, "k_proj"]}, "lacks 4 weights that its adapter_config.json"),
        ({"target_modules": ["c_attn"]}, "does not fit its base model: Target modules"),
        ({"modules_to_save": ["lm_head"]}, "does not fit its base model"),
        ({"use_dora": True}, "lacks 8 weights"),
    ],
)
def test_what_does_not_fit_is_refused(adapter, settings, message):
    change(adapter, **settings)
    assert message in refused(adapter)


def test_an_adapter_of_another_model_is_refused(adapter, tmp_path):
    LlamaShape(2, 4, 2, 16, 48).build(64, 64).save_pretrained(tmp_path / "narrow")
    LlamaShape(1, 4, 2, 32, 48).build(64, 64).save_pretrained(tmp_path / "shallow")
    change(adapter, base_model_name_or_path="../narrow")
    assert "size mismatch" in refused(adapter)
    change(adapter, base_model_name_or_path="../shallow")
    assert "layers.1." in (message := refused(adapter)) and "has no place" in message


def test_files_that_are_not_an_adapter(bases, adapter, tmp_path):
    weights = load_file(adapter / adapters.WEIGHTS_FILE)
    name = next(iter(weights))
    store(adapter, {**weights, name: torch.full_like(weights[name], torch.nan)})
    assert "has values that are not finite" in refused(adapter)
    store(adapter, {**weights, name: weights[name].to(torch.int8)})
    assert "are quantised" in refused(adapter)
    shutil.copy(bases / "base" / "model.safetensors", adapter)
    assert "holds an adapter and model.safetensors" in refused(adapter)
    (adapter / "model.safetensors").unlink()
    (adapter / adapters.WEIGHTS_FILE).rename(adapter / "adapter_model.bin")
    assert "has no adapter_model.safetensors; both" in (message := refused(adapter))
    assert "pickled weights are refused" in message
    (adapter / adapters.CONFIG_FILE).unlink()
    assert "has no adapter_config.json" in refused(adapter)


def test_a_base_that_is_refused_says_whose_it_is(bases, adapter):
    shutil.copytree(bases / "base", adapter / "packed")
    path = adapter / "packed" / "config.json"
    packed = {"quantization_config": {"quant_method": "bitsandbytes"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | packed))
    change(adapter, base_model_name_or_path="packed")
    message = refused(adapter)
    assert message.startswith("base_model_name_or_path in ")
    assert "is of a quantised model ('bitsandbytes')" in message


def test_without_peft_the_line_says_what_to_install(adapter, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "peft package: pip install 'mechanistic-workbench[pretrained]'" in refused(adapter)


def test_a_merge_that_computes_something_else_is_refused(adapter, monkeypatch):
    monkeypatch.setattr(
        peft.LoraModel, "merge_and_unload", lambda self, **kwargs: self.unload(), raising=True
    )
    assert "cannot be merged: the merged model has other logits" in refused(adapter)
