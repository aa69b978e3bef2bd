"""Prompts that hold chains keep them; where their chains part is a step of the right phase."""

import pandas as pd
import pytest
from fixtures.tiny_runs import save_reader

from workbench.analysis.curves.dissociation import sets_plan
from workbench.labels.icd10cm import category
from workbench.models.hooked import HookedModel
from workbench.progress import Reporter
from workbench.prompts.events import make_events
from workbench.prompts.laterality import ReasonedLaterality
from workbench.prompts.prompt import VARIANTS
from workbench.prompts.templates import PlainTemplate
from workbench.studies import patched_sets
from workbench.studies.patched_sets import NoPairs, Work, positions_table


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    folder = save_reader(tokenizer, tmp_path_factory.mktemp("reader") / "model", n_layers=1)
    return HookedModel.load(folder, device="cpu")


@pytest.fixture
def work(space, model, tokenizer, monkeypatch):
    task = ReasonedLaterality(space, {category(label.id) for label in space})
    prompts = make_events(task, PlainTemplate(), tokenizer, n_prompts=2, seed=1)
    monkeypatch.setattr(patched_sets, "write_chains", None)  # none is written
    made = Work(model, prompts, ("early", "parting"), ("z",), 30, 0.5, {}, Reporter())
    made.find_chains()
    return made


def test_the_chains_of_the_prompts_part_in_the_steps_of_the_phases(work, tokenizer):
    """Far: the family's words or letters in a shortlist. Near: the side."""
    assert not work.free
    for event in work.prompts:
        case = work.cases[event.id, event.event]
        assert list(case.chains) == list(VARIANTS)
        early, far, near = work.scenes(event, work.places)
        assert early.place == "early" and far.place == near.place == "parting"
        for scene, words in ((far, {"in"}), (near, {"side"})):
            clean, other = (
                run.tokens[len(case.chains[name].question) :] for name, run in scene.runs.items()
            )
            assert clean == other  # the note alone is another one
            step = tokenizer.decode(list(clean)).split("\n")[-1]
            assert words & set(step.split())
            assert scene.tokens[0] != scene.tokens[1]


def test_a_model_that_knows_no_task_has_nothing_to_patch(work):
    plan = sets_plan([[(0, 0)]], len(work.every))
    with pytest.raises(NoPairs, match=r"no event is a valid pair of which .* at early, parting"):
        work.patched("one", work.prompts.events, plan)


def test_a_place_without_a_pair_has_a_row_of_none():
    keys = {"place": "early", "intervention": "z", "direction": "denoising", "readout": "focus"}
    rows = pd.DataFrame([keys | {"target": 0, "id": "p0", "patched": 3, "wanted": 5}])
    table = positions_table(pd.concat([rows, rows.assign(target=1)]), ["early", "late"])
    assert table[["place", "n"]].to_numpy().tolist() == [["early", 1], ["late", 0]]
    assert table["patched"].iloc[0] == 3
