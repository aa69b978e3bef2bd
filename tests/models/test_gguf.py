import sys
from pathlib import Path

import pytest
import torch
from fixtures.gguf_files import TOKENS, tiny_model, write_gguf

from workbench.errors import InputError
from workbench.models.gguf import open_gguf, read_gguf

SEQUENCE = torch.tensor([[3, 100, 4, 50, 5, 9, 200, 17]])


def error_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_gguf(open_gguf(path), dtype=torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def llama():
    return tiny_model("llama")


@pytest.mark.parametrize(
    ("kind", "tied"), [("llama", False), ("llama", True), ("qwen2", False), ("qwen3", True)]
)
def test_the_model_read_has_the_logits_of_the_one_written(tmp_path, kind, tied):
    model = tiny_model(kind, tied=tied)
    (tmp_path / "generation_config.json").write_text("{}")  # what lies beside it is not read
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    read = read_gguf(open_gguf(write_gguf(tmp_path / "tiny.gguf", model)), dtype=torch.float32)
    torch.testing.assert_close(read(SEQUENCE).logits, model(SEQUENCE).logits)
    assert read.config._attn_implementation == "eager"
    assert read.config.tie_word_embeddings is tied
    assert read.generation_config.eos_token_id == 2


def test_quantised_weights_are_unpacked_and_counted(tmp_path, llama):
    file = open_gguf(write_gguf(tmp_path / "q8.gguf", llama, quantise=True))
    read = read_gguf(file, dtype=torch.bfloat16)
    assert read.dtype == torch.bfloat16
    assert not hasattr(read.config, "quantization_config")
    for key, value in llama.state_dict().items():
        torch.testing.assert_close(read.state_dict()[key].float(), value, atol=0.02, rtol=0.02)
    facts = file.facts()
    assert facts.tensors == {"Q8_0": 16, "F32": 5}
    assert facts.parameters == sum(value.numel() for value in llama.parameters())
    assert (facts.architecture, facts.name, facts.licence) == ("llama", "Tiny", "apache-2.0")
    assert facts.context_length == 128


def test_what_is_no_whole_gguf_is_refused(tmp_path, llama):
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    content = path.read_bytes()
    for name, kept in {"empty": b"", "other": b"PK\3\4 and more"}.items():
        (tmp_path / name).write_bytes(kept)
        assert "no GGUF file" in error_of(tmp_path / name)
    for size in (4, 20, 300, 5000, len(content) - 1):
        (tmp_path / "cut.gguf").write_bytes(content[:size])
        assert "damaged or cut off" in error_of(tmp_path / "cut.gguf")
    assert "cannot be read" in error_of(tmp_path / "nothing.gguf")
    assert "cannot be read" in error_of(tmp_path)
    part = path.rename(tmp_path / "tiny-00001-of-00003.gguf")
    assert "one of 3 parts" in error_of(part)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"big_endian": True}, "big-endian"),
        ({"more": {"rope.scaling.type": "yarn"}}, "llama.rope.scaling.type"),
        ({"more": {"attention.key_length": 24}}, "attention.key_length' 24, transformers reads 16"),
        ({"heads": 0}, "cannot be loaded"),
        ({"heads": [4, 2]}, "heads"),
        ({"layers": 1000}, "states 1000 layers and has 2"),
        ({"tensors": ("rope_freqs.weight",)}, "rotary positions"),
        ({"tensors": ("blk.0.attn_q.bias",)}, "values, the model that transformers makes"),
        ({"tokens": [*TOKENS, "beyond"]}, f"{len(TOKENS) + 1} tokens and embeddings for"),
    ],
)
def test_what_transformers_would_leave_out_is_refused(tmp_path, llama, change, part):
    assert part in error_of(write_gguf(tmp_path / "tiny.gguf", llama, **change))


def test_another_architecture_and_a_missing_package_are_one_line(tmp_path, llama, monkeypatch):
    llama.config.model_type = "gpt2"
    path = write_gguf(tmp_path / "tiny.gguf", llama)
    llama.config.model_type = "llama"
    assert "architecture 'gpt2' is not read from GGUF (only llama" in error_of(path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'mechanistic-workbench[pretrained]'" in error_of(path)
