from collections.abc import Callable, Sequence

import numpy as np
import pytest

from workbench.errors import InputError
from workbench.labels.corpus import Document
from workbench.predicting.blocks import Block
from workbench.predicting.config import PredictionConfig
from workbench.predicting.reranking import Reranker, in_order, is_cut, kept, ranked
from workbench.predicting.scoring import OptionScorer
from workbench.prompts.forms.asking import Asker
from workbench.prompts.forms.form import Form

FORM = Form("own", "Read:\n{document}\nWhich?\n{options}", reply="The {kind}.", reason="Think.")
LABELS = ["fever", "cough", "fracture", "asthma", "burn"]
BLOCK = Block(
    0,
    (
        Document("a", "", "He coughs.\nHe smokes.", (1, 3), ignored=(4,)),
        Document("b", "", "Nothing.", (0,)),
        Document("c", "", "A long fall.\n" * 60, (2,)),
    ),
    (np.array([1, 4, 0, 2]), np.array([], dtype=int), np.array([3, 2])),
)


class Writes:
    """A generator that writes what it was told."""

    def __init__(self, replies: list[str], tokenizer) -> None:
        self.rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in replies]

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        advance: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        self.asked = [list(prompt) for prompt in prompts]
        return self.rows[: len(prompts)]


def reranker(model, config, generator=None, max_tokens=400) -> Reranker:
    way = "think" if config.reason else "chat"
    asker = Asker(FORM, model.tokenizer, way=way, max_tokens=max_tokens)
    return Reranker(model, asker, LABELS, config, OptionScorer(model), generator)


def test_candidates_are_ordered_by_the_model_and_the_rest_follows(chat_model):
    told: list[int] = []
    found = reranker(chat_model, PredictionConfig(candidates=2)).table(BLOCK, told.append)
    assert sum(told) == 3
    assert found["document"].tolist() == ["a", "b", "c"]
    assert [row.tolist() for row in found["gold"]] == [[1, 3], [0], [2]]
    assert [row.tolist() for row in found["retrieved"]] == [[1, 0, 2], [], [3, 2]]  # 4 is ignored
    first, none, last = found["labels"]
    assert sorted(first[:2]) == [0, 1] and first[2] == 2
    assert len(none) == 0 and sorted(last) == [2, 3]
    scores = found["scores"][0]
    assert scores[0] > scores[1] and scores[2] == pytest.approx(scores[1] - 1)
    assert found["candidates"].tolist() == [2, 0, 2]
    assert found["cut"].tolist() == [False, False, True]


def test_the_model_reasons_and_decides_after_its_chain(chat_model):
    config = PredictionConfig(candidates=3, reason=True, room=40, keep_chains=True)
    replies = ["Smoke.\n# Answer\ncough\nfever", "I do not know yet"]
    generator = Writes(replies, chat_model.tokenizer)
    found = reranker(chat_model, config, generator).table(BLOCK)
    assert [row.tolist() for row in found["listed"]] == [[1, 0], [], []]
    assert found["finished"].tolist() == [True, False, False]
    assert found["chain"].tolist()[1:] == ["", "I do not know yet"]
    written = chat_model.tokenizer.decode(generator.asked[0])
    assert "Think." in written and written.endswith("# Reasoning\n")
    direct = reranker(chat_model, config, Writes(["", ""], chat_model.tokenizer)).table(BLOCK)
    assert found["scores"][0].tolist() != direct["scores"][0].tolist()
    assert found["tokens"][0] > direct["tokens"][0]
    quiet = PredictionConfig(candidates=3, reason=True, room=40)
    assert "chain" not in reranker(chat_model, quiet, generator).table(BLOCK)


def test_a_chain_that_is_longer_as_text_loses_its_end(chat_model):
    config = PredictionConfig(candidates=3, reason=True, room=8)
    generator = Writes(["smoke and fire " * 100] * 2, chat_model.tokenizer)
    found = reranker(chat_model, config, generator).table(BLOCK)
    assert found["tokens"].max() <= 400
    with pytest.raises(InputError, match="no room for the document"):
        reranker(chat_model, config, generator, max_tokens=60).table(BLOCK)


def test_a_document_with_long_options_gets_fewer_candidates(chat_model):
    config, texts = PredictionConfig(candidates=3), [*LABELS]
    texts[2] = "a fracture of a very long name " * 12
    asker = Asker(FORM, chat_model.tokenizer, way="chat", max_tokens=110)
    scorer = OptionScorer(chat_model)
    found = Reranker(chat_model, asker, texts, config, scorer).table(BLOCK)
    assert found["candidates"].tolist()[:2] == [2, 0]
    assert found["narrowed"].tolist()[:2] == [True, False]
    assert sorted(found["labels"][0][:2]) == [0, 1] and found["labels"][0][2] == 2


def test_shuffled_candidates_are_the_same_for_a_document_and_a_seed():
    config = PredictionConfig(order="shuffled")
    labels = list(range(20))
    one = in_order(labels, "a", config)
    assert one == in_order(labels, "a", config) != labels and sorted(one) == labels
    assert one != in_order(labels, "b", config)
    assert one != in_order(labels, "a", PredictionConfig(order="shuffled", seed=1))
    assert in_order(labels, "a", PredictionConfig()) == labels


def test_equal_scores_keep_the_order_of_retrieval():
    labels, scores = ranked([5, 3, 9, 7], [9, 3, 5], np.array([-2.0, -1.0, -2.0]))
    assert labels.tolist() == [3, 5, 9, 7] and scores.tolist() == [-1.0, -2.0, -2.0, -3.0]
    assert kept(BLOCK.documents[0], np.array([4, 1])) == [1]


def test_spaces_that_are_not_shown_are_no_cut():
    assert not is_cut("  a note \n", ((2, 8),))
    assert is_cut("a note. More", ((0, 7),)) and is_cut("a note. More", ((3, 12),))
    assert not is_cut("", ())
