from dataclasses import replace

import pytest
import torch
from analysis.chains.test_effects import CUE, case_of

from workbench.analysis.curves.cumulative import cumulative_event
from workbench.analysis.curves.dissociation import sets_plan
from workbench.analysis.curves.scenes import chain_scenes, chain_tokens, direct_scenes
from workbench.analysis.patching.patching import THRESHOLDS, sweep_event
from workbench.analysis.readout import Roles, focus_confusion
from workbench.errors import InputError
from workbench.models.hooks import replace_z
from workbench.phases import RUNS
from workbench.prompts.chain import ChainCase

SETS = [[(0, 1)], [(0, 2), (2, 3)]]


@pytest.fixture
def counting(monkeypatch) -> None:
    """Every event counts, for a model that knows no task."""
    loose = {"clean_focus": 0.0, "clean_confusion": 1.0, "moved": -1.0}
    for name, value in loose.items():
        monkeypatch.setitem(THRESHOLDS, name, value)


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("intervention", ["z", "pattern"])
def test_direct_scenes_give_what_a_sweep_gives(model, event, intervention):
    sweep = sweep_event(model, event, SETS, intervention=intervention)
    sweep = sweep.set_index(["positions", "run", "target"])
    for scene in direct_scenes(model, event):
        rows = cumulative_event(scene, sets_plan(SETS, 12), [intervention])
        assert set(rows["place"]) == {scene.place} and len(rows) == 4 * 3
        cells = rows.set_index(["readout", "direction", "target"])["value"]
        for target in (0, 1):
            focus = sweep.loc[(scene.place, "far_with_clean", target), "focus"]
            assert cells["focus", "denoising", target + 1] == pytest.approx(focus, abs=1e-5)
            confusion = sweep.loc[(scene.place, "clean_with_near", target), "confusion"]
            assert cells["confusion", "noising", target + 1] == pytest.approx(
                1 - confusion, abs=1e-5
            )
        start = rows[rows["target"] == 0]
        assert start["value"].to_numpy() == pytest.approx(start["start"].to_numpy(), abs=1e-5)


def test_places_of_a_chain(event):
    """The opening is written by nobody; 8 tokens behind it, of which 2 are the coarse step."""
    chain = case_of(event).clean
    assert chain_tokens(chain, "coarse") == [3, 4]
    assert chain_tokens(chain, "fine") == [5, 6]
    assert chain_tokens(chain, "early") == [1, 2, 3, 4]
    assert chain_tokens(chain, "early", n_early=2) == [1, 2]
    assert chain_tokens(chain, "late", t_star=0.75) == [7]


def test_chain_tokens_are_patched_where_they_have_counterparts(model, event):
    """The coarse step, of which the far chain has other letters, and one more."""
    case = case_of(event)
    scenes = {scene.place: scene for scene in chain_scenes(model, case)}
    assert set(scenes) == {"early", "coarse"}  # later tokens of these chains have none
    scene = scenes["coarse"]
    far, clean = (case.chains[name] for name in ("far", "clean"))
    tokens = [*far.question, *far.tokens[:6], *case.cue]
    assert scene.runs["far"].tokens == tokens
    pairs = scene.pairs("far", "clean")
    assert [at - len(far.question) for at, _ in pairs] == [2, 3]
    assert [at - len(clean.question) for _, at in pairs] == [2, 3]
    [logits] = scene.patched(RUNS["far_with_clean"], [[(1, 2)]], "z")
    source = scene.runs["clean"]
    z = source.z[1][[at - source.first for _, at in pairs], 2]
    hook = replace_z(1, (0, [at for at, _ in pairs], 2), z)
    plain = model.logits_at(torch.tensor([tokens]), [len(tokens) - 1], [hook])[0, 0]
    expected = focus_confusion(plain[event.option_tokens], Roles.of(event))
    found = focus_confusion(logits, scene.roles)
    assert found[0].item() == pytest.approx(expected[0].item(), abs=1e-5)
    assert len(case.cue) == CUE


def test_counterparts_in_another_step_are_not_patched(model, event):
    """All late tokens of the two chains agree, but one stands in a step of another number."""
    case = case_of(event, same_chain=True)
    [scene] = chain_scenes(model, case, ["late"], t_star=0.5)
    assert scene.positions(("far", "clean")) == (3, 3)
    moved = replace(case.chains["far"], ends=(3, 6, 7, 8))
    case = replace(case, chains={**case.chains, "far": moved})
    [scene] = chain_scenes(model, case, ["late"], t_star=0.5)
    assert scene.positions(("far", "clean")) == (2, 3)
    assert scene.positions(("near", "clean")) == (3, 3)


def test_a_variant_without_a_chain_is_refused(model, event):
    case = case_of(event)
    with pytest.raises(InputError, match="has no chain for the far prompt"):
        list(chain_scenes(model, ChainCase(event, case.cue, {"clean": case.clean})))
