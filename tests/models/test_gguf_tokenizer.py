from pathlib import Path

import pytest
from fixtures.gguf_files import TOKENS, tiny_model, write_gguf
from transformers import AutoTokenizer, Qwen2Tokenizer

from workbench.errors import InputError
from workbench.models.gguf import open_gguf
from workbench.models.gguf_tokenizer import read_gguf_tokenizer


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


def tokenizer_of(path: Path, model, **how):
    return read_gguf_tokenizer(open_gguf(write_gguf(path / "tiny.gguf", model, **how)))


def test_digits_stand_alone_where_the_model_learned_them_so(tmp_path, model):
    read = tokenizer_of(tmp_path, model, pre="smollm")
    # Two line ends or spaces before a digit stay together, as the digit is split off first.
    assert read.tokenize("a\n\n12  12") == ["a", "ĊĊ", "1", "2", "ĠĠ", "1", "2"]
    assert tokenizer_of(tmp_path, model, pre="gpt-2").tokenize("a\n\n12  12") == [
        *("a", "Ċ", "Ċ", "12", "Ġ", "Ġ", "12")
    ]


def test_qwen2_cuts_as_its_own_class_does(tmp_path, model):
    read = tokenizer_of(tmp_path, model, pre="qwen2")
    merges = [tuple(pair) for pair in (("Ġ", "Ġ"), ("Ċ", "Ċ"), ("Ã", "©"), ("1", "2"))]
    own = Qwen2Tokenizer(vocab={token: index for index, token in enumerate(TOKENS)}, merges=merges)
    text = "He\u0301llo  don't\n\n 12 x=[3]; é\r\n"
    assert read(text).input_ids == own(text).input_ids


def test_special_tokens_template_and_a_saved_copy(tmp_path, model):
    read = tokenizer_of(tmp_path, model, pre="smollm")
    ids = read.apply_chat_template([{"content": "a"}], return_dict=False)
    assert ids == [1, TOKENS.index("a"), 2]
    assert (read.bos_token_id, read.eos_token_id, read.model_max_length) == (1, 2, 128)
    assert read.encode("a") == [TOKENS.index("a")]
    read.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "a\n\n12  12<|im_end|>é"
    assert again(text).input_ids == read(text).input_ids
    assert again.chat_template == read.chat_template


def test_llama3_begins_every_text_with_its_token(tmp_path, model):
    read = tokenizer_of(tmp_path, model, pre="llama-bpe")
    assert read.encode("a") == [1, TOKENS.index("a")]
    read.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").encode("a") == read.encode("a")


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"pre": "default"}, "rule 'default' is not read"),
        ({"tokens": []}, "has no tokenizer"),
        ({"tokens": [*TOKENS, "!"]}, "the file has"),
        ({"tokens": TOKENS[:-1]}, "cannot be built"),
    ],
)
def test_a_tokenizer_that_may_cut_otherwise_is_refused(tmp_path, model, how, part):
    with pytest.raises(InputError, match=part) as caught:
        tokenizer_of(tmp_path, model, **how)
    assert "\n" not in str(caught.value)
