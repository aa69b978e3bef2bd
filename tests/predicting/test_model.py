import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.predicting.model import load_plain
from workbench.processes import Processes
from workbench.progress import Reporter


class Told(Reporter):
    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, message):
        self.lines.append(message)


def test_the_quick_model_is_the_hooked_one(folder):
    plain, hooked = load_plain(folder, device="cpu"), HookedModel.load(folder, device="cpu")
    assert plain.hf.config._attn_implementation == "sdpa"
    assert (plain.name, plain.context) == (hooked.info.name, 512)
    assert plain.weights_sha256 == hooked.info.weights_sha256
    tokens = list(range(3, 40))
    with torch.no_grad():
        logits = plain.hf(torch.tensor([tokens])).logits[0, -1]
    torch.testing.assert_close(logits, hooked.run([tokens])[0].logits, atol=1e-4, rtol=1e-4)


def test_attention_with_a_cap_stays_as_it_is(tmp_path, tokenizer):
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = Told()
    plain = load_plain(tmp_path, device="cpu", reporter=told)
    assert plain.hf.config._attn_implementation == "eager"
    assert "keeps eager attention: its scores are capped" in told.lines[0]


def test_what_cannot_be_loaded_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="--device auto gives one process all GPUs"):
        load_plain(folder, device="auto", here=Processes(0, 2, 0, 2))
    with pytest.raises(InputError, match="does not exist"):
        load_plain(tmp_path / "none")
    for path in folder.iterdir():
        if "token" not in path.name:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(InputError, match="no tokenizer to ask it with"):
        load_plain(tmp_path, device="cpu")
