from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig

from workbench.errors import InputError
from workbench.models.batch_budget import PackBudget
from workbench.predicting.model import PlainModel
from workbench.predicting.scoring import OptionScorer

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.4,
}


def made(config: Any) -> PlainModel:
    torch.manual_seed(0)
    hf = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    return PlainModel(hf, None, Path(), "small", None, "")


@pytest.fixture(scope="module")
def llama() -> PlainModel:
    return made(LlamaConfig(**SMALL))


def question(length: int, names: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed + length)
    tokens = tuple(rng.integers(1, 50, length).tolist())
    return SimpleNamespace(tokens=tokens, option_tokens=tuple(map(tuple, names)))


SINGLE = [(3,), (7,), (9,)]
DEEP = [(1, 2), (1, 3), (2, 2), (4,), (3, 5, 6), (3, 5, 7), (3, 8)]
QUESTIONS = [question(9, SINGLE), question(30, DEEP), question(4, DEEP[:3]), question(17, SINGLE)]


def by_itself(model: PlainModel, asked: Any) -> np.ndarray:
    """Every option as a sequence of its own, without padding or cache."""
    found = []
    for name in asked.option_tokens:
        rows = torch.tensor([[*asked.tokens, *name]])
        logs = model.hf(rows).logits[0].log_softmax(-1)
        at = len(asked.tokens) - 1
        found.append(sum(float(logs[at + n, token]) for n, token in enumerate(name)))
    return np.array(found)


def assert_exact(model: PlainModel, questions: list[Any], scorer: OptionScorer) -> None:
    with torch.no_grad():
        wanted = [by_itself(model, asked) for asked in questions]
    for mine, theirs in zip(scorer.log_probs(questions), wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_options_of_one_or_several_tokens_are_exact_whatever_shares_a_forward(llama):
    scorer = OptionScorer(llama)
    assert_exact(llama, QUESTIONS, scorer)
    assert scorer._trees_hold
    for tokens in (1, 40):
        budget = PackBudget(torch.device("cpu"))
        budget.tokens = tokens
        assert_exact(llama, QUESTIONS, OptionScorer(llama, budget))


def test_models_with_other_positions_or_windows_are_exact():
    gpt = GPT2Config(vocab_size=50, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    model = made(gpt)
    assert_exact(model, QUESTIONS, OptionScorer(model))
    model = made(MistralConfig(**SMALL, sliding_window=8))
    assert model.window == 8
    assert_exact(model, QUESTIONS, OptionScorer(model))
    factors = {"short_factor": [1.0] * 4, "long_factor": [5.0] * 4}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 18, **factors}
    model = made(LlamaConfig(**SMALL, rope_parameters={**rope, "rope_theta": 10000.0}))
    assert model.switches == [18]
    # 17 tokens, and names of up to 3: some nodes of one question lie on each side. A name's own
    # steps are compared where its end, too, lies on the side of the step.
    scorer, odd = OptionScorer(model), question(17, DEEP)
    with torch.no_grad():
        assert_exact(model, QUESTIONS[1:3], scorer)
        (found,) = scorer.log_probs([odd])
        logs = [
            model.hf(torch.tensor([[*odd.tokens, *node]])).logits[0, -1].log_softmax(-1)
            for node in ((), (3,), (3, 5))
        ]
    assert found[4] == pytest.approx(float(logs[0][3] + logs[1][5] + logs[2][6]), abs=2e-5)


def test_a_tree_that_a_model_does_not_take_is_left(llama, monkeypatch):
    scorer = OptionScorer(llama)

    def refused(*_: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr("workbench.predicting.scoring.branches", refused)
    assert_exact(llama, QUESTIONS, scorer)
    assert scorer._trees_hold is False


def test_running_out_of_memory_halves_what_runs_together(llama, monkeypatch, caplog):
    scorer, forward, sizes = OptionScorer(llama), llama.hf.forward, []

    def tight(input_ids: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(input_ids=input_ids, **more)

    with torch.no_grad():
        wanted = [by_itself(llama, asked) for asked in QUESTIONS]
    monkeypatch.setattr(llama.hf, "forward", tight)
    found = scorer.log_probs(QUESTIONS)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(wanted), atol=2e-5)
    assert max(sizes) > 1 and "out of memory" in caplog.text


def test_progress_counts_every_question_once(llama):
    told: list[int] = []
    OptionScorer(llama).log_probs(QUESTIONS, told.append)
    assert sum(told) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (question(5, [(1,), (1, 2)]), "none begins another"),
        (question(5, [(1,), (1,)]), "none begins another"),
        (question(5, [(), (1,)]), "none begins another"),
        (question(127, [(1, 2), (3, 4), (5, 6, 7)]), "context of 128"),
    ],
)
def test_what_cannot_be_asked_is_refused(llama, asked, why):
    with pytest.raises(InputError, match=why):
        OptionScorer(llama).log_probs([asked])
