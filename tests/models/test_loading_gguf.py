import shutil
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from workbench.errors import InputError
from workbench.models import adapters, loading
from workbench.models.hooked import HookedModel

pytest.importorskip("gguf")
from fixtures.gguf_files import tiny_model, write_gguf


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    return write_gguf(folder / "Tiny.Q8.gguf", tiny_model("llama"), quantise=True)


def test_a_gguf_file_is_a_model_like_a_folder(file):
    model = HookedModel.load(file, device="cpu")
    plain = loading.read_model(file, dtype=torch.float32)
    expected = plain(torch.tensor([[3, 1, 4]])).logits[0, -1]
    torch.testing.assert_close(model.run([[3, 1, 4]])[0].logits, expected, atol=1e-4, rtol=0)
    info = model.info
    assert (info.name, info.revision, info.dtype) == ("Tiny.Q8.gguf", None, "float32")
    assert info.weights_sha256 == loading.files_sha256([file])
    assert info.quantisation is not None and set(info.quantisation) == {"Q8_0", "F32"}
    assert info.origin.startswith("dequantised from GGUF (") and "Q8_0" in info.origin
    assert (
        model.tokenizer is not None
        and model.tokenizer.decode(model.tokenizer.encode("a b")) == "a b"
    )
    assert loading.hf_config(file).get_text_config().num_hidden_layers == info.n_layers
    half = HookedModel.load(str(file), device_map={"": "cpu"}, dtype="bfloat16")
    assert half.dtype == torch.bfloat16


def test_the_bar_of_dequantising_follows_the_switch_for_bars(file, capsys):
    logging.disable_progress_bar()
    try:
        loading.read_model(file, dtype=torch.float32)
    finally:
        logging.enable_progress_bar()
    assert capsys.readouterr().err == ""


def test_a_link_to_a_gguf_file_and_a_file_that_changed(file, tmp_path):
    copy = shutil.copy(file, tmp_path / "blob")
    link = tmp_path / "linked.GGUF"
    link.symlink_to(copy)
    assert HookedModel.load(link, device="cpu").info.name == "linked.GGUF"
    write_gguf(copy, tiny_model("qwen2"))
    assert HookedModel.load(link, device="cpu").info.architecture == "Qwen2ForCausalLM"


def test_a_folder_with_a_gguf_file_alone_says_which_to_give(file):
    with pytest.raises(InputError, match=r"has no config.json; give the GGUF file itself: .*gguf"):
        loading.model_folder(file.parent)


def test_an_adapter_on_a_gguf_file(file, tmp_path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        loading.read_model(file, dtype=torch.float32),
        peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False),
    )
    adapted.eval().save_pretrained(tmp_path / "adapter")
    path = tmp_path / "adapter" / adapters.CONFIG_FILE
    saved = path.read_text()
    shutil.copy(file, tmp_path / "base.gguf")
    start = saved.index('"base_model_name_or_path": ')
    end = saved.index("\n", start)
    path.write_text(saved[:start] + '"base_model_name_or_path": "../base.gguf",' + saved[end:])
    model = HookedModel.load(tmp_path / "adapter", device="cpu")
    with torch.no_grad():
        expected = adapted(torch.tensor([[3, 1, 4]])).logits[0, -1]
    torch.testing.assert_close(model.run([[3, 1, 4]])[0].logits, expected, atol=1e-4, rtol=0)
    info = model.info
    assert info.base is not None and info.base.name == "base.gguf"
    assert info.base.weights_sha256 == loading.files_sha256([file])
    assert info.origin.endswith("LORA adapter of rank 2 merged into base.gguf")
    assert model.tokenizer is not None
