import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from workbench.models.pieces import Pieces
from workbench.prompts.text import tokenize

TEXT = "note: 1 . left fx ; 漢 🙂é\noptions:\n  Type 2 diabetes A\n\nanswer:"


@pytest.fixture(scope="module")
def sentencepiece():
    """Spaces as ▁, one more before a text, unknown characters as bytes."""
    known = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    known += [*"abcdefghijklmnopqrstuvwxyzTABC12:.;\n"]
    merges = [("▁", letter) for letter in "ABCnf"]
    known += ["".join(pair) for pair in merges]
    vocab = {token: index for index, token in enumerate(known)}
    raw = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    raw.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    raw.add_special_tokens(["<s>"])
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("name", ["tokenizer", "chat_tokenizer", "sentencepiece"])
@pytest.mark.parametrize("start", ["", "<s>"])
def test_one_string_a_token_which_are_the_text_together(request, name, start):
    tokenizer = request.getfixturevalue(name)
    tokens = tokenize(tokenizer, start + TEXT).tokens
    pieces = Pieces(tokenizer, tokens)
    assert len(pieces.strings) == len(tokens)
    assert pieces.text == tokenizer.decode(tokens) and pieces.text.endswith(TEXT)
    for at, string in enumerate(pieces.strings):
        begin, end = pieces.chars((at, at + 1))
        assert pieces.text[begin:end] == string == pieces.of((at, at + 1))


def test_a_character_of_several_tokens_is_the_last_ones(tokenizer):
    tokens = tokenize(tokenizer, "a 漢 b").tokens
    strings = Pieces(tokenizer, tokens).strings
    assert "".join(strings) == "a 漢 b" and sum("漢" in one for one in strings) == 1
    assert strings[strings.index("漢") - 1] in ("", " ")
    broken = tokens[: strings.index("漢")]
    assert "".join(Pieces(tokenizer, broken).strings) == tokenizer.decode(broken)


def test_tokens_that_the_tokenizer_would_not_make(tokenizer):
    tokens = [token for letter in "note:" for token in tokenize(tokenizer, letter).tokens]
    assert Pieces(tokenizer, tokens).strings == list("note:")
    assert Pieces(tokenizer, []).strings == []
