import random

import pytest

from workbench.models import drafted
from workbench.models.drafted import drafted_tokens
from workbench.models.greedy import greedy_tokens

END = 63
ROOM = 14


@pytest.fixture
def texts(make_model):
    """A model, prompts of different lengths, and what it writes after each."""
    model = make_model(seed=3).double().eval()
    rng = random.Random(0)
    prompts = [[rng.randrange(60) for _ in range(rng.randint(3, 9))] for _ in range(6)]
    end = greedy_tokens(model, prompts[:1], max_new_tokens=6, end=END)[0][-1]
    written = greedy_tokens(model, prompts, max_new_tokens=ROOM, end=end)
    return model, prompts, written, end


def spoiled(text, rng):
    """A draft with a wrong token, one too many or too few."""
    at = rng.randrange(len(text) + 1)
    return text[:at] + [[rng.randrange(60)], [1, 2], []][rng.randrange(3)] + text[at + 1 :]


@pytest.mark.parametrize("logits", [10**9, 1])
def test_no_draft_changes_what_is_written(texts, monkeypatch, logits):
    monkeypatch.setattr(drafted, "LOGITS", logits)
    model, prompts, written, end = texts
    assert any(len(text) < ROOM for text in written)
    rng = random.Random(1)
    for drafts in (
        written,
        [[] for _ in written],
        [spoiled(text, rng) for text in written],
        [spoiled(spoiled(text, rng), rng) for text in written],
        [[*text, end, 5, 6] for text in written],
        [[rng.randrange(60) for _ in range(2 * ROOM)] for _ in written],
    ):
        found = drafted_tokens(model, prompts, drafts, max_new_tokens=ROOM, end=end, batch_size=4)
        assert found == written


def test_a_right_draft_is_read_in_one_forward(texts, monkeypatch):
    model, prompts, written, end = texts
    monkeypatch.setattr(drafted, "greedy_tokens", None)
    counted = []
    model.register_forward_pre_hook(lambda *_: counted.append(1))
    assert drafted_tokens(model, prompts, written, max_new_tokens=ROOM, end=end) == written
    assert len(counted) == 1


@pytest.mark.parametrize("put", [[7], [], [7, 8]])
def test_a_token_that_is_wrong_missing_or_too_many_costs_a_few_forwards(texts, put):
    model, prompts, written, end = texts
    counted = []
    model.register_forward_pre_hook(lambda *_: counted.append(1))
    drafts = [[*text[:2], *put, *text[3:]] for text in written]
    assert drafted_tokens(model, prompts, drafts, max_new_tokens=ROOM, end=end) == written
    assert 1 < len(counted) <= 8 < ROOM
