import peft
import pytest
import torch
from fixtures.architectures import build

from workbench.distill.config import CopiedLayers
from workbench.distill.training.copied import copy_layers, read_copied
from workbench.distill.training.student import make_student
from workbench.errors import InputError


def test_layers_are_spread_from_first_to_last():
    assert CopiedLayers(10).of(30) == (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)
    assert CopiedLayers(6).of(30) == (0, 6, 12, 17, 23, 29)
    assert CopiedLayers(4).of(4) == (0, 1, 2, 3)
    assert CopiedLayers(2).of(3) == (0, 2)
    assert CopiedLayers((0, 2)).of(3) == (0, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (1, "1 cannot be spread"),
        (True, "cannot be spread"),
        ((), "must be named in rising order"),
        ((1, 0), "must be named in rising order"),
        ((0, 0), "must be named in rising order"),
        ((-1, 0), "input should be "),
        (4, "4 cannot be copied from a model of 3 layers"),
        ((0, 3), "layer 3 cannot be copied from a model of 3 layers"),
    ],
)
def test_layers_that_are_not_there_are_refused(layers, message):
    with pytest.raises(InputError, match=message):
        CopiedLayers(layers).of(3)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "gpt_neox"])
def test_a_copy_is_the_model_without_its_other_layers(kind, tmp_path):
    model = build(kind).eval()
    copy = copy_layers(model, (0, 2))
    assert copy.config.num_hidden_layers == 2
    blocks = model.transformer.h if kind == "gpt2" else model.base_model.layers
    del blocks[1]
    model.config.num_hidden_layers = 2
    if getattr(model.config, "layer_types", None):
        del model.config.layer_types[1]
    ids = torch.arange(1, 60)[None] % 64
    with torch.no_grad():
        expected = model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(copy(input_ids=ids).logits, expected)
        copy.save_pretrained(tmp_path)
        again = type(copy).from_pretrained(tmp_path, attn_implementation="eager")
        assert torch.equal(again(input_ids=ids).logits, copy(input_ids=ids).logits)


def test_a_copy_shares_no_weight(make_model):
    model = make_model(n_layers=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    copy = copy_layers(model, (0, 2))
    assert copy.lm_head.weight is copy.model.embed_tokens.weight
    for weight in copy.parameters():
        weight.data.zero_()
    assert all(weight.equal(before[name]) for name, weight in model.state_dict().items())


def test_layers_that_depend_on_their_place_are_refused(make_model):
    with pytest.raises(InputError, match="layers of Gemma4ForCausalLM cannot be copied"):
        copy_layers(build("gemma4_text"), (0, 2))  # its last layer uses keys of the one before
    scaled = build("gpt2")
    for layer, block in enumerate(scaled.transformer.h):
        block.attn.scaling = block.attn.scaling / (layer + 1)
    with pytest.raises(InputError, match="layers of GPT2LMHeadModel cannot be copied"):
        copy_layers(scaled, (0, 2))
    wrapped = peft.get_peft_model(make_model(n_layers=3), peft.LoraConfig(r=2))
    with pytest.raises(InputError, match="cannot be copied"):
        copy_layers(wrapped.get_base_model(), (0, 2))


@pytest.fixture
def adapter(make_model, tokenizer, tmp_path):
    """Folder of an adapter of a model of three layers, stored in bfloat16."""
    base, folder = tmp_path / "base", tmp_path / "adapter"
    make_model(n_layers=3).to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    lora = peft.get_peft_model(
        make_model(n_layers=3), peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    )
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    lora.peft_config["default"].base_model_name_or_path = str(base)
    lora.save_pretrained(folder)
    return folder


def test_an_adapter_is_merged_before(adapter, make_model, tokenizer):
    from workbench.models import loading

    merged = loading.read_model(adapter, dtype=torch.float32)
    student = read_copied(CopiedLayers(2), adapter)
    theirs = merged.state_dict()
    assert student.dtype == torch.float32
    for name, weight in student.state_dict().items():
        assert weight.equal(theirs[name.replace("layers.1.", "layers.2.")])
    base = adapter.parent / "base"
    sister = CopiedLayers((0, 1), from_=str(base))
    found = make_student(sister, make_model(), tokenizer, adapter)
    plain = loading.read_model(base, dtype=torch.float32).state_dict()
    assert all(weight.equal(plain[name]) for name, weight in found.state_dict().items())
    whole = make_student(CopiedLayers(3), merged, tokenizer)
    assert all(weight.equal(theirs[name]) for name, weight in whole.state_dict().items())
