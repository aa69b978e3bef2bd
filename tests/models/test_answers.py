import pytest
import torch
from models.test_forked import build

from workbench.errors import InputError
from workbench.models.answers import early_answers, option_log_probs
from workbench.models.hooked import HookedModel

PROMPT = [10, 8, 25, 3, 40, 10, 7]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def model(request) -> HookedModel:
    return HookedModel.from_pretrained_model(build(request.param))


def test_options_of_any_length_have_the_probability_of_their_text(model):
    options = [[3], [3, 4, 5], [9, 9, 9, 9, 9], [4, 3]]
    got = option_log_probs(model, PROMPT, options)
    for option, value in zip(options, got, strict=True):
        ids = torch.tensor([[*PROMPT, *option]])
        positions = range(len(PROMPT) - 1, len(PROMPT) + len(option) - 1)
        log_probs = model.logits_at(ids, positions)[0].log_softmax(-1)
        expected = sum(log_probs[index, token] for index, token in enumerate(option))
        assert float(value) == pytest.approx(float(expected), abs=1e-4)
    assert option_log_probs(model, PROMPT, []).shape == (0,)


@pytest.mark.parametrize("cue", [[5, 6], []])
def test_early_answers_are_those_of_the_shortened_prompt(model, cue):
    ends = [2, 7, 5]
    got = early_answers(model, PROMPT, ends, cue, [4, 30])
    for end, logits in zip(ends, got, strict=True):
        [run] = model.run([[*PROMPT[:end], *cue]])
        torch.testing.assert_close(logits, run.logits[[4, 30]], atol=1e-4, rtol=0)
    assert early_answers(model, PROMPT, [], cue, [4, 30]).shape == (0, 2)


def test_bad_questions_are_refused(model):
    with pytest.raises(InputError, match="option 1 has no tokens"):
        option_log_probs(model, PROMPT, [[1], []])
    with pytest.raises(InputError, match="at least one token"):
        option_log_probs(model, [], [[1]])
    with pytest.raises(InputError, match=r"token ids 10\.\.99"):
        option_log_probs(model, [10], [[99]])
    with pytest.raises(InputError, match="end 8 is outside"):
        early_answers(model, PROMPT, [8], [1], [4])
