from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel, Metaspace
from transformers import PreTrainedTokenizerFast

from workbench.distill.training.student import SAMPLE, word_encoder
from workbench.errors import InputError

FOLDER = Path("somewhere")


def fast(kind: str, **options) -> PreTrainedTokenizerFast:
    """A tokenizer that knows single bytes or characters only."""
    if kind == "bytes":
        characters, decoder = pre_tokenizers.ByteLevel.alphabet(), ByteLevel()
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        characters, decoder, splitter = {*SAMPLE, "▁"}, Metaspace(), pre_tokenizers.Metaspace()
    vocabulary = {character: n for n, character in enumerate(sorted(characters))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)


def test_another_byte_level_tokenizer_ends_with_its_own_token():
    tokenizer = fast("bytes", eos_token="</s>")
    encode = word_encoder(tokenizer, FOLDER)
    assert encode.end == tokenizer.eos_token_id
    assert tokenizer.decode(encode(SAMPLE)) == SAMPLE


def test_tokenizers_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="somewhere names no end token"):
        word_encoder(fast("bytes"), FOLDER)
    with pytest.raises(InputError, match="does not give a text back from its words"):
        word_encoder(fast("metaspace", eos_token="</s>"), FOLDER)
    with pytest.raises(InputError, match="no tokenizer of the fast kind"):
        word_encoder(None, FOLDER)
