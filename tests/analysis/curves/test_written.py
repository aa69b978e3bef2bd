from unittest.mock import Mock

import pytest
import torch
from analysis.chains.test_effects import case_of

from workbench.analysis.curves import written as module
from workbench.analysis.curves.written import opened, written_scenes
from workbench.models.hooks import replace_pattern, replace_z
from workbench.phases import RUNS
from workbench.prompts.templates import Cues

GROUPS = [[], [(0, 1), (2, 3)], [(layer, head) for layer in range(3) for head in range(4)]]
CUES = Cues("", "stop", "", room=9)


@pytest.fixture
def writing(model, monkeypatch):
    """The model, with a tokenizer that knows how a text ends: with a token nobody writes."""
    tokenizer = Mock(eos_token_id=1, added_tokens_decoder={})
    tokenizer.side_effect = lambda text, **_: {"input_ids": [2, 3]}
    monkeypatch.setattr(model, "tokenizer", tokenizer)
    return model


def by_steps(model, scene, run, heads, intervention):
    """Written token by token, a whole forward each, by the bridge's own hooks; then asked."""
    out_of = scene.runs[run[1]]
    gifts = module._Gifts(scene, *run, intervention)
    question, chain = opened(scene.case, run[0]), []

    def hooks(n_keys):
        made = []
        for step in sorted(scene.wanted[run[1]]):
            at = len(question) - 1 + step
            if step > len(chain):
                continue
            for layer, head in heads:
                if intervention == "z":
                    value = out_of.z[layer][step, head]
                    made.append(replace_z(layer, (0, [at], head), value))
                else:
                    row = gifts.row(layer, step)[head]
                    assert row.sum() == pytest.approx(1, abs=1e-5) and len(row) == at + 1
                    row = torch.nn.functional.pad(row, (0, n_keys - len(row)))
                    made.append(replace_pattern(layer, (0, head, [at]), row))
        return made

    for _ in range(scene.room):
        tokens = [*question, *chain]
        logits = model.logits_at(torch.tensor([tokens]), [len(tokens) - 1], hooks(len(tokens)))
        token = int(logits[0, 0].argmax())
        if token == 1:
            break
        chain.append(token)
    asked = [*question, *chain, *scene.case.cue]
    logits = model.logits_at(torch.tensor([asked]), [len(asked) - 1], hooks(len(asked)))[0, 0]
    return chain, logits[scene.event.option_tokens]


@pytest.mark.parametrize("intervention", ["z", "pattern"])
def test_chains_are_written_and_read_as_step_by_step(writing, event, intervention):
    case = case_of(event)
    for scene in written_scenes(writing, case, ["written_early", "written"], CUES):
        run = RUNS["far_with_clean"]
        chains = module._Gifts(scene, *run, intervention).write(GROUPS)
        logits = scene.patched(run, GROUPS, intervention)
        for heads, chain, found in zip(GROUPS, chains, logits, strict=True):
            written, expected = by_steps(writing, scene, run, heads, intervention)
            assert chain == written
            assert (found - expected).abs().max() < 1e-4
        assert chains[2] != chains[0]


def test_what_closes_a_chain_is_no_part_of_it():
    assert module._until([5, 6, 2, 3, 7], [2, 3], [1]) == [5, 6]
    assert module._until([5, 1, 2], [2, 3], [1]) == [5]
    assert module._until([5, 2], [2, 3], [1]) == [5, 2]
