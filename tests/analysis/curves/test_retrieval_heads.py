from dataclasses import replace

import pytest
import torch
from fixtures.distillation import build
from fixtures.shades import ShadesTask, shades_tokenizer

from workbench.analysis.curves import retrieval_heads as module
from workbench.analysis.curves.retrieval_heads import Written, copied, own_chains, retrieval_scores
from workbench.errors import InputError
from workbench.models.hooked import HookedModel
from workbench.prompts.chain import make_chain
from workbench.prompts.events import make_events
from workbench.prompts.templates import PlainTemplate
from workbench.studies.planted.models import plant


def test_the_head_that_copies_the_needle_comes_first():
    """Planted options are one token that is text and answer at once, so that the answer copies."""
    planted = plant(seed=1, n_prompts=6)
    found = retrieval_scores(planted.model, planted.prompts.events)
    assert found[planted.place["refine_readout"]] == 1
    assert found.flatten().topk(2).values[1] < 0.6
    assert found[planted.place["twin"]] < 0.6  # looks as the filter does, and copies nothing


def test_where_the_largest_weight_lies_and_on_which_token(model):
    """Against one token after another; a token is copied once, however often it is written."""
    tokens = [3, 7, 8, 9, 7, 4, 7, 8, 7, 2, 9]
    written = Written(tokens, 6, (1, 4))
    assert written.recall == 1 and Written(tokens, 8, (1, 4)).recall == pytest.approx(2 / 3)
    found = copied(model, written)
    expected = torch.zeros(3, 4)
    for layer in range(3):
        name = f"blocks.{layer}.attn.hook_pattern"
        [run] = model.run([tokens[:-1]], [name])
        for head, rows in enumerate(run.activations[name]):
            pairs = [(int(rows[at].argmax()), tokens[at + 1]) for at in range(5, 10)]
            places = {top for top, after in pairs if 1 <= top < 4 and tokens[top] == after}
            expected[layer, head] = len(places) / 3
    torch.testing.assert_close(found.float(), expected)
    assert found.max() > 0


def test_a_look_at_another_token_of_the_needle_copies_nothing(model):
    tokens = [3, 7, 8, 9, 4, 7, 8, 9]
    other = [3, 7, 8, 9, 4, *[5, 5, 5]]
    assert copied(model, Written(tokens, 5, (1, 4))).max() > 0
    assert copied(model, Written(other, 5, (1, 4))).max() == 0


def test_a_letter_is_no_copy_of_a_text(model, prompts):
    with pytest.raises(
        InputError, match=r"in none of 5 events .* \(no chain: the model has no tok"
    ):
        retrieval_scores(model, prompts.events)
    with pytest.raises(InputError, match="no event"):
        retrieval_scores(model, [])


def test_what_counts_as_written_is_the_chain_without_its_opening(monkeypatch):
    """The cue that opens a chain and the answer are not written; the needle is, in the chain."""
    tokenizer = shades_tokenizer()
    torch.manual_seed(0)
    hf_model = build(vocab_size=len(tokenizer), context=2048)
    model = HookedModel.from_pretrained_model(hf_model, tokenizer)
    prompts = make_events(ShadesTask(), PlainTemplate(), tokenizer, n_prompts=2, seed=0)

    def write(model, cases, tokenizer, cues, spread):
        found = []
        for case, event in zip(cases, prompts, strict=True):
            gold = event.clean[slice(*event.options[event.with_role("gold")[0]].span)]
            opening = tokenizer(cues.opening, add_special_tokens=False)["input_ids"]
            question = case.clean.question
            chain = make_chain(tokenizer, question, list(gold), opening=opening)
            found.append(replace(case, chains={"clean": chain}))
        return found

    monkeypatch.setattr(module, "write_chains", write)
    opening = tokenizer(PlainTemplate.reason_cue, add_special_tokens=False)["input_ids"]
    for event, written in zip(prompts, own_chains(model, prompts.events), strict=True):
        assert written.tokens[: written.first][-len(opening) :] == opening
        assert written.tokens[written.first :] == list(event.clean[slice(*written.needle)])
    assert 0 <= float(retrieval_scores(model, prompts.events).max()) <= 1
