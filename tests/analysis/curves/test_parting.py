"""Patches at the place where two chains part equal plain hooks; what parts nowhere has no scene."""

from dataclasses import replace

import pytest
import torch
from analysis.chains.test_effects import case_of

from workbench.analysis.curves.cumulative import cumulative_event
from workbench.analysis.curves.dissociation import sets_plan
from workbench.analysis.curves.parting import parting_scenes
from workbench.analysis.patching.patching import THRESHOLDS
from workbench.errors import InputError
from workbench.phases import BOTH_WAYS
from workbench.prompts.chain import ChainCase

GROUP = [(0, 1), (1, 2), (2, 3)]


@pytest.fixture
def counting(monkeypatch) -> None:
    """Every event counts, for a model that knows no task."""
    loose = {"clean_focus": 0.0, "clean_confusion": 1.0, "moved": -1.0}
    for name, value in loose.items():
        monkeypatch.setitem(THRESHOLDS, name, value)


def by_hand(model, event, intervention, base, source, n_chain, tokens):
    """Log-odds of the two tokens; rows of the other run, those on the evidence spread as before."""
    name = f"hook_{intervention}"
    names = [f"blocks.{layer}.attn.{name}" for layer in range(model.info.n_layers)]
    (own, m), (theirs, n) = (
        (model.run([one], names)[0].activations, len(one)) for one in (base, source)
    )
    suffix = event.aligned_suffix - 2 + n_chain + 1  # the cue of two goes, the opening comes

    def put(layer, tensor, hook):
        for at, head in GROUP:
            for back in range(1, n_chain + 2) if at == layer else ():
                if intervention == "z":
                    tensor[0, m - back, head] = theirs[names[layer]][n - back, head]
                    continue
                row = theirs[names[layer]][head, n - back]
                if m == n:  # every token has its counterpart
                    tensor[0, head, m - back] = row
                    continue
                before = own[names[layer]][head, m - back, 1 : m - suffix]
                middle = before / before.sum() * row[1 : n - suffix].sum()
                tensor[0, head, m - back] = torch.cat([row[:1], middle, row[n - suffix :]])
        return tensor

    hooks = [
        (hook, lambda tensor, hook, layer=layer: put(layer, tensor, hook))
        for layer, hook in enumerate(names)
    ]
    logits = model.logits_at(torch.tensor([base]), [m - 1], hooks)[0, 0]
    return float(logits[tokens[0]] - logits[tokens[1]])


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("intervention", ["z", "pattern"])
def test_heads_that_write_are_patched_up_to_where_the_chains_part(model, event, intervention):
    case = case_of(event)
    expected = {
        "focus": ("far", [11, 12, 33], (4, 7)),
        "confusion": ("near", [11, 12, 33, 4], (34, 38)),
    }
    scenes = list(parting_scenes(model, case))
    assert [scene.tokens for scene in scenes] == [tokens for *_, tokens in expected.values()]
    for scene, (readout, (other, same, tokens)) in zip(scenes, expected.items(), strict=True):
        rows = cumulative_event(scene, sets_plan([GROUP], 12), [intervention], BOTH_WAYS)
        assert set(rows["readout"]) == {readout} and set(rows["place"]) == {"parting"}
        assert (rows["patched"] == len(same) + 1).all() and (
            rows["wanted"] == rows["patched"]
        ).all()
        found = rows.set_index(["direction", "target"])["margin"]
        texts = {name: [*case.chains[name].question, 60, *same] for name in ("clean", other)}
        for direction, (base, source) in zip(
            BOTH_WAYS, [(other, "clean"), ("clean", other)], strict=True
        ):
            wanted = by_hand(
                model, event, intervention, texts[base], texts[source], len(same), tokens
            )
            assert found[direction, 1] == pytest.approx(wanted, abs=1e-4)
            plain = by_hand(model, event, intervention, texts[base], texts[base], -1, tokens)
            assert found[direction, 0] == pytest.approx(plain, abs=1e-4)


def test_an_event_counts_where_the_clean_run_writes_its_token_and_the_other_is_moved(model, event):
    """A random model moves by less than the threshold."""
    for scene in parting_scenes(model, case_of(event)):
        assert not any(scene.valid.values())


def test_chains_that_do_not_part_have_no_scene(model, event):
    case = case_of(event, same_chain=True)
    assert not list(parting_scenes(model, case))
    cut = replace(case.clean, tokens=case.clean.tokens[:3], ends=(3,), stages=("before",))
    case = replace(case_of(event), chains={**case_of(event).chains, "far": cut})
    assert [scene.phase.readout for scene in parting_scenes(model, case)] == ["confusion"]
    with pytest.raises(InputError, match="has no chain for the far prompt"):
        list(parting_scenes(model, ChainCase(event, case.cue, {"clean": case.clean})))
