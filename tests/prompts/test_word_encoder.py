from workbench.prompts.word_encoder import END, WordEncoder, end_token


def test_the_text_of_a_control_token_is_read_as_text(raw_tokenizer):
    encode = WordEncoder(raw_tokenizer)
    ids = encode(f"page {END} x\n{END}")
    assert (
        end_token(raw_tokenizer) not in ids and raw_tokenizer.decode(ids) == f"page {END} x\n{END}"
    )
    assert raw_tokenizer.encode(END).ids == [encode.end]
