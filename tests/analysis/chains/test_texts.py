from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.analysis.chains.embeddings import OwnStream, SentenceTransformer, open_embedding
from workbench.analysis.chains.reading import ChainReading, Decision, LabelPlaces
from workbench.analysis.chains.texts import along, text_values
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.models.llama import LlamaShape


@pytest.fixture(scope="module")
def model(tokenizer) -> HookedModel:
    torch.manual_seed(0)
    shape = LlamaShape(n_layers=2, n_heads=2, n_kv_heads=1, d_model=16, d_mlp=24)
    made = shape.build(len(tokenizer), context=256, initializer_range=0.3)
    return HookedModel.from_pretrained_model(made, tokenizer)


class Letters:
    """Counts of letters: what a text says is what it resembles."""

    name = "letters"

    def of_texts(self, texts):
        return torch.tensor([[t.count(x) for x in "abcd"] for t in texts]).float()

    def of_beginnings(self, text, ends):
        return self.of_texts([text[:end] for end in ends])


def reading_of(tokenizer, document: str, chain: str) -> ChainReading:
    before, after = (tokenizer(x, add_special_tokens=False)["input_ids"] for x in (document, chain))
    labels = tuple(LabelPlaces(f"l{at}", at // 2, (1,)) for at in range(4))
    ends, texts = (len(after) // 2, len(after)), ("aa", "bb", "cc", "dd")
    return ChainReading(
        "p0", (*before, *after), len(before), labels, (), (Decision(0, 0, (1,), (0,)),),
        (-1,) * len(after), ends, "exact", texts, ("ab",),
    )  # fmt: skip


def test_each_readout_is_the_cosine_with_its_texts(tokenizer):
    reading = reading_of(tokenizer, "x", "a a a a b b b b")
    table = text_values(Letters(), reading, tokenizer, "m")
    assert table["step"].tolist() == [0, 1, 2] and table["share"].tolist() == [0, 0.5, 1]
    last = table.iloc[-1]
    assert last["focus_text"] == pytest.approx(1) and last["focus_text_far"] == 0
    half = table.iloc[1]
    assert half["confusion_text_gold"] > half["confusion_text"]
    assert last["confusion_text"] == pytest.approx(last["confusion_text_gold"])


def test_the_documents_embedding_is_the_centre(tokenizer):
    table = text_values(Letters(), reading_of(tokenizer, "a", "b"), tokenizer, "m")
    assert table["confusion_text_gold"].iloc[-1] < 0  # away from what the document says
    assert table["confusion_text"].iloc[-1] > 0


def test_the_own_stream_is_pooled_over_what_was_read_so_far(model, tokenizer):
    embedding = OwnStream(model, layer=1)
    text = "fracture of the shaft of left femur"
    ids = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ends = [end for _, end in ids["offset_mapping"]]
    start = tokenizer.eos_token_id
    [run] = model.run([[start, *ids["input_ids"]]], ["blocks.1.hook_resid_post"])
    stream = run.activations["blocks.1.hook_resid_post"]
    found = embedding.of_beginnings(text, [ends[2], ends[-1]])
    torch.testing.assert_close(found[0], stream[1:4].mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1], embedding.of_texts([text])[0], atol=1e-5, rtol=1e-4)
    assert open_embedding("own:0", model).name == "stream behind layer 0"


def test_means_along_the_chain_keep_the_last_step(tokenizer):
    rows = [("a", 0.0, 1.0), ("a", 0.5, 2.0), ("a", 1.0, 4.0), ("b", 0.0, 0.0), ("b", 1.0, 2.0)]
    values = pd.DataFrame(rows, columns=["id", "share", "focus"]).assign(model="m", event=0)
    table = along(values, ["focus"], n_resamples=20, shares=(0.0, 0.5, 0.75, 1.0)).set_index("t")
    assert table["value"].tolist() == [0.5, 1.0, 1.0, 3.0]
    assert (table["n"] == 2).all() and table["low"].isna().all()  # of two prompts
    assert along(values.assign(focus=np.nan), ["focus"]).empty
    with pytest.raises(InputError, match="lacks column 'share'"):
        along(values.drop(columns="share"), ["focus"])


def test_what_cannot_embed_is_refused(model, tmp_path: Path, monkeypatch):
    with pytest.raises(InputError, match="layer 2 is not one of the model's, 0 to 1"):
        open_embedding("own:2", model)
    with pytest.raises(InputError, match="own:LAYER"):
        open_embedding("own:last", model)
    with pytest.raises(InputError, match="no folder of sentence-transformers"):
        open_embedding("somewhere/else", model)
    with pytest.raises(InputError, match=r"sentence_transformers|is no model"):
        SentenceTransformer(tmp_path)
    monkeypatch.setattr(model, "tokenizer", None)
    with pytest.raises(InputError, match="no tokenizer to embed"):
        OwnStream(model)
